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

use crate::client::{Check, Client};
use crate::files::Checkpoint;
use crate::lab::{Lab, Setting};
use crate::measured::Measured;
use crate::peers::{self, Peer, Peers};
use crate::records::{Case, Point, Role};
use crate::tools::Tools;
use anyhow::{Result, ensure};
use clap::ValueEnum;
use ringload::internals::resident_bytes;
use ringload_measure::page_cache::CacheState;
use ringload_measure::process::Invocation;
use std::ffi::OsStr;
use std::path::Path;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Scenario {
    /// The engine compared with the limits of disk and memory (`ringload bench`), and planning
    Engine,
    /// A local file into host memory, cold and warm, by all clients
    Local,
    /// The same under memory limits, also by Run:ai's streamer
    Memory,
    /// Very many very small tensors
    Tiny,
    /// An adapter of 100 MiB, from the start of the process to the first and last tensor
    Adapter,
    /// HTTP over loopback, also by curl, object_store and bare sockets
    Http,
    /// The same over TLS
    Https,
    /// S3 over loopback, also by Run:ai's library and object_store
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
    pub fn peers(self) -> &'static [&'static Peer] {
        match self {
            Scenario::Local => local::PEERS,
            Scenario::Memory => &[&peers::RUNAI],
            Scenario::Tiny => tiny::PEERS,
            Scenario::Adapter => adapter::PEERS,
            Scenario::Http | Scenario::Https => &[&peers::OBJECT_STORE],
            Scenario::S3 => remote::S3_PEERS,
            Scenario::Python => python::PEERS,
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
pub fn case(scenario: &str, case: &str, title: String) -> Case {
    Case { scenario: scenario.into(), case: case.into(), title, point: None }
}

/// A point of a curve.
fn point(scenario: &str, curve: &str, unit: &str, x: f64, title: String) -> Case {
    let case = format!("{curve} {x}");
    let point = Some(Point { curve: curve.into(), unit: unit.into(), x });
    Case { scenario: scenario.into(), case, title, point }
}

/// ringload, loading `location` with these options; its digests are checked.
fn ringload(tools: &Tools, location: impl AsRef<OsStr>, options: &str) -> Client {
    Client::new("ringload", Role::Own, tools.load(location).words(options))
        .checked_by(Check::Digests)
}

/// A limit that `ringload bench-reference` measures.
fn limit(tools: &Tools, name: &str, kind_and_options: &str, file: &Path) -> Client {
    Client::new(name, Role::Limit, tools.reference(kind_and_options, file))
}

/// A measurement in a process of this program: `ringload-perf limit`.
fn own_limit(words: &str) -> Result<Invocation> {
    Ok(Invocation::own()?.arg("limit").words(words))
}

/// A client that reports no figures, so that those of its process are used.
fn silent(name: &str, invocation: Invocation, bytes: u64) -> Client {
    Client { silent_bytes: Some(bytes), ..Client::new(name, Role::Peer, invocation) }
}

/// Puts all of `file` into the page cache, or removes it from there.
fn prepare(state: CacheState, file: &Path) -> Result<()> {
    let missed = state.prepare(&[file], resident_bytes)?;
    let hint = match state {
        CacheState::Cold => "are in the page cache (is it on tmpfs, or mapped?)",
        CacheState::Warm => "are not in the page cache; choose a smaller --size",
    };
    let (file, state) = (file.display(), state.as_str());
    ensure!(missed == 0, "{file} cannot be made {state}: {missed} bytes of it {hint}");
    Ok(())
}

/// Runs the clients of a local file. Before every run the file is put into its state, and memory is
/// allocated and freed, as much as the file takes.
fn local_case(
    lab: &mut Lab,
    case: Case,
    clients: Vec<Client>,
    checkpoint: &Checkpoint,
    state: CacheState,
) -> Result<Measured> {
    let settle = own_limit(&format!("settle {}", checkpoint.shape.bytes().min(lab.size_bytes)))?;
    let ready = |client: &Client| {
        settle.run()?;
        prepare(state, client.reads.as_deref().unwrap_or(&checkpoint.path))
    };
    let sums = Some(&checkpoint.sums);
    lab.case(case, clients, &Setting { prepare: Some(&ready), sums, ..Setting::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_reached_or_an_error() {
        // Next to the executable, as /tmp may be on tmpfs.
        let directory = std::env::current_exe().unwrap().parent().unwrap().to_owned();
        let file = tempfile::NamedTempFile::new_in(directory).unwrap();
        std::fs::write(file.path(), vec![1; 1 << 20]).unwrap();
        prepare(CacheState::Warm, file.path()).unwrap();
        let resident = || resident_bytes(file.as_file(), 0, 1 << 20).unwrap();
        assert_eq!(resident(), 1 << 20);
        if prepare(CacheState::Cold, file.path()).is_ok() {
            assert_eq!(resident(), 0);
        }
    }
}
