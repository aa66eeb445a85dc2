//! An object as a source.

use super::body_writer::BodyWriter;
use super::identity::ObjectIdentity;
use super::reader::ObjectReader;
use super::receive::NoSocketReader;
use super::remote_object::{Object, ReadContext};
use crate::error::{Error, ErrorKind, Result};
use crate::location::{Location, ObjectUri};
use crate::ring::Mapping;
use crate::source::cancellation::Cancellation;
use crate::source::http::Client;
use crate::source::purpose::Purpose;
use crate::source::stop::Stop;
use crate::source::store::Store;
use crate::source::traits::{Access, Reader, Source};
use crate::source::verify::ChecksumVerifier;
use crate::sync::Mutex;
use bytes::Bytes;
use std::io;
use std::sync::Arc;

/// How many bytes are requested at opening: enough for the header of most shards.
const FIRST_BYTES: u64 = 64 << 10;

/// An object of known length and identity.
pub(crate) struct ObjectSource {
    object: Arc<Object>,
    /// The verifier, which has seen the bytes that were read at opening. `None` if the object is
    /// not verified.
    verifier: Option<ChecksumVerifier>,
    /// The object's first bytes, kept until others are read.
    first: Mutex<Bytes>,
}

impl ObjectSource {
    /// Opens the object `uri` of `store`. With `verify`, its bytes are compared with its checksum.
    /// If the object still has the identity `known`, none of its bytes are sent.
    ///
    /// # Errors
    /// The errors of the store; [`Unsupported`](ErrorKind::Unsupported) for a server
    /// without ranges, and for an object without a checksum if it is to be verified.
    pub fn open(
        client: &Arc<Client>,
        store: Arc<dyn Store>,
        uri: &ObjectUri,
        verify: bool,
        known: Option<ObjectIdentity>,
        (purpose, cancellation): (Purpose, &Cancellation),
    ) -> Result<Self> {
        let (client, uri) = (Arc::clone(client), uri.clone());
        let opening = Object::open(Arc::clone(&client), store, uri, FIRST_BYTES, known, purpose);
        let (object, first, verifier) = client.block_on(cancellation, async move {
            let (object, first) = opening.await?;
            // If the object is replaced before the checksum is read, the next range is refused.
            let verifier = match verify {
                true => Some(object.verifier().await?),
                false if object.is_pinned() => None,
                false => object.verifier().await.ok().map(ChecksumVerifier::needed),
            };
            Ok((object, first, verifier))
        })?;
        Ok(Self { object: Arc::new(object), verifier, first: Mutex::new(first) })
    }

    /// The object `uri` of `store`, assumed to have `identity`, without a request.
    pub fn known(
        client: &Arc<Client>,
        store: Arc<dyn Store>,
        uri: &ObjectUri,
        identity: ObjectIdentity,
    ) -> Self {
        let object = Object::known(Arc::clone(client), store, uri.clone(), identity);
        Self { object: Arc::new(object), verifier: None, first: Mutex::default() }
    }

    /// The identity of the object when it was opened.
    pub fn identity(&self) -> &ObjectIdentity {
        &self.object.identity
    }

    /// Reads bytes for opening a checkpoint.
    fn read_exact(&self, into: &mut [u8], offset: u64, cancellation: &Cancellation) -> Result<()> {
        if let Some(bytes) = self.among_first(offset, into.len()) {
            into.copy_from_slice(&bytes);
            return Ok(());
        }
        let (object, len) = (Arc::clone(&self.object), into.len());
        let reading = async move {
            let counters = object.client.counters();
            let stop = &Stop::default();
            let context = ReadContext { sockets: &NoSocketReader, counters, stop };
            let (outcome, writer) =
                object.read(&context, offset, BodyWriter::in_memory(len)?, None).await;
            outcome.map(|()| writer.into_bytes())
        };
        into.copy_from_slice(&self.object.client.block_on(cancellation, reading)?);
        Ok(())
    }

    /// The bytes from `offset`, if they are among the object's first bytes. A call for other bytes
    /// drops the first bytes, which have been read by then.
    fn among_first(&self, offset: u64, len: usize) -> Option<Bytes> {
        let mut first = self.first.lock();
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
    fn version(&self) -> String {
        self.object.version()
    }

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

    fn connections(&self) -> Option<usize> {
        Some(self.object.server().ok()?.concurrency.limit())
    }

    fn range_bytes(&self, memory_bytes: u64, left_bytes: u64) -> Option<u64> {
        Some(self.object.server().ok()?.concurrency.range_bytes(memory_bytes, left_bytes))
    }

    fn block_bytes(&self) -> usize {
        1
    }

    fn read_exact_at(
        &self,
        into: &mut [u8],
        offset: u64,
        cancellation: &Cancellation,
    ) -> io::Result<()> {
        if offset.checked_add(into.len() as u64).is_none_or(|end| end > self.len_bytes()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let verified =
            self.read_exact(into, offset, cancellation).and_then(|()| match &self.verifier {
                Some(verifier) => verifier.add(offset, into),
                None => Ok(()),
            });
        verified.map_err(io::Error::other)
    }

    fn verifier(&self) -> Option<Arc<ChecksumVerifier>> {
        self.verifier.as_ref().map(ChecksumVerifier::for_load)
    }

    fn verifies_reads(&self) -> bool {
        true
    }

    fn reader(self: Arc<Self>, access: &Access) -> Result<Box<dyn Reader>> {
        // Engines start after the header was read. The first bytes are of use if they are all.
        let first = std::mem::take(&mut *self.first.lock());
        let whole = Some(first).filter(|first| first.len() as u64 == self.len_bytes());
        Ok(Box::new(ObjectReader::new(Arc::clone(&self.object), whole, access)))
    }

    fn map(&self) -> Result<Mapping> {
        let sentence = format!("{} is not a local file and cannot be mapped", self.location());
        Err(Error::new(ErrorKind::Unsupported, sentence))
    }

    fn check_unchanged(&self) -> Result<()> {
        // The identity was checked in each response.
        Ok(())
    }
}
