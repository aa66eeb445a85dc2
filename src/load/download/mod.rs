//! Downloads whole objects, safetensors files or others, to plain files.
//!
//! ```text
//! objects ---------> file cache of this download, DIRECTORY/.ringload-download --\
//! objects that cannot be cached ------> file in DIRECTORY/.ringload-download -----+-- rename --> files
//! local files ---- copy --------------> file in DIRECTORY/.ringload-download --/
//! ```
//!
//! Objects are streamed in pieces, as the tensors of a load are, and the writer threads of the cache
//! write them to disk. The cache knows an object by its exact location and its identity (ETag or
//! modification time, and length). A download that broke off, even by a kill, is therefore resumed
//! where it stopped, and never with bytes of another object. A file gets its name when all its bytes
//! are on disk and, with a loader that verifies, have the right checksum. Whatever other users put into the directory meanwhile, only files in the directories
//! that the download has opened are written and replaced.

mod names;
mod open_directory;
mod staging;

use super::loader::Loader;
use super::report::LoadReport;
use super::stream::TensorStream;
use crate::checkpoint::{Checkpoint, parallel};
use crate::checks::LoadChecks;
use crate::error::{Error, ErrorKind, Result};
use crate::location::{IntoLocations, Location, LocationText};
use crate::ring::PAGE_BYTES;
use crate::source::{ChecksumVerifier, Progress, Source, Verified};
use crate::sys::open_regular;
use names::{name_of, outside, plain};
use staging::{StagedFile, Staging, unwritten};
use std::collections::HashSet;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// The length of a piece. Pieces begin at multiples of it.
const PIECE_BYTES: u64 = 8 << 20;

/// A running download. Dropping it stops the download; the bytes that have arrived are kept for the
/// next attempt.
///
/// ```no_run
/// # fn main() -> ringload::Result<()> {
/// use std::path::Path;
///
/// let loader = ringload::Loader::new();
/// let download = loader.download_checkpoint("hf://openai-community/gpt2", Path::new("/models/gpt2"))?;
/// let done = download.finish()?; // resumes what an earlier attempt left
/// println!("{} bytes, of which {} were there", done.bytes, done.cached_bytes);
/// # Ok(())
/// # }
/// ```
pub struct Download {
    // Dropped in this order: the staging directory is tidied when nothing writes to it any more.
    stream: Option<TensorStream>,
    /// The files of the download. Those with bytes to stream come first, in the order of the
    /// stream's shards.
    targets: Vec<Target>,
    /// The verifiers of the first targets.
    verifiers: Vec<Option<Arc<ChecksumVerifier>>>,
    staging: Staging,
    began: Instant,
}

/// The result of a download.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Downloaded {
    /// The paths of the files, sorted.
    pub files: Vec<PathBuf>,
    /// The length of all files in bytes.
    pub bytes: u64,
    /// How many of these bytes an earlier attempt had already downloaded.
    pub cached_bytes: u64,
    /// The duration of the download in seconds.
    pub seconds: f64,
    /// The objects of other, unfinished downloads to the directory. What has arrived of them is in
    /// `.ringload-download` there.
    pub unfinished: Vec<LocationText>,
    /// The files that were verified, each with what it was compared with.
    pub verified_against: Vec<Verified>,
}

/// A file that is to be downloaded.
struct Wanted {
    source: Arc<dyn Source>,
    name: PathBuf,
    /// How many bytes at its beginning were cached when it was opened.
    cached_bytes: u64,
    /// Whether it is verified, if the loader verifies.
    is_checked: bool,
}

/// A file of the download.
struct Target {
    source: Arc<dyn Source>,
    /// Relative to the directory of the download.
    name: PathBuf,
    /// The file that the download itself fills; `None` if the cache fills one.
    staged: Option<StagedFile>,
    /// The offset of the first byte that has to be streamed.
    start: u64,
    /// How many bytes are streamed though they were cached when the file was opened.
    again_bytes: u64,
    is_checked: bool,
}

impl Loader {
    /// Downloads the objects of `files` to `directory`, each to the file of the given name, which is
    /// relative to the directory and may be in a subdirectory. Directories are created as needed,
    /// and files that exist are replaced. Local files are copied.
    ///
    /// The loader's options for remote locations apply. The local file cache is not used. While
    /// another download to the same directory runs, the call waits.
    ///
    /// With [`verify`](Self::verify) or a [`manifest`](Self::manifest), each file is compared with its
    /// checksum, also what an earlier attempt has left of it, and gets its name only if all files are
    /// right. Of a file that is not, the next attempt begins anew.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) when a name leads out of the directory, or two files
    /// have the same name; otherwise those of opening the objects, and of finding their checksums.
    pub fn download(&self, files: &[(Location, PathBuf)], directory: &Path) -> Result<Download> {
        let began = Instant::now();
        let plain = |(_, name): &(_, PathBuf)| plain(name).ok_or_else(|| outside(name, directory));
        let names = files.iter().map(plain).collect::<Result<Vec<_>>>()?;
        let staging = Staging::open(self, directory)?;
        staging.check(&names)?;
        let opener = staging.loader.opener.renewed();
        let open = |number: usize| opener.open(&files[number].0);
        let threads = parallel::opening_threads(&opener.options);
        let sources = parallel::try_map(files.len(), threads, open)?;
        let wanted = |(source, name)| Wanted { source, name, cached_bytes: 0, is_checked: true };
        let files = sources.into_iter().zip(names).map(wanted);
        Download::start(staging, files.collect(), began)
    }

