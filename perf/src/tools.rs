//! The tools of a session: the binaries of this repository, which are built first, and directories.

use crate::child::Invocation;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Paths.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The repository.
    pub root: PathBuf,
    /// The directory of checkpoints, peers and servers.
    pub keep: PathBuf,
    pub ringload: PathBuf,
    pub library: PathBuf,
    /// This program, for the limits that it measures itself.
    pub own: PathBuf,
    cores: Vec<usize>,
}

impl Tools {
    /// Builds the command and the C library.
    ///
    /// # Errors
    /// When that fails.
    pub fn build() -> Result<Self> {
        let own = std::env::current_exe()?;
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("perf/ is in a repository")?;
        let mut cargo = Command::new("cargo");
        cargo.current_dir(root).args(["build", "--release", "--locked", "--features", "capi"]);
        ensure!(
            cargo.status().context("cannot start cargo")?.success(),
            "ringload cannot be built"
        );
        let target = target(root)?;
        let release = target.join("release");
        Ok(Self {
            root: root.to_owned(),
            keep: target.join("perf"),
            ringload: release.join("ringload"),
            library: release.join("libringload.so"),
            own,
            cores: cores(),
        })
    }

    /// The core of the clients, and that of the servers, which may be the same.
    pub fn client_core(&self) -> Option<usize> {
        self.cores.last().copied()
    }

    pub fn server_core(&self, apart: bool) -> Option<usize> {
        if apart { self.cores.first().copied() } else { self.client_core() }
    }

    pub fn core_count(&self) -> usize {
        self.cores.len()
    }

    /// `ringload load` with the options of every measured load.
    pub fn load(&self, location: impl AsRef<std::ffi::OsStr>) -> Invocation {
        Invocation::new(&self.ringload).args(["load", "--json"]).arg(location)
    }

    /// A limit that `ringload bench-reference` measures over `file`.
    pub fn reference(&self, kind: &str, options: &[&str], file: &Path) -> Invocation {
        Invocation::new(&self.ringload).arg("bench-reference").args(options).arg(kind).arg(file)
    }

    /// A limit that this program measures itself.
    pub fn limit(&self, arguments: &[&str]) -> Invocation {
        Invocation::new(&self.own).arg("limit").args(arguments)
    }

    /// The findings of `ringload doctor` by topic.
    ///
    /// # Errors
    /// When it fails.
    pub fn doctor(&self) -> Result<BTreeMap<String, String>> {
        let output =
            Invocation::new(&self.ringload).args(["doctor", "--json"]).arg(&self.keep).run(None)?;
        let output: Value = serde_json::from_slice(&output.output)?;
        let findings = output["findings"].as_array().cloned().unwrap_or_default();
        let text =
            |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        Ok(findings.iter().map(|finding| (text(finding, "topic"), text(finding, "fact"))).collect())
    }
}

/// Cargo's target directory.
fn target(root: &Path) -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root).args(["metadata", "--no-deps", "--format-version=1", "--locked"]);
    let output = cargo.output().context("cannot start cargo")?;
    let output: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    Ok(output["target_directory"].as_str().context("cargo names its target directory")?.into())
}

/// The cores that this process may use.
fn cores() -> Vec<usize> {
    use nix::sched::{CpuSet, sched_getaffinity};
    let Ok(set) = sched_getaffinity(nix::unistd::Pid::from_raw(0)) else { return Vec::new() };
    (0..CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false)).collect()
}
