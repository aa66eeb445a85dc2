//! Removes the files of a checkpoint from the page cache before a cold run, and reads them into it
//! before a warm run.
//!
//! `posix_fadvise(POSIX_FADV_DONTNEED)` drops clean pages that are not in use, so files are synced
//! first. The call is only advice, so the page cache is checked afterwards. Files on tmpfs always
//! stay in memory and cannot be made cold.

use crate::failure::{Failure, Outcome};
use crate::format;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use ringload::internals::resident_bytes;
use ringload::{Checkpoint, Error, ErrorKind, Location};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// How much may be in the page cache (or missing from it), in thousandths of the bytes.
const TOLERANCE_THOUSANDTHS: u64 = 2;
const ATTEMPTS: usize = 3;

/// The files to measure.
#[derive(Debug)]
pub struct Files {
    paths: Vec<PathBuf>,
    bytes: u64,
}

/// The reason why the files could not be made cold or warm.
#[derive(Debug)]
pub struct NotReady(pub String);

impl Files {
    /// The files of `checkpoint`.
    ///
    /// # Errors
    /// When a shard is not a local file.
    pub fn of(checkpoint: &Checkpoint) -> Outcome<Self> {
        let mut paths = Vec::new();
        for shard in checkpoint.shards() {
            match shard.location() {
                Location::File(path) => paths.push(path.clone()),
                other => {
                    let sentence =
                        format!("{other} is not a local file; only local files can be measured");
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

    /// The length of all files, headers included.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Removes (nearly) all pages of the files from the page cache.
    ///
    /// # Errors
    /// When a file cannot be opened. The inner error says that pages stay.
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

    /// Reads (nearly) all pages of the files into the page cache.
    ///
    /// # Errors
    /// When a file cannot be read. The inner error says that pages do not stay.
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
            "the files cannot be kept warm: the page cache holds {} of {} after reading all of them",
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
