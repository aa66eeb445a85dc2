//! The directory that a download writes to, and the part of it that holds incomplete files.

use super::names::outside;
use super::open_directory::{OpenDirectory, relative};
use crate::cache::CacheAdmin;
use crate::checkpoint::UNFINISHED_DOWNLOAD as STAGING;
use crate::error::{Error, Result, Size};
use crate::load::loader::{Loader, LoaderOptions};
use crate::load::verified_files::unverified;
use crate::location::LocationText;
use crate::options::{CacheSize, CacheValidate, MemoryLimit};
use crate::source::Cancellation;
use nix::errno::Errno;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The start of the names of files there that the download itself fills.
const FILE: &str = "file-";

/// How often a download looks whether another one has ended.
const LOCK_INTERVAL: Duration = Duration::from_millis(10);

/// The memory that a download uses.
const MEMORY_BYTES: u64 = 256 << 20;

/// The directory that a download writes to, locked against other downloads.
pub struct Staging {
    pub directory: PathBuf,
    /// The loader whose cache is in the directory.
    pub loader: Loader,
    /// The loader of the caller, if it verifies files.
    pub verifying: Option<Loader>,
    /// The staging directory.
    pub files: Arc<OpenDirectory>,
    target: OpenDirectory,
    /// Whether the download has not begun and no other one has left anything.
    pub is_disposable: bool,
    /// `None` where the file system has no locks.
    _lock: Option<File>,
    _new: NewDirectories,
}

/// The directories that were created for a download, the deepest first. Those that are empty are removed
/// on drop.
struct NewDirectories(Vec<PathBuf>);

impl NewDirectories {
    fn create(directory: &Path) -> Result<Self> {
        let fail = |cause| Error::from_io(format_args!("create {}", directory.display()), cause);
        let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
        let missing = directory.ancestors().take_while(is_missing).map(Path::to_owned).collect();
        let new = Self(missing);
        fs::create_dir_all(directory).map_err(fail)?;
        Ok(new)
    }
}

impl Drop for NewDirectories {
    fn drop(&mut self) {
        for directory in &self.0 {
            let _ = fs::remove_dir(directory); // unless something is in it
        }
    }
}

impl Staging {
    pub fn open(loader: &Loader, directory: &Path) -> Result<Self> {
        loader.check_download()?;
        if fs::metadata(directory).is_ok_and(|found| !found.is_dir()) {
            let shown = directory.display();
            let sentence = format!("cannot download to {shown}: it is a file; name a directory");
            return Err(Error::invalid_input(sentence));
        }
        let new = NewDirectories::create(directory)?;
        let lock = locked(directory, loader.opener.cancellation())?;
        let staging = directory.join(STAGING);
        let is_disposable = fs::symlink_metadata(&staging).is_err();
        CacheAdmin::open_download(&staging)?;
        let opened = OpenDirectory::open(directory).and_then(|target| {
            let files = target.directory(Path::new(STAGING), false)?.check_owner()?;
            Ok((target, Arc::new(files)))
        });
        let (target, files) = opened.map_err(unwritten(&staging))?;
        let options = LoaderOptions {
            memory_limit: Some(MemoryLimit::Bytes(MEMORY_BYTES)),
            engines: loader.options.engines,
            read_bytes: loader.options.read_bytes,
            checkpoint: loader.options.checkpoint.clone(),
            system_root: loader.options.system_root.clone(),
            ..LoaderOptions::default()
        };
        let verifying = loader.verifies_files().then(|| loader.clone());
        let opener = unverified(loader).opener;
        let loader = Loader { options, opener, ..Loader::new() };
        let loader = loader
            .cache_dir(staging)
            .cache_of_download()
            .cache_size(CacheSize::Unlimited)
            .cache_validate(CacheValidate::Always)
            .cache_waits_for_disk(true);
        let directory = directory.to_owned();
        Ok(Self {
            directory,
            loader,
            verifying,
            files,
            target,
            is_disposable,
            _lock: lock,
            _new: new,
        })
    }

    /// Creates the empty file that is to become target `number`.
    pub fn create(&self, number: usize) -> Result<StagedFile> {
        let name = format!("{FILE}{number}");
        let path = self.path().join(&name);
        // A file that a killed download left here may have become another file's name.
        let _ = self.files.remove_file(&name);
        self.files.create_file(&name).map_err(unwritten(&path))?;
        Ok(StagedFile { directory: Arc::clone(&self.files), name, path })
    }

