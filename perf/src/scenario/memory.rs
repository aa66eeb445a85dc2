//! A local file under memory limits: a curve of time and CPU time over the limit.

use super::{local_case, point, ringload};
use crate::lab::Lab;
use crate::peers::{self, Peers};
use anyhow::Result;
use ringload_measure::page_cache::CacheState;

const LIMITS_MIB: [u64; 5] = [32, 64, 128, 256, 1024];

pub fn run(lab: &mut Lab, peers: &Peers) -> Result<()> {
    let checkpoint = lab.large()?;
    let file = checkpoint.path.to_string_lossy();
    for limit_mib in LIMITS_MIB {
        let option = format!("--memory-limit={limit_mib}MiB");
        let mut clients = vec![ringload(&lab.tools, &*file, &option)];
        // Run:ai's package takes its limit from the environment.
        let limit_bytes = (limit_mib << 20).to_string();
        let runai = peers.clients(&[&peers::RUNAI], &file).into_iter();
        clients.extend(runai.map(|it| it.env("RUNAI_STREAMER_MEMORY_LIMIT", &limit_bytes)));
        let gigabytes = checkpoint.shape.gigabytes();
        let title = format!("{gigabytes:.2} GB from a cold local file through {limit_mib} MiB");
        let case = point("memory", "memory limit", "MiB", limit_mib as f64, title);
        local_case(lab, case, clients, &checkpoint, CacheState::Cold)?;
    }
    Ok(())
}
