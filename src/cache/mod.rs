//! The local file cache: objects of stores are written to disk while they are loaded, and read from
//! there the next time.
//!
//! ```text
//! Opener --Remote--> Cache::open --> Shelf: which entry? still valid? --> CachedSource (one a shard)
//!                                                                          |
//!      engine's lane <---- CachedReader: what is there from the file, the rest from the store
//!           | window filled                    ^
//!           v                                  | pages that others wrote meanwhile
//!      Part of the slot ----> Writer (two threads): direct write, then its pages' seals
//! ```
//!
//! # On disk
//!
//! ```text
//! DIR/lock                                     byte ranges of it are locked; it stays empty
//!    /listings/<hash>                          names in a directory of a store, for use offline
//!    /<hash of the location>/<hash of the identity>/
//!        entry                                 what it is: text with a checksum; its time: last validated
//!        pages                                 8 bytes a page of 4 KiB: its seal, or zero
//!        partial                               the object's bytes at their own offsets, with holes
//!        data.safetensors                      the same, once it is complete
//!        used                                  empty; its time: last used
//! ```
//!
//! An entry is named by where the object is (without secrets) and by what it is: ETag, or else the
//! modification time, and length. A replaced object is therefore another entry, and readers of the
//! old one are never mixed up with it. A new entry is made beside and renamed into place; the data
//! is renamed when it is complete, so that what is called `data.safetensors` always is all of it, for
//! any tool to read.
//!
//! # What makes a byte right
//!
//! The *seal* of a page is its CRC-64, mixed with the page's number and the entry's names. It is
//! written after the page, and a page is read only with its seal: each read checks it on the way, on
//! a thread beside the engine's, before anything is handed out. So whatever a kill, a power loss, a broken disk
//! or a flipped byte leaves of data or seals is a missing page, and that is fetched; it does not
//! depend on the order in which anything reached the disk. It costs what reading the bytes once costs
//! (`ringload-perf cache` measures them).
//!
//! Pages are as small as a slot's alignment on purpose. Extents begin and end in mid-page, but their
//! slots hold whole pages; as [`CachedSource`](source::CachedSource) says that its block is a page or
//! more, the ends of slots are fetched as well, and every page in a slot is whole. Nothing has to be
//! merged, read again or kept back, whatever the tensors, the memory limit and the reads of a load
//! are. The price is 8 bytes for 4096 on disk, and up to a page fetched twice for each extent.
//!
//! # Not in the way
//!
//! When a read of the network is complete, its window shares the bytes with the writer and the load
//! goes on. Under a memory limit the writer may keep a part of the ring from being used again, so
//! what it holds at once is bounded; beyond that, pages are left out and stay missing, for a later
//! load to fill. Writes are direct (else the page cache is told to forget them); two blocking
//! threads are enough, since the kernel splits a write of 8 MiB into as many as the disk takes.
//!
//! # Many processes
//!
//! All of them share the entries; nobody owns one. Who fetches a range locks its pages in the lock
//! file first ("open file description" locks, which end with their holder, however it ends). Who
//! finds the pages it wants locked waits until they are there, or the lock is gone and it is its own
//! to fetch. Waiting ends after [`PATIENCE`](claim::PATIENCE) without a single page. Entries in use
//! hold a shared lock, so that nobody evicts them.
//!
//! A load that is verified against its store's checksums passes the cache by.
//!
//! What cannot be written (full disk, read-only file system, no permission) is told once, and loads
//! go on without.

mod admin;
mod checks;
mod claim;
mod entry;
mod files;
mod key;
mod listing;
mod locks;
mod meta;
mod pages;
mod reader;
mod room;
mod shelf;
mod source;
mod writer;

pub use admin::{CacheAdmin, CacheEntry, Checked, Pruned};

use crate::error::Result;
use crate::location::{Location, ObjectUri};
use crate::options::{CacheOptions, CacheSettings, CacheValidate, cores};
use crate::source::{CacheLayer, ObjectIdentity, ObjectSource, RemoteObject, Source};
use checks::Checks;
use shelf::{Known, Shelf};
use source::CachedSource;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use writer::Writer;

