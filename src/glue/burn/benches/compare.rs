//! Loads a module with `RingloadStore` and with burn's own `SafetensorsStore`, and compares time, peak
//! memory and the module's result.
//!
//! ```text
//! cargo bench --manifest-path src/glue/burn/Cargo.toml                  1.5 GB of F32 in one file
//! cargo bench --manifest-path src/glue/burn/Cargo.toml -- --blocks 2    a smaller module
//! ```
//!
//! Both load in turns, each in a process of its own, after memory was allocated and freed, with the file
//! in the page cache (warm) or not (cold). The exit status is 1 if a target is missed or results differ.

#![allow(clippy::unwrap_used)]

#[path = "../tests/support/model.rs"]
mod model;

use burn_core::tensor::Device;
use burn_store::{ModuleSnapshot, SafetensorsStore};
use model::Chain;
use ringload::Loader;
use ringload::internals::{PAGE_BYTES, Ring};
use ringload_burn::RingloadStore;
use ringload_measure::checkpoint;
use ringload_measure::figures::Stopwatch;
use ringload_measure::page_cache::CacheState;
use ringload_measure::process::Invocation;
use ringload_measure::stats::{median, ratios};
use ringload_measure::table::{markdown, number};
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;

const WIDTH: usize = 1024;
const CLIENTS: [&str; 2] = ["ringload", "burn-store"];
/// The states, and the targets for our time over burn's.
const CASES: [(CacheState, f64); 2] = [(CacheState::Cold, 0.8), (CacheState::Warm, 1.0)];
/// The target for our peak memory over burn's.
const PEAK_TARGET: f64 = 0.55;

fn main() -> ExitCode {
    let option = |name: &str| {
        let mut all = std::env::args();
        all.find(|argument| argument == name).and_then(|_| all.next())
    };
    let blocks = option("--blocks").map_or(24, |blocks| blocks.parse().unwrap());
    let turns = option("--turns").map_or(5, |turns| turns.parse().unwrap());
    let sizes = Chain::sizes(WIDTH, blocks);
    if let Some(bytes) = option("--settle") {
        settle(bytes.parse().unwrap());
    } else if let (Some(client), Some(file)) = (option("--load"), option("--file")) {
        load(&client, Path::new(&file), &sizes);
    } else {
        return compare(&sizes, turns, blocks);
    }
    ExitCode::SUCCESS
}

/// Touches and frees this much memory, in huge pages where the system has them: a virtual machine may
/// return memory that was free for a while to its host, and the next process that touches it pays for that.
fn settle(bytes: usize) {
    let ring = Ring::new(bytes, PAGE_BYTES).unwrap();
    ring.populate(bytes, 2).unwrap();
}

/// Loads the module in this process, and prints the figures and the module's result.
fn load(client: &str, file: &Path, sizes: &[(usize, usize)]) {
    let device = Device::default();
    let mut chain = Chain::new(sizes, &device);
    let watch = Stopwatch::start().unwrap();
    if client == CLIENTS[0] {
        chain.load_from(&mut RingloadStore::open(&Loader::new(), file).unwrap()).unwrap();
    } else {
        chain.load_from(&mut SafetensorsStore::from_file(file)).unwrap();
    }
    let figures = watch.figures(0).unwrap();
    let result = chain.bits(WIDTH, &device);
    println!(
        "{}",
        json!({"seconds": figures.seconds, "cpu_seconds": figures.cpu_seconds,
        "peak_rss_bytes": figures.peak_rss_bytes, "result": result})
    );
}

fn compare(sizes: &[(usize, usize)], turns: usize, blocks: usize) -> ExitCode {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ringload-burn-{blocks}"));
    let file = directory.join(checkpoint::shard_name(0, 1));
    if !file.exists() {
        std::fs::create_dir_all(&directory).unwrap();
        model::write(&directory, sizes, 1).unwrap();
    }
    let own = || Invocation::own().unwrap().arg("--blocks").arg(blocks.to_string());
    let bytes = 2 * file.metadata().unwrap().len();
    let (mut rows, mut met) = (Vec::new(), true);
    for (state, time_target) in CASES {
        let mut figures = [Vec::<Value>::new(), Vec::new()];
        for _ in 0..turns {
            for (client, figures) in CLIENTS.into_iter().zip(&mut figures) {
                own().arg("--settle").arg(bytes.to_string()).run().unwrap();
                let files = [&file];
                assert_eq!(state.prepare(&files, ringload::internals::resident_bytes).unwrap(), 0);
                let child = own().args(["--load", client]).arg("--file").arg(&file);
                figures.push(child.run().unwrap().json().unwrap());
            }
        }
        let results = |of: usize| figures[of].iter().map(|run| &run["result"]).collect::<Vec<_>>();
        let mut row = vec![state.as_str().to_owned()];
        let targets = [("seconds", 1.0, time_target), ("peak_rss_bytes", 1048576.0, PEAK_TARGET)];
        for (name, unit, target) in targets {
            let of = |runs: &[Value]| -> Vec<f64> {
                runs.iter().map(|run| run[name].as_f64().unwrap() / unit).collect()
            };
            let [ours, theirs] = [of(&figures[0]), of(&figures[1])];
            let ratio = median(&ratios(&ours, &theirs)).unwrap();
            row.extend([number(median(&ours).unwrap()), number(median(&theirs).unwrap())]);
            row.push(format!("{ratio:.2}{}", if ratio <= target { "" } else { " (missed)" }));
            met &= ratio <= target;
        }
        met &= results(0) == results(1);
        rows.push(row);
    }
    let head = [
        "page cache",
        "time, s",
        "burn-store, s",
        "ratio",
        "peak, MiB",
        "burn-store, MiB",
        "ratio",
    ];
    println!("{}", markdown(&head, &rows));
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