    /// Downloads the files of the checkpoint at `locations` and its indexes to `directory`. Shards
    /// of an index keep their paths below the index; other files keep their names. Indexes, which have no
    /// checksums, are not verified.
    ///
    /// # Errors
    /// The errors of [`open`](Self::open) and of [`download`](Self::download).
    pub fn download_checkpoint(
        &self,
        locations: impl IntoLocations,
        directory: &Path,
    ) -> Result<Download> {
        let began = Instant::now();
        let staging = Staging::open(self, directory)?;
        let checkpoint = staging.loader.open(locations)?;
        let bases = checkpoint.indexes();
        let opener = staging.loader.opener.renewed();
        let mut files = Vec::new();
        for shard in checkpoint.shards() {
            // The pages of the header were cached when the checkpoint was opened.
            let header_bytes = shard.data_offset_bytes().next_multiple_of(PAGE_BYTES as u64);
            files.push(Wanted {
                source: Arc::clone(shard.source()),
                name: name_of(shard.location(), bases),
                cached_bytes: header_bytes.min(shard.len_bytes()),
                is_checked: true,
            });
        }
        for index in bases {
            let (source, name) = (opener.open(index)?, name_of(index, bases));
            let cached_bytes = source.len_bytes();
            files.push(Wanted { source, name, cached_bytes, is_checked: false });
        }
        let names: Vec<_> = files.iter().map(|file| file.name.clone()).collect();
        staging.check(&names)?;
        Download::start(staging, files, began)
    }
}

impl Download {
    /// Starts to download `files`.
    fn start(mut staging: Staging, files: Vec<Wanted>, began: Instant) -> Result<Self> {
        let mut targets = Vec::with_capacity(files.len());
        let mut cached_files = HashSet::new();
        for (number, wanted) in files.into_iter().enumerate() {
            let Wanted { source, name, cached_bytes, .. } = wanted;
            let is_checked = wanted.is_checked && staging.verifying.is_some();
            // All of what is in the cache is streamed again to be verified, but for whole pages.
            let start = match is_checked {
                true => cached_bytes.saturating_sub(1) / PAGE_BYTES as u64 * PAGE_BYTES as u64,
                false => cached_bytes,
            };
            let again_bytes = cached_bytes - start;
            let mut target = Target { source, name, staged: None, start, again_bytes, is_checked };
            // A cached file becomes one target only. Another target of the same object is
            // downloaded by itself.
            let cached = target.source.cached_file();
            if cached.is_none_or(|file| !cached_files.insert(file)) {
                target.staged = Some(staging.create(number)?);
                (target.start, target.again_bytes) = (target.first_byte(), 0);
            }
            targets.push(target);
        }
        targets.sort_by_key(|target| target.start >= target.source.len_bytes());
        let incomplete = targets.iter().filter(|target| target.start < target.source.len_bytes());
        let sources: Vec<_> =
            incomplete.map(|target| (Arc::clone(&target.source), target.start)).collect();
        let verifiers = verifiers_of(&staging, &targets)?;
        let stream = match sources.is_empty() {
            true => None,
            false => {
                let checks = LoadChecks {
                    verifiers: verifiers.iter().take(sources.len()).cloned().collect(),
                    ..LoadChecks::default()
                };
                let pieces = Arc::new(Checkpoint::of_pieces(sources, PIECE_BYTES)?);
                let report = LoadReport::begin(&staging.loader, tracing::info_span!("load"));
                let limit = staging.loader.resolved_memory_limit()?;
                Some(staging.loader.stream_checked(pieces, limit, checks, report)?)
            }
        };
        staging.is_disposable = false;
        Ok(Self { stream, targets, verifiers, staging, began })
    }

    /// The handle that shows the download's progress: that of the [loader](Loader::progress), or one of
    /// this download alone. Files on disk, which are copied, do not count.
    pub fn progress(&self) -> Progress {
        let watched = || self.staging.loader.opener.progress().cloned().unwrap_or_default();
        self.stream.as_ref().map_or_else(watched, TensorStream::progress)
    }

