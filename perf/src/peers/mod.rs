//! Prepares the peers, the alternatives to ringload.
//!
//! ```text
//! perf/peers.toml     versions                    list
//! target/perf/peers/
//!   python/           a virtual environment       environment    (or one that is given)
//!   next/             a package that overrides    environment
//!   ringload/         our own package             own
//!   object-store/     a crate, and its program    object_store
//!   *.json            what each was made of       stamp
//! ```
//!
//! Then every client is checked once by loading a few bytes (`checks`). A peer that is not available
//! is no error: it is skipped, and the reason is reported. What is up to date is not built again, so
//! that a second start takes as long as reading these files and running cargo.

mod checks;
mod commands;
mod environment;
mod list;
mod object_store;
mod own;
mod peer;
mod stamp;

pub use peer::Peer;

use checks::Check;
use commands::Why;
use environment::Environment;
use list::List;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The directories, and the programs to call.
struct Places {
    /// The repository.
    root: PathBuf,
    /// The directory of the peers.
    peers: PathBuf,
    /// The target directory of cargo.
    target: PathBuf,
}

/// The peers that are ready.
pub struct Peers {
    places: Places,
    /// Where there is one.
    python: Option<PathBuf>,
    ready: Vec<Peer>,
    versions: BTreeMap<String, String>,
    skipped: Vec<(String, String)>,
}

impl Peers {
    /// Prepares the `wanted` peers. `root` is the repository, `keep` its target/perf; `with` is the
    /// Python of an environment that has the peers, where nothing is installed. `progress` is called
    /// with a line before each long step.
    ///
    /// # Errors
    ///
    /// When the list of versions is invalid, or nothing can be written below `keep`.
    pub fn prepare(
        root: &Path,
        keep: &Path,
        with: Option<&Path>,
        wanted: &[Peer],
        mut progress: impl FnMut(&str),
    ) -> anyhow::Result<Self> {
        let list = List::read(&root.join("perf/peers.toml"))?;
        let target = keep.parent().unwrap_or(keep).to_owned();
        let places = Places { root: root.to_owned(), peers: keep.join("peers"), target };
        std::fs::create_dir_all(&places.peers)?;
        let mut peers = Self {
            places,
            python: None,
            ready: Vec::new(),
            versions: BTreeMap::new(),
            skipped: Vec::new(),
        };
        peers.prepare_object_store(&list, wanted, &mut progress)?;
        peers.prepare_python(&list, with, wanted, &mut progress)?;
        Ok(peers)
    }

    /// The versions of the peers that are ready, by name.
    pub fn versions(&self) -> BTreeMap<String, String> {
        self.versions.clone()
    }

    /// The peers that are not ready, and why.
    pub fn skipped(&self) -> &[(String, String)] {
        &self.skipped
    }

    /// The Python of the environment of the peers, if there is one.
    pub fn python(&self) -> Option<&Path> {
        self.python.as_deref()
    }

    /// The command that loads `location` with `peer` and prints its figures (perf/peers/client.py).
    /// `location` is the result of [`Self::location`]. `None` if the peer was skipped or not wanted.
    pub fn command(&self, peer: Peer, location: &str) -> Option<Command> {
        if !self.ready.contains(&peer) {
            return None;
        }
        let mut command = match (peer, &self.python) {
            (Peer::ObjectStore, _) => Command::new(object_store::program(&self.places)),
            (_, Some(python)) => client(&self.places, python, peer),
            (_, None) => return None,
        };
        command.arg(location);
        Some(command)
    }

    /// The location that `peer` reads instead of `location`: for Tensorizer the same checkpoint in
    /// its own format, which is written beside the original if it is missing there, or older.
    ///
    /// # Errors
    ///
    /// With the reason why it could not be written.
    pub fn location(&self, peer: Peer, location: &str) -> anyhow::Result<String> {
        let Some(suffix) = peer.own_format() else {
            return Ok(location.to_owned());
        };
        let converted = format!("{location}{suffix}");
        if !is_newer(Path::new(&converted), Path::new(location)) {
            let mut command = self
                .command(peer, location)
                .ok_or_else(|| anyhow::anyhow!("{} is not ready", peer.title()))?;
            commands::run(command.arg("--convert"))
                .map_err(|why| anyhow::anyhow!("{location} cannot be converted: {why}"))?;
        }
        Ok(converted)
    }

    fn prepare_object_store(
        &mut self,
        list: &List,
        wanted: &[Peer],
        progress: &mut dyn FnMut(&str),
    ) -> anyhow::Result<()> {
        let peer = Peer::ObjectStore;
        if wanted.contains(&peer) {
            match object_store::prepare(&self.places, list, progress)? {
                Ok(version) => {
                    self.versions.insert(peer.title().to_owned(), version);
                    self.ready.push(peer);
                }
                Err(why) => self.skip(peer, why),
            }
        }
        Ok(())
    }

