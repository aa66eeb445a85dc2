//! The engine compared with the limits of disk and memory (`ringload bench`), and planning.
//!
//! `bench` uses the same method: turns, separate processes, and a page cache whose state is checked.
//! Its rows become runs, and the ratios between them targets.

use super::{case, own_limit, point};
use crate::client::Client;
use crate::files::Shape;
use crate::lab::{Lab, Setting};
use crate::measured::Measured;
use crate::peers::Peers;
use crate::records::{Figure, Record, Role, Run};
use anyhow::{Context, Result};
use ringload_measure::checkpoint::{shard_name, write_sparse};
use ringload_measure::figures::Figures;
use ringload_measure::process::Invocation;
use ringload_measure::stats::Estimate;
use serde::Deserialize;

/// The memory limit of the limited load of `ringload bench`.
const CAP_MIB: f64 = 256.0;

/// What `ringload bench --json` prints.
#[derive(Debug, Deserialize)]
struct Bench {
    rows: Vec<Row>,
    skipped: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Row {
    phase: String,
    name: String,
    runs: Vec<Figures>,
}

pub fn run(lab: &mut Lab, _: &Peers) -> Result<()> {
    bench(lab)?;
    planning(lab)
}

fn bench(lab: &mut Lab) -> Result<()> {
    eprintln!("  ringload bench");
    let options = format!("bench --json --size {} --runs {} --dir", lab.size_bytes, lab.turns);
    let bench = Invocation::new(&lab.tools.ringload).words(&options).arg(&lab.tools.keep);
    let results: Bench = bench.run()?.json().context("ringload bench")?;
    let mut measured = Measured::default();
    for (phase, is_load, title) in [
        ("limit", false, "cold files, read by nobody but the disk's limit"),
        ("cold", true, "loads of cold files"),
        ("warm", true, "loads of files in the page cache"),
        ("floor", false, "the same files by other means"),
    ] {
        let case = case("engine", phase, title.into());
        lab.record(Record::Case(case.clone()))?;
        for row in results.rows.iter().filter(|row| row.phase == phase) {
            let (role, prefix) =
                if is_load { (Role::Own, "ringload, ") } else { (Role::Limit, "") };
            let client = format!("{prefix}{}", row.name);
            for (turn, figures) in row.runs.iter().enumerate() {
                let run = Run::of(&case, &client, role, turn, figures.clone());
                measured.add(Run { client: format!("{phase} {}", row.name), ..run.clone() });
                lab.record(Record::Run(run))?;
            }
        }
    }
    for why in &results.skipped {
        lab.skip("engine", "a row of ringload bench", why)?;
    }
    targets(lab, &measured)
}

/// The figures of the targets, turn by turn. Clients are called by their phase and name.
///
/// Some figures have no target and explain why another target was missed. A disk, above all a virtual
/// one, may be slower when it reads into much memory than into a few buffers that stay in the caches
/// of the CPU, so a resident load is also compared with bare reads into memory that is kept. Faulting
/// in and zeroing fresh memory is CPU time that no load into new memory can avoid.
fn targets(lab: &mut Lab, measured: &Measured) -> Result<()> {
    let named = |start: &str| -> Vec<&str> {
        measured.clients().map(|(name, _)| name).filter(|name| name.starts_with(start)).collect()
    };
    let (kept, bare): (Vec<_>, Vec<_>) =
        named("limit io_uring").into_iter().partition(|name| name.ends_with("kept"));
    let fio = named("limit fio");
    // The limit of the disk is that of fio, if it is installed.
    let disk = if fio.is_empty() { &bare } else { &fio };
    let memcpy = named("floor memcpy");
    let (resident, streamed, capped) = (
        "cold auto",
        "cold auto (streamed)",
        named("cold auto, at most").pop().unwrap_or_default(),
    );
    let over = |own, others: &[&str]| measured.over(own, others, Figure::Seconds);
    let cpu = |client| measured.of(client, |run| run.cpu_seconds_per_gigabyte());
    let beyond =
        measured.more(resident, "floor fresh memory", |run| run.cpu_seconds_per_gigabyte());
    let slower = over("warm auto", &memcpy);
    let faster = slower.map(|it| Estimate {
        median: 1.0 / it.median,
        low: 1.0 / it.high,
        high: 1.0 / it.low,
        ..it
    });
    lab.reach("engine.streamed.wall", over(streamed, disk))?;
    let note = |name: &str, it: Option<Estimate>| Some(format!("{name}: {:.3}", it?.median));
    let kept = note("seconds / bare reads into memory that is kept", over(resident, &kept));
    lab.reach_noted("engine.resident.wall", over(resident, disk), kept)?;
    lab.reach("engine.streamed.cpu", cpu(streamed))?;
    let beyond = note("CPU-s/GB beyond fresh memory", beyond);
    lab.reach_noted("engine.resident.cpu", cpu(resident), beyond)?;
    lab.reach("engine.mapped.cpu", cpu("cold mapped"))?;
    lab.reach("engine.warm.mapped", over("warm mapped", &["floor mmap and touch"]))?;
    lab.reach("engine.warm.owned", faster)?;
    if let Some(peak) = measured.peak_mib(capped) {
        lab.target("engine.capped.peak", peak - CAP_MIB, None, None)?;
    }
    lab.reach("engine.capped.wall", over(capped, &[streamed]))
}

/// 64 x 64 elements of two bytes.
const SHARD: Shape = Shape { tensors: 2000, tensor_bytes: 8192 };

/// Opens and plans checkpoints of 250,000 and 1,000,000 tensors: sparse files, of which only the
/// headers are read.
fn planning(lab: &mut Lab) -> Result<()> {
    let mut memory_a_tensor = Vec::new();
    for shards in [125, 500] {
        let directory = tempfile::tempdir_in(&lab.tools.keep)?;
        for number in 0..shards {
            let tensors = SHARD.tensors(&format!("model.layers.{number}.mlp.experts"));
            write_sparse(&directory.path().join(shard_name(number, shards)), &tensors)?;
        }
        let tensors = shards * SHARD.tensors;
        let invocation = own_limit("plan")?.arg(directory.path());
        let client = Client::new("ringload (crate)", Role::Own, invocation);
        let title = format!("{tensors} tensors in {shards} shards, opened and planned");
        let case = point("engine", "planning", "tensors", tensors as f64, title);
        let results = lab.case(case, vec![client], &Setting::default())?;
        let peak = results.peak_mib("ringload (crate)").context("the crate's peak memory")?;
        memory_a_tensor.push(peak * f64::from(1 << 20) / tensors as f64);
        if shards == 500 {
            lab.reach("engine.planning", results.of("ringload (crate)", |run| run.seconds))?;
        }
    }
    let note = format!("{:.0} bytes a tensor, the program included", memory_a_tensor[1]);
    lab.target("engine.planning.memory", memory_a_tensor[1] / memory_a_tensor[0], None, Some(note))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::Tools;
    use std::path::PathBuf;

    #[test]
    fn figures_are_compared_with_the_better_of_their_kind() {
        let mut measured = Measured::default();
        let mut add = |client: &str, seconds: f64, cpu_seconds: f64, peak_mib: u64| {
            let (bytes, peak_rss_bytes) = (1_000_000_000, Some(peak_mib << 20));
            let figures =
                Figures { bytes, seconds, cpu_seconds, peak_rss_bytes, ..Figures::default() };
            measured.add(Run::of(&case("", "", String::new()), client, Role::Own, 0, figures));
        };
        add("limit io_uring a", 1.2, 0.05, 0);
        add("limit io_uring b", 1.0, 0.05, 0);
        add("limit io_uring b, kept", 1.3, 0.05, 0);
        add("cold auto (streamed)", 1.04, 0.2, 0);
        add("cold auto", 1.3, 0.11, 0);
        add("cold auto, at most 256.00 MiB", 1.4, 0.11, 300);
        add("warm mapped", 0.2, 0.2, 0);
        add("floor mmap and touch", 0.1, 0.1, 0);
        add("warm auto", 0.5, 0.5, 0);
        add("floor memcpy", 0.6, 0.6, 0);
        let directory = tempfile::tempdir().unwrap();
        let tools = Tools::of(PathBuf::new(), directory.path().to_owned());
        let mut lab = Lab::new(tools, &directory.path().join("records"), 1, 0, false).unwrap();
        targets(&mut lab, &measured).unwrap();
        let of = |id: &str| {
            lab.records().iter().find_map(|record| match record {
                Record::Target(target) if target.id == id => {
                    let thousandths = target.figure.map(|it| (it * 1000.0).round());
                    Some((thousandths, target.is_reached(), target.note.clone()))
                }
                _ => None,
            })
        };
        let reached = |thousandths, reached| Some((Some(thousandths), Some(reached), None));
        assert_eq!(of("engine.streamed.wall"), reached(1040.0, true));
        let note = "seconds / bare reads into memory that is kept: 1.000";
        let explained = Some((Some(1300.0), Some(false), Some(note.to_owned())));
        assert_eq!(of("engine.resident.wall"), explained);
        assert_eq!(of("engine.resident.cpu"), reached(110.0, true));
        assert_eq!(of("engine.mapped.cpu"), None);
        assert_eq!(of("engine.warm.mapped"), reached(2000.0, false));
        assert_eq!(of("engine.warm.owned"), reached(1200.0, true));
        assert_eq!(of("engine.capped.peak"), reached(44_000.0, true));
        assert_eq!(of("engine.capped.wall"), reached(1346.0, false));
    }
}
