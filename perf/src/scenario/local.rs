//! Loads of a local file into host memory, each tensor dropped before the next, by all clients.

use super::{case, limit, local_setting, prepared, ringload};
use crate::client::Client;
use crate::files::{Checkpoint, Shape};
use crate::lab::Lab;
use crate::page_cache::Warmth;
use crate::peers::{Peer, Peers};
use crate::records::{Figure, Record, Trace};
use anyhow::Result;

/// As in a layer of a model of about a billion parameters.
const TENSOR_BYTES: usize = 14 << 20;

pub const PEERS: &[Peer] = &[
    Peer::RingloadPython,
    Peer::RunaiStreamer,
    Peer::RingloadLibrary,
    Peer::Safetensors,
    Peer::SafetensorsNext,
    Peer::Fastsafetensors,
    Peer::InstantTensor,
    Peer::Tensorizer,
];

pub fn run(lab: &mut Lab, peers: &Peers) -> Result<()> {
    let shape = Shape::of_bytes(lab.size_bytes, TENSOR_BYTES);
    let checkpoint = Checkpoint::kept(&lab.tools.keep.join("objects"), shape)?;
    for warmth in [Warmth::Cold, Warmth::Warm] {
        measure(lab, peers, &checkpoint, warmth)?;
    }
    trace(lab, &checkpoint)
}

fn measure(lab: &mut Lab, peers: &Peers, checkpoint: &Checkpoint, warmth: Warmth) -> Result<()> {
    let tools = lab.tools.clone();
    let file = checkpoint.path.as_path();
    let location = file.to_string_lossy();
    let own = ringload(&tools, file, &["--drop"]);
    let resident = Client { name: "ringload, resident".into(), ..ringload(&tools, file, &[]) };
    let mapped = ringload(&tools, file, &["--read-path=mapped"]);
    let mapped = Client { name: "ringload, mapped".into(), ..mapped };
    let mut clients = vec![own.clone(), own.again(), resident, mapped];
    clients.extend(super::clients(peers, PEERS, &location)?);
    clients.extend(limits(lab, warmth, checkpoint));
    let state = warmth.as_str();
    let title = format!(
        "{state} local file of {:.2} GB in {} tensors into host memory, each dropped",
        shape_gb(checkpoint),
        checkpoint.shape.tensors
    );
    let prepare = prepared(&tools, warmth, file, checkpoint.shape.bytes());
    let results =
        lab.case(case("local", state, title), clients, &local_setting(&prepare, checkpoint))?;
    let (own, theirs) = (Peer::RingloadPython.title(), Peer::RunaiStreamer.title());
    lab.reach(&format!("python.{state}.wall"), results.ratio(own, theirs, Figure::Seconds))?;
    if warmth == Warmth::Cold {
        lab.reach("python.cold.cpu", results.ratio(own, theirs, Figure::CpuSecondsPerGigabyte))?;
    }
    Ok(())
}

fn shape_gb(checkpoint: &Checkpoint) -> f64 {
    checkpoint.shape.bytes() as f64 / 1e9
}

/// The limits of disk and memory.
fn limits(lab: &Lab, warmth: Warmth, checkpoint: &Checkpoint) -> Vec<Client> {
    let (tools, file) = (&lab.tools, checkpoint.path.as_path());
    let direct = |kind, name: &str, chunk_mib: u64, depth: u64| {
        let (chunk, deep) = (format!("--chunk={}", chunk_mib << 20), format!("--depth={depth}"));
        limit(tools, &format!("{name} {chunk_mib} MiB x {depth}"), kind, &[&chunk, &deep], file)
    };
    match warmth {
        Warmth::Cold => vec![
            direct("fio", "fio", 8, 64),
            direct("fio", "fio", 4, 8),
            direct("fio", "fio", 1, 32),
            direct("direct", "io_uring", 8, 64),
        ],
        Warmth::Warm => vec![
            limit(tools, "memcpy", "memcpy", &[], file),
            limit(tools, "memcpy, huge pages", "memcpy-huge", &[], file),
            limit(tools, "mmap and touch", "mmap-touch", &[], file),
            limit(tools, "plain read", "plain-read", &[], file),
        ],
    }
}

/// One load under a small limit, slot by slot.
fn trace(lab: &mut Lab, checkpoint: &Checkpoint) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    Warmth::Cold.prepare(&checkpoint.path)?;
    let load = lab.tools.load(&checkpoint.path).args(["--drop", "--memory-limit", "256MiB"]);
    load.arg("--trace").arg(file.path()).run(None)?;
    let trace = std::fs::read_to_string(file.path())?;
    // The report does not show paths of this machine.
    let trace = trace.replace(&*checkpoint.path.to_string_lossy(), &checkpoint.name());
    let trace = serde_json::from_str(&trace)?;
    let title = "a cold local file through 256 MiB".to_owned();
    lab.record(Record::Trace(Trace { scenario: "local".into(), title, trace }))
}
