//! Verification: the loader's options for it, and the checks of a load.
//!
//! ```text
//! --verify             whole files and objects, by the checksums of stores and of neighbouring files:
//!                      sources are opened with them
//! --manifest           tensors and whole files, by the checksums of a manifest, from any source
//! --check-finite       NaN and infinity in tensors
//! ```

use super::loader::Loader;
use crate::checkpoint::{Checkpoint, Shard, TensorInfo};
use crate::checks::{FiniteCheck, LoadChecks, NonFinite, Part, PartChecks, PartSink};
use crate::checksum::crc64_nvme;
use crate::error::{Error, ErrorKind, Result, option};
use crate::manifest::{CheckpointSums, Manifest};
use crate::options::ReadPath;
use crate::plan::Plan;
use crate::source::{Cancellation, ChecksumVerifier, ExpectedSum};
use std::sync::Arc;

impl Loader {
    /// Sets whether every file and object is verified, while it is loaded, against a checksum of all of
    /// it. For an object, that is the one that its store keeps (CRC64NVME, CRC32C or CRC32 in S3 and
    /// GCS, SHA-256 in the Hugging Face Hub). For a local file, it is the SHA-256 that names its blob in
    /// the Hub's cache, or the one in `NAME.sha256` or `SHA256SUMS` beside it. A file or object without
    /// a checksum is an error, and so is loading only some of its tensors.
    ///
    /// Each GPU computes a CRC-64/NVME of the tensors that it received, which must equal the CRC of
    /// the bytes in host memory. If all tensors go to GPUs, local files without a checksum are loaded
    /// with this check alone.
    ///
    /// With a [`manifest`](Self::manifest), its checksums count and no others.
    #[must_use]
    pub fn verify(mut self, verify: bool) -> Self {
        self.options.verify = verify;
        self.verify_sources()
    }

    /// Compares all bytes of a load with the checksums of `manifest`, whatever they are read from: a
    /// file, a store or the local file cache. A tensor with other bytes is an error, and is never handed
    /// out. Loads of some tensors are verified, too. Where all of a file is loaded and the manifest has
    /// its SHA-256, that is compared as well.
    ///
    /// A manifest that does not describe the checkpoint is an error of the load.
    #[must_use]
    pub fn manifest(mut self, manifest: Manifest) -> Self {
        self.options.manifest = Some(manifest);
        self.verify_sources()
    }

    /// Sets whether a load whose tensors hold NaN or infinity fails, at its end, with
    /// [`NotFinite`](ErrorKind::NotFinite), naming the tensors. Values are looked at as they are
    /// stored, before a cast.
    #[must_use]
    pub fn check_finite(mut self, check_finite: bool) -> Self {
        self.options.check_finite = check_finite;
        self
    }

    /// Opens sources with their checksums, unless there is a manifest.
    fn verify_sources(self) -> Self {
        let verify = self.options.verify && self.options.manifest.is_none();
        self.remote(|options| options.verify = verify)
    }

    /// This loader without checks, for reads whose bytes the caller checks.
    pub(super) fn unchecked(&self) -> Self {
        let mut loader = self.clone();
        (loader.options.manifest, loader.options.check_finite) = (None, false);
        loader
    }

    /// Whether GPUs compute checksums of the bytes that they receive.
    pub(super) fn verifies_on_gpus(&self) -> bool {
        self.options.verify
    }

    /// Whether sources are opened with the checksums of their stores or of neighbouring files.
    pub(super) fn verifies_sources(&self) -> bool {
        self.opener.options.verify
    }

    /// Whether anything is checked of the bytes in host memory.
    pub(super) fn checks_bytes(&self) -> bool {
        self.options.verify || self.options.manifest.is_some() || self.options.check_finite
    }

    /// Whether a load of all of `checkpoint` computes checksums of whole files, from front to back.
    pub(super) fn reads_in_file_order(&self, checkpoint: &Checkpoint) -> bool {
        let mut shards = checkpoint.shards().iter();
        self.options.manifest.is_some() || shards.any(|shard| shard.source().verifier().is_some())
    }

    /// Whether all bytes of a tensor are compared with checksums.
    fn needs_whole_tensors(&self) -> bool {
        self.options.verify || self.options.manifest.is_some()
    }

