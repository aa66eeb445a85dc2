//! Prepares the peers, the alternatives to ringload.
//!
//! ```text
//! perf/peers.toml     the versions of the Python packages
//! target/perf/peers/
//!   python/           a virtual environment with all of them (or one that is given)
//!   next/             packages that override those, for one client
//!   ringload/         our own package, as cargo built its module
//!   object-store/     the target directory of perf/peers/object-store, a crate outside the workspace
//!   *.made-of         what each was installed from; it is installed again when that changes
//! ```
//!
//! A folder that overrides the environment is first in PYTHONPATH, so that no second environment,
//! with another torch, is needed. A peer that is not available is no error: it is skipped, and the
//! reason is reported. Whether a peer runs on this machine shows in the first turn of each case,
//! where its bytes are checked.

mod table;

pub use table::*;

use crate::client::{Check, Client};
use crate::records::Role;
use crate::tools::Tools;
use anyhow::{Context, Result};
use ringload_measure::process::Invocation;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Versions by name.
type Versions = BTreeMap<String, String>;

/// The packages to install: perf/peers.toml.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct List {
    /// Packages of the environment.
    python: Versions,
    /// Packages that override those, for one client.
    python_next: Versions,
    /// Packages that `perf/gpu.sh pack` takes to a machine with a GPU.
    gpu: Versions,
}

