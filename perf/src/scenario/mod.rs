//! The scenarios, one file each: what is loaded by which clients, and for which targets.

mod adapter;
mod cache;
mod device;
mod engine;
mod fuse;
mod local;
mod memory;
mod python;
mod remote;
mod scaling;
mod store;
mod tiny;

use crate::client::{Check, Client};
use crate::files::Checkpoint;
use crate::lab::{Lab, Setting};
use crate::measured::Measured;
use crate::peers::{self, Peer, Peers};
use crate::records::{Case, Point, Role};
use crate::tools::Tools;
use anyhow::{Result, ensure};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use ringload::internals::resident_bytes;
use ringload_measure::page_cache::CacheState;
use ringload_measure::process::Invocation;
use std::ffi::OsStr;
use std::path::Path;

/// What can be measured.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its name on the command line and in the records.
    pub name: &'static str,
    help: &'static str,
    /// The peers that it needs.
    pub peers: &'static [&'static Peer],
    pub run: fn(&mut Lab, &Peers) -> Result<()>,
}

const fn scenario(
    name: &'static str,
    help: &'static str,
    peers: &'static [&'static Peer],
    run: fn(&mut Lab, &Peers) -> Result<()>,
) -> Scenario {
    Scenario { name, help, peers, run }
}

/// All of them.
pub const ALL: &[Scenario] = &[
    scenario("engine", "Loads, the limits of disk and memory, planning", &[], engine::run),
    scenario("local", "A local file into host memory, cold and warm", local::PEERS, local::run),
    scenario("memory", "The same under memory limits", &[&peers::RUNAI], memory::run),
    scenario("tiny", "Very many very small tensors", tiny::PEERS, tiny::run),
    scenario("adapter", "An adapter of 100 MiB", adapter::PEERS, adapter::run),
    scenario("http", "HTTP over loopback", &[&peers::OBJECT_STORE], remote::http),
    scenario("https", "The same over TLS", &[&peers::OBJECT_STORE], remote::https),
    scenario("s3", "S3 over loopback", remote::S3_PEERS, remote::s3),
    scenario("store", "An emulated object store, slow and far away", store::PEERS, store::run),
    scenario("fuse", "A slow FUSE mount, with and without direct I/O", fuse::PEERS, fuse::run),
    scenario("verify", "The cost of checksums", &[], remote::verify),
    scenario("remote-memory", "Peak memory of loads over the network", &[], remote::memory),
    scenario("cache", "The local file cache: first and second load", &[], cache::run),
    scenario("python", "Tensors iterated, and Run:ai's own tests", python::PEERS, python::run),
    scenario("scaling", "Curves over options and sizes", &[], scaling::run),
    scenario("device", "Loads onto a GPU, if there is one", &[], device::run),
];

/// The one called `name`.
pub fn named(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name)
}

/// Parses the name of a scenario.
pub fn parser() -> impl TypedValueParser<Value = &'static Scenario> {
    let values = ALL.iter().map(|one| PossibleValue::new(one.name).help(one.help));
    PossibleValuesParser::new(values).try_map(|name| named(&name).ok_or("no such scenario"))
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
