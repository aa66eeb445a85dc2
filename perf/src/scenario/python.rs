//! The overhead of Python, and whether Run:ai's tests pass with the C library.

use super::{case, local_setting, prepared, ringload};
use crate::child::Invocation;
use crate::files::{Checkpoint, Shape};
use crate::lab::Lab;
use crate::page_cache::Warmth;
use crate::peers::{Peer, Peers};
use crate::records::Figure;
use crate::stats::Estimate;
use anyhow::Result;

const SHAPE: Shape = Shape { tensors: 100_000, tensor_bytes: 4096 };
const LOOPS: [Peer; 2] = [Peer::RingloadStream, Peer::RingloadPython];

pub fn run(lab: &mut Lab, peers: &Peers) -> Result<()> {
    overhead(lab, peers)?;
    dropin(lab, peers)
}

fn overhead(lab: &mut Lab, peers: &Peers) -> Result<()> {
    let checkpoint = Checkpoint::kept(&lab.tools.keep.join("objects"), SHAPE)?;
    let (tools, file) = (lab.tools.clone(), checkpoint.path.as_path());
    let mut clients = vec![ringload(&tools, file, &["--drop"])];
    clients.extend(super::clients(peers, &LOOPS, &file.to_string_lossy())?);
    let title = "100,000 tensors of 4 KiB, iterated by the command and in Python".to_owned();
    let prepare = prepared(&tools, Warmth::Warm, file, SHAPE.bytes());
    let results = lab.case(
        case("python", "overhead", title),
        clients,
        &local_setting(&prepare, &checkpoint),
    )?;
    let over = LOOPS
        .iter()
        .filter_map(|one| results.more(one.title(), "ringload", |run| Figure::Seconds.of(run)));
    let most: Option<Estimate> =
        over.reduce(|one, other| if one.median > other.median { one } else { other });
    lab.reach("python.overhead", most)
}

/// tests/runai.py reports how many of Run:ai's tests ran and which failed.
fn dropin(lab: &mut Lab, peers: &Peers) -> Result<()> {
    let Some(python) = peers.python() else {
        return lab.skip(
            "python",
            "Run:ai's own tests on the C library",
            "there is no environment with Run:ai's package",
        );
    };
    eprintln!("  Run:ai's own unit tests on the C library");
    let script = lab.tools.root.join("tests/runai.py");
    let tests = Invocation::new(python).arg(script).arg(python).arg(&lab.tools.library);
    match tests.run(None) {
        Ok(_) => {
            lab.target("python.dropin", 0.0, None, Some("all but one, which skips itself".into()))
        }
        Err(error) => lab.target("python.dropin", 1.0, None, Some(format!("{error:#}"))),
    }
}
