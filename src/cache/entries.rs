//! The entries of one cache that this process uses: finding, creating and replacing them.

use super::cache_dir::CacheDir;
use super::entry::Entry;
use super::files::{ENTRY, EntryFiles, NAMES, PAGES, PARTIAL, USED};
use super::key;
use super::locks::PAGES_MAX;
use super::meta::Meta;
use super::pages::{CHECKSUM_BYTES, PageChecksums};
use crate::error::option;
use crate::location::ObjectUri;
use crate::options::PinBy;
use crate::source::ObjectIdentity;
use crate::sync::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

/// Finds and creates entries. All loads of a process share the entry of an object.
#[derive(Debug)]
pub(super) struct Entries {
    cache: Arc<CacheDir>,
    object_bytes_max: Option<u64>,
    shared: Mutex<HashMap<String, Weak<Entry>>>,
}

impl Entries {
    /// The entries of `cache`, for objects of at most `object_bytes_max` bytes.
    pub fn new(cache: Arc<CacheDir>, object_bytes_max: Option<u64>) -> Self {
        Self { cache, object_bytes_max, shared: Mutex::default() }
    }

    /// The entry of the object `uri` with `identity`, whose address has the name `address`; created
    /// if it does not exist. `validated` says that the object's store has just reported this
    /// identity. Returns `None` where the object cannot be cached, or `pin` leaves out what
    /// identifies it.
    pub fn get(
        &self,
        address: &str,
        uri: &ObjectUri,
        identity: &ObjectIdentity,
        pin: PinBy,
        validated: bool,
    ) -> Option<Arc<Entry>> {
        let name = key::of_identity(identity);
        let checksums = PageChecksums::new(address, &name, identity.len_bytes);
        if let Some(why) = self.refusal(identity, pin, &checksums) {
            self.cache.warn(format!("{uri} {why}"));
            return None;
        }
        let mut shared = self.shared.lock();
        let key = format!("{address}/{name}");
        let found = shared.get(&key).and_then(Weak::upgrade);
        let entry = match found {
            Some(entry) => entry,
            None => {
                let entry = Entry::new(self.cache.use_entry(address, &name), checksums);
                if let Err(refusal) =
                    create_unless_intact(&entry, &Meta::new(address, uri, identity))
                {
                    self.cache.stop_writing("create an entry", &refusal);
                    return None;
                }
                let entry = Arc::new(entry);
                shared.retain(|_, entry| entry.strong_count() > 0);
                shared.insert(key, Arc::downgrade(&entry));
                entry
            }
        };
        drop(shared);
        self.mark_used(&entry, validated);
        Some(entry)
    }

    /// Why an object with `identity` is not cached; `None` if it is.
    fn refusal(
        &self,
        identity: &ObjectIdentity,
        pin: PinBy,
        checksums: &PageChecksums,
    ) -> Option<String> {
        let (by_pin, by_all) = (identity.is_distinctive(pin), identity.is_distinctive(PinBy::Auto));
        let is_too_large = self.object_bytes_max.is_some_and(|most| identity.len_bytes > most);
        let option = option("pin");
        let is_not_kept = match self.cache.root.is_of_download() {
            true => "is downloaded from its beginning if the download is interrupted",
            false => "is not cached",
        };
        let why = if checksums.pages() > PAGES_MAX {
            "is larger than 16 TiB, the most that the cache takes, so it is not cached".to_owned()
        } else if !by_pin && by_all && pin == PinBy::Etag && identity.has_validator(pin) {
            format!(
                "{is_not_kept}, because its server marks its ETag as weak (W/), so that the ETag \
                 alone ({}) does not identify the bytes; {} also takes Last-Modified",
                option.set_to("etag"),
                option.set_to("auto")
            )
        } else if !by_pin && by_all {
            format!("{is_not_kept}, because {option} leaves out the header that identifies it")
        } else if !by_pin && identity.has_validator(PinBy::Auto) {
            format!(
                "{is_not_kept}, because its server marks its ETag as weak (W/) and sends no \
                 Last-Modified header, so that nothing identifies its bytes"
            )
        } else if !by_pin {
            format!(
                "{is_not_kept}, because its server sends neither an ETag nor a Last-Modified header"
            )
        } else if is_too_large {
            "is larger than the cache's size limit, so it is not cached".to_owned()
        } else {
            return None;
        };
        Some(why)
    }

    /// Records that `entry` was used now. With `validated`, also records that its store has
    /// validated it, and removes other versions of the object.
    fn mark_used(&self, entry: &Entry, validated: bool) {
        if !self.cache.is_writable() {
            return;
        }
        self.cache.touch(&entry.path().join(USED), SystemTime::now());
        if validated {
            self.cache.touch(&entry.path().join(ENTRY), SystemTime::now());
            self.cache.other_versions(entry.path()).for_each(|other| {
                self.cache.remove(&other);
            });
        }
    }
}

/// Creates an empty entry, unless an intact entry of this object is on disk.
fn create_unless_intact(entry: &Entry, meta: &Meta) -> io::Result<()> {
    if is_intact(entry, meta) {
        return Ok(());
    }
    let cache = &entry.in_use.cache;
    cache.change(entry.in_use.range, || {
        if is_intact(entry, meta) {
            return Ok(()); // another process created it meanwhile
        }
        let temporary = cache.temporary_path();
        let root = &cache.root;
        root.create_directory(&temporary)?;
        let create = || {
            let sized = |name, len| root.create_file(&temporary.join(name))?.set_len(len);
            sized(PARTIAL, entry.checksums.len_bytes)?;
            sized(PAGES, entry.checksums.pages() * CHECKSUM_BYTES)?;
            sized(USED, 0)?;
            root.write(&temporary.join(ENTRY), meta.to_text().as_bytes())?;
            if let Some(parent) = entry.path().parent() {
                root.create_directory_if_missing(parent)?;
            }
            if root.status(entry.path()).is_some() {
                cache.discard(entry.path())?;
            }
            root.rename(&temporary, entry.path())
        };
        create().inspect_err(|_| {
            let _ = root.remove_new_directory(&temporary, &NAMES);
        })
    })
}

/// Whether the entry on disk is that of the object with this metadata, and its files have the right
/// lengths.
fn is_intact(entry: &Entry, wanted: &Meta) -> bool {
    let name = |meta: &Meta| meta.identity().map(|identity| key::of_identity(&identity));
    let cache = &entry.in_use.cache;
    let is_it = cache
        .read_meta(entry.path())
        .is_some_and(|(meta, _)| meta.address == wanted.address && name(&meta) == name(wanted));
    is_it
        && EntryFiles::open(&cache.root, entry.path(), false)
            .is_ok_and(|files| files.fit(&entry.checksums))
}
