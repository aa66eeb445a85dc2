//! Measurements that begin with a process. Each process is a child of this executable, so that both
//! sides include the cost of its start.

use crate::checkpoints::check_equal;
use crate::gpu::{Gpu, Memory};
use crate::places::Places;
use anyhow::{Context, Result, ensure};
use ringload::{Device, Loader, MemoryLimit, Tensor};
use ringload_measure::figures::{Figures, Stopwatch, since_start_seconds};
use ringload_measure::process::Invocation;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Instant;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Load files onto the gpu
    Load {
        #[arg(long)]
        device: u32,
        /// Compare the tensors with those that are loaded to host memory, after the measurement
        #[arg(long)]
        compare: bool,
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

/// One child's report, written when its last byte is on the GPU.
#[derive(Debug, Serialize, Deserialize)]
pub struct Run {
    #[serde(flatten)]
    pub figures: Figures,
    pub parts: Parts,
}

/// The parts of the time of a plain copy.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Parts {
    pub context_seconds: f64,
    pub read_seconds: f64,
    pub copy_seconds: f64,
}

/// The selected figure of a run.
pub type Of = fn(&Run) -> f64;

impl Run {
    /// From before the process was started to the last byte on the GPU.
    pub fn seconds(&self) -> f64 {
        self.figures.last_tensor_seconds.unwrap_or(f64::NAN)
    }
}

/// Runs the task of a child.
///
/// # Errors
/// If the load or the copy fails.
pub fn run(command: Command) -> Result<()> {
    match command {
        Command::Load { device, compare, files } => {
            let loader = Loader::new().device(Device::cuda(device));
            let loader = loader.memory_limit(MemoryLimit::Unlimited);
            let mut stream = loader.stream(&files)?;
            let tensors = stream.by_ref().collect::<ringload::Result<Vec<_>>>()?;
            report(stream.summary().bytes, Parts::default())?;
            if compare { compare_with_host(&tensors, &files) } else { Ok(()) }
        }
        Command::Plain { device, file } => plain(device, &file),
    }
}

fn plain(ordinal: u32, file: &PathBuf) -> Result<()> {
    let mut began = Instant::now();
    let mut lap = || std::mem::replace(&mut began, Instant::now()).elapsed().as_secs_f64();
    let gpu = Gpu::open(ordinal)?;
    let context_seconds = lap();
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let read_seconds = lap();
    let memory = Memory::new(&gpu, bytes.len())?;
    memory.write(0, &bytes)?;
    report(bytes.len() as u64, Parts { context_seconds, read_seconds, copy_seconds: lap() })
}

fn report(bytes: u64, parts: Parts) -> Result<()> {
    let last_tensor_seconds = since_start_seconds();
    let figures = Stopwatch::of_process().figures(bytes)?;
    let figures = Figures { last_tensor_seconds, ..figures };
    println!("{}", serde_json::to_string(&Run { figures, parts })?);
    Ok(())
}

fn compare_with_host(tensors: &[Tensor], files: &[PathBuf]) -> Result<()> {
    let host = Loader::new().load(files)?;
    ensure!(host.len() == tensors.len(), "{} of {} tensors came", tensors.len(), host.len());
    for tensor in tensors {
        let name = tensor.name();
        let wanted = host.get(name).with_context(|| format!("{name} is not in the files"))?;
        check_equal(name, &tensor.to_vec()?, wanted.bytes())?;
    }
    Ok(())
}

/// Runs a load of `files` in a separate process, which compares the tensors if `compare` is set.
///
/// # Errors
/// If it fails, with its output.
pub fn run_load(places: &Places, files: &[PathBuf], compare: bool) -> Result<Run> {
    let compare = compare.then_some("--compare");
    Ok(child("load", places)?.args(compare).args(files).run()?.json()?)
}

/// Creates a context, reads and copies `file` in a separate process.
///
/// # Errors
/// If it fails, with its output.
pub fn run_plain(places: &Places, file: &PathBuf) -> Result<Run> {
    Ok(child("plain", places)?.arg(file).run()?.json()?)
}

fn child(name: &str, places: &Places) -> Result<Invocation> {
    let device = format!("--device={}", places.device.ordinal().unwrap_or(0));
    Ok(Invocation::own()?.args(["child", name, &device]))
}
