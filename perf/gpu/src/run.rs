//! Runs the steps, each with its time limit, and keeps what they print.
//!
//! ```text
//! gpu.jsonl of earlier runs -> which steps are finished
//! step -> its process, in a process group -> lines -> gpu.jsonl, at once -> gpu.md, gpu.json
//! ```
//!
//! Steps that have not begun come first, then those that were stopped. The end of the run stops the step
//! that is running, and the next run begins it again.

use crate::places::Places;
use crate::record::{Ending, Record};
use crate::results::Results;
use crate::steps::{LARGE, Program, STEPS, Step, StepArgs};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use ringload_measure::process::die_with_parent;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

#[derive(Debug, clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub step: StepArgs,
    /// Directory for gpu.jsonl, gpu.md and gpu.json; with a gpu.jsonl of an earlier run in it, this
    /// run goes on with the steps that are not finished
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// The run ends after so many minutes
    #[arg(long, value_name = "MINUTES", default_value_t = 7.0)]
    minutes: f64,
    /// Steps may take so many times as long, on a slow machine
    #[arg(long, value_name = "N", default_value_t = 1)]
    patience: u64,
    /// Take these steps alone
    #[arg(long, value_name = "STEPS", value_delimiter = ',')]
    only: Vec<String>,
}

/// The share of a step's time after which it begins no more turns.
const TURNS_SHARE: f64 = 0.8;

/// The end of the error output that a failed step is reported with, in bytes.
const ERROR_BYTES: u64 = 600;

/// Whether all steps are finished, and everything was correct and reached its target.
///
/// # Errors
/// If no results can be written.
pub fn run(args: &RunArgs) -> Result<bool> {
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot make {}", args.out.display()))?;
    let known = |name: &String| STEPS.iter().any(|step| step.name == *name);
    let unknown = args.only.iter().find(|name| !known(name));
    ensure!(unknown.is_none(), "there is no step {}", unknown.map_or("", String::as_str));
    // Whoever stops the script that started this process has stopped the run.
    set_pdeathsig(Signal::SIGTERM).context("cannot ask for a signal at the end of the parent")?;
    let minutes = Duration::try_from_secs_f64(args.minutes * 60.0).context("--minutes")?;
    let results = Results::open(&args.out)?;
    let mut run = Run { args, results, end: Instant::now() + minutes, large: None };
    for step in run.order() {
        run.take(step)?;
        run.results.write(&names())?;
    }
    run.results.write(&names())?;
    print!("{}", run.results.markdown(&names()));
    let left: Vec<_> = STEPS.iter().filter(|step| run.is_wanted(step)).collect();
    let left: Vec<_> =
        left.iter().filter(|step| !run.is_finished(step)).map(|step| step.name).collect();
    if !left.is_empty() {
        eprintln!("not finished: {}; run the same command again", left.join(", "));
    }
    Ok(left.is_empty() && run.results.is_good())
}

/// Writes the tables again.
///
/// # Errors
/// If they cannot be written.
pub fn report(directory: &Path) -> Result<()> {
    let results = Results::open(directory)?;
    results.write(&names())?;
    print!("{}", results.markdown(&names()));
    Ok(())
}

fn names() -> Vec<&'static str> {
    STEPS.iter().map(|step| step.name).collect()
}

struct Run<'a> {
    args: &'a RunArgs,
    results: Results,
    end: Instant,
    /// Whether the large checkpoint was written; `None` before a step needed it.
    large: Option<bool>,
}

