//! Loads from a FUSE mount of 20 ms a request, which refuses direct I/O or not.
//!
//! Beside each figure is the ideal time, in closed form ([`Settings::ideal_seconds`]).

use super::{case, prepare, ringload};
use crate::files::Shape;
use crate::lab::{Lab, Setting, TENSOR_BYTES};
use crate::mount::{Mounted, Settings};
use crate::peers::{self, Peer, Peers};
use anyhow::Result;
use ringload_measure::page_cache::CacheState;

pub const PEERS: &[&Peer] = &[&peers::RUNAI, &peers::SAFETENSORS];

const SCENARIO: &str = "fuse";
const LATENCY: f64 = 20.0;

/// One mount, and what is loaded from it.
struct Row {
    case: &'static str,
    /// The size that its target is about, whatever the size of other checkpoints.
    bytes: u64,
    refuses: bool,
    waits: bool,
    peers: &'static [&'static Peer],
    target: Option<&'static str>,
}

const ROWS: [Row; 4] = [
    Row {
        case: "buffered",
        bytes: 1 << 30,
        refuses: true,
        waits: false,
        peers: &[&peers::RUNAI],
        target: Some("fuse.buffered"),
    },
    Row {
        case: "direct",
        bytes: 1 << 30,
        refuses: false,
        waits: false,
        peers: &[&peers::RUNAI],
        target: Some("fuse.direct"),
    },
    Row {
        case: "waiting",
        bytes: 1 << 30,
        refuses: false,
        waits: true,
        peers: &[&peers::RUNAI],
        target: None,
    },
    // safetensors takes most of a minute for 1 GiB.
    Row { case: "small", bytes: 64 << 20, refuses: true, waits: false, peers: PEERS, target: None },
];

pub fn run(lab: &mut Lab, peers: &Peers) -> Result<()> {
    ROWS.iter().try_for_each(|row| measure(lab, peers, row))
}

fn measure(lab: &mut Lab, peers: &Peers, row: &Row) -> Result<()> {
    let checkpoint = lab.checkpoint(Shape::of_bytes(row.bytes, TENSOR_BYTES))?;
    let root = tempfile::tempdir_in(&lab.tools.keep)?;
    std::fs::hard_link(&checkpoint.path, root.path().join(checkpoint.name()))?;
    let refuse = row.refuses.then(|| ".safetensors".to_owned());
    let settings = Settings { latency: LATENCY, refuse, waits: row.waits };
    let mounted = match Mounted::start(root.path(), &settings) {
        Ok(mounted) => mounted,
        Err(error) => return lab.skip(SCENARIO, row.case, &format!("{error:#}")),
    };
    let file = mounted.file(&checkpoint.name());
    let mut clients = vec![
        ringload(&lab.tools, &file, "--drop"),
        ringload(&lab.tools, &file, "--memory-limit=64MiB").named("ringload, 64 MiB"),
    ];
    clients.extend(peers.clients(row.peers, &file));
    let refuses = match (row.refuses, row.waits) {
        (true, _) => ", which refuses direct I/O",
        (false, true) => ", where each direct read waits in its system call",
        (false, false) => "",
    };
    let title = format!(
        "{:.2} GB from a FUSE mount of {LATENCY} ms a request{refuses}",
        checkpoint.shape.gigabytes()
    );
    let setting = Setting {
        prepare: Some(&|_| prepare(CacheState::Warm, &checkpoint.path)),
        sums: Some(&checkpoint.sums),
        ideal: Some(("ideal", settings.ideal_seconds(checkpoint.shape.bytes()))),
        ..Setting::default()
    };
    let measured = lab.case(case(SCENARIO, row.case, title), clients, &setting)?;
    match row.target {
        Some(id) => lab.reach(id, measured.of("ringload", |run| run.seconds)),
        None => Ok(()),
    }
}
