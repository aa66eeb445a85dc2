//! Scaling curves: how the cost of a load depends on its size and on its options.
//!
//! All curves use cold local files and drop each tensor, except for connections (HTTP over loopback).
//! A curve that is flat or proportional shows that no cost grows faster than the bytes of the load.

use super::remote::{self, Object};
use super::{limit, local_case, point, ringload};
use crate::client::Client;
use crate::files::{Checkpoint, Shape};
use crate::lab::Lab;
use crate::peers::Peers;
use crate::records::Case;
use anyhow::Result;
use nix::sys::statvfs::statvfs;
use ringload_measure::page_cache::CacheState;

const SCENARIO: &str = "scaling";
const MIB: u64 = 1 << 20;

pub fn run(lab: &mut Lab, _: &Peers) -> Result<()> {
    let large = lab.large()?;
    for engines in 1..=lab.tools.core_count().max(2) * 2 {
        let client = streaming(lab, &large, 512, &format!("--engines={engines}"));
        let title = format!("{engines} engines, through 512 MiB");
        let case = point(SCENARIO, "engines", "engines", engines as f64, title);
        cold(lab, case, vec![client], &large)?;
    }
    for mib in [1, 4, 8, 16, 32] {
        let own = streaming(lab, &large, 512, &format!("--read-size={mib}MiB"));
        let options = format!("direct --chunk={} --depth={}", mib * MIB, 512 / mib);
        let bare = limit(&lab.tools, "io_uring, 512 MiB in flight", &options, &large.path);
        let title = format!("reads of {mib} MiB, through 512 MiB");
        let case = point(SCENARIO, "read size", "MiB", mib as f64, title);
        cold(lab, case, vec![own, bare], &large)?;
    }
    slot_size(lab)?;
    for mib in [16, 32, 64, 128, 256, 1024] {
        let title = format!("a ring of {mib} MiB");
        let case = point(SCENARIO, "ring size", "MiB", mib as f64, title);
        let client = streaming(lab, &large, mib, "");
        cold(lab, case, vec![client], &large)?;
    }
    file_size(lab)?;
    connections(lab)
}

/// A slot of a host load holds whole tensors, so it is at least as large as they are.
fn slot_size(lab: &mut Lab) -> Result<()> {
    for kib in [64, 512, 4 << 10, 32 << 10, 128 << 10] {
        let shape = Shape::of_bytes(lab.size_bytes / 4, (kib as usize) << 10);
        let checkpoint = lab.checkpoint(shape)?;
        let mib = kib as f64 / 1024.0;
        let title = format!("tensors of {mib} MiB, through 512 MiB");
        let case = point(SCENARIO, "slot size", "MiB a tensor", mib, title);
        let client = streaming(lab, &checkpoint, 512, "");
        cold(lab, case, vec![client], &checkpoint)?;
        checkpoint.remove()?;
    }
    Ok(())
}

fn file_size(lab: &mut Lab) -> Result<()> {
    for mib in [64, 256, 1024, 4096, 16_384] {
        let shape = Shape::of_bytes(mib * MIB, 16 << 20);
        let free = statvfs(&lab.tools.keep)?;
        let free = free.blocks_available() * free.fragment_size();
        if shape.bytes() + (2 << 30) > free {
            lab.skip(SCENARIO, &format!("a file of {mib} MiB"), "the disk has no room for it")?;
            continue;
        }
        let checkpoint = lab.checkpoint(shape)?;
        let own = streaming(lab, &checkpoint, 256, "");
        let bare = limit(&lab.tools, "io_uring 8 MiB x 32", "direct --depth=32", &checkpoint.path);
        let title = format!("a file of {mib} MiB through 256 MiB");
        let case = point(SCENARIO, "file size", "MiB", mib as f64, title);
        cold(lab, case, vec![own, bare], &checkpoint)?;
        checkpoint.remove()?;
    }
    Ok(())
}

/// ringload with a memory limit, dropping each tensor.
fn streaming(lab: &Lab, checkpoint: &Checkpoint, limit_mib: u64, options: &str) -> Client {
    let options = format!("--drop --memory-limit={limit_mib}MiB {options}");
    ringload(&lab.tools, &checkpoint.path, &options)
}

fn cold(lab: &mut Lab, case: Case, clients: Vec<Client>, checkpoint: &Checkpoint) -> Result<()> {
    local_case(lab, case, clients, checkpoint, CacheState::Cold).map(drop)
}

fn connections(lab: &mut Lab) -> Result<()> {
    let object = Object::large(lab)?;
    let server = remote::serve(lab, &object, "")?;
    for connections in [1, 2, 4, 8, 16, 32, 64] {
        let options = format!("--memory-limit=128MiB --connections={connections}");
        let client = ringload(&lab.tools, object.url(&server.http), &options);
        let title = format!("{connections} connections, http through 128 MiB");
        let case = point(SCENARIO, "connections", "connections", f64::from(connections), title);
        remote::in_turns(lab, case, &object, &server, vec![client])?;
    }
    Ok(())
}
