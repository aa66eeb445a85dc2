//! The scenarios, one file each: what is loaded by which clients, and for which targets.

mod adapter;
mod cache;
mod device;
mod engine;
mod local;
mod memory;
mod python;
mod remote;
mod scaling;
mod tiny;

use crate::client::{Check, Client, Reporting};
use crate::lab::{Lab, Setting};
use crate::page_cache::Warmth;
use crate::peers::{Peer, Peers};
use crate::records::{Case, Point, Role};
use crate::tools::Tools;
use anyhow::Result;
use clap::ValueEnum;
use std::path::Path;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Scenario {
    /// The engine compared with the limits of disk and memory (`ringload bench`), and planning
    Engine,
    /// A local file into host memory, cold and warm, beside all peers
    Local,
    /// The same under memory limits, beside Run:ai's streamer
    Memory,
    /// Very many very small tensors
    Tiny,
    /// An adapter of 100 MiB, from the start of the process to the first and last tensor
    Adapter,
    /// HTTP over loopback, beside curl, object_store and bare sockets
    Http,
    /// The same over TLS
    Https,
    /// S3 over loopback, beside Run:ai's streamer and object_store
    S3,
    /// The cost of checksums
    Verify,
    /// Peak memory of loads over the network
    RemoteMemory,
    /// The local file cache: first and second load
    Cache,
    /// From Python: tensors iterated, and Run:ai's own tests on the C library
    Python,
    /// Curves: engines, read size, slot size, ring size, connections, file size
    Scaling,
    /// Loads onto a GPU, if there is one
    Device,
}

impl Scenario {
    /// Its name on the command line and in the records.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The peers that it needs.
    pub fn peers(self) -> &'static [Peer] {
        match self {
            Scenario::Local => local::PEERS,
            Scenario::Memory => &[Peer::RunaiStreamer],
            Scenario::Tiny => tiny::PEERS,
            Scenario::Adapter => adapter::PEERS,
            Scenario::Http | Scenario::Https => &[Peer::ObjectStore],
            Scenario::S3 => &[Peer::RunaiS3, Peer::ObjectStore],
            Scenario::Python => &[Peer::RingloadPython, Peer::RingloadStream, Peer::RunaiStreamer],
            _ => &[],
        }
    }

    /// Runs the scenario.
    ///
    /// # Errors
    /// When ringload fails, or a tool is missing.
    pub fn run(self, lab: &mut Lab, peers: &Peers) -> Result<()> {
        match self {
            Scenario::Engine => engine::run(lab),
            Scenario::Local => local::run(lab, peers),
            Scenario::Memory => memory::run(lab, peers),
            Scenario::Tiny => tiny::run(lab, peers),
            Scenario::Adapter => adapter::run(lab, peers),
            Scenario::Http => remote::http(lab, peers),
            Scenario::Https => remote::https(lab, peers),
            Scenario::S3 => remote::s3(lab, peers),
            Scenario::Verify => remote::verify(lab),
            Scenario::RemoteMemory => remote::memory(lab),
            Scenario::Cache => cache::run(lab),
            Scenario::Python => python::run(lab, peers),
            Scenario::Scaling => scaling::run(lab),
            Scenario::Device => device::run(lab),
        }
    }
}

/// A case that is not a point of a curve.
fn case(scenario: &str, case: &str, title: String) -> Case {
    Case { scenario: scenario.into(), case: case.into(), title, point: None }
}

/// A point of a curve.
fn point(scenario: &str, curve: &str, unit: &str, x: f64, title: String) -> Case {
    let case = format!("{curve} {x}");
    let point = Some(Point { curve: curve.into(), unit: unit.into(), x });
    Case { scenario: scenario.into(), case, title, point }
}

/// ringload, loading `location` with these options; its digests are checked.
fn ringload(tools: &Tools, location: impl AsRef<std::ffi::OsStr>, options: &[&str]) -> Client {
    Client::new("ringload", Role::Own, tools.load(location).args(options))
        .checked_by(Check::Digests)
}

/// A limit that `ringload bench-reference` measures.
fn limit(tools: &Tools, name: &str, kind: &str, options: &[&str], file: &Path) -> Client {
    Client::new(name, Role::Limit, tools.reference(kind, options, file))
}

/// The `wanted` peers that run here, loading `location`; their bytes are checked by CRC-32.
fn clients(peers: &Peers, wanted: &[Peer], location: &str) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    for &peer in wanted {
        if peers.command(peer, location).is_none() {
            continue;
        }
        let location = peers.location(peer, location)?;
        let Some(command) = peers.command(peer, &location) else { continue };
        let role = if peer.is_own() { Role::Own } else { Role::Peer };
        let client = Client::new(peer.title(), role, (&command).into()).checked_by(Check::Sums);
        clients.push(client.reading(&location));
    }
    Ok(clients)
}

/// The setting for clients of a local file, which is put into its state before every run.
fn local_setting<'a>(
    prepare: &'a dyn Fn(&Client) -> Result<()>,
    checkpoint: &'a crate::files::Checkpoint,
) -> Setting<'a> {
    Setting { prepare, sums: Some(&checkpoint.sums), server: None, times: 1 }
}

/// Puts the file into its state, after `bytes` of memory were allocated and freed.
fn prepared<'a>(
    tools: &'a Tools,
    warmth: Warmth,
    file: &'a Path,
    bytes: u64,
) -> impl Fn(&Client) -> Result<()> + 'a {
    move |client| {
        tools.limit(&["settle", &bytes.to_string()]).run(None)?;
        warmth.prepare(client.reads.as_deref().unwrap_or(file))
    }
}

/// A client that reports no figures, so that those of its process are used.
fn silent(name: &str, role: Role, invocation: crate::child::Invocation, bytes: u64) -> Client {
    Client::new(name, role, invocation).reporting(Reporting::Nothing { bytes })
}
