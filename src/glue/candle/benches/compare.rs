//! Builds candle's Llama with `ringload_candle::var_builder` and with candle's own
//! `VarBuilder::from_mmaped_safetensors`, and compares time, peak memory and logits.
//!
//! ```text
//! cargo bench -p ringload-candle                     1.5 GB of F32 in 3 files; 0.75 GB of BF16, as F32
//! cargo bench -p ringload-candle -- --layers 2       a smaller model
//! cargo bench -p ringload-candle -- --json FILE      also writes the figures of all runs
//! ```
//!
//! Both build the model in turns, each in a process of its own, after memory was allocated and freed, with
//! all files in the page cache (warm) or none (cold). Time is that of the builder and of `Llama::load`;
//! peak memory is that of the process when the model is built. That of BF16 has no target: the mapped way
//! has the model as F32 and the file in memory, of which the model alone is two thirds. The exit status is
//! 1 if a target is missed or the logits differ.

#![allow(clippy::unwrap_used)]

#[path = "../tests/support/llama.rs"]
mod llama;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache, Config, Llama};
use ringload::Loader;
use ringload::internals::{PAGE_BYTES, Ring};
use ringload_measure::checkpoint;
use ringload_measure::figures::{Figures, Stopwatch};
use ringload_measure::page_cache::CacheState;
use ringload_measure::process::Invocation;
use ringload_measure::stats::{median, ratios};
use ringload_measure::table::{markdown, number};
use safetensors::Dtype;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const OURS: &str = "ringload";
const THEIRS: &str = "mmap";

/// What is compared: the type of the file, the state of the page cache, and the targets of the issue
/// for our time over theirs, and for our peak memory over theirs.
const CASES: [(Dtype, CacheState, f64, f64); 3] = [
    (Dtype::F32, CacheState::Cold, 0.5, 0.55),
    (Dtype::F32, CacheState::Warm, 0.75, 0.55),
    (Dtype::BF16, CacheState::Cold, 0.4, f64::INFINITY),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let option = |name: &str| {
        let mut all = std::env::args();
        all.find(|argument| argument == name).and_then(|_| all.next())
    };
    let layers = option("--layers").map_or(24, |layers| layers.parse().unwrap());
    let config = llama::config(1024, 2816, 32_000, layers);
    let first = arguments.next();
    if first.as_deref() == Some("settle") {
        settle(arguments.next().unwrap().parse().unwrap());
        return ExitCode::SUCCESS;
    }
    if first.as_deref() == Some("build") {
        let (client, directory) = (arguments.next().unwrap(), arguments.next().unwrap());
        build(&client, Path::new(&directory), &config).unwrap();
        return ExitCode::SUCCESS;
    }
    let turns = option("--turns").map_or(5, |turns| turns.parse().unwrap());
    let (rows, runs, met) = compare(&config, turns);
    let head =
        ["file", "page cache", "time, s", "mmap, s", "ratio", "peak, MiB", "mmap, MiB", "ratio"];
    println!("{}", markdown(&head, &rows));
    if let Some(file) = option("--json") {
        std::fs::write(file, Value::Array(runs).to_string()).unwrap();
    }
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Touches and frees this much memory, in huge pages where the system has them: a virtual machine may
/// return memory that was free for a while to its host, and the next process that touches it pays for that.
fn settle(bytes: usize) {
    let ring = Ring::new(bytes, PAGE_BYTES).unwrap();
    ring.populate(bytes, 2).unwrap();
}

/// Builds the model in this process, and prints the figures and the logits.
fn build(client: &str, directory: &Path, config: &Config) -> Result<()> {
    let (device, dtype) = (Device::Cpu, DType::F32);
    let watch = Stopwatch::start()?;
    let weights = match client {
        OURS => ringload_candle::var_builder(&Loader::new(), directory, dtype, &device)?,
        _ => mapped(directory, dtype, &device)?,
    };
    let model = Llama::load(weights, config)?;
    let figures = watch.figures(0)?;
    let mut cache = Cache::new(true, dtype, config, &device)?;
    let tokens = Tensor::new(&[[1_u32, 20, 300]], &device)?;
    let logits = model.forward(&tokens, 0, &mut cache)?.flatten_all()?.to_vec1::<f32>()?;
    let bits = logits
        .iter()
        .fold(0_u64, |sum, logit| sum.wrapping_mul(0x100_0000_01b3) ^ u64::from(logit.to_bits()));
    let Figures { seconds, cpu_seconds, peak_rss_bytes, .. } = figures;
    let figures = json!({"seconds": seconds, "cpu_seconds": cpu_seconds,
        "peak_rss_bytes": peak_rss_bytes, "logits": bits});
    println!("{figures}");
    Ok(())
}

#[allow(unsafe_code)]
fn mapped(directory: &Path, dtype: DType, device: &Device) -> Result<VarBuilder<'static>> {
    let files = files(directory);
    // SAFETY: nobody changes the files.
    unsafe { VarBuilder::from_mmaped_safetensors(&files, dtype, device) }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|it| it == "safetensors")).collect();
    files.sort();
    files
}