    /// Waits until all files are complete and have their final names.
    ///
    /// # Errors
    /// When an object cannot be read or a file cannot be written. No file then has its final name,
    /// unless the renaming failed. The next download of the same objects to the same directory
    /// continues where this one stopped.
    pub fn finish(mut self) -> Result<Downloaded> {
        let cached_bytes = self.stream().map_err(|error| {
            self.stream.iter().for_each(|stream| self.staging.discard(&stream.corrupt_files()));
            self.staging.explain(error)
        })?;
        let verifiers = || self.verifiers.iter().flatten();
        if let Some(unverified) = verifiers().find(|verifier| !verifier.is_verified()) {
            return Err(unverified.incomplete_error());
        }
        let complete: Result<Vec<_>> =
            self.targets.iter().map(|target| self.complete(target)).collect();
        let complete = complete.map_err(|error| self.staging.explain(error))?;
        for (target, from) in self.targets.iter().zip(&complete) {
            self.staging.place(from, &target.name)?;
        }
        self.staging.tidy(&complete);
        let path = |target: &Target| self.staging.directory.join(&target.name);
        let mut files: Vec<_> = self.targets.iter().map(path).collect();
        files.sort();
        Ok(Downloaded {
            files,
            bytes: self.targets.iter().map(|target| target.source.len_bytes()).sum(),
            cached_bytes,
            seconds: self.began.elapsed().as_secs_f64(),
            unfinished: self.staging.unfinished(),
            verified_against: verifiers().filter_map(|verifier| verifier.verified()).collect(),
        })
    }

    /// Streams all pieces; returns how many bytes were cached already.
    fn stream(&mut self) -> Result<u64> {
        let Some(stream) = &mut self.stream else {
            self.staging.loader.flush(None); // small files arrived when they were opened
            return Ok(0);
        };
        let streamed = stream.by_ref().try_for_each(|piece| {
            let piece = piece?;
            match &self.targets[piece.info().shard()].staged {
                None => Ok(()),
                Some(staged) => staged
                    .open()?
                    .write_all_at(piece.bytes(), piece.info().offset_bytes())
                    .map_err(unwritten(&staged.path)),
            }
        });
        self.staging.loader.flush(None); // writes the bytes that arrived before an error too
        streamed?;
        let again_bytes = self.targets.iter().map(|target| target.again_bytes).sum();
        Ok(stream.summary().cached_bytes.saturating_sub(again_bytes))
    }

    /// The path in the staging directory of the file that holds all bytes of `target`.
    fn complete(&self, target: &Target) -> Result<PathBuf> {
        self.staging.loader.opener.cancellation().check()?;
        if let Some(staged) = &target.staged {
            let (source, file) = (&*target.source, staged.open()?);
            if let Location::File(from) = source.location() {
                let from = open_regular(from, "file")?;
                let copied = match target.is_checked {
                    true => Ok(0), // it was streamed
                    false => io::copy(&mut &from, &mut &file),
                };
                let permitted =
                    copied.and_then(|_| file.set_permissions(from.metadata()?.permissions()));
                permitted.map_err(unwritten(&staged.path))?;
            }
            file.sync_all().map_err(unwritten(&staged.path))?;
            source.check_unchanged()?;
            return Ok(staged.name.clone().into());
        }
        let cached = target.source.cached_file().filter(|path| path.is_file());
        let cached = cached.ok_or_else(|| {
            let warning = self.staging.loader.cache_warning();
            let warning = warning.map(|warning| format!(" ({warning})")).unwrap_or_default();
            let location = target.source.location();
            let sentence =
                format!("{location} was not downloaded completely{warning}; download it again");
            Error::new(ErrorKind::Io, sentence)
        })?;
        self.staging.relative(&cached)
    }
}

/// The verifiers of `targets` whose files are verified.
fn verifiers_of(
    staging: &Staging,
    targets: &[Target],
) -> Result<Vec<Option<Arc<ChecksumVerifier>>>> {
    let Some(loader) = &staging.verifying else { return Ok(Vec::new()) };
    let checked = targets.iter().filter(|target| target.is_checked);
    let checked: Vec<_> = checked.map(|it| (Arc::clone(&it.source), it.start)).collect();
    let mut verifiers = loader.file_verifiers(&checked)?.into_iter();
    let next = |target: &Target| if target.is_checked { verifiers.next() } else { None };
    Ok(targets.iter().map(next).collect())
}

impl Target {
    /// The first byte to stream of a file that the cache does not fill. Local files are copied at the
    /// end, unless they are verified.
    fn first_byte(&self) -> u64 {
        let is_copied = matches!(self.source.location(), Location::File(_)) && !self.is_checked;
        if is_copied { self.source.len_bytes() } else { 0 }
    }
}

#[cfg(test)]
mod tests;
