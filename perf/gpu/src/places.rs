//! The directories for files, which are removed at the end.

use anyhow::{Context, Result, ensure};
use nix::sys::statvfs::statvfs;
use ringload::Device;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The GPU and the directories to use.
#[derive(Debug, Clone, clap::Args)]
pub struct PlacesArgs {
    /// The GPU's CUDA ordinal
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub device: u32,
    /// A directory on the disk to be measured
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// A directory on tmpfs
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    pub tmpfs: PathBuf,
    /// The ringload command [default: beside this one]
    #[arg(long, value_name = "FILE")]
    ringload: Option<PathBuf>,
}

/// Directories of this process alone, removed on drop. (The large checkpoint is in their parents,
/// because several steps load it.)
#[derive(Debug)]
pub struct Places {
    pub device: Device,
    /// The ringload command.
    pub ringload: PathBuf,
    disk: TempDir,
    tmpfs: TempDir,
}

impl Places {
    /// Creates the directories.
    ///
    /// # Errors
    /// If they cannot be created.
    pub fn new(args: &PlacesArgs) -> Result<Self> {
        let below = |parent: &Path| {
            let directory = tempfile::Builder::new().prefix("ringload-gpu-").tempdir_in(parent);
            directory.with_context(|| format!("cannot make a directory in {}", parent.display()))
        };
        Ok(Self {
            device: Device::cuda(args.device),
            ringload: Self::ringload(args)?,
            disk: below(&args.dir)?,
            tmpfs: below(&args.tmpfs)?,
        })
    }

    /// The ringload command.
    ///
    /// # Errors
    /// If the path of this executable is not known.
    pub fn ringload(args: &PlacesArgs) -> Result<PathBuf> {
        let beside = std::env::current_exe().context("cannot find this executable")?;
        Ok(args.ringload.clone().unwrap_or_else(|| beside.with_file_name("ringload")))
    }

    /// The disk and tmpfs.
    pub fn both(&self) -> [&Path; 2] {
        [self.disk(), self.tmpfs()]
    }

    /// On the disk.
    pub fn disk(&self) -> &Path {
        self.disk.path()
    }

    /// On tmpfs.
    pub fn tmpfs(&self) -> &Path {
        self.tmpfs.path()
    }
}

/// Fails unless `bytes` can be written below `path`.
///
/// # Errors
/// The required and the available bytes.
pub fn check_room(path: &Path, bytes: u64) -> Result<()> {
    let of = statvfs(path).with_context(|| format!("cannot look at {}", path.display()))?;
    let free = of.blocks_available() as u64 * of.fragment_size() as u64;
    ensure!(
        free >= bytes,
        "{} has {} MiB free and {} are needed; name another directory, or measure less (--size)",
        path.display(),
        free >> 20,
        bytes >> 20
    );
    Ok(())
}