/// The cache of one loader and its clones. Nothing is looked at before the first object is opened.
#[derive(Default)]
pub(crate) struct Cache {
    pub options: CacheOptions,
    open: OnceLock<Option<Arc<Opened>>>,
    opening: Mutex<()>,
}

/// A cache whose directory is known.
struct Opened {
    shelf: Arc<Shelf>,
    writer: Writer,
    settings: CacheSettings,
    checks: Checks,
}

impl Cache {
    /// The cache that `options` describe.
    pub fn new(options: CacheOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// It, opened in this environment; `None` where there is to be none.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a variable that cannot be used.
    fn opened(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<Option<&Arc<Opened>>> {
        let _one_by_one = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = self.open.get() {
            return Ok(open.as_ref());
        }
        let settings = self.options.settings(env)?;
        let opened = settings.map(|settings| {
            let (shelf, refusal) = Shelf::open(&settings);
            if let Some(refusal) = refusal {
                shelf.give_up("write", &refusal);
            }
            let shelf = Arc::new(shelf);
            let writer = Writer::new(Arc::clone(&shelf), settings.patient);
            let checks = Checks::new(cores());
            Arc::new(Opened { shelf, writer, settings, checks })
        });
        Ok(self.open.get_or_init(|| opened).as_ref())
    }

    /// Waits until all that was read so far is on disk, at most for `patience`. False when it is not
    /// by then.
    pub fn flush(&self, patience: Option<Duration>) -> bool {
        match self.open.get() {
            Some(Some(open)) => open.writer.flush(patience),
            _ => true,
        }
    }

    /// Why it does less than it should, if so.
    pub fn trouble(&self) -> Option<String> {
        self.open.get()?.as_ref()?.shelf.trouble()
    }
}

impl CacheLayer for Cache {
    fn open(&self, remote: &RemoteObject<'_>) -> Result<Arc<dyn Source>> {
        match self.opened(&|name| remote.env(name))? {
            Some(opened) => opened.source(remote),
            None => remote.open(),
        }
    }

    fn list(
        &self,
        remote: &RemoteObject<'_>,
        ask: &dyn Fn() -> Result<Option<Vec<String>>>,
    ) -> Result<Option<Vec<String>>> {
        let Some(opened) = self.opened(&|name| remote.env(name))? else { return ask() };
        let place = key::of_place(remote.uri, &remote.address());
        opened.shelf.listed(&place, |age| opened.believes(age), ask)
    }
}

impl Opened {
    /// The source of the object that `remote` leads to.
    fn source(self: &Arc<Self>, remote: &RemoteObject<'_>) -> Result<Arc<dyn Source>> {
        if remote.verify {
            // All bytes are to be seen as the store sends them, each once.
            return remote.open();
        }
        let place = key::of_place(remote.uri, &remote.address());
        let known = self.shelf.known(&place);
        if let Some(known) = known.as_ref().filter(|known| self.trusts(known)) {
            let object = remote.known(known.identity.clone());
            return Ok(self.cached(&place, remote.uri, object, false));
        }
        if let Some(local) = remote.local()? {
            return Ok(local);
        }
        let object = remote.object(known.map(|known| known.identity))?;
        Ok(self.cached(&place, remote.uri, object, true))
    }

    /// Whether what is `known` is taken without asking.
    fn trusts(&self, known: &Known) -> bool {
        known.validated.is_some_and(|age| self.believes(age))
    }

    /// Whether what was found out this long ago is believed.
    fn believes(&self, age: Duration) -> bool {
        match self.settings.validate {
            CacheValidate::Always => false,
            CacheValidate::Never => true,
            CacheValidate::Age(most) => age < most,
        }
    }

    fn cached(
        self: &Arc<Self>,
        place: &str,
        uri: &ObjectUri,
        object: ObjectSource,
        asked: bool,
    ) -> Arc<dyn Source> {
        let identity: ObjectIdentity = object.identity().clone();
        if identity.len_bytes == 0 {
            return Arc::new(object);
        }
        let location = Location::Object(uri.clone()).to_string();
        let entry = self.shelf.entry(place, &location, &identity, asked);
        Arc::new(CachedSource::new(Arc::clone(self), Arc::new(object), entry))
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("options", &self.options).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