    /// Removes the objects of which these would be the complete files.
    pub fn discard(&self, files: &[PathBuf]) {
        if let Ok(cache) = CacheAdmin::open_download(&self.path()) {
            files.iter().for_each(|file| cache.discard_object(file));
        }
    }

    /// The path in the staging directory of a file that the cache has filled.
    pub fn relative(&self, file: &Path) -> Result<PathBuf> {
        relative(file, &self.path()).map_err(unwritten(file))
    }

    /// Gives a file of the staging directory its final `name`.
    pub fn place(&self, from: &Path, name: &Path) -> Result<()> {
        let placed = || {
            let (parent, file) = name.parent().zip(name.file_name()).ok_or(Errno::EINVAL)?;
            let parent = self.below(parent).ok_or(Errno::EXDEV)?;
            self.files.place(from, &self.target.directory(&parent, true)?, Path::new(file))
        };
        placed().map_err(unwritten(&self.directory.join(name)))
    }

    /// The path of the directory `path` of the target without symbolic links, relative to the target;
    /// `None` if it is elsewhere.
    fn below(&self, path: &Path) -> Option<PathBuf> {
        let root = fs::canonicalize(&self.directory).ok()?;
        let (existing, canonical) = path
            .ancestors()
            .find_map(|path| Some((path, fs::canonicalize(root.join(path)).ok()?)))?;
        Some(canonical.strip_prefix(&root).ok()?.join(path.strip_prefix(existing).ok()?))
    }

    fn path(&self) -> PathBuf {
        self.directory.join(STAGING)
    }

    /// Checks that the files `names` can all be in the directory.
    pub fn check(&self, names: &[PathBuf]) -> Result<()> {
        for name in names {
            // A symbolic link in the directory may lead out of it.
            let stays = name.parent().is_some_and(|parent| self.below(parent).is_some());
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

    /// Removes the remaining cache entries of the files that were renamed, whose paths in the staging
    /// directory are `placed`, and the staging
    /// directory unless it holds other objects of an interrupted download.
    pub fn tidy(&self, placed: &[PathBuf]) {
        if let Ok(cache) = CacheAdmin::open_download(&self.path()) {
            let cached = placed.iter().filter(|file| file.parent() != Some(Path::new("")));
            cached.for_each(|file| cache.discard_object(&self.path().join(file)));
        }
        self.remove_empty();
    }

    /// The objects of other downloads, of which a part is in the staging directory.
    pub fn unfinished(&self) -> Vec<LocationText> {
        if fs::symlink_metadata(self.path()).is_err() {
            return Vec::new();
        }
        let entries = CacheAdmin::open_download(&self.path()).map(|cache| cache.entries());
        entries.unwrap_or_default().into_iter().map(|entry| entry.location).collect()
    }

    /// Removes the files of killed downloads, and the staging directory unless it holds objects.
    fn remove_empty(&self) {
        let is_ours = |name: &String| {
            let number = name.strip_prefix(FILE).unwrap_or_default();
            !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
        };
        let Ok(cache) = CacheAdmin::open_download(&self.path()) else { return };
        for name in self.files.names().unwrap_or_default().iter().filter(|name| is_ours(name)) {
            let _ = self.files.remove_file(name);
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

/// A file in the staging directory that the download itself fills. It is removed on drop, unless it was
/// renamed.
pub struct StagedFile {
    directory: Arc<OpenDirectory>,
    pub name: String,
    pub path: PathBuf,
}

impl StagedFile {
    /// Opens the file to write to it.
    pub fn open(&self) -> Result<File> {
        self.directory.file(&self.name).map_err(unwritten(&self.path))
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        let _ = self.directory.remove_file(&self.name);
    }
}

/// The `directory`, locked as soon as no other download has it; `None` where the file system has no
/// locks.
///
/// # Errors
/// [`Cancelled`](crate::ErrorKind::Cancelled).
fn locked(directory: &Path, cancellation: &Cancellation) -> Result<Option<File>> {
    let Ok(file) = File::open(directory) else { return Ok(None) };
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::Error(_)) => return Ok(None),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_INTERVAL),
        }
        cancellation.check()?;
    }
}

/// Turns the cause of a failure to write `path` into an error; for `map_err`.
pub fn unwritten(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |cause| Error::from_io(format_args!("write {}", path.display()), cause)
}
