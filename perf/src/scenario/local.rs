//! Loads of a local file into host memory, each tensor dropped before the next, by all clients.

use super::{case, limit, local_case, prepare, ringload};
use crate::files::Checkpoint;
use crate::lab::Lab;
use crate::peers::{self, Peer, Peers};
use crate::records::{Figure, Record, Trace};
use anyhow::Result;
use ringload_measure::page_cache::CacheState;

pub const PEERS: &[&Peer] = &[
    &peers::RINGLOAD_PYTHON,
    &peers::RUNAI,
    &peers::RINGLOAD_LIBRARY,
    &peers::SAFETENSORS,
    &peers::SAFETENSORS_NEXT,
    &peers::FASTSAFETENSORS,
    &peers::TENSORIZER,
];

/// The limits of disk and memory: names, and the options of `ringload bench-reference`.
const COLD_LIMITS: &[(&str, &str)] = &[
    ("fio 8 MiB x 64", "fio --chunk=8388608 --depth=64"),
    ("fio 4 MiB x 8", "fio --chunk=4194304 --depth=8"),
    ("fio 1 MiB x 32", "fio --chunk=1048576 --depth=32"),
    ("io_uring 8 MiB x 64", "direct --chunk=8388608 --depth=64"),
];
const WARM_LIMITS: &[(&str, &str)] = &[
    ("memcpy", "memcpy"),
    ("memcpy, huge pages", "memcpy-huge"),
    ("mmap and touch", "mmap-touch"),
    ("plain read", "plain-read"),
];

pub fn run(lab: &mut Lab, peers: &Peers) -> Result<()> {
    let checkpoint = lab.large()?;
    measure(lab, peers, &checkpoint, CacheState::Cold, COLD_LIMITS)?;
    measure(lab, peers, &checkpoint, CacheState::Warm, WARM_LIMITS)?;
    trace(lab, &checkpoint)
}

fn measure(
    lab: &mut Lab,
    peers: &Peers,
    checkpoint: &Checkpoint,
    state: CacheState,
    limits: &[(&str, &str)],
) -> Result<()> {
    let (tools, file) = (&lab.tools, checkpoint.path.as_path());
    let own = ringload(tools, file, "--drop");
    let resident = ringload(tools, file, "").named("ringload, resident");
    let mapped = ringload(tools, file, "--read-path=mapped").named("ringload, mapped");
    let mut clients = vec![own.clone(), own.again(), resident, mapped];
    clients.extend(peers.clients(PEERS, &file.to_string_lossy()));
    clients.extend(limits.iter().map(|(name, options)| limit(tools, name, options, file)));
    let name = state.as_str();
    let title = format!(
        "{name} local file of {:.2} GB in {} tensors into host memory, each dropped",
        checkpoint.shape.gigabytes(),
        checkpoint.shape.tensors
    );
    let results = local_case(lab, case("local", name, title), clients, checkpoint, state)?;
    let (own, theirs) = (peers::RINGLOAD_PYTHON.title, peers::RUNAI.title);
    lab.reach(&format!("python.{name}.wall"), results.ratio(own, theirs, Figure::Seconds))?;
    if state == CacheState::Cold {
        lab.reach("python.cold.cpu", results.ratio(own, theirs, Figure::CpuSecondsPerGigabyte))?;
    }
    Ok(())
}

/// One load under a small limit, slot by slot.
fn trace(lab: &mut Lab, checkpoint: &Checkpoint) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    prepare(CacheState::Cold, &checkpoint.path)?;
    let load = lab.tools.load(&checkpoint.path).words("--drop --memory-limit 256MiB --trace");
    load.arg(file.path()).run()?;
    let trace = std::fs::read_to_string(file.path())?;
    // The report does not show paths of this machine.
    let trace = trace.replace(&*checkpoint.path.to_string_lossy(), &checkpoint.name());
    let trace = serde_json::from_str(&trace)?;
    let title = "a cold local file through 256 MiB".to_owned();
    lab.record(Record::Trace(Trace { scenario: "local".into(), title, trace }))
}
