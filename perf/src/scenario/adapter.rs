//! An adapter of 100 MiB: the time from the start of the process to the first and the last tensor.
//!
//! This is the latency of a server that loads adapters on request. The crate is used as a server
//! embeds it; the times of Python clients include the interpreter and the import of torch.

use super::{case, local_setting, prepared};
use crate::client::Client;
use crate::files::{Checkpoint, Shape};
use crate::lab::Lab;
use crate::page_cache::Warmth;
use crate::peers::{Peer, Peers};
use crate::records::Role;
use anyhow::Result;

const SHAPE: Shape = Shape { tensors: 400, tensor_bytes: 256 << 10 };

pub const PEERS: &[Peer] = &[
    Peer::RingloadStream,
    Peer::RunaiStreamer,
    Peer::Safetensors,
    Peer::SafetensorsNext,
    Peer::Fastsafetensors,
];

pub fn run(lab: &mut Lab, peers: &Peers) -> Result<()> {
    let checkpoint = Checkpoint::kept(&lab.tools.keep.join("objects"), SHAPE)?;
    let (tools, file) = (lab.tools.clone(), checkpoint.path.as_path());
    for warmth in [Warmth::Cold, Warmth::Warm] {
        let invocation = tools.limit(&["adapter"]).arg(file);
        let own = Client::new("ringload (crate)", Role::Own, invocation);
        let mut clients = vec![own.clone(), own.again()];
        clients.extend(super::clients(peers, PEERS, &file.to_string_lossy())?);
        let state = warmth.as_str();
        let title = format!("adapter of 100 MiB, {state}: from the process's start to its tensors");
        let prepare = prepared(&tools, warmth, file, SHAPE.bytes());
        lab.case(case("adapter", state, title), clients, &local_setting(&prepare, &checkpoint))?;
    }
    Ok(())
}
