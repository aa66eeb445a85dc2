//! Copies of checkpoints in huge pages.
//!
//! Files of most file systems are cached in small pages. A tmpfs that is mounted with `huge=always` has
//! huge ones, and whoever maps its files has one page fault for 2 MiB and not for 4 KiB. hugetlbfs is no
//! place for them: its files end at multiples of a huge page, and a safetensors file with bytes behind
//! its end is not valid.

use crate::failure::{Failure, Outcome};
use nix::sys::statfs::{HUGETLBFS_MAGIC, TMPFS_MAGIC, statfs};
use ringload::internals::shown;
use ringload::{Error, Loader, Location};
use ringload_measure::system::read_text;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Files in a directory, which are removed when this value is dropped.
#[derive(Debug)]
pub struct Copies {
    directory: PathBuf,
    files: Vec<PathBuf>,
}

impl Copies {
    /// Copies the files of a checkpoint to `directory`, which has huge pages and no files.
    ///
    /// # Errors
    /// [`Failure::Usage`] for a directory that does not exist, has files, or has small pages; the errors
    /// of reading the checkpoint and of writing the copies.
    pub fn make(loader: &Loader, locations: Vec<Location>, directory: &Path) -> Outcome<Self> {
        check(directory)?;
        let mut copies = Self { directory: directory.to_owned(), files: Vec::new() };
        match loader.download_checkpoint(locations, directory).and_then(|copy| copy.finish()) {
            Ok(copied) => copies.files = copied.files,
            Err(error) => {
                copies.files = names(directory).unwrap_or_default();
                return Err(error.into());
            }
        }
        Ok(copies)
    }

    /// Where the copies are.
    pub fn location(&self) -> Location {
        Location::File(self.directory.clone())
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        for path in &self.files {
            let removed = match path.is_dir() {
                true => fs::remove_dir_all(path),
                false => fs::remove_file(path),
            };
            if let Err(cause) = removed {
                tracing::warn!("cannot remove {}: {cause}", shown(path.display()));
            }
        }
    }
}

/// Whether the directory has huge pages and is empty.
fn check(directory: &Path) -> Outcome {
    let path = shown(directory.display());
    let failed = |cause| Error::from_io(format!("examine {path}"), cause);
    if !names(directory).map_err(failed)?.is_empty() {
        return Err(Failure::usage(format!(
            "{path} is not empty; --huge takes an empty directory"
        )));
    }
    let kind = statfs(directory).map_err(|errno| failed(io::Error::from(errno)))?.filesystem_type();
    let mounts = read_text("/proc/self/mountinfo").unwrap_or_default();
    let directory = directory.canonicalize().map_err(failed)?;
    if kind == TMPFS_MAGIC && has_huge_pages(&mounts, &directory) {
        return Ok(());
    }
    let why = match kind {
        HUGETLBFS_MAGIC => {
            "is on hugetlbfs, where the length of a file is a multiple of a huge page, which that of a \
             safetensors file is not"
        }
        TMPFS_MAGIC => "is on a tmpfs with small pages",
        _ => "is not on a tmpfs",
    };
    let sentence = format!(
        "{path} {why}; mount one with huge pages: mount -t tmpfs -o huge=always,size=100G tmpfs DIR"
    );
    Err(Failure::usage(sentence))
}

/// Whether the tmpfs of `directory` was mounted to have huge pages, by the text of
/// /proc/self/mountinfo. The last mount at the longest path counts.
fn has_huge_pages(mounts: &str, directory: &Path) -> bool {
    let points = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let point = Path::new(words.nth(4)?);
        directory.starts_with(point).then_some((point, line.rsplit(' ').next()?))
    });
    let mount = points.max_by_key(|(point, _)| point.components().count());
    let is_huge = |option: &str| matches!(option, "huge=always" | "huge=within_size");
    mount.is_some_and(|(_, options)| options.split(',').any(is_huge))
}

/// What is in a directory.
fn names(directory: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_of_the_directory_decides() {
        let mounts = "\
21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
42 21 0:39 / /mnt/huge rw,relatime shared:5 - tmpfs tmpfs rw,size=6G,huge=always
43 42 0:40 / /mnt/huge/small rw - tmpfs tmpfs rw,size=6G
44 21 0:41 / /mnt/never rw - tmpfs tmpfs rw,huge=never";
        let huge = |path| has_huge_pages(mounts, Path::new(path));
        assert!(huge("/mnt/huge") && huge("/mnt/huge/model"));
        assert!(!huge("/mnt/huge/small/model") && !huge("/mnt/never") && !huge("/mnt/hugest"));
    }

    #[test]
    fn a_directory_with_small_pages_or_with_files_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let refused = check(directory.path()).unwrap_err();
        assert!(matches!(refused, Failure::Usage(_)), "{refused:?}");
        assert!(refused.to_string().contains("huge=always"), "{refused}");
        fs::write(directory.path().join("mine"), b"kept").unwrap();
        let refused = check(directory.path()).unwrap_err();
        assert!(refused.to_string().contains("not empty"), "{refused}");
    }
}
