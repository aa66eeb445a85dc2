//! The directory that a download writes to, and the part of it that holds incomplete files.

use super::names::outside;
use crate::cache::CacheAdmin;
use crate::error::{Error, Result};
use crate::load::loader::{Loader, LoaderOptions};
use crate::options::{CacheSize, CacheValidate, MemoryLimit};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The directory inside the target that holds files until they are complete.
const STAGING: &str = ".ringload-download";

/// The memory that a download uses.
const MEMORY_BYTES: u64 = 256 << 20;

/// The directory that a download writes to, locked against other downloads.
pub struct Staging {
    pub directory: PathBuf,
    /// The loader whose cache is in the directory.
    pub loader: Loader,
    /// Whether the staging directory holds nothing that the next download could use.
    pub is_disposable: bool,
    /// `None` where the file system has no locks.
    _lock: Option<File>,
}

impl Staging {
    pub fn open(loader: &Loader, directory: &Path) -> Result<Self> {
        loader.check_not_verifying()?;
        let fail = |cause| Error::from_io(format_args!("create {}", directory.display()), cause);
        fs::create_dir_all(directory).map_err(fail)?;
        let lock = File::open(directory).and_then(|file| file.lock().map(|()| file)).ok();
        let staging = directory.join(STAGING);
        let is_disposable = !staging.exists();
        let options = LoaderOptions {
            memory_limit: Some(MemoryLimit::Bytes(MEMORY_BYTES)),
            engines: loader.options.engines,
            read_bytes: loader.options.read_bytes,
            system_root: loader.options.system_root.clone(),
            ..LoaderOptions::default()
        };
        let opener = Arc::clone(&loader.opener);
        let loader = Loader { options, opener, ..Loader::new() };
        let loader = loader
            .cache_dir(staging)
            .cache_size(CacheSize::Unlimited)
            .cache_validate(CacheValidate::Always)
            .cache_waits_for_disk(true);
        Ok(Self { directory: directory.to_owned(), loader, is_disposable, _lock: lock })
    }

    /// Creates the empty file that is to become target `number`.
    pub fn create(&self, number: usize) -> Result<PathBuf> {
        let file = self.path().join(format!("file-{number}"));
        let created = fs::create_dir_all(self.path()).and_then(|()| File::create(&file));
        created.map_err(unwritten(&file))?;
        Ok(file)
    }

    fn path(&self) -> PathBuf {
        self.directory.join(STAGING)
    }

    /// Checks that the files `names` can all be in the directory.
    pub fn check(&self, names: &[PathBuf]) -> Result<()> {
        let root = fs::canonicalize(&self.directory).map_err(unwritten(&self.directory))?;
        for name in names {
            // A symbolic link in the directory may lead out of it.
            let mut parents = root.join(name);
            parents.pop();
            let existing = parents.ancestors().find_map(|path| fs::canonicalize(path).ok());
            let stays = existing.is_some_and(|path| path.starts_with(&root));
            if !stays || name.as_os_str().is_empty() || name.starts_with(STAGING) {
                return Err(outside(name, &self.directory));
            }
        }
        let mut sorted: Vec<_> = names.iter().collect();
        sorted.sort();
        match sorted.windows(2).find(|pair| pair[1].starts_with(pair[0])) {
            None => Ok(()),
            Some(pair) => Err(Error::invalid_input(format!(
                "{} cannot hold both a file {} and a file {}; download them to different \
                 directories",
                self.directory.display(),
                pair[0].display(),
                pair[1].display()
            ))),
        }
    }

    /// Removes the remaining cache entries of the files that were renamed, and the staging
    /// directory unless it holds other objects of an interrupted download.
    pub fn tidy(&self, placed: &[PathBuf]) {
        for entry in placed.iter().filter_map(|file| file.parent()?.parent()) {
            if entry.starts_with(self.path()) && entry != self.path() {
                // An entry that cannot be removed is harmless.
                let _ = fs::remove_dir_all(entry);
            }
        }
        if CacheAdmin::open(self.path()).is_ok_and(|cache| cache.entries().is_empty()) {
            let _ = fs::remove_dir_all(self.path());
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.is_disposable {
            self.loader.flush(None);
            let _ = fs::remove_dir_all(self.path());
        }
    }
}

/// Turns the cause of a failure to write `path` into an error; for `map_err`.
pub fn unwritten(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |cause| Error::from_io(format_args!("write {}", path.display()), cause)
}