    fn prepare_python(
        &mut self,
        list: &List,
        with: Option<&Path>,
        wanted: &[Peer],
        progress: &mut dyn FnMut(&str),
    ) -> anyhow::Result<()> {
        let wanted: BTreeSet<_> = wanted.iter().copied().filter(|peer| peer.is_python()).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let made = match with {
            Some(python) => Ok(Environment::existing(python)),
            None => environment::prepare(&self.places, list, progress)?,
        };
        let environment = match made {
            Ok(environment) => environment,
            Err(why) => {
                wanted.into_iter().for_each(|peer| self.skip(peer, why.clone()));
                return Ok(());
            }
        };
        let layers = Layers::prepare(&self.places, list, &environment, &wanted, progress)?;
        let mut checks = checks::Checks::read(&self.places, &environment);
        for peer in wanted {
            let done = match environment.failed.get(peer.package()) {
                Some(why) => Err(why.clone()),
                None => layers.of(peer),
            };
            let checked = done.and_then(|()| {
                let command = client(&self.places, &environment.python, peer);
                checks.of(peer, layers.made_of(peer), command, progress)
            });
            match checked.and_then(|check| check.verified(peer, list, environment.is_given)) {
                Ok(check) => self.add(peer, check),
                Err(why) => self.skip(peer, why),
            }
        }
        checks.write()?;
        self.python = Some(environment.python);
        Ok(())
    }

    fn add(&mut self, peer: Peer, check: Check) {
        self.ready.push(peer);
        for (package, version) in check.versions {
            let name = if package == peer.package() { peer.version_name() } else { &package };
            self.versions.insert(name.to_owned(), version);
        }
    }

    fn skip(&mut self, peer: Peer, why: Why) {
        self.skipped.push((peer.title().to_owned(), why));
    }
}

/// The wanted packages that are layered over the environment.
struct Layers {
    next: Result<(), Why>,
    package: Result<(), Why>,
    library: Result<(), Why>,
    /// What our own package and library are made of.
    sources: String,
}

impl Layers {
    fn prepare(
        places: &Places,
        list: &List,
        environment: &Environment,
        wanted: &BTreeSet<Peer>,
        progress: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Self> {
        let mut layers =
            Self { next: Ok(()), package: Ok(()), library: Ok(()), sources: String::new() };
        let is_wanted = |peers: &[Peer]| wanted.iter().any(|peer| peers.contains(peer));
        if is_wanted(&[Peer::SafetensorsNext]) {
            layers.next = environment::prepare_next(places, list, environment, progress)?;
        }
        let ours = [Peer::RingloadPython, Peer::RingloadStream];
        if is_wanted(&ours) {
            layers.package = own::package(places, environment, progress)?;
        }
        if is_wanted(&[Peer::RingloadLibrary]) {
            layers.library = own::library(places, progress);
        }
        if is_wanted(&ours) || is_wanted(&[Peer::RingloadLibrary]) {
            layers.sources = own::sources(&places.root)?;
        }
        Ok(layers)
    }

    fn of(&self, peer: Peer) -> Result<(), Why> {
        match peer {
            Peer::SafetensorsNext => self.next.clone(),
            Peer::RingloadPython | Peer::RingloadStream => self.package.clone(),
            Peer::RingloadLibrary => self.library.clone(),
            _ => Ok(()),
        }
    }

    fn made_of(&self, peer: Peer) -> &str {
        match peer {
            Peer::RingloadPython | Peer::RingloadStream | Peer::RingloadLibrary => &self.sources,
            _ => "",
        }
    }
}

/// The command of a Python client, without its arguments.
fn client(places: &Places, python: &Path, peer: Peer) -> Command {
    let mut command = Command::new(python);
    // Python must not write compiled files to the source directory.
    command.arg("-B").arg(places.root.join("perf/peers/client.py")).arg(peer.client());
    let first: Option<OsString> = match peer {
        Peer::SafetensorsNext => Some(environment::next(places).into()),
        Peer::RingloadPython | Peer::RingloadStream => Some(own::package_folder(places).into()),
        _ => None,
    };
    // Overrides the packages of the environment.
    if let Some(first) = first {
        command.env("PYTHONPATH", first);
    }
    if peer == Peer::RingloadLibrary {
        command.env("STREAMER_LIBRARY", own::library_file(places));
    }
    command
}

fn is_newer(this: &Path, that: &Path) -> bool {
    let changed = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    changed(this).zip(changed(that)).is_some_and(|(this, that)| this >= that)
}

#[cfg(test)]
mod tests;
