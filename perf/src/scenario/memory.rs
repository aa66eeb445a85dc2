//! A local file under memory limits: a curve of time and CPU time over the limit.

use super::{clients, local_setting, point, prepared, ringload};
use crate::client::Client;
use crate::files::{Checkpoint, Shape};
use crate::lab::Lab;
use crate::page_cache::Warmth;
use crate::peers::{Peer, Peers};
use anyhow::Result;

const TENSOR_BYTES: usize = 14 << 20;
const LIMITS_MIB: [u64; 5] = [32, 64, 128, 256, 1024];

pub fn run(lab: &mut Lab, peers: &Peers) -> Result<()> {
    let shape = Shape::of_bytes(lab.size_bytes, TENSOR_BYTES);
    let checkpoint = Checkpoint::kept(&lab.tools.keep.join("objects"), shape)?;
    let tools = lab.tools.clone();
    for limit_mib in LIMITS_MIB {
        let mut clients = vec![ringload(
            &tools,
            &checkpoint.path,
            &["--memory-limit", &format!("{limit_mib}MiB")],
        )];
        clients.extend(runai(peers, &checkpoint, limit_mib)?);
        let title = format!(
            "{:.2} GB from a cold local file through {limit_mib} MiB",
            shape.bytes() as f64 / 1e9
        );
        let case = point("memory", "memory limit", "MiB", limit_mib as f64, title);
        let prepare = prepared(&tools, Warmth::Cold, &checkpoint.path, shape.bytes());
        lab.case(case, clients, &local_setting(&prepare, &checkpoint))?;
    }
    Ok(())
}

/// Run:ai's package takes its limit from the environment.
fn runai(peers: &Peers, checkpoint: &Checkpoint, limit_mib: u64) -> Result<Vec<Client>> {
    let clients = clients(peers, &[Peer::RunaiStreamer], &checkpoint.path.to_string_lossy())?;
    let limit = (limit_mib << 20).to_string();
    let limited = |client: Client| {
        let invocation = client.invocation.clone().env("RUNAI_STREAMER_MEMORY_LIMIT", &limit);
        Client { invocation, ..client }
    };
    Ok(clients.into_iter().map(limited).collect())
}
