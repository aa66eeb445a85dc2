//! The engine compared with the limits of disk and memory (`ringload bench`), and planning.
//!
//! `bench` uses the same method: turns, separate processes, and a page cache whose state is checked.
//! Its rows become runs, and its ratios targets.

use super::case;
use crate::child::Invocation;
use crate::client::Client;
use crate::files::Shape;
use crate::lab::{Lab, Setting};
use crate::records::{Record, Role, Run};
use crate::stats;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// The names of `bench`'s ratios and their targets.
const TARGETS: [(&str, &str); 9] = [
    ("cold, streamed: seconds / fio", "engine.streamed.wall"),
    ("cold, owned: seconds / fio", "engine.resident.wall"),
    ("cold, streamed: CPU-s/GB", "engine.streamed.cpu"),
    ("cold, owned: CPU-s/GB", "engine.resident.cpu"),
    ("cold, mapped: CPU-s/GB", "engine.mapped.cpu"),
    ("warm, mapped: seconds / mmap and touch", "engine.warm.mapped"),
    ("warm, owned: speed / memcpy", "engine.warm.owned"),
    ("under a cap: MiB of peak memory above it", "engine.capped.peak"),
    ("under a cap: seconds / no cap", "engine.capped.wall"),
];

/// Ratios without a target, and the target whose miss they explain.
const EXPLAINS: [(&str, &str); 3] = [
    ("cold, owned: seconds / bare reads, kept", "engine.resident.wall"),
    ("cold, owned: CPU-s/GB beyond fresh memory", "engine.resident.cpu"),
    ("cold, owned: seconds / bare reads, reused", "engine.resident.wall"),
];

#[derive(Debug, Deserialize)]
struct Bench {
    rows: Vec<Row>,
    ratios: Vec<Ratio>,
    skipped: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Row {
    phase: String,
    name: String,
    runs: Vec<BenchRun>,
}

#[derive(Debug, Deserialize)]
struct BenchRun {
    bytes: u64,
    seconds: f64,
    cpu_seconds: f64,
    peak_rss_bytes: Option<u64>,
    process_seconds: f64,
}

#[derive(Debug, Deserialize)]
struct Ratio {
    name: String,
    figure: Option<f64>,
    turns: Vec<f64>,
}

pub fn run(lab: &mut Lab) -> Result<()> {
    bench(lab)?;
    planning(lab)
}

fn bench(lab: &mut Lab) -> Result<()> {
    eprintln!("  ringload bench");
    let (size, turns) = (lab.size_bytes.to_string(), lab.turns.to_string());
    let command = Invocation::new(&lab.tools.ringload)
        .args(["bench", "--json", "--size", &size, "--runs", &turns]);
    let ended = command.arg("--dir").arg(&lab.tools.keep).run(None)?;
    let results: Bench = serde_json::from_slice(&ended.output).context("ringload bench")?;
    for phase in ["limit", "cold", "warm", "floor"] {
        let rows = results.rows.iter().filter(|row| row.phase == phase && !row.runs.is_empty());
        let title = match phase {
            "limit" => "cold files, read by nobody but the disk's limit",
            "cold" => "loads of cold files",
            "warm" => "loads of files in the page cache",
            _ => "the same files by other means",
        };
        lab.record(Record::Case(case("engine", phase, title.into())))?;
        for row in rows {
            for (turn, run) in row.runs.iter().enumerate() {
                lab.record(Record::Run(run.recorded(row, turn)))?;
            }
        }
    }
    for why in &results.skipped {
        lab.skip("engine", "a row of ringload bench", why)?;
    }
    for (name, id) in TARGETS {
        let Some(ratio) = results.ratios.iter().find(|ratio| ratio.name == name) else { continue };
        let Some(figure) = ratio.figure else { continue };
        let interval = stats::estimate(&ratio.turns).map(|estimate| (estimate.low, estimate.high));
        lab.target(id, figure, interval, explained(&results, id))?;
    }
    Ok(())
}

/// The measurements of `bench` that explain a figure.
fn explained(results: &Bench, id: &str) -> Option<String> {
    let of = |name: &str| results.ratios.iter().find(|ratio| ratio.name == name)?.figure;
    let names = EXPLAINS.iter().filter(|(_, target)| *target == id);
    let parts = names.filter_map(|(name, _)| Some(format!("{name}: {:.3}", of(name)?)));
    let text = parts.collect::<Vec<_>>().join("; ");
    (!text.is_empty()).then_some(text)
}

impl BenchRun {
    fn recorded(&self, row: &Row, turn: usize) -> Run {
        let is_load = ["cold", "warm"].contains(&row.phase.as_str());
        Run {
            scenario: "engine".into(),
            case: row.phase.clone(),
            client: if is_load { format!("ringload, {}", row.name) } else { row.name.clone() },
            role: if is_load { Role::Own } else { Role::Limit },
            turn,
            bytes: self.bytes,
            seconds: self.seconds,
            cpu_seconds: self.cpu_seconds,
            process_seconds: self.process_seconds,
            first_tensor_seconds: None,
            last_tensor_seconds: None,
            peak_rss_bytes: self.peak_rss_bytes,
            server_cpu_seconds: None,
        }
    }
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
            write_shard(directory.path(), number, shards)?;
        }
        let tensors = shards * SHARD.tensors;
        let invocation = lab.tools.limit(&["plan"]).arg(directory.path());
        let client = Client::new("ringload (crate)", Role::Own, invocation);
        let title = format!("{tensors} tensors in {shards} shards, opened and planned");
        let case = super::point("engine", "planning", "tensors", tensors as f64, title);
        let setting = Setting { prepare: &|_| Ok(()), sums: None, server: None, times: 1 };
        let results = lab.case(case, vec![client], &setting)?;
        let peak =
            results.peak_bytes("ringload (crate)").context("the crate reports its peak memory")?;
        memory_a_tensor.push(peak as f64 / tensors as f64);
        if shards == 500 {
            lab.reach("engine.planning", results.of("ringload (crate)", |run| run.seconds))?;
        }
    }
    let note = format!("{:.0} bytes a tensor, the program included", memory_a_tensor[1]);
    lab.target("engine.planning.memory", memory_a_tensor[1] / memory_a_tensor[0], None, Some(note))
}

fn write_shard(directory: &Path, number: usize, shards: usize) -> Result<()> {
    let header = SHARD.header(&format!("model.layers.{number}.mlp.experts"));
    let name = format!("model-{:05}-of-{shards:05}.safetensors", number + 1);
    let mut file = File::create(directory.join(name))?;
    file.write_all(&header)?;
    Ok(file.set_len(header.len() as u64 + SHARD.bytes())?)
}
