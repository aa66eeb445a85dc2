//! Very many very small tensors in one file that the page cache holds.

use super::{case, limit, local_case, ringload};
use crate::files::Shape;
use crate::lab::Lab;
use crate::peers::{self, Peer, Peers};
use crate::records::Figure;
use anyhow::Result;
use ringload_measure::page_cache::CacheState;

const SHAPE: Shape = Shape { tensors: 200_000, tensor_bytes: 4096 };

pub const PEERS: &[&Peer] = &[&peers::RUNAI, &peers::SAFETENSORS, &peers::SAFETENSORS_NEXT];

pub fn run(lab: &mut Lab, peers: &Peers) -> Result<()> {
    let checkpoint = lab.checkpoint(SHAPE)?;
    let file = checkpoint.path.as_path();
    let own = ringload(&lab.tools, file, "");
    let mut clients = vec![own.clone(), own.again()];
    clients.extend(peers.clients(PEERS, &file.to_string_lossy()));
    clients.push(limit(&lab.tools, "plain read", "plain-read", file));
    let title = "200,000 tensors of 4 KiB in one warm file, opening included, all kept".to_owned();
    let case = case("tiny", "warm", title);
    let results = local_case(lab, case, clients, &checkpoint, CacheState::Warm)?;
    lab.reach("engine.tiny", results.ratio("ringload", "plain read", Figure::Seconds))
}
