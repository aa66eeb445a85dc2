//! Puts the page cache into a known state before a run, and checks it.
//!
//! `posix_fadvise(POSIX_FADV_DONTNEED)` is only advice and skips dirty pages, so the file is synced
//! first and its resident pages are counted afterwards. If the state cannot be reached, that is an
//! error.

use anyhow::{Context, Result, ensure};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Whether files are in the page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warmth {
    Cold,
    Warm,
}

impl Warmth {
    pub fn as_str(self) -> &'static str {
        match self {
            Warmth::Cold => "cold",
            Warmth::Warm => "warm",
        }
    }

    /// Reads all of `path` into the page cache, or removes it.
    ///
    /// # Errors
    /// When the state is not reached.
    pub fn prepare(self, path: &Path) -> Result<()> {
        let cannot = || format!("cannot prepare {}", path.display());
        let mut file = File::open(path).with_context(cannot)?;
        let length = file.metadata()?.len();
        if self == Warmth::Warm {
            let mut buffer = vec![0; 1 << 20];
            while file.read(&mut buffer).with_context(cannot)? > 0 {}
        } else {
            file.sync_all().with_context(cannot)?;
            posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        }
        let resident =
            ringload::internals::resident_bytes(&file, 0, length).with_context(cannot)?;
        let wanted = if self == Warmth::Warm { length } else { 0 };
        ensure!(
            resident == wanted,
            "{} cannot be made {}: {resident} of {length} bytes are in the page cache{}",
            path.display(),
            self.as_str(),
            if self == Warmth::Warm {
                "; choose a smaller --size"
            } else {
                " (is it on tmpfs, or mapped?)"
            },
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_reached_or_an_error() {
        // Next to the executable, as /tmp may be on tmpfs.
        let directory = std::env::current_exe().unwrap().parent().unwrap().to_owned();
        let file = tempfile::NamedTempFile::new_in(directory).unwrap();
        std::fs::write(file.path(), vec![1; 1 << 20]).unwrap();
        Warmth::Warm.prepare(file.path()).unwrap();
        let resident = || ringload::internals::resident_bytes(file.as_file(), 0, 1 << 20).unwrap();
        assert_eq!(resident(), 1 << 20);
        if Warmth::Cold.prepare(file.path()).is_ok() {
            assert_eq!(resident(), 0);
        }
    }
}
