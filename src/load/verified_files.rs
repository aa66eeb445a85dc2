//! Verification of whole files by loads that read through a cache: downloads, and loads that fill the local
//! file cache.
//!
//! ```text
//! --verify      each file is opened twice: through the cache, to be read; and at its store, for the
//!               checksum that is kept there
//! --manifest    the checksums of files in the manifest
//! ```
//!
//! A load with `--verify` bypasses the cache, so that every byte comes from the store. These loads check
//! every byte, too: what arrives before it is written, and what an earlier attempt has written when it
//! is read. An object that turns out to be corrupt is removed, as it would be corrupt for ever.

use super::loader::Loader;
use super::report::LoadReport;
use super::stream::TensorStream;
use crate::cache::CacheAdmin;
use crate::checkpoint::{Checkpoint, Shard, parallel};
use crate::checks::LoadChecks;
use crate::error::{Error, ErrorKind, Result};
use crate::location::Location;
use crate::source::{ChecksumVerifier, ExpectedSum, Opener, Source};
use std::path::Path;
use std::sync::Arc;

/// A file to verify, and how many bytes at its beginning the load does not read.
pub(super) type FileToVerify = (Arc<dyn Source>, u64);

/// `loader` without checks of bytes, whose objects may come from a cache.
pub fn unverified(loader: &Loader) -> Loader {
    let unchecked = loader.unchecked();
    if unchecked.options.verify { unchecked.verify(false) } else { unchecked }
}

/// Starts to load all tensors of `checkpoint`, which `unchecked` has opened through its cache, with the
/// checks of whole files that `loader` has.
///
/// # Errors
/// As [`Loader::stream_checkpoint`]. [`InvalidInput`](ErrorKind::InvalidInput) for a file of which the
/// load does not read all bytes.
pub fn stream_into_cache(
    loader: &Loader,
    unchecked: &Loader,
    checkpoint: Arc<Checkpoint>,
) -> Result<TensorStream> {
    if !loader.verifies_files() {
        return unchecked.stream_checkpoint(checkpoint);
    }
    let report = LoadReport::begin(unchecked, tracing::info_span!("load"));
    let shards = checkpoint.shards();
    if let Some(shard) = shards.iter().find(|shard| !checkpoint.is_whole(shard)) {
        return Err(Error::invalid_input(format!(
            "{} cannot be verified: not all of its bytes are in tensors that are loaded; fetch it to \
             plain files",
            shard.location()
        )));
    }
    let files = shards.iter().map(|shard| (Arc::clone(shard.source()), shard.data_offset_bytes()));
    let verifiers = loader.file_verifiers(&files.collect::<Vec<_>>())?;
    let verifiers = verifiers.into_iter().map(Some).collect();
    let checks = LoadChecks { verifiers, ..LoadChecks::default() };
    let limit = unchecked.resolved_memory_limit()?;
    unchecked.stream_checked(checkpoint, limit, checks, report)
}

/// Removes the objects from the cache in `directory` that the load has found to be corrupt.
pub fn discard_corrupt(stream: &TensorStream, directory: &Path) {
    if let Ok(cache) = CacheAdmin::open(directory) {
        stream.corrupt_files().iter().for_each(|file| cache.discard_object(file));
    }
}

/// Whether a cache has all bytes of the object in the version that `shard` was opened as.
pub fn is_cached(shard: &Shard) -> bool {
    shard.source().cached_file().is_some_and(|file| file.is_file())
}

impl Loader {
    /// Whether whole files are compared with checksums.
    pub(super) fn verifies_files(&self) -> bool {
        self.verifies_sources() || self.options.manifest.is_some()
    }

    /// The verifiers of `files`, which have seen the bytes that the load does not read.
    ///
    /// # Errors
    /// The errors of opening the files, and that of a file without a checksum;
    /// [`Corrupt`](ErrorKind::Corrupt).
    pub(super) fn file_verifiers(
        &self,
        files: &[FileToVerify],
    ) -> Result<Vec<Arc<ChecksumVerifier>>> {
        let opener = self.opener.renewed();
        let threads = parallel::opening_threads(&opener.options);
        parallel::try_map(files.len(), threads, |number| {
            let (source, known_bytes) = &files[number];
            let verifier = self.verifier_of(&**source, &opener, files.len() == 1)?;
            if *known_bytes == 0 {
                return Ok(verifier);
            }
            let mut known = vec![0; *known_bytes as usize];
            let read = source.read_exact_at(&mut known, 0, opener.cancellation());
            read.map_err(|cause| {
                Error::from_io(format_args!("read the header of {}", source.location()), cause)
            })?;
            verifier.add(0, &known)?;
            Ok(verifier)
        })
    }

    fn verifier_of(
        &self,
        source: &dyn Source,
        opener: &Opener,
        is_only: bool,
    ) -> Result<Arc<ChecksumVerifier>> {
        let (location, bytes) = (source.location(), source.len_bytes());
        if let Some(manifest) = &self.options.manifest {
            let file = manifest.file_of(location, bytes, is_only)?;
            let expected = match file.sha256 {
                Some(digest) => ExpectedSum::sha256(digest, manifest.origin()),
                None => ExpectedSum::crc64_nvme(file.crc, manifest.origin()),
            };
            return ChecksumVerifier::new(location.clone(), bytes, expected).map(Arc::new);
        }
        let opened = opener.open(location)?;
        if opened.len_bytes() != bytes {
            return Err(replaced(location));
        }
        opened.verifier().ok_or_else(|| {
            let sentence = format!("{location} has no checksum; this is a bug");
            Error::new(ErrorKind::Unsupported, sentence)
        })
    }
}

fn replaced(location: &Location) -> Error {
    let sentence = format!("{location} was replaced while it was opened; fetch it again");
    Error::new(ErrorKind::Changed, sentence)
}
