//! An adapter of 100 MiB: how long after the process's start the first and the last tensor are there.
//!
//! What a server feels that fetches adapters by request. The crate is used as a server embeds it;
//! Python clients pay for their interpreter and for importing torch, as their users do.

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
