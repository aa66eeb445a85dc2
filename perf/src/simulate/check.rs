//! Compares the simulation with measurements.
//!
//! Every case of role `own` that is recognised by its name is predicted: the points of the scaling
//! curves, and local and remote loads. The constants for a case are taken from the records without
//! the runs of that case (and their controls), so that no case predicts itself. The disk is taken
//! from the limits of scenario `local` (which are other programs) and the CPU time per GB from the
//! other cases. If client and server share cores, the number of busy cores is that of the other
//! cases of the kind. The load by other programs is not known: measure on a quiet machine.
//!
//! Times are those that clients report, without the start of the process.

use super::constants::Constants;
use super::forecast::Forecast;
use super::measured::{self, Shape};
use super::scenario::{Destination, Preset, Scenario};
use super::stages::Stage;
use crate::records::{Case, Record, Role, Run};
use crate::stats::median;

/// One case: predicted and measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    pub scenario: String,
    pub case: String,
    pub client: String,
    pub measured_seconds: f64,
    pub predicted_seconds: f64,
    pub bottleneck: Stage,
}

impl Checked {
    /// The ratio of predicted and measured time, minus 1.
    pub fn relative_error(&self) -> f64 {
        self.predicted_seconds / self.measured_seconds.max(1e-9) - 1.0
    }
}

/// The median absolute error.
pub fn typical_error(all: &[Checked]) -> Option<f64> {
    median(&all.iter().map(|one| one.relative_error().abs()).collect::<Vec<_>>())
}

/// Predicts every recognised case; `constants` are those that are not in the records.
pub fn check(records: &[Record], constants: &Constants) -> Vec<Checked> {
    let mut seen = Vec::new();
    let mut all = Vec::new();
    for run in measured::runs(records).filter(|run| run.role == Role::Own && run.bytes > 0) {
        let name = (&run.scenario, &run.case, &run.client);
        if !seen.contains(&name) {
            seen.push(name);
            all.extend(check_case(records, constants, run));
        }
    }
    all
}

fn check_case(records: &[Record], constants: &Constants, run: &Run) -> Option<Checked> {
    let case = measured::case_of(records, run);
    let shape = Shape::of(run, case)?;
    let of_client = measured::runs(records).filter(|other| {
        other.role == Role::Own
            && (&other.scenario, &other.case, &other.client)
                == (&run.scenario, &run.case, &run.client)
    });
    let measured_seconds = median(&of_client.map(|run| run.seconds).collect::<Vec<_>>())?;
    let others = without(records, run);
    let mut constants = measured::over(&others, constants);
    constants.costs.process_start_seconds = 0.0;
    if shape.source.is_loopback() {
        // A server that was held to a core, or a client that was: the machine has no more for them.
        let busy = busy_cores(&others, shape);
        constants.hardware.cores = busy.unwrap_or(constants.hardware.cores);
        let serving = served(&others, shape);
        let serve = &mut constants.costs.serve_cpu_seconds_per_gb;
        *serve = serving.unwrap_or(*serve);
    }
    apply(&mut constants, shape, case);
    let scenario = Scenario {
        model_bytes: run.bytes as f64,
        source: shape.source,
        destination: shape.destination,
        verify: shape.verify,
        ..Preset::ThisMachine.scenario()
    };
    let forecast = Forecast::of(&constants, &scenario);
    Some(Checked {
        scenario: run.scenario.clone(),
        case: run.case.clone(),
        client: run.client.clone(),
        measured_seconds,
        predicted_seconds: forecast.seconds,
        bottleneck: forecast.bottleneck,
    })
}

/// The records without ringload's runs in that case.
fn without(records: &[Record], run: &Run) -> Vec<Record> {
    let is_own = |other: &Run| {
        matches!(other.role, Role::Own | Role::Control)
            && (&other.scenario, &other.case) == (&run.scenario, &run.case)
    };
    let others = records.iter().filter(|record| match record {
        Record::Run(other) => !is_own(other),
        _ => true,
    });
    others.cloned().collect()
}

/// The number of cores that other loads of this kind and their servers kept busy.
fn busy_cores(records: &[Record], shape: Shape) -> Option<f64> {
    let busy = alike(records, shape).filter_map(|run| {
        run.server_cpu_seconds.map(|server| (run.cpu_seconds + server) / run.seconds.max(1e-9))
    });
    median(&busy.collect::<Vec<_>>()).filter(|cores| *cores > 0.0)
}

/// The cost of serving such loads, in CPU-seconds per GB.
fn served(records: &[Record], shape: Shape) -> Option<f64> {
    let serving = alike(records, shape);
    let costs = serving.filter_map(|run| Some(run.server_cpu_seconds? / run.gigabytes()));
    median(&costs.collect::<Vec<_>>())
}

/// ringload's runs with this kind of source.
fn alike(records: &[Record], shape: Shape) -> impl Iterator<Item = &Run> {
    measured::runs(records).filter(move |run| {
        let other = Shape::of(run, measured::case_of(records, run));
        run.role == Role::Own && other.is_some_and(|other| other.source == shape.source)
    })
}

/// The size of the ring, and the option that a point of a curve sets.
fn apply(constants: &mut Constants, shape: Shape, case: Option<&Case>) {
    let design = &mut constants.design;
    if let (Some(bytes), Destination::Stream) = (shape.ring_bytes, shape.destination) {
        design.ring_bytes = bytes;
    }
    let Some(point) = case.and_then(|case| case.point.as_ref()) else { return };
    let bytes = point.x
        * match point.unit.as_str() {
            "KiB" => 1024.0,
            "MiB" => 1_048_576.0,
            "GiB" => 1_073_741_824.0,
            _ => 1.0,
        };
    match point.curve.as_str() {
        curve if curve.starts_with("ring") || curve.contains("limit") => design.ring_bytes = bytes,
        curve if curve.starts_with("engine") => design.engines = point.x.max(1.0),
        curve if curve.starts_with("connection") => design.connections = point.x.max(1.0),
        curve if curve.starts_with("read") => {
            design.chunk_bytes = bytes.max(4096.0);
            design.chunk_bytes_least = design.chunk_bytes;
        }
        _ => {} // the sizes of file and tensors are those of the run
    }
}
