//! The directory that a download writes to, and the part of it that holds incomplete files.

use super::names::outside;
use crate::cache::CacheAdmin;
use crate::error::{Error, Result, Size};
use crate::load::loader::{Loader, LoaderOptions};
use crate::options::{CacheSize, CacheValidate, MemoryLimit};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The directory inside the target that holds files until they are complete.
const STAGING: &str = ".ringload-download";

/// The start of the names of files there that the download itself fills.
const FILE: &str = "file-";

/// The memory that a download uses.
const MEMORY_BYTES: u64 = 256 << 20;

/// The directory that a download writes to, locked against other downloads.
pub struct Staging {
    pub directory: PathBuf,
    /// The loader whose cache is in the directory.
    pub loader: Loader,
    /// Whether the download has not begun and no other one has left anything.
    pub is_disposable: bool,
    /// `None` where the file system has no locks.
    _lock: Option<File>,
}

impl Staging {
    pub fn open(loader: &Loader, directory: &Path) -> Result<Self> {
        loader.check_not_verifying()?;
        if fs::metadata(directory).is_ok_and(|found| !found.is_dir()) {
            let shown = directory.display();
            let sentence = format!("cannot download to {shown}: it is a file; name a directory");
            return Err(Error::invalid_input(sentence));
        }
        let fail = |cause| Error::from_io(format_args!("create {}", directory.display()), cause);
        fs::create_dir_all(directory).map_err(fail)?;
        let lock = File::open(directory).and_then(|file| file.lock().map(|()| file)).ok();
        let staging = directory.join(STAGING);
        let is_disposable = fs::symlink_metadata(&staging).is_err();
        CacheAdmin::open_download(&staging)?;
        let options = LoaderOptions {
            memory_limit: Some(MemoryLimit::Bytes(MEMORY_BYTES)),
            engines: loader.options.engines,
            read_bytes: loader.options.read_bytes,
            checkpoint: loader.options.checkpoint.clone(),
            system_root: loader.options.system_root.clone(),
            ..LoaderOptions::default()
        };
        let opener = Arc::clone(&loader.opener);
        let loader = Loader { options, opener, ..Loader::new() };
        let loader = loader
            .cache_dir(staging)
            .cache_of_download()
            .cache_size(CacheSize::Unlimited)
            .cache_validate(CacheValidate::Always)
            .cache_waits_for_disk(true);
        Ok(Self { directory: directory.to_owned(), loader, is_disposable, _lock: lock })
    }

    /// Creates the empty file that is to become target `number`.
    pub fn create(&self, number: usize) -> Result<PathBuf> {
        let file = self.path().join(format!("{FILE}{number}"));
        // A file that a killed download left here may have become another file's name.
        let _ = fs::remove_file(&file);
        File::create_new(&file).map_err(unwritten(&file))?;
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

    /// `error`, with which a download has failed, and how to go on, if a part of it has arrived.
    pub fn explain(&self, error: Error) -> Error {
        match self.arrived_bytes() {
            0 => error,
            bytes => error.adding(format_args!(
                "; {} of the download are kept in {}, and the same download goes on from there",
                Size(bytes),
                self.path().display()
            )),
        }
    }

    /// How many bytes have arrived. Removes the entries of objects of which nothing has.
    fn arrived_bytes(&self) -> u64 {
        self.loader.flush(None);
        CacheAdmin::open_download(&self.path()).map_or(0, |cache| cache.discard_blank())
    }

    /// Removes the remaining cache entries of the files that were renamed, and the staging
    /// directory unless it holds other objects of an interrupted download.
    pub fn tidy(&self, placed: &[PathBuf]) {
        if let Ok(cache) = CacheAdmin::open_download(&self.path()) {
            let cached = placed.iter().filter(|file| file.parent() != Some(&self.path()));
            cached.for_each(|file| cache.discard_object(file));
        }
        self.remove_empty();
    }

    /// Removes the files of killed downloads, and the staging directory unless it holds objects.
    fn remove_empty(&self) {
        let is_ours = |file: &PathBuf| {
            let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let number = name.strip_prefix(FILE).unwrap_or_default();
            !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
        };
        let Ok(cache) = CacheAdmin::open_download(&self.path()) else { return };
        let files = fs::read_dir(self.path()).into_iter().flatten().flatten();
        for file in files.map(|file| file.path()).filter(is_ours) {
            let _ = fs::remove_file(file);
        }
        cache.remove_empty();
    }
}

impl Drop for Staging {
    /// Leaves nothing behind of a download of which nothing has arrived.
    fn drop(&mut self) {
        if fs::symlink_metadata(self.path()).is_err() {
            return; // the download is complete
        }
        self.loader.flush(None);
        if let Ok(cache) = CacheAdmin::open_download(&self.path()) {
            match self.is_disposable {
                true => cache.discard_all(),
                false => _ = cache.discard_blank(),
            }
        }
        self.remove_empty();
    }
}

/// Turns the cause of a failure to write `path` into an error; for `map_err`.
pub fn unwritten(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |cause| Error::from_io(format_args!("write {}", path.display()), cause)
}
