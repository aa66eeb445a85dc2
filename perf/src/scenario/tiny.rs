//! Very many very small tensors in one file that the page cache holds.

use super::{case, limit, local_setting, prepared, ringload};
use crate::files::{Checkpoint, Shape};
use crate::lab::Lab;
use crate::page_cache::Warmth;
use crate::peers::{Peer, Peers};
use crate::records::Figure;
use anyhow::Result;

const SHAPE: Shape = Shape { tensors: 200_000, tensor_bytes: 4096 };

pub const PEERS: &[Peer] = &[Peer::RunaiStreamer, Peer::Safetensors, Peer::SafetensorsNext];

pub fn run(lab: &mut Lab, peers: &Peers) -> Result<()> {
    let checkpoint = Checkpoint::kept(&lab.tools.keep.join("objects"), SHAPE)?;
    let (tools, file) = (lab.tools.clone(), checkpoint.path.as_path());
    let own = ringload(&tools, file, &[]);
    let mut clients = vec![own.clone(), own.again()];
    clients.extend(super::clients(peers, PEERS, &file.to_string_lossy())?);
    clients.push(limit(&tools, "plain read", "plain-read", &[], file));
    let title = "200,000 tensors of 4 KiB in one warm file, opening included, all kept".to_owned();
    let prepare = prepared(&tools, Warmth::Warm, file, SHAPE.bytes());
    let results =
        lab.case(case("tiny", "warm", title), clients, &local_setting(&prepare, &checkpoint))?;
    lab.reach("engine.tiny", results.ratio("ringload", "plain read", Figure::Seconds))
}
