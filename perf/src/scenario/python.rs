//! The overhead of Python, and whether Run:ai's tests pass with the C library.

use super::{case, local_case, ringload};
use crate::files::Shape;
use crate::lab::Lab;
use crate::peers::{self, Peer, Peers};
use anyhow::Result;
use ringload_measure::page_cache::CacheState;
use ringload_measure::process::Invocation;

const SHAPE: Shape = Shape { tensors: 100_000, tensor_bytes: 4096 };
const LOOPS: [&Peer; 2] = [&peers::RINGLOAD_STREAM, &peers::RINGLOAD_PYTHON];

/// Those of the loops, and Run:ai's package for its tests.
pub const PEERS: &[&Peer] = &[LOOPS[0], LOOPS[1], &peers::RUNAI];

pub fn run(lab: &mut Lab, peers: &Peers) -> Result<()> {
    overhead(lab, peers)?;
    dropin(lab, peers)
}

fn overhead(lab: &mut Lab, peers: &Peers) -> Result<()> {
    let checkpoint = lab.checkpoint(SHAPE)?;
    let mut clients = vec![ringload(&lab.tools, &checkpoint.path, "--drop")];
    clients.extend(peers.clients(&LOOPS, &checkpoint.path.to_string_lossy()));
    let title = "100,000 tensors of 4 KiB, iterated by the command and in Python".to_owned();
    let case = case("python", "overhead", title);
    let results = local_case(lab, case, clients, &checkpoint, CacheState::Warm)?;
    let more = |peer: &&Peer| results.more(peer.title, "ringload", |run| run.seconds);
    let most = LOOPS.iter().filter_map(more).max_by(|a, b| a.median.total_cmp(&b.median));
    lab.reach("python.overhead", most)
}

/// tests/runai.py reports how many of Run:ai's tests ran and which failed.
fn dropin(lab: &mut Lab, peers: &Peers) -> Result<()> {
    let what = "Run:ai's own tests on the C library";
    let Some(python) = &peers.python else {
        return lab.skip("python", what, "there is no environment with Run:ai's package");
    };
    eprintln!("  {what}");
    let script = lab.tools.root.join("tests/runai.py");
    let tests = Invocation::new(python).arg(script).arg(python).arg(&lab.tools.library);
    let (failed, note) = match tests.run() {
        Ok(_) => (0.0, "all but one, which skips itself".into()),
        Err(error) => (1.0, error.to_string()),
    };
    lab.target("python.dropin", failed, None, Some(note))
}
