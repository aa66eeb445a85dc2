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
//! are on disk. Whatever other users put into the directory meanwhile, only files in the directories
//! that the download has opened are written and replaced.

mod names;
mod open_directory;
mod staging;

use super::loader::Loader;
use super::stream::TensorStream;
use crate::checkpoint::{Checkpoint, parallel};
use crate::error::{Error, ErrorKind, Result};
use crate::location::{IntoLocations, Location, LocationText};
use crate::ring::PAGE_BYTES;
use crate::source::{Progress, Source};
use crate::sys::open_regular;
use names::{name_of, outside, plain};
use staging::{StagedFile, Staging, unwritten};
use std::collections::HashSet;
use std::fs::File;
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
}

impl Loader {
    /// Downloads the objects of `files` to `directory`, each to the file of the given name, which is
    /// relative to the directory and may be in a subdirectory. Directories are created as needed,
    /// and files that exist are replaced. Local files are copied.
    ///
    /// The loader's options for remote locations apply. The local file cache is not used. While
    /// another download to the same directory runs, the call waits.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) when a name leads out of the directory, two files
    /// have the same name, or the loader verifies checksums; otherwise those of opening the objects.
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
        let files = sources.into_iter().zip(names).map(|(source, name)| (source, name, 0));
        Download::start(staging, files.collect(), began)
    }

    /// Downloads the files of the checkpoint at `locations` and its indexes to `directory`. Shards
    /// of an index keep their paths below the index; other files keep their names.
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
            let start = header_bytes.min(shard.len_bytes());
            files.push((Arc::clone(shard.source()), name_of(shard.location(), bases), start));
        }
        for index in bases {
            let source = opener.open(index)?;
            let start = source.len_bytes();
            files.push((source, name_of(index, bases), start));
        }
        let names: Vec<_> = files.iter().map(|(_, name, _)| name.clone()).collect();
        staging.check(&names)?;
        Download::start(staging, files, began)
    }
}

impl Download {
    /// Starts to download `files`, each given by its source, its name, and the number of bytes that
    /// are cached already.
    fn start(
        mut staging: Staging,
        files: Vec<(Arc<dyn Source>, PathBuf, u64)>,
        began: Instant,
    ) -> Result<Self> {
        let mut targets = Vec::with_capacity(files.len());
        let mut cached_files = HashSet::new();
        for (number, (source, name, cached)) in files.into_iter().enumerate() {
            let (mut staged, mut start) = (None, cached);
            // A cached file becomes one target only. Another target of the same object is
            // downloaded by itself.
            if source.cached_file().is_none_or(|file| !cached_files.insert(file)) {
                staged = Some(staging.create(number)?);
                // Local files are copied at the end.
                let is_local = matches!(source.location(), Location::File(_));
                start = if is_local { source.len_bytes() } else { 0 };
            }
            targets.push(Target { source, name, staged, start });
        }
        targets.sort_by_key(|target| target.start >= target.source.len_bytes());
        let incomplete = targets.iter().filter(|target| target.start < target.source.len_bytes());
        let sources: Vec<_> =
            incomplete.map(|target| (Arc::clone(&target.source), target.start)).collect();
        let stream = match sources.is_empty() {
            true => None,
            false => {
                let pieces = Arc::new(Checkpoint::of_pieces(sources, PIECE_BYTES)?);
                Some(staging.loader.stream_checkpoint(pieces)?)
            }
        };
        staging.is_disposable = false;
        Ok(Self { stream, targets, staging, began })
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
        let streamed = self.stream();
        let cached_bytes = streamed.map_err(|error| self.staging.explain(error))?;
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
        Ok(stream.summary().cached_bytes)
    }

    /// The path in the staging directory of the file that holds all bytes of `target`.
    fn complete(&self, target: &Target) -> Result<PathBuf> {
        self.staging.loader.opener.cancellation().check()?;
        if let Some(staged) = &target.staged {
            let (source, file) = (&*target.source, staged.open()?);
            if let Location::File(from) = source.location() {
                let from = open_regular(from, "file")?;
                copy(&from, &file).map_err(unwritten(&staged.path))?;
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

/// Copies a file, with its permissions.
fn copy(mut from: &File, mut to: &File) -> io::Result<()> {
    io::copy(&mut from, &mut to)?;
    to.set_permissions(from.metadata()?.permissions())
}

#[cfg(test)]
mod tests;
