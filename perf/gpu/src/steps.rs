//! The steps of a run, in the order of their worth.
//!
//! Each step is a process of its own: this program (`ringload-gpu step NAME`), or a script in `steps/`
//! beside it. So a step that crashes, hangs or is cut off takes nothing with it.

use crate::check::{self, CheckArgs};
use crate::figures::{self, FiguresArgs, Measure};
use crate::gpu::Gpu;
use crate::machine;
use crate::places::{Places, PlacesArgs};
use crate::record::{Record, Recorder};
use crate::turns::Clock;
use anyhow::{Context, Result, bail};
use std::time::Duration;

/// A step.
pub struct Step {
    pub name: &'static str,
    /// It is stopped after so many seconds.
    pub seconds_at_most: u64,
    /// It is not begun if less time is left.
    pub seconds_at_least: u64,
    /// Whether it loads the large checkpoint, which `LARGE` writes.
    pub needs_large: bool,
    pub program: Program,
}

/// The program of a step.
pub enum Program {
    Own,
    /// A script of this name.
    Python,
}

/// The step that writes the large checkpoint. It runs when the first step needs it.
pub const LARGE: Step = own("files", 60, 5, false);

pub const STEPS: [Step; 18] = [
    own("machine", 30, 2, false),
    own("right-kernels", 45, 5, false),
    own("right-loads", 60, 10, false),
    python("right-bindings", 60, 10, false),
    own("cached", 90, 15, true),
    own("disk", 60, 10, true),
    python("peers", 120, 25, true),
    own("adapter", 25, 5, false),
    own("small", 30, 8, false),
    own("kernels", 25, 5, false),
    own("copies", 25, 4, false),
    own("pages", 25, 5, true),
    own("processes", 30, 8, true),
    python("web", 40, 10, true),
    own("gds", 30, 5, true),
    python("sanitizer", 120, 15, false),
    own("verify", 30, 8, true),
    python("timeline", 20, 5, true),
];

const fn own(name: &'static str, most: u64, least: u64, needs_large: bool) -> Step {
    Step {
        name,
        seconds_at_most: most,
        seconds_at_least: least,
        needs_large,
        program: Program::Own,
    }
}

const fn python(name: &'static str, most: u64, least: u64, needs_large: bool) -> Step {
    Step { program: Program::Python, ..own(name, most, least, needs_large) }
}

/// What a step is told.
#[derive(Debug, Clone, clap::Args)]
pub struct StepArgs {
    #[command(flatten)]
    pub places: PlacesArgs,
    #[command(flatten)]
    pub check: CheckArgs,
    #[command(flatten)]
    pub figures: FiguresArgs,
    /// Name of the machine, e.g. 'one H200, 16 cores'
    #[arg(long, value_name = "TEXT")]
    pub machine: Option<String>,
}

/// Runs the step `name` of this program in this process; no turn begins after `seconds`.
///
/// # Errors
/// If it breaks off. What it had recorded stays.
pub fn run(name: &str, args: &StepArgs, seconds: f64, recorder: &mut Recorder) -> Result<()> {
    let measure: Measure = match name {
        "files" => return figures::write_large(args),
        "machine" => return machine(args, recorder),
        "right-kernels" | "right-loads" => {
            let gpu = Gpu::open(args.places.device)?;
            if name == "right-kernels" {
                check::kernels(&gpu, &args.check, recorder);
            } else {
                check::loads(&gpu, &Places::new(&args.places)?, &args.check, recorder);
            }
            return Ok(());
        }
        "kernels" => figures::kernels,
        "copies" => figures::copies,
        "pages" => figures::pages,
        "adapter" => figures::adapter,
        "small" => figures::small,
        "cached" => figures::cached,
        "processes" => figures::processes,
        "disk" => figures::disk,
        "gds" => figures::gds,
        "verify" => figures::verify,
        _ => bail!("there is no step {name}"),
    };
    let (gpu, places) = (Gpu::open(args.places.device)?, Places::new(&args.places)?);
    let seconds = Duration::try_from_secs_f64(seconds).context("--seconds")?;
    let clock = Clock::new(args.figures.turns(), seconds);
    measure(&figures::Part { gpu: &gpu, places: &places, args: &args.figures, clock }, recorder)
}

fn machine(args: &StepArgs, recorder: &mut Recorder) -> Result<()> {
    let machine = machine::Machine::of(&args.places, args.machine.clone())?;
    recorder.record(Record::Machine(machine));
    let places = Places::new(&args.places)?;
    for note in machine::notes(&places) {
        recorder.note(note);
    }
    let gpu = Gpu::open(args.places.device)?;
    recorder.check("one small load", || check::one_load(&gpu, &places));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_names_of_their_own_and_time_to_run() {
        let mut names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STEPS.len());
        assert!(STEPS.iter().all(|step| step.seconds_at_least < step.seconds_at_most));
    }
}
