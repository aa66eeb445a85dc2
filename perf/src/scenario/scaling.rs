//! Scaling curves: how the cost of a load depends on its size and on its options.
//!
//! All curves use cold local files and drop each tensor, except for connections (HTTP over loopback).
//! A curve that is flat or proportional shows that no cost grows faster than the bytes of the load.

use super::remote::{Object, object};
use super::{limit, local_setting, point, prepared, ringload};
use crate::client::Client;
use crate::files::{Checkpoint, Shape};
use crate::lab::{Lab, Setting};
use crate::nginx::Server;
use crate::page_cache::Warmth;
use crate::records::Case;
use anyhow::Result;
use nix::sys::statvfs::statvfs;

const SCENARIO: &str = "scaling";
const MIB: u64 = 1 << 20;
const TENSOR_BYTES: usize = 14 << 20;

pub fn run(lab: &mut Lab) -> Result<()> {
    engines(lab)?;
    read_size(lab)?;
    slot_size(lab)?;
    ring_size(lab)?;
    file_size(lab)?;
    connections(lab)
}

fn large(lab: &Lab) -> Result<Checkpoint> {
    Checkpoint::kept(&lab.tools.keep.join("objects"), Shape::of_bytes(lab.size_bytes, TENSOR_BYTES))
}

fn engines(lab: &mut Lab) -> Result<()> {
    let checkpoint = large(lab)?;
    for engines in 1..=lab.tools.core_count().max(2) * 2 {
        let client = ringload(
            &lab.tools,
            &checkpoint.path,
            &["--drop", "--memory-limit=512MiB", &format!("--engines={engines}")],
        );
        let title = format!("{engines} engines, through 512 MiB");
        cold(
            lab,
            point(SCENARIO, "engines", "engines", engines as f64, title),
            vec![client],
            &checkpoint,
        )?;
    }
    Ok(())
}

fn read_size(lab: &mut Lab) -> Result<()> {
    let checkpoint = large(lab)?;
    for mib in [1, 4, 8, 16, 32] {
        let (own, bare) = (format!("--read-size={mib}MiB"), format!("--chunk={}", mib * MIB));
        let depth = format!("--depth={}", 512 / mib);
        let clients = vec![
            ringload(&lab.tools, &checkpoint.path, &["--drop", "--memory-limit=512MiB", &own]),
            limit(
                &lab.tools,
                "io_uring, 512 MiB in flight",
                "direct",
                &[&bare, &depth],
                &checkpoint.path,
            ),
        ];
        let title = format!("reads of {mib} MiB, through 512 MiB");
        cold(lab, point(SCENARIO, "read size", "MiB", mib as f64, title), clients, &checkpoint)?;
    }
    Ok(())
}

/// A slot of a host load holds whole tensors, so it is at least as large as they are.
fn slot_size(lab: &mut Lab) -> Result<()> {
    for kib in [64, 512, 4 << 10, 32 << 10, 128 << 10] {
        let shape = Shape::of_bytes(lab.size_bytes / 4, (kib as usize) << 10);
        let checkpoint = Checkpoint::kept(&lab.tools.keep.join("objects"), shape)?;
        let client = ringload(&lab.tools, &checkpoint.path, &["--drop", "--memory-limit=512MiB"]);
        let mib = kib as f64 / 1024.0;
        let title = format!("tensors of {mib} MiB, through 512 MiB");
        cold(
            lab,
            point(SCENARIO, "slot size", "MiB a tensor", mib, title),
            vec![client],
            &checkpoint,
        )?;
        checkpoint.remove()?;
    }
    Ok(())
}

fn ring_size(lab: &mut Lab) -> Result<()> {
    let checkpoint = large(lab)?;
    for mib in [16, 32, 64, 128, 256, 1024] {
        let client = ringload(
            &lab.tools,
            &checkpoint.path,
            &["--drop", &format!("--memory-limit={mib}MiB")],
        );
        let title = format!("a ring of {mib} MiB");
        cold(
            lab,
            point(SCENARIO, "ring size", "MiB", mib as f64, title),
            vec![client],
            &checkpoint,
        )?;
    }
    Ok(())
}

fn file_size(lab: &mut Lab) -> Result<()> {
    let directory = lab.tools.keep.join("objects");
    for mib in [64, 256, 1024, 4096, 16_384] {
        let shape = Shape::of_bytes(mib * MIB, 16 << 20);
        let free = statvfs(&lab.tools.keep)?;
        let free = free.blocks_available() * free.fragment_size();
        if shape.bytes() + (2 << 30) > free {
            lab.skip(SCENARIO, &format!("a file of {mib} MiB"), "the disk has no room for it")?;
            continue;
        }
        let checkpoint = Checkpoint::kept(&directory, shape)?;
        let clients = vec![
            ringload(&lab.tools, &checkpoint.path, &["--drop", "--memory-limit=256MiB"]),
            limit(&lab.tools, "io_uring 8 MiB x 32", "direct", &["--depth=32"], &checkpoint.path),
        ];
        let title = format!("a file of {mib} MiB through 256 MiB");
        cold(lab, point(SCENARIO, "file size", "MiB", mib as f64, title), clients, &checkpoint)?;
        checkpoint.remove()?;
    }
    Ok(())
}

fn cold(lab: &mut Lab, case: Case, clients: Vec<Client>, checkpoint: &Checkpoint) -> Result<()> {
    let tools = lab.tools.clone();
    let ready = prepared(&tools, Warmth::Cold, &checkpoint.path, 1 << 30);
    lab.case(case, clients, &local_setting(&ready, checkpoint))?;
    Ok(())
}

fn connections(lab: &mut Lab) -> Result<()> {
    let object: Object = object(lab)?;
    let server = Server::start(object.root.path(), lab.tools.server_core(lab.apart), "")?;
    let url = format!("{}{}", server.http, object.path());
    Warmth::Warm.prepare(&object.checkpoint.path)?;
    let core = lab.tools.client_core();
    for connections in [1, 2, 4, 8, 16, 32, 64] {
        let option = format!("--connections={connections}");
        let client = ringload(&lab.tools, &url, &["--memory-limit=128MiB", &option]).on_core(core);
        let title = format!("{connections} connections, http through 128 MiB");
        let case = point(SCENARIO, "connections", "connections", f64::from(connections), title);
        let setting = Setting {
            prepare: &|_| Ok(()),
            sums: Some(&object.checkpoint.sums),
            server: Some(&server),
            times: 1,
        };
        lab.case(case, vec![client], &setting)?;
    }
    Ok(())
}