/// The peers that are ready.
pub struct Peers {
    tools: Tools,
    list: List,
    folder: PathBuf,
    /// The Python of the environment of the peers, if there is one.
    pub python: Option<PathBuf>,
    ready: Vec<&'static str>,
    /// The versions of the peers that are ready, by name.
    pub versions: Versions,
    /// The peers that are not ready, and why.
    pub skipped: Vec<(&'static str, String)>,
}

impl Peers {
    /// Prepares the `wanted` peers. `with` is the Python of an environment that has them, where
    /// nothing is installed.
    ///
    /// # Errors
    /// When the list of versions is invalid, or nothing can be written.
    pub fn prepare(tools: &Tools, with: Option<&Path>, wanted: &[&'static Peer]) -> Result<Self> {
        let list = fs::read_to_string(tools.root.join("perf/peers.toml"))?;
        let list = toml::from_str(&list).context("perf/peers.toml")?;
        let (tools, folder) = (tools.clone(), tools.keep.join("peers"));
        fs::create_dir_all(&folder)?;
        let (ready, versions, skipped) = (Vec::new(), Versions::new(), Vec::new());
        let mut peers = Self { tools, list, folder, python: None, ready, versions, skipped };
        let mut wanted = wanted.to_vec();
        wanted.sort_by_key(|peer| peer.title);
        wanted.dedup();
        let failed = if wanted.iter().any(|peer| peer.layer != Layer::Crate) {
            peers.prepare_environment(with)
        } else {
            Ok(Versions::new())
        };
        for peer in wanted {
            let layered = match &failed {
                Err(why) if peer.layer != Layer::Crate => Err(why.clone()),
                Ok(failed) if failed.contains_key(peer.package) => {
                    Err(failed[peer.package].clone())
                }
                _ => peers.prepare_layer(peer).map_err(|error| reason(&error.to_string())),
            };
            match layered {
                Ok(()) => peers.ready.push(peer.title),
                Err(why) => peers.skipped.push((peer.title, why)),
            }
        }
        Ok(peers)
    }

    /// The clients of those of the `peers` that are ready, loading `location`. Their bytes are checked.
    /// For a peer with a format of its own, the same checkpoint is written in that format
    /// next to the original, if it is missing there, or older.
    pub fn clients(&self, peers: &[&'static Peer], location: &str) -> Vec<Client> {
        let mut clients = Vec::new();
        for peer in peers.iter().filter(|peer| self.ready.contains(&peer.title)) {
            let file = format!("{location}{}", peer.suffix);
            if !peer.suffix.is_empty() && !is_newer(&file, location) {
                let converted = self.invocation(peer, location).arg("--convert").run();
                // Without its file, the client is left out in the first turn.
                let _ = converted.inspect_err(|error| eprintln!("  {}: {error}", peer.title));
            }
            let role = if peer.layer == Layer::Package { Role::Own } else { Role::Peer };
            let client = Client::new(peer.title, role, self.invocation(peer, &file));
            clients.push(Client { reads: Some(file.into()), ..client.checked_by(Check::Digests) });
        }
        clients
    }

    /// The command that loads `location` with `peer` and prints its figures.
    fn invocation(&self, peer: &Peer, location: &str) -> Invocation {
        let Some(python) = self.python.as_ref().filter(|_| peer.layer != Layer::Crate) else {
            return Invocation::new(self.folder.join("object-store/release/object-store"))
                .arg(location);
        };
        // Python must not write compiled files to the source directory.
        let script = self.tools.root.join("perf/peers/client.py");
        let client = Invocation::new(python).arg("-B").arg(script).args([peer.client, location]);
        match peer.layer {
            Layer::Next => client.env("PYTHONPATH", self.folder.join("next")),
            Layer::Package => client.env("PYTHONPATH", self.folder.join("ringload")),
            Layer::Library => client.env("STREAMER_LIBRARY", &self.tools.library),
            Layer::Plain | Layer::Crate => client,
        }
    }

    /// Makes the environment; returns the packages that could not be installed, and why.
    fn prepare_environment(&mut self, with: Option<&Path>) -> Result<Versions, String> {
        let (python, failed) = match with {
            Some(python) => (python.to_owned(), Versions::new()),
            None => self.install().map_err(|error| reason(&error.to_string()))?,
        };
        if let Ok(listed) = Invocation::new(&python).words("-m pip freeze").run() {
            let text = String::from_utf8_lossy(&listed.output);
            let packages = text.lines().filter_map(|line| line.split_once("=="));
            let ours = packages.filter(|(name, _)| self.list.python.contains_key(*name));
            self.versions.extend(ours.map(|(name, version)| (name.into(), version.into())));
        }
        self.python = Some(python);
        Ok(failed)
    }

    /// All packages are installed one by one, so that one that is not available does not keep the
    /// others out; the constraints keep those at their versions.
    fn install(&self) -> io::Result<(PathBuf, Versions)> {
        let folder = self.folder.join("python");
        let (python, mut failed) = (folder.join("bin/python"), Versions::new());
        let wanted = requirements(&self.list.python);
        let version = Invocation::new("python3").arg("--version").run()?.output;
        let made_of = format!("{}{}", String::from_utf8_lossy(&version), wanted.join("\n"));
        once(&folder, &made_of, || {
            if pip(&python).arg("--help").run().is_err() {
                Invocation::new("python3").words("-m venv --clear").arg(&folder).run()?;
            }
            let constraints = folder.join("constraints.txt");
            fs::write(&constraints, wanted.join("\n") + "\n")?;
            for (name, requirement) in self.list.python.keys().zip(&wanted) {
                let pip = pip(&python).arg("--constraint").arg(&constraints).arg(requirement);
                if let Err(error) = pip.run() {
                    failed.insert(name.clone(), reason(&error.to_string()));
                }
            }
            Ok(failed.is_empty())
        })?;
        Ok((python, failed))
    }

    /// Makes what the peer needs in addition to the environment.
    fn prepare_layer(&mut self, peer: &Peer) -> io::Result<()> {
        let (name, version) = match peer.layer {
            Layer::Plain | Layer::Library => return Ok(()),
            Layer::Next => {
                let (folder, wanted) =
                    (self.folder.join("next"), requirements(&self.list.python_next));
                let python = self.python.clone().unwrap_or_default();
                once(&folder, &format!("{} {wanted:?}", python.display()), || {
                    let pip = pip(&python).words("--no-deps --upgrade --target").arg(&folder);
                    pip.args(&wanted).run().map(|_| true)
                })?;
                (peer.title, self.list.python_next[peer.package].clone())
            }
            Layer::Package => {
                self.cargo("Cargo.toml", &self.tools.target, "--locked --package ringload-python")?;
                let package = self.folder.join("ringload/ringload");
                fs::create_dir_all(&package)?;
                Invocation::new("cp")
                    .args(["--recursive", "--no-target-directory"])
                    .arg(self.tools.root.join("python/ringload"))
                    .arg(&package)
                    .run()?;
                let module = self.tools.target.join("release/lib_ringload.so");
                fs::copy(module, package.join("_ringload.abi3.so"))?;
                (peer.package, env!("CARGO_PKG_VERSION").to_owned())
            }
            Layer::Crate => {
                let manifest = "perf/peers/object-store/Cargo.toml";
                self.cargo(manifest, &self.folder.join("object-store"), "")?;
                (peer.package, crate_version(&fs::read_to_string(self.tools.root.join(manifest))?)?)
            }
        };
        self.versions.insert(name.to_owned(), version);
        Ok(())
    }

    fn cargo(&self, manifest: &str, target: &Path, options: &str) -> io::Result<()> {
        eprintln!("building {manifest}, if it is not up to date");
        let cargo = Invocation::new("cargo").words("build --quiet --release").words(options);
        let cargo = cargo.arg("--manifest-path").arg(self.tools.root.join(manifest));
        cargo.arg("--target-dir").arg(target).run().map(drop)
    }
}

/// Runs `work`, unless `folder` was made of the same before. It returns whether all of it was made.
fn once(folder: &Path, made_of: &str, work: impl FnOnce() -> io::Result<bool>) -> io::Result<()> {
    let stamp = folder.with_extension("made-of");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == made_of) {
        return Ok(());
    }
    eprintln!("installing into {}: the first time that may be some GB", folder.display());
    if work()? { fs::write(stamp, made_of) } else { Ok(()) }
}

fn pip(python: &Path) -> Invocation {
    let options = "-m pip --quiet --disable-pip-version-check --no-input install";
    Invocation::new(python).words(options)
}

/// In the syntax of pip.
fn requirements(versions: &Versions) -> Vec<String> {
    versions.iter().map(|(name, version)| format!("{name}=={version}")).collect()
}

/// The exact version of object_store in the manifest of its client.
fn crate_version(manifest: &str) -> io::Result<String> {
    let manifest: toml::Table = manifest.parse().map_err(io::Error::other)?;
    let version = manifest["dependencies"]["object_store"]["version"].as_str();
    Ok(version.unwrap_or_default().trim_start_matches('=').to_owned())
}

fn is_newer(this: &str, that: &str) -> bool {
    let changed = |path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    changed(this).zip(changed(that)).is_some_and(|(this, that)| this >= that)
}

/// The most informative line of an error output: pip and cargo mark it, in Python it is the last.
fn reason(errors: &str) -> String {
    let lines = || errors.lines().map(str::trim).filter(|line| !line.is_empty());
    let marked = lines().find_map(|line| Some(line.split_once("ERROR: ")?.1));
    marked.or_else(|| lines().next_back()).unwrap_or(errors).to_owned()
}

#[cfg(test)]
mod tests;
