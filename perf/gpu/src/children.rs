//! Measurements that begin with a process. Each process is a child of this executable, so that both
//! sides include the cost of its start. Times are those of the monotonic clock, which parent and
//! child share.

use crate::gpu::{Gpu, Memory};
use crate::machine::bytes_in;
use crate::places::Places;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use nix::time::{ClockId, clock_gettime};
use ringload::{Device, Error, ErrorKind, Loader, MemoryLimit, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command as Process, Stdio};
use std::time::Instant;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Load files onto the gpu
    Load {
        #[arg(long)]
        device: u32,
        #[arg(long, default_value = "unlimited")]
        memory_limit: MemoryLimit,
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Make a context, read a file into a vector, copy it to the gpu
    Plain {
        #[arg(long)]
        device: u32,
        file: PathBuf,
    },
}

/// The report of a child, written when its last byte is on the GPU.
#[derive(Debug, Serialize, Deserialize)]
struct Said {
    /// Time of the monotonic clock.
    last_seconds: f64,
    bytes: u64,
    cpu_seconds: f64,
    peak_rss_bytes: Option<u64>,
    parts: Parts,
}

/// The parts of the time of a plain copy.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Parts {
    pub context_seconds: f64,
    pub read_seconds: f64,
    pub copy_seconds: f64,
}

/// One child's figures.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    pub bytes: u64,
    /// From before the process was started to the last byte on the GPU.
    pub seconds: f64,
    /// CPU time of the child up to then.
    pub cpu_seconds: f64,
    pub peak_rss_bytes: Option<u64>,
    pub parts: Parts,
}

/// The selected figure of a run.
pub type Of = fn(&Run) -> f64;

fn monotonic_seconds() -> Result<f64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_err(|error| Error::from_io("read the clock", error.into()))?;
    Ok(now.tv_sec() as f64 + now.tv_nsec() as f64 / 1e9)
}

/// User and system time of this process.
pub fn cpu_seconds() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)
        .map_err(|error| Error::from_io("ask for the CPU time", error.into()))?;
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// The peak resident memory of this process. (The value of getrusage includes the parent's memory
/// between fork and exec.)
fn peak_rss_bytes() -> Option<u64> {
    bytes_in(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// Runs the task of a child.
///
/// # Errors
/// If the load or the copy fails.
pub fn run(command: Command) -> Result<()> {
    match command {
        Command::Load { device, memory_limit, files } => load(device, memory_limit, &files),
        Command::Plain { device, file } => plain(device, &file),
    }
}

fn load(ordinal: u32, limit: MemoryLimit, files: &Vec<PathBuf>) -> Result<()> {
    let loader = Loader::new().device(Device::cuda(ordinal)).memory_limit(limit);
    let mut stream = loader.stream(files)?;
    let tensors = stream.by_ref().collect::<Result<Vec<_>>>()?;
    say(stream.summary().bytes, Parts::default())?;
    drop(tensors);
    Ok(())
}

fn plain(ordinal: u32, file: &PathBuf) -> Result<()> {
    let mut began = Instant::now();
    let mut lap = || std::mem::replace(&mut began, Instant::now()).elapsed().as_secs_f64();
    let gpu = Gpu::open(ordinal)?;
    let context_seconds = lap();
    let bytes = std::fs::read(file)
        .map_err(|error| Error::from_io(format_args!("read {}", file.display()), error))?;
    let read_seconds = lap();
    let memory = Memory::new(&gpu, bytes.len())?;
    memory.write(0, &bytes)?;
    let parts = Parts { context_seconds, read_seconds, copy_seconds: lap() };
    say(bytes.len() as u64, parts)
}

fn say(bytes: u64, parts: Parts) -> Result<()> {
    let last_seconds = monotonic_seconds()?;
    let (cpu_seconds, peak_rss_bytes) = (cpu_seconds()?, peak_rss_bytes());
    let said = Said { last_seconds, bytes, cpu_seconds, peak_rss_bytes, parts };
    println!("{}", serde_json::to_string(&said).unwrap_or_default());
    Ok(())
}

/// Runs a load of `files` in a separate process.
///
/// # Errors
/// If it fails, with its output.
pub fn run_load(places: &Places, limit: MemoryLimit, files: &[PathBuf]) -> Result<Run> {
    let mut arguments = child_arguments("load", places);
    arguments.push(format!("--memory-limit={limit}").into());
    arguments.extend(files.iter().map(OsString::from));
    run_child(&arguments)
}

/// Creates a context, reads and copies `file` in a separate process.
///
/// # Errors
/// If it fails, with its output.
pub fn run_plain(places: &Places, file: &PathBuf) -> Result<Run> {
    let mut arguments = child_arguments("plain", places);
    arguments.push(file.into());
    run_child(&arguments)
}

fn child_arguments(name: &str, places: &Places) -> Vec<OsString> {
    let ordinal = places.device.ordinal().unwrap_or(0);
    ["child".into(), name.into(), format!("--device={ordinal}").into()].into()
}

fn run_child(arguments: &[OsString]) -> Result<Run> {
    let own = std::env::current_exe()
        .map_err(|error| Error::from_io("find this command's executable", error))?;
    let began = monotonic_seconds()?;
    let said: Said = output_of(Process::new(own).args(arguments))?;
    let seconds = said.last_seconds - began;
    let Said { bytes, cpu_seconds, peak_rss_bytes, parts, .. } = said;
    Ok(Run { bytes, seconds, cpu_seconds, peak_rss_bytes, parts })
}

/// Runs `command` to its end and reads the JSON that it prints.
///
/// # Errors
/// If it cannot be started, fails (with its output), or prints something else.
pub fn output_of<T: DeserializeOwned>(command: &mut Process) -> Result<T> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::from_io(format_args!("start {command:?}"), error))?;
    let failed = |how: String| {
        let said = String::from_utf8_lossy(&output.stderr);
        let sentence = format!("a measuring process {how}: {}", said.trim());
        Error::new(ErrorKind::Io, sentence)
    };
    if !output.status.success() {
        return Err(failed(format!("ended with {}", output.status)));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| failed(format!("printed no figures ({error})")))
}
