//! The directories for files, which are removed at the end.

use nix::sys::statvfs::statvfs;
use ringload::{Device, Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

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

/// Directories of this process alone, removed on drop.
#[derive(Debug)]
pub struct Places {
    pub device: Device,
    /// The ringload command.
    pub ringload: PathBuf,
    disk: Own,
    tmpfs: Own,
}

#[derive(Debug)]
struct Own(PathBuf);

impl Own {
    fn below(parent: &Path, name: &str) -> Result<Self> {
        let path = parent.join(format!("ringload-gpu-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path)
            .map_err(|error| Error::from_io(format_args!("make {}", path.display()), error))?;
        Ok(Self(path))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("warning: {} stays behind: {error}", self.0.display());
        }
    }
}

impl Places {
    /// Creates the directories.
    ///
    /// # Errors
    /// If they cannot be created.
    pub fn new(args: &PlacesArgs) -> Result<Self> {
        let beside = || -> Result<PathBuf> {
            let own = std::env::current_exe()
                .map_err(|error| Error::from_io("find this command's executable", error))?;
            Ok(own.with_file_name("ringload"))
        };
        Ok(Self {
            device: Device::cuda(args.device),
            ringload: args.ringload.clone().map_or_else(beside, Ok)?,
            disk: Own::below(&args.dir, "disk")?,
            tmpfs: Own::below(&args.tmpfs, "tmpfs")?,
        })
    }

    /// On the disk.
    pub fn disk(&self) -> &Path {
        &self.disk.0
    }

    /// On tmpfs.
    pub fn tmpfs(&self) -> &Path {
        &self.tmpfs.0
    }
}

/// Fails unless `bytes` can be written below `path`.
///
/// # Errors
/// The required and the available bytes.
pub fn check_room(path: &Path, bytes: u64) -> Result<()> {
    let of = statvfs(path).map_err(|error| {
        Error::from_io(format_args!("look at {}", path.display()), error.into())
    })?;
    let free = of.blocks_available() as u64 * of.fragment_size() as u64;
    if free >= bytes {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Io,
        format!(
            "{} has {} MiB free and {} are needed; name another directory, or measure less (--size)",
            path.display(),
            free >> 20,
            bytes >> 20
        ),
    ))
}