    /// The checks of the load of `plan`.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the load cannot be verified; the errors of a
    /// manifest that does not match.
    pub(super) fn checks(&self, plan: &Arc<Plan>) -> Result<LoadChecks> {
        if self.checks_bytes() && self.options.read_path == ReadPath::Mapped {
            return Err(Error::invalid_input(format!(
                "the mapped read path hands out the file's own pages, which may change after they \
                 were checked; use another read path, or load without {}, {} and {}",
                option("verify").on(),
                option("manifest"),
                option("check_finite").on()
            )));
        }
        if let Some(tensor) = plan.first_part().filter(|_| self.needs_whole_tensors()) {
            return Err(Error::invalid_input(format!(
                "{} and {} compare with checksums of all bytes of a tensor, but the load reads a \
                 slice of {:?}; verify the checkpoint once without slices, or load without them",
                option("verify").on(),
                option("manifest"),
                tensor.name()
            )));
        }
        if self.verifies_sources() {
            check_whole(plan)?;
        }
        let finite =
            self.options.check_finite.then(|| Arc::new(FiniteCheck::new(Arc::clone(plan))));
        let Some(manifest) = &self.options.manifest else {
            return Ok(LoadChecks { finite, ..LoadChecks::default() });
        };
        let sums = manifest.sums_of(plan.checkpoint())?;
        let verifiers = sha256_verifiers(plan, &sums, self.opener.cancellation())?;
        Ok(LoadChecks {
            parts: Some(tensor_checks(plan, sums)),
            verifiers,
            finite,
            ..LoadChecks::default()
        })
    }

    /// Fails if whole files and objects are to be verified: parts of them cannot be.
    pub(super) fn check_not_verifying(&self) -> Result<()> {
        if !self.verifies_sources() {
            return Ok(());
        }
        let sentence = format!(
            "{} needs whole objects, and ranges of objects were requested; read them without it, or \
             with a manifest, which has checksums of tensors",
            option("verify").on()
        );
        Err(Error::invalid_input(sentence))
    }

    /// Fails if the values of tensors are to be checked: a download does not look at them.
    #[cfg(feature = "http")]
    pub(super) fn check_download(&self) -> Result<()> {
        if !self.options.check_finite {
            return Ok(());
        }
        let check_finite = option("check_finite").on();
        let sentence =
            format!("a download does not look for {check_finite}; load its files with it instead");
        Err(Error::invalid_input(sentence))
    }

    /// Fails if tensors are to be checked: parts of them cannot be.
    pub(super) fn check_takes_parts(&self) -> Result<()> {
        if self.options.manifest.is_none() && !self.options.check_finite {
            return Ok(());
        }
        let sentence = format!(
            "a part of a tensor was requested, and {} and {} need all of it; read the whole tensor, \
             or read the part without them",
            option("manifest"),
            option("check_finite").on()
        );
        Err(Error::invalid_input(sentence))
    }

    /// Checks the `bytes` of `tensor`, all of which were read.
    pub(super) fn check_tensor(
        &self,
        checkpoint: &Checkpoint,
        tensor: &TensorInfo,
        bytes: &[u8],
    ) -> Result<()> {
        if let Some(manifest) = &self.options.manifest {
            let (expected, found) = (manifest.sum_of(checkpoint, tensor)?, crc64_nvme(bytes));
            compare(checkpoint, tensor, found, expected, manifest.origin())?;
        }
        if self.options.check_finite {
            let found = NonFinite::of(tensor.dtype(), bytes);
            if !found.is_zero() {
                return Err(NonFinite::error(1, [(tensor.name(), found)].into_iter()));
            }
        }
        Ok(())
    }
}

/// Compares the CRC `found` of a tensor's bytes with the one that `origin` has.
fn compare(
    checkpoint: &Checkpoint,
    tensor: &TensorInfo,
    found: u64,
    expected: u64,
    origin: &str,
) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let location = checkpoint.shards()[tensor.shard()].location();
    let what = format!("tensor {:?} of {location}", tensor.name());
    Err(corrupt(what, found, expected, origin))
}

/// The error for the part of a file with the CRC `found`.
pub(super) fn corrupt(what: String, found: u64, expected: u64, origin: &str) -> Error {
    let sentence = format!(
        "{what} is corrupt: the CRC-64/NVME of its bytes is {found:016x}, but {origin} has \
         {expected:016x}; load it again, and if that does not help, replace the file"
    );
    Error::new(ErrorKind::Corrupt, sentence)
}

