//! The tools of a session: the binaries of this repository, which are built first, and directories.

use anyhow::{Context, Result, ensure};
use ringload_measure::process::Invocation;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Paths.
#[derive(Debug, Clone, Default)]
pub struct Tools {
    /// The repository.
    pub root: PathBuf,
    /// Cargo's target directory.
    pub target: PathBuf,
    /// The directory of checkpoints, peers and servers.
    pub keep: PathBuf,
    pub ringload: PathBuf,
    pub library: PathBuf,
    /// The cores that this process may use.
    cores: Vec<usize>,
}

/// What `cargo metadata` prints.
#[derive(Deserialize)]
struct Metadata {
    target_directory: PathBuf,
}

/// What `ringload doctor --json` prints.
#[derive(Deserialize)]
struct Diagnosis {
    findings: Vec<Finding>,
}

#[derive(Deserialize)]
struct Finding {
    topic: String,
    fact: String,
}

impl Tools {
    /// Builds the command and the C library.
    ///
    /// # Errors
    /// When that fails.
    pub fn build() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
        let root = root.context("perf/ is in a repository")?.to_owned();
        let mut cargo = Command::new("cargo");
        cargo.current_dir(&root).args(["build", "--release", "--locked", "--features", "capi"]);
        let built = cargo.status().context("cannot start cargo")?.success();
        ensure!(built, "ringload cannot be built");
        let metadata = Invocation::new("cargo").words("metadata --no-deps --format-version=1");
        let metadata = metadata.arg("--manifest-path").arg(root.join("Cargo.toml")).run()?;
        let target = metadata.json::<Metadata>()?.target_directory;
        Ok(Self::of(root, target))
    }

    /// The paths in `root`, with this target directory.
    pub fn of(root: PathBuf, target: PathBuf) -> Self {
        Self {
            keep: target.join("perf"),
            ringload: target.join("release/ringload"),
            library: target.join("release/libringload.so"),
            cores: cores(),
            root,
            target,
        }
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
    pub fn load(&self, location: impl AsRef<OsStr>) -> Invocation {
        Invocation::new(&self.ringload).args(["load", "--json"]).arg(location)
    }

    /// A limit that `ringload bench-reference` measures over `file`.
    pub fn reference(&self, kind_and_options: &str, file: &Path) -> Invocation {
        Invocation::new(&self.ringload).arg("bench-reference").words(kind_and_options).arg(file)
    }

    /// The findings of `ringload doctor` by topic.
    ///
    /// # Errors
    /// When it fails.
    pub fn doctor(&self) -> Result<BTreeMap<String, String>> {
        let doctor = Invocation::new(&self.ringload).args(["doctor", "--json"]).arg(&self.keep);
        let diagnosis: Diagnosis = doctor.run()?.json()?;
        Ok(diagnosis.findings.into_iter().map(|finding| (finding.topic, finding.fact)).collect())
    }
}

/// The cores that this process may use.
fn cores() -> Vec<usize> {
    use nix::sched::{CpuSet, sched_getaffinity};
    let Ok(set) = sched_getaffinity(nix::unistd::Pid::from_raw(0)) else { return Vec::new() };
    (0..CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false)).collect()
}
