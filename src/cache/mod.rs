//! The local file cache: objects of stores are written to disk while they are loaded, and read from
//! there by later loads.
//!
//! ```text
//! Opener --RemoteObject--> Cache::open --> Entries: which entry? still valid? --> CachedSource (one a shard)
//!                                                                            |
//!    engine's task <---- CachedReader: present pages from the file, others from the store
//!           | window filled                    ^
//!           v                                  | pages that other loads write meanwhile
//!      Part of the slot ----> Writer (two threads): direct write, then the pages' checksums
//! ```
//!
//! # On disk
//!
//! ```text
//! DIR/CACHEDIR.TAG                             says that the directory was empty, and is a cache
//!    /lock                                     byte ranges of it are locked; it stays empty
//!    /listings/<hash>                          listings of stores' directories, for use offline
//!    /<hash of the address>/<hash of the identity>/
//!        entry                                 metadata: text with a checksum; its time: last validated
//!        pages                                 8 bytes a page of 4 KiB: its checksum, or zero
//!        partial                               the object's bytes at their own offsets, with holes
//!        data.safetensors                      the same file, renamed once it is complete
//!        used                                  empty; its time: last used
//! ```
//!
//! An entry is named after the object's address (without secrets) and its identity: its length and
//! its ETag, or else its modification time. A replaced object therefore has another entry, and
//! never mixes with readers of the old one. A new entry is created under a temporary name and then
//! renamed. The data file is renamed when it is complete, so `data.safetensors` always has all
//! bytes of the object, for any program.
//!
//! # Correctness
//!
//! The checksum of a page is its CRC-64, mixed with the page's number and the entry's names. It is
//! written after the page, and a page is read only with its checksum: each read checks its pages,
//! on a thread other than the engine's, before anything is delivered. So a kill, a power loss, a
//! broken disk or a flipped bit in data or checksums results in a missing page, which is fetched
//! again; nothing depends on the order in which writes reached the disk. The cost is that of
//! reading the bytes once (`ringload-perf cache` measures it).
//!
//! A consumer may change its tensors while their pages are still queued for the writer. The
//! checksums are computed before any consumer has the bytes; see [`crate::ring`] and
//! [`entry::Entry::write`].
//!
//! Pages are as small as the alignment of slots. Extents begin and end in mid-page, but slots hold
//! whole pages: [`CachedSource`] declares blocks of at least a page, so the rest of a slot's first and
//! last page is fetched as well, and every page in a slot is whole. Nothing has to be merged or read
//! again, whatever the tensors, the memory limit and the reads of a load are. The price is 8 bytes
//! for 4096 on disk, and up to a page fetched twice for each extent.
//!
//! # Trust
//!
//! All files are reached through the open directory ([`root::CacheRoot`]), which follows no symbolic
//! link. A cache belongs to one user, unless it is declared to be shared ([`trust::Trust`]). Only files
//! with the names above are deleted, in a directory with the tag of a cache.
//!
//! # Speed
//!
//! When a window is filled from the network, it shares its bytes with the writer and the load goes
//! on. Under a memory limit the writer may delay the reuse of slots, so it holds a bounded share of
//! the ring; pages beyond that share are left out, for a later load to add. Writes are direct (or else
//! the written pages are dropped from the page cache). Two blocking threads are enough, since the
//! kernel splits a write of 8 MiB into as many requests as the disk takes.
//!
//! # Many processes
//!
//! All processes share the entries. A load locks the pages that it fetches in the lock file, by
//! "open file description" locks, which the kernel releases when their holder ends, however it
//! ends. A load that finds its pages locked waits until they are present, or until the lock is gone
//! and it can fetch them itself. Waiting ends after [`STALL_TIMEOUT`](fetch_lock::STALL_TIMEOUT)
//! without a single new page. Entries in use have a shared lock, so that no process evicts them.
//!
//! Loads that are verified against their stores' checksums do not use the cache.
//!
//! When the cache cannot be written (full disk, read-only file system, missing permission), that is
//! logged once, and loads go on without writing to it.

mod admin;
mod cache_dir;
mod check_limit;
mod entries;
mod entry;
mod eviction;
mod fetch_lock;
mod file_status;
mod files;
mod key;
mod listing;
mod locks;
mod meta;
mod open_cache;
mod pages;
mod reader;
mod root;
mod source;
mod tag;
mod trust;
mod writer;

pub use admin::{CacheAdmin, CacheEntry, Checked, Pruned};

use crate::error::Result;
use crate::options::CacheOptions;
use crate::source::{CacheLayer, RemoteObject, Source};
use crate::sync::Mutex;
use open_cache::OpenCache;
use source::CachedSource;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The cache of one loader and its clones. Its directory is opened with the first object.
#[derive(Default)]
pub(crate) struct Cache {
    pub options: CacheOptions,
    open: OnceLock<Option<Arc<OpenCache>>>,
    opening: Mutex<()>,
}

impl Cache {
    /// The cache that `options` describe.
    pub fn new(options: CacheOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// Opens the cache directory configured by the options or else by the environment, unless it is
    /// open; `None` if no cache is configured.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a variable that cannot be used.
    fn opened(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<Option<&Arc<OpenCache>>> {
        let _one_by_one = self.opening.lock();
        if let Some(open) = self.open.get() {
            return Ok(open.as_ref());
        }
        let settings = self.options.settings(env)?;
        let opened = settings.map(|settings| Arc::new(OpenCache::new(&settings)));
        Ok(self.open.get_or_init(|| opened).as_ref())
    }

    /// Waits at most `timeout` until everything that was loaded so far is on disk. Returns false on
    /// a timeout.
    pub fn flush(&self, timeout: Option<Duration>) -> bool {
        match self.open.get() {
            Some(Some(open)) => open.writer.flush(timeout),
            _ => true,
        }
    }

    /// The first reason why something was not cached, if any.
    pub fn warning(&self) -> Option<String> {
        self.open.get()?.as_ref()?.dir.warning()
    }
}

impl CacheLayer for Cache {
    fn open(&self, remote: &RemoteObject<'_>) -> Result<Arc<dyn Source>> {
        let opened = self.opened(&|name| remote.env(name))?;
        // A verified load needs every byte as the store sends it.
        let Some(cache) = opened.filter(|_| !remote.verify) else { return remote.open() };
        let address = key::of_address(remote.uri, &remote.address());
        let known = cache.dir.known_object(&address);
        let is_trusted = known.as_ref().is_some_and(|known| cache.trusts(known));
        let object = match known {
            Some(known) if is_trusted => remote.known(known.identity),
            known => match remote.local()? {
                Some(local) => return Ok(local),
                None => remote.object(known.map(|known| known.identity))?,
            },
        };
        if object.len_bytes() == 0 {
            return Ok(Arc::new(object));
        }
        let entry =
            cache.entries.get(&address, remote.uri, object.identity(), remote.pin(), !is_trusted);
        Ok(Arc::new(CachedSource::new(Arc::clone(cache), Arc::new(object), entry)))
    }

    fn list(
        &self,
        remote: &RemoteObject<'_>,
        list: &dyn Fn() -> Result<Option<Vec<String>>>,
    ) -> Result<Option<Vec<String>>> {
        let Some(cache) = self.opened(&|name| remote.env(name))? else { return list() };
        let address = key::of_address(remote.uri, &remote.address());
        cache.dir.listing(&address, |age| cache.trusts_age(age), list)
    }
}

#[cfg(test)]
mod tests;