/// Fails unless the load of `plan` can be verified by the checksums of whole sources.
fn check_whole(plan: &Plan) -> Result<()> {
    let checkpoint = plan.checkpoint();
    if plan.tensor_count() < checkpoint.tensors().len() {
        let (verify, manifest) = (option("verify").on(), option("manifest"));
        return Err(Error::invalid_input(format!(
            "{verify} needs all tensors, as a checksum covers the whole file or object; load all \
             tensors, load without {verify}, or use a manifest with checksums of tensors (ringload \
             sum, {manifest})"
        )));
    }
    if !checkpoint.is_verifiable() {
        return Err(Error::invalid_input(
            "the checkpoint was opened without its checksums; open it with the loader that is to \
             verify it",
        ));
    }
    let is_part =
        |shard: &&Shard| shard.source().verifier().is_some() && !checkpoint.is_whole(shard);
    match checkpoint.shards().iter().find(is_part) {
        None => Ok(()),
        Some(shard) => Err(Error::invalid_input(format!(
            "{} cannot be verified with {}: the index assigns some of its tensors to another shard, \
             so not all of its bytes are loaded; use a manifest (ringload sum, {})",
            shard.location(),
            option("verify").on(),
            option("manifest")
        ))),
    }
}

/// The verifiers of the shards that are loaded whole and whose SHA-256 is known.
fn sha256_verifiers(
    plan: &Plan,
    sums: &CheckpointSums,
    cancellation: &Cancellation,
) -> Result<Vec<Option<Arc<ChecksumVerifier>>>> {
    if !plan.is_whole() {
        return Ok(Vec::new());
    }
    let shards = plan.checkpoint().shards().iter().zip(&sums.sha256);
    let verifier = |(shard, digest): (&Shard, &Option<[u8; 32]>)| {
        let Some(digest) = digest.filter(|_| plan.checkpoint().is_whole(shard)) else {
            return Ok(None);
        };
        let expected = ExpectedSum::sha256(digest, Arc::clone(&sums.origin));
        let location = shard.location().clone();
        let verifier = ChecksumVerifier::new(location, shard.len_bytes(), expected)?;
        verifier.add(0, &header_of(shard, cancellation)?)?;
        Ok(Some(Arc::new(verifier)))
    };
    shards.map(verifier).collect()
}

/// The bytes of the header of `shard`.
///
/// # Errors
/// [`Changed`](ErrorKind::Changed) if they are not those that were parsed.
pub(super) fn header_of(shard: &Shard, cancellation: &Cancellation) -> Result<Vec<u8>> {
    let location = shard.location();
    let mut bytes = vec![0; shard.data_offset_bytes() as usize];
    let read = shard.source().read_exact_at(&mut bytes, 0, cancellation);
    read.map_err(|cause| Error::from_io(format_args!("read the header of {location}"), cause))?;
    if crc64_nvme(&bytes) == shard.header_crc() {
        return Ok(bytes);
    }
    let sentence = format!("the header of {location} changed since it was read; load it again");
    Err(Error::new(ErrorKind::Changed, sentence))
}

/// Compares the tensors of a load with their checksums.
struct TensorSums {
    checkpoint: Arc<Checkpoint>,
    /// The tensors by shard, as indices into those of the checkpoint.
    tensors: Vec<Vec<u32>>,
    sums: CheckpointSums,
}

impl PartSink for TensorSums {
    fn take(&self, shard: usize, index: usize, crc: u64) -> Result<()> {
        let tensor = self.tensors[shard][index] as usize;
        let expected = self.sums.tensors[tensor];
        let tensor = &self.checkpoint.tensors()[tensor];
        compare(&self.checkpoint, tensor, crc, expected, &self.sums.origin)
    }
}

fn tensor_checks(plan: &Plan, sums: CheckpointSums) -> PartChecks {
    let checkpoint = Arc::clone(plan.checkpoint());
    let mut tensors = vec![Vec::new(); checkpoint.shards().len()];
    for &index in plan.tensors() {
        tensors[checkpoint.tensors()[index as usize].shard()].push(index);
    }
    tensors.iter_mut().for_each(|of_shard| of_shard.sort_unstable()); // parts ascend
    let part = |&index: &u32| {
        let tensor = &checkpoint.tensors()[index as usize];
        Part { offset: tensor.offset_bytes(), bytes: tensor.len_bytes() }
    };
    let lists = tensors.iter().map(|of_shard| of_shard.iter().map(part).collect()).collect();
    PartChecks::new(lists, Box::new(TensorSums { checkpoint, tensors, sums }))
}
