//! The file system of the given path, and whether it supports direct I/O.
//!
//! In a directory, a small temporary file is read. If it cannot be written (for example in a
//! read-only mount of weights), the first file that is large enough is read instead.

use super::finding::Finding;
use crate::format;
use nix::sys::statfs::statfs;
use ringload::internals::probe_direct;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// The size of the probe's file: at least one block of any common block size.
const PROBE_BYTES: u64 = 64 << 10;

/// Examines the storage of `path`.
pub fn examine(path: &Path) -> Vec<Finding> {
    vec![file_system_finding(path), direct(path)]
}

fn file_system_finding(path: &Path) -> Finding {
    const TOPIC: &str = "file system";
    match file_system(path) {
        Ok(name) => Finding::info(TOPIC, format!("{name} at {}", path.display())),
        Err(error) => Finding::info(TOPIC, format!("unknown at {}: {error}", path.display())),
    }
}

/// The name of the file system of `path`.
///
/// # Errors
/// The errors of statfs(2).
pub fn file_system(path: &Path) -> io::Result<String> {
    // The magic number has 32 bits; the width of the field depends on the platform.
    let magic = statfs(path)?.filesystem_type().0 as u32;
    Ok(kind(magic))
}

/// The name for a magic number of statfs(2).
fn kind(magic: u32) -> String {
    let name = match magic {
        0x0000_EF53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683E => "btrfs",
        0x2FC1_2FC1 => "zfs",
        0xF2F5_2010 => "f2fs",
        0xCA45_1A4E => "bcachefs",
        0x0102_1994 => "tmpfs (files are in memory)",
        0x8584_58F6 => "ramfs (files are in memory)",
        0x794C_7630 => "overlayfs (a container layer; a volume is usually faster)",
        0x7371_7368 => "squashfs (compressed)",
        0xE0F5_E1E2 => "erofs",
        0x6573_5546 => "fuse (a program serves the files)",
        0x0000_6969 => "nfs (over the network)",
        0xFF53_4D42 | 0xFE53_4D42 => "smb (over the network)",
        0x0102_1997 => "9p (over a channel to the host)",
        0x00C3_6400 => "ceph (over the network)",
        0x0BD0_0BD0 => "lustre (over the network)",
        0x4750_4653 => "gpfs (over the network)",
        _ => return format!("of type {magic:#x}"),
    };
    name.into()
}

fn direct(path: &Path) -> Finding {
    const TOPIC: &str = "direct I/O";
    let probed = match Sample::on(path) {
        Ok(sample) => probe_direct(sample.path()),
        Err(error) => {
            return Finding::info(TOPIC, format!("not tested, there is no file to read ({error})"));
        }
    };
    match probed {
        Ok(block_bytes) => {
            Finding::ok(TOPIC, format!("works, in blocks of {}", format::size(block_bytes as u64)))
        }
        Err(error) => Finding::warn(
            TOPIC,
            format!("refused, files are read through the page cache ({error})"),
            ["keep checkpoints on a local ext4 or xfs file system"],
        ),
    }
}

/// A file to test direct reads with.
enum Sample {
    Found(PathBuf),
    Written(NamedTempFile),
}

impl Sample {
    fn on(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            return Ok(Sample::Found(path.into()));
        }
        write_sample(path)
            .map(Sample::Written)
            .or_else(|error| find_sample(path).map(Sample::Found).ok_or(error))
    }

    fn path(&self) -> &Path {
        match self {
            Sample::Found(path) => path,
            Sample::Written(file) => file.path(),
        }
    }
}

fn write_sample(directory: &Path) -> io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new().prefix(".ringload-doctor-").tempfile_in(directory)?;
    file.write_all(&[0; PROBE_BYTES as usize])?;
    // Otherwise the first direct read would have to write the blocks to disk.
    file.as_file().sync_data()?;
    Ok(file)
}

fn find_sample(directory: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).ok()?.flatten();
    let mut files = entries.map(|entry| entry.path());
    files.find(|path| path.metadata().is_ok_and(|m| m.is_file() && m.len() >= PROBE_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magic_numbers_have_names() {
        assert_eq!(kind(0xEF53), "ext4");
        assert_eq!(kind(0x1234), "of type 0x1234");
    }

    #[test]
    fn a_sample_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let sample = Sample::on(directory.path()).unwrap();
        assert_eq!(sample.path().metadata().unwrap().len(), PROBE_BYTES);
        assert_eq!(find_sample(directory.path()).as_deref(), Some(sample.path()));
        drop(sample);
        assert_eq!(find_sample(directory.path()), None);
    }
}
