//! An adapter of 100 MiB: the time from the start of the process to the first and the last tensor.
//!
//! This is the latency of a server that loads adapters on request. The crate is used as a server
//! embeds it; the times of Python clients include the interpreter and the import of torch.

use super::{case, local_case, own_limit};
use crate::client::Client;
use crate::files::Shape;
use crate::lab::Lab;
use crate::peers::{self, Peer, Peers};
use crate::records::Role;
use anyhow::Result;
use ringload_measure::page_cache::CacheState;

const SHAPE: Shape = Shape { tensors: 400, tensor_bytes: 256 << 10 };

pub const PEERS: &[&Peer] = &[
    &peers::RINGLOAD_STREAM,
    &peers::RUNAI,
    &peers::SAFETENSORS,
    &peers::SAFETENSORS_NEXT,
    &peers::FASTSAFETENSORS,
];

pub fn run(lab: &mut Lab, peers: &Peers) -> Result<()> {
    let checkpoint = lab.checkpoint(SHAPE)?;
    for state in [CacheState::Cold, CacheState::Warm] {
        let invocation = own_limit("adapter")?.arg(&checkpoint.path);
        let own = Client::new("ringload (crate)", Role::Own, invocation);
        let mut clients = vec![own.clone(), own.again()];
        clients.extend(peers.clients(PEERS, &checkpoint.path.to_string_lossy()));
        let name = state.as_str();
        let title = format!("adapter of 100 MiB, {name}: from the process's start to its tensors");
        local_case(lab, case("adapter", name, title), clients, &checkpoint, state)?;
    }
    Ok(())
}
