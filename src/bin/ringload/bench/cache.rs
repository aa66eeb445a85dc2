//! The files of a checkpoint and the page cache: emptied before a cold run, filled before a warm one.
//!
//! `posix_fadvise(POSIX_FADV_DONTNEED)` drops clean pages that nobody uses, so the file is synced
//! first; and it is only advice, so the cache is looked at afterwards. tmpfs keeps every page: its
//! files cannot be made cold.

use crate::failure::{Failure, Outcome};
use crate::format;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use ringload::internals::resident_bytes;
use ringload::{Checkpoint, Error, ErrorKind, Location};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// So much may stay behind, or be missing, in thousandths of the bytes.
const TOLERANCE_THOUSANDTHS: u64 = 2;
const ATTEMPTS: usize = 3;

/// The files that are measured.
#[derive(Debug)]
pub struct Files {
    paths: Vec<PathBuf>,
    bytes: u64,
}

/// Why files are not in the state that a run needs.
#[derive(Debug)]
pub struct NotReady(pub String);

impl Files {
    /// The files of `checkpoint`.
    ///
    /// # Errors
    /// When a shard is no local file.
    pub fn of(checkpoint: &Checkpoint) -> Outcome<Self> {
        let mut paths = Vec::new();
        for shard in checkpoint.shards() {
            match shard.location() {
                Location::File(path) => paths.push(path.clone()),
                other => {
                    let sentence = format!("{other} is no local file; only those are measured");
                    return Err(Error::new(ErrorKind::Unsupported, sentence).into());
                }
            }
        }
        let bytes = checkpoint.shards().iter().map(|shard| shard.len_bytes()).sum();
        Ok(Self { paths, bytes })
    }

    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Of all files, headers included.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Leaves (nearly) nothing of the files in the page cache.
    ///
    /// # Errors
    /// When a file cannot be opened. That pages stay is the inner error.
    pub fn make_cold(&self) -> Outcome<Result<(), NotReady>> {
        let mut resident = self.resident()?;
        for _ in 0..ATTEMPTS {
            self.each(drop_cached)?;
            resident = self.resident()?;
            if within_tolerance(resident, self.bytes) {
                return Ok(Ok(()));
            }
        }
        Ok(Err(NotReady(format!(
            "the files cannot be made cold: {} of {} stay in the page cache (they are on tmpfs, or \
             another process has them mapped)",
            format::size(resident),
            format::size(self.bytes)
        ))))
    }

    /// Brings (nearly) all of the files into the page cache.
    ///
    /// # Errors
    /// When a file cannot be read. That pages do not stay is the inner error.
    pub fn make_warm(&self) -> Outcome<Result<(), NotReady>> {
        let mut resident = self.resident()?;
        for _ in 0..ATTEMPTS {
            if within_tolerance(self.bytes.saturating_sub(resident), self.bytes) {
                return Ok(Ok(()));
            }
            self.each(read_all)?;
            resident = self.resident()?;
        }
        Ok(Err(NotReady(format!(
            "the files cannot be kept warm: the page cache holds {} of {} after reading all",
            format::size(resident),
            format::size(self.bytes)
        ))))
    }

    fn resident(&self) -> Outcome<u64> {
        let mut sum = 0;
        self.each(|file| {
            sum += resident_bytes(file, 0, file.metadata()?.len())?;
            Ok(())
        })?;
        Ok(sum)
    }

    fn each(&self, mut act: impl FnMut(&File) -> io::Result<()>) -> Outcome {
        for path in &self.paths {
            File::open(path).and_then(|file| act(&file)).map_err(|error| cannot(path, error))?;
        }
        Ok(())
    }
}

fn cannot(path: &Path, error: io::Error) -> Failure {
    Error::from_io(format_args!("prepare {}", path.display()), error).into()
}

fn within_tolerance(bytes: u64, of: u64) -> bool {
    bytes.saturating_mul(1000) <= of.saturating_mul(TOLERANCE_THOUSANDTHS)
}

fn drop_cached(file: &File) -> io::Result<()> {
    file.sync_all()?;
    posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    Ok(())
}

fn read_all(mut file: &File) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    while file.read(&mut buffer)? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_pages_do_not_count() {
        assert!(within_tolerance(0, 0));
        assert!(within_tolerance(2, 1000));
        assert!(!within_tolerance(3, 1000));
    }

    #[test]
    fn files_are_warm_after_make_warm() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, vec![1; 1 << 20]).unwrap();
        let files = Files { paths: vec![path], bytes: 1 << 20 };
        files.make_warm().unwrap().unwrap();
        assert_eq!(files.resident().unwrap(), 1 << 20);
    }
}
