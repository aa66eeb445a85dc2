//! A shard in an object store, or on a web server.
//!
//! Opening it is one request: the first [`FIRST_BYTES`] bytes, whose answer also tells length and
//! identity. The header of most shards is in them. From then on every range is asked for with that
//! identity (`If-Match`) and its answer is checked against it: whatever is replaced meanwhile is
//! an error, never a mixture.
//!
//! ```text
//! ObjectSource (one a shard) --> ObjectReader (one an engine) --> Object::read --> windows
//!                                                                   |  ask: head checked
//!                                                                   |  receive: body into place
//!                                                                   |  verify: summed up
//! ```

mod fetch;
mod identity;
mod landing;
mod open;
mod range;
mod reader;
mod receive;
mod verify;

use super::http::Client;
use super::store::Store;
use super::{Access, Reader, Source, Stop};
use crate::error::{Error, ErrorKind, Result};
use crate::location::{Location, ObjectUri};
use crate::ring::Mapping;
use bytes::Bytes;
use fetch::{Object, With};
use landing::Landing;
use open::{bytes_of, small_window};
use reader::ObjectReader;
use receive::NoKernel;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use verify::Part;

pub(crate) use identity::Identity;
pub use verify::Check;

/// How much is asked for first: enough for the header of most shards.
const FIRST_BYTES: u64 = 64 << 10;

/// An object of known length and identity.
pub(crate) struct ObjectSource {
    object: Arc<Object>,
    /// What was read while it was opened, where all bytes are to be checked.
    check: Option<Check>,
    /// The object's first bytes, until something else was read.
    first: Mutex<Bytes>,
}

impl ObjectSource {
    /// Opens the object `uri` of `store`; with `verify`, its bytes are checked against its checksum.
    /// Where it is still what it is `known` as, none of its bytes are sent.
    ///
    /// # Errors
    /// What the store says; [`Unsupported`](ErrorKind::Unsupported) for a server without ranges, and
    /// for an object to be verified that has no checksum.
    pub fn open(
        client: &Arc<Client>,
        store: Arc<dyn Store>,
        uri: &ObjectUri,
        verify: bool,
        known: Option<Identity>,
    ) -> Result<Self> {
        let opening = Object::open(Arc::clone(client), store, uri.clone(), FIRST_BYTES, known);
        let (object, first, check) = client.block_on(async move {
            let (object, first) = opening.await?;
            // Asked for once the object is pinned: if it is replaced in between, the next range is
            // refused.
            let check = if verify { Some(object.check().await?) } else { None };
            Ok((object, first, check))
        })?;
        Ok(Self { object: Arc::new(object), check, first: Mutex::new(first) })
    }

    /// The object `uri` of `store`, which is known as `identity`; nobody is asked.
    pub fn known(
        client: &Arc<Client>,
        store: Arc<dyn Store>,
        uri: &ObjectUri,
        identity: Identity,
    ) -> Self {
        let object = Object::known(Arc::clone(client), store, uri.clone(), identity);
        Self { object: Arc::new(object), check: None, first: Mutex::default() }
    }

    /// What it was when it was opened.
    pub fn identity(&self) -> &Identity {
        &self.object.identity
    }

    /// Reads what is no tensor.
    fn read_exact(&self, into: &mut [u8], offset: u64) -> Result<()> {
        if let Some(bytes) = self.among_first(offset, into.len()) {
            into.copy_from_slice(&bytes);
            return Ok(());
        }
        let (object, len) = (Arc::clone(&self.object), into.len());
        let reading = async move {
            let (pool, counters) = (object.client.pool(), object.client.counters());
            let with = With { kernel: &NoKernel, pool, counters, stop: &Stop::default() };
            let unchecked = Part::default(); // the caller does that
            let landing = Landing::new(small_window(len)?, len, unchecked);
            let (outcome, landing) = object.read(&with, offset, landing).await;
            outcome.map(|()| bytes_of(landing))
        };
        into.copy_from_slice(&self.object.client.block_on(reading)?);
        Ok(())
    }

    /// The bytes from `offset`, if they are among the first ones. Whoever asks for others has seen
    /// these: they are given up.
    fn among_first(&self, offset: u64, len: usize) -> Option<Bytes> {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let start = usize::try_from(offset).ok().filter(|&start| start <= first.len());
        match start.filter(|start| first.len() - start >= len) {
            Some(start) => Some(first.slice(start..start + len)),
            None => {
                *first = Bytes::new();
                None
            }
        }
    }
}

impl Source for ObjectSource {
    fn kind(&self) -> &'static str {
        self.object.kind()
    }

    fn location(&self) -> &Location {
        &self.object.location
    }

    fn len_bytes(&self) -> u64 {
        self.object.identity.len_bytes
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn block_bytes(&self) -> usize {
        1
    }

    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(into.len() as u64).is_none_or(|end| end > self.len_bytes()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let checked = self.read_exact(into, offset).and_then(|()| match &self.check {
            Some(check) => check.saw(offset, into),
            None => Ok(()),
        });
        checked.map_err(io::Error::other)
    }

    fn check(&self) -> Option<Arc<Check>> {
        self.check.as_ref().map(Check::again)
    }

    fn reader(self: Arc<Self>, access: &Access) -> Result<Box<dyn Reader>> {
        // Headers are read when engines start.
        self.among_first(u64::MAX, 1);
        Ok(Box::new(ObjectReader::new(Arc::clone(&self.object), access)))
    }

    fn map(&self) -> Result<Mapping> {
        let sentence = format!("{} is not a local file and cannot be mapped", self.location());
        Err(Error::new(ErrorKind::Unsupported, sentence))
    }

    fn check_unchanged(&self) -> Result<()> {
        // Every answer was checked.
        Ok(())
    }
}

#[cfg(test)]
mod tests;