/// Runs all cases. Returns the rows of the table, all figures, and whether the targets are met.
fn compare(config: &Config, turns: usize) -> (Vec<Vec<String>>, Vec<Value>, bool) {
    let (mut rows, mut runs, mut met) = (Vec::new(), Vec::new(), true);
    for (dtype, state, time_target, peak_target) in CASES {
        let name = format!("ringload-candle-{dtype:?}-{}", config.num_hidden_layers);
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        if !directory.join("model.safetensors.index.json").exists() {
            std::fs::create_dir_all(&directory).unwrap();
            llama::write(&directory, config, dtype, 3).unwrap();
        }
        let mut figures = [Vec::new(), Vec::new()];
        for _ in 0..turns {
            for (client, figures) in [OURS, THEIRS].into_iter().zip(&mut figures) {
                let files = files(&directory);
                assert_eq!(state.prepare(&files, ringload::internals::resident_bytes).unwrap(), 0);
                let bytes = 2 * checkpoint::data_bytes(&llama::tensors(config, Dtype::F32));
                let settle = Invocation::own().unwrap().arg("settle").arg(bytes.to_string());
                settle.run().unwrap();
                let child = Invocation::own().unwrap().args(["build", client]).arg(&directory);
                let child = child.arg("--layers").arg(config.num_hidden_layers.to_string());
                let figure: Value = child.run().unwrap().json().unwrap();
                runs.push(json!({"client": client, "file": format!("{dtype:?}"),
                    "page_cache": state.as_str(), "figures": figure}));
                figures.push(figure);
            }
        }
        let (row, is_met) = row(&figures, time_target, peak_target);
        rows.push([vec![format!("{dtype:?}"), state.as_str().to_owned()], row].concat());
        met &= is_met;
    }
    (rows, runs, met)
}

/// The columns of one case, and whether its targets are met.
fn row(figures: &[Vec<Value>; 2], time_target: f64, peak_target: f64) -> (Vec<String>, bool) {
    let logits =
        |figures: &[Value]| figures.iter().map(|run| run["logits"].clone()).collect::<Vec<_>>();
    let is_equal = logits(&figures[0]) == logits(&figures[1]);
    let column = |name: &str, unit: f64, target: f64| {
        let of = |runs: &[Value]| -> Vec<f64> {
            runs.iter().map(|run| run[name].as_f64().unwrap() / unit).collect()
        };
        let [ours, theirs] = [of(&figures[0]), of(&figures[1])];
        let ratio = median(&ratios(&ours, &theirs)).unwrap();
        let verdict = if ratio <= target { "" } else { " (missed)" };
        let cells = [number(median(&ours).unwrap()), number(median(&theirs).unwrap())];
        ([&cells[..], &[format!("{ratio:.2}{verdict}")]].concat(), ratio <= target)
    };
    let (time, is_fast) = column("seconds", 1.0, time_target);
    let (peak, is_small) = column("peak_rss_bytes", f64::from(1 << 20), peak_target);
    if !is_equal {
        println!("the logits differ");
    }
    ([time, peak].concat(), is_fast && is_small && is_equal)
}