impl Run<'_> {
    fn is_wanted(&self, step: &Step) -> bool {
        self.args.only.is_empty() || self.args.only.iter().any(|name| name == step.name)
    }

    fn is_finished(&self, step: &Step) -> bool {
        matches!(self.results.ending(step.name), Some(Ending::Done | Ending::Failed))
    }

    /// The steps that this run takes: those that have not begun, then those that were stopped.
    fn order(&self) -> Vec<&'static Step> {
        let taken = |step: &&Step| self.is_wanted(step) && !self.is_finished(step);
        let mut steps: Vec<_> = STEPS.iter().filter(taken).collect();
        steps.sort_by_key(|step| self.results.has_begun(step.name));
        steps
    }

    fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    fn take(&mut self, step: &Step) -> Result<()> {
        if self.left() < Duration::from_secs(step.seconds_at_least) {
            eprintln!("{}: not begun, too little time is left", step.name);
            return Ok(());
        }
        if step.needs_large && self.large.is_none() {
            self.run(&LARGE)?;
            self.large = Some(self.results.ending(LARGE.name) == Some(Ending::Done));
        }
        if step.needs_large && self.large == Some(false) {
            self.results.add(step.name, Record::Begin { seconds_at_most: 0.0 })?;
            let error = Some("the large checkpoint could not be written".to_owned());
            let how = Ending::Cut; // so that another run tries again
            return self.results.add(step.name, Record::End { how, seconds: 0.0, error });
        }
        self.run(step)
    }

    fn run(&mut self, step: &Step) -> Result<()> {
        let most = Duration::from_secs(step.seconds_at_most.saturating_mul(self.args.patience));
        let limit = most.min(self.left());
        let seconds = limit.as_secs_f64();
        eprintln!("step {}: at most {seconds:.0} s", step.name);
        self.results.add(step.name, Record::Begin { seconds_at_most: seconds })?;
        let began = Instant::now();
        let log = self.args.out.join("gpu.log");
        let ended = self.supervise(step, limit, &log);
        let (how, error) = match ended {
            Ok(Some(status)) if status.success() => (Ending::Done, None),
            Ok(Some(status)) => (Ending::Failed, Some(format!("{status}: {}", tail(&log)))),
            Ok(None) if limit < most => (Ending::Cut, None),
            Ok(None) => (Ending::OverItsLimit, Some(tail(&log))),
            Err(error) => (Ending::Failed, Some(format!("{error:#}"))),
        };
        if how != Ending::Done {
            eprintln!("step {}: {how:?} {}", step.name, error.as_deref().unwrap_or_default());
        }
        let seconds = began.elapsed().as_secs_f64();
        self.results.add(step.name, Record::End { how, seconds, error })
    }

    /// Runs the process of a step; `None` if it was stopped after `limit`.
    fn supervise(
        &mut self,
        step: &Step,
        limit: Duration,
        log: &Path,
    ) -> Result<Option<ExitStatus>> {
        let end = Instant::now() + limit;
        let errors = OpenOptions::new().create(true).append(true).open(log);
        let errors = errors.with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = self.command(step, limit)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).process_group(0);
        die_with_parent(&mut command);
        let child = command.spawn();
        let mut group = Group(child.with_context(|| format!("cannot run step {}", step.name))?);
        let lines = lines_of(&mut group.0)?;
        loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => match serde_json::from_str(&line) {
                    Ok(record) => self.results.add(step.name, record)?,
                    Err(_) => eprintln!("{}: {line}", step.name),
                },
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // It closed its output; it may still be ending.
        while Instant::now() < end {
            if let Some(status) = group.0.try_wait()? {
                return Ok(Some(status));
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(None)
    }

    fn command(&self, step: &Step, limit: Duration) -> Result<Command> {
        let own = std::env::current_exe().context("cannot find this executable")?;
        let seconds = (limit.as_secs_f64() * TURNS_SHARE).to_string();
        let mut command = match step.program {
            Program::Own => {
                let mut command = Command::new(&own);
                command.args(["step", step.name, "--seconds", &seconds]).args(step_arguments());
                command
            }
            Program::Python => {
                let script =
                    own.with_file_name("steps").join(format!("{}.py", step.name.replace('-', "_")));
                if !script.exists() {
                    bail!("{} does not exist; `gpu.sh pack` copies it", script.display());
                }
                let mut command = Command::new("python3");
                command.arg("-B").arg(script);
                command
            }
        };
        let settings = self.settings(&own, &seconds)?;
        command.env("RINGLOAD_GPU_STEP", settings.to_string());
        Ok(command)
    }

    /// What the scripts are told; `steps/common.py` reads it.
    fn settings(&self, own: &Path, seconds: &str) -> Result<serde_json::Value> {
        let StepArgs { places, figures, .. } = &self.args.step;
        let large = figures.large();
        Ok(serde_json::json!({
            "device": places.device,
            "dir": places.dir,
            "tmpfs": places.tmpfs,
            "disk_files": large.files_in(&places.dir),
            "tmpfs_files": large.files_in(&places.tmpfs),
            "turns": figures.turns(),
            "settle": figures.settle_seconds(),
            "check_bytes": self.args.step.check.bytes(),
            "seconds": seconds.parse::<f64>()?,
            "ringload": Places::ringload(places)?,
            "own": own,
            "out": self.args.out.canonicalize()?,
        }))
    }
}

/// The arguments of this process that a step takes, too.
fn step_arguments() -> Vec<OsString> {
    let mut taken = Vec::new();
    let mut all = std::env::args_os().skip(2);
    while let Some(argument) = all.next() {
        let text = argument.to_string_lossy();
        let is_of_run = |name: &&str| text == **name || text.starts_with(&format!("{name}="));
        match ["--out", "--minutes", "--patience", "--only"].iter().find(|name| is_of_run(name)) {
            Some(_) if text.contains('=') => {}
            Some(_) => drop(all.next()),
            None => taken.push(argument),
        }
    }
    taken
}

/// The process of a step, whose group is killed on drop, in case something of it is left.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.0.id() as i32), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// The lines that the process prints, as they come.
fn lines_of(child: &mut Child) -> Result<Receiver<String>> {
    let output = child.stdout.take().context("a step has no standard output")?;
    let (send, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(std::io::Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    Ok(lines)
}

/// The last lines of the error output.
fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(ERROR_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(4)..].join(" / ")
}
