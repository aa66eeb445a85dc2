//! `ringload fetch`: downloads objects ahead of the loads that need them.
//!
//! Fetching into the cache is a load that drops every tensor and waits for the cache's disk. With
//! `--to`, the library's download writes plain files. Both compare what they fetch with checksums, if
//! that is asked for.

use crate::failure::{Failure, Outcome};
use crate::format;
use crate::load::progress;
use crate::locations::{CheckpointArgs, is_local};
use crate::options::FetchOptions;
use crate::output;
use crate::streams;
use ringload::internals::{
    UNFINISHED_DOWNLOAD, discard_corrupt, is_cached, shown, stream_into_cache, unverified,
};
use ringload::{
    Checkpoint, Error, ErrorKind, Loader, Location, LocationText, MemoryLimit, Progress, Summary,
    Verified,
};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

/// The memory that a fetch into the cache uses, unless a tensor is larger.
const MEMORY_BYTES: u64 = 256 << 20;

/// Download objects to the local file cache, or to plain files, ahead of the loads that need them.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    checkpoint: CheckpointArgs<FetchOptions>,
    /// Write plain safetensors files (and their index) to this directory, instead of to the cache
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

/// The answer of `--json`.
#[derive(Debug, Serialize)]
struct Fetched {
    bytes: u64,
    /// How many files were fetched, with `--to` including the indexes.
    objects: usize,
    seconds: f64,
    /// How many of `bytes` were on disk already.
    cached_bytes: u64,
    /// The paths of the plain files, with `--to`.
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<Vec<LocationText>>,
    /// The local files, which are not copied to the cache.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_copied: Vec<LocationText>,
    /// The objects of other, unfinished downloads to the directory.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unfinished: Vec<LocationText>,
    /// The files that were verified, each with what it was compared with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    verified_against: Vec<Verified>,
}

/// Runs the subcommand.
///
/// # Errors
/// When the objects cannot be fetched, or neither a cache nor a directory is given.
pub fn run(args: Args) -> Outcome {
    let CheckpointArgs { locations, options, json } = args.checkpoint;
    let (loader, locations) = (options.loader()?, locations.parse()?);
    let fetched = match &args.to {
        Some(directory) => download(&loader, locations, directory)?,
        None => fill_cache(loader, locations)?,
    };
    match json {
        true => output::print_json(&fetched),
        false => output::print(|out| {
            let local = fetched.not_copied.len();
            if local == 0 || fetched.objects > 0 {
                let files = format::count(fetched.objects, "file");
                let (size, time) = (format::size(fetched.bytes), format::duration(fetched.seconds));
                writeln!(out, "{files}, {size} in {time}")?;
            }
            if local > 0 {
                let files = format::count(local, "local file");
                writeln!(out, "{files} not copied to the cache; loads read local files directly")?;
            }
            if fetched.cached_bytes > 0 {
                writeln!(out, "{} were on disk already", format::size(fetched.cached_bytes))?;
            }
            for (against, files) in fetched.verified() {
                writeln!(out, "{} verified against the {against}", format::count(files, "file"))?;
            }
            fetched.files.iter().flatten().try_for_each(|file| writeln!(out, "{file}"))?;
            if let Some(directory) = args.to.as_ref().filter(|_| !fetched.unfinished.is_empty()) {
                let kept = directory.join(UNFINISHED_DOWNLOAD);
                let kept = shown(kept.display());
                writeln!(out, "the parts of unfinished downloads are kept in {kept}:")?;
                fetched.unfinished.iter().try_for_each(|object| writeln!(out, "  {object}"))?;
                writeln!(out, "fetch them to the same directory to finish them, or remove {kept}")?;
            }
            Ok(())
        }),
    }
}

impl Fetched {
    /// How many files were verified against each checksum.
    fn verified(&self) -> BTreeMap<String, usize> {
        let of_store = |against: &str| against.strip_suffix(" of its store").map(str::to_owned);
        let mut files = BTreeMap::new();
        for Verified { against, .. } in &self.verified_against {
            let of_store = of_store(against).map(|checksum| format!("{checksum} of the store"));
            *files.entry(of_store.unwrap_or_else(|| against.clone())).or_default() += 1;
        }
        files
    }
}

fn download(loader: &Loader, locations: Vec<Location>, directory: &Path) -> Outcome<Fetched> {
    let kept = directory.join(UNFINISHED_DOWNLOAD);
    let sentence = format!(
        "\ninterrupted; what has arrived is kept in {}, and the same download goes on from there\n",
        shown(kept.display())
    );
    streams::explain_interrupts(&kept, sentence);
    let progress = Progress::new();
    let loader = loader.clone().progress(&progress);
    let downloaded = thread::scope(|scope| {
        let _bar = progress::show(scope, &progress);
        loader.download_checkpoint(locations, directory)?.finish()
    })?;
    let files: Vec<_> =
        downloaded.files.iter().map(|file| LocationText::from(file.as_path())).collect();
    Ok(Fetched {
        bytes: downloaded.bytes,
        objects: files.len(),
        seconds: downloaded.seconds,
        cached_bytes: downloaded.cached_bytes,
        files: Some(files),
        not_copied: Vec::new(),
        unfinished: downloaded.unfinished,
        verified_against: downloaded.verified_against,
    })
}

fn fill_cache(loader: Loader, locations: Vec<Location>) -> Outcome<Fetched> {
    let began = Instant::now();
    let no_cache = "there is no cache to fetch into; give --cache-dir or set RINGLOAD_CACHE_DIR, or \
                    give --to to write plain files";
    let verifying = filling(loader, no_cache)?;
    let loader = unverified(&verifying);
    let checkpoint = Arc::new(loader.open(locations)?);
    let (local, remote): (Vec<_>, Vec<_>) =
        checkpoint.shards().iter().partition(|shard| is_local(shard.location()));
    let mut fetched = Fetched {
        bytes: remote.iter().map(|shard| shard.len_bytes()).sum(),
        objects: remote.len(),
        seconds: 0.0,
        cached_bytes: 0,
        files: None,
        not_copied: local.iter().map(|shard| LocationText::from(shard.location())).collect(),
        unfinished: Vec::new(),
        verified_against: Vec::new(),
    };
    if remote.is_empty() {
        return Ok(fetched);
    }
    let filled = fill(&verifying, &loader, &checkpoint)?;
    (fetched.cached_bytes, fetched.verified_against) =
        (filled.cached_bytes, filled.verified_against);
    fetched.seconds = began.elapsed().as_secs_f64();
    Ok(fetched)
}

/// A loader that fills its cache, with which checkpoints for [`fill`] are opened. The sentence `no_cache`
/// says what to do without one.
///
/// # Errors
/// [`Failure::Usage`] when it has no cache.
pub fn filling(loader: Loader, no_cache: &str) -> Outcome<Loader> {
    if loader.cache_directory()?.is_none() {
        return Err(Failure::usage(no_cache));
    }
    Ok(loader.cache_waits_for_disk(true))
}

/// Brings all of a checkpoint into the cache of the loader that opened it, with the checks that
/// `verifying` has. Returns the statistics of the load.
///
/// # Errors
/// When the objects cannot be read, not all of them could be cached, or one is corrupt.
pub fn fill(verifying: &Loader, loader: &Loader, checkpoint: &Arc<Checkpoint>) -> Outcome<Summary> {
    let largest = checkpoint.tensors().iter().map(|tensor| tensor.len_bytes()).max();
    let limit = MemoryLimit::Bytes(largest.unwrap_or(0).max(MEMORY_BYTES));
    let loader = loader.clone().memory_limit(limit);
    let mut stream = stream_into_cache(verifying, &loader, Arc::clone(checkpoint))?;
    let progress = stream.progress();
    let outcome = thread::scope(|scope| {
        let _bar = progress::show(scope, &progress);
        stream.by_ref().try_for_each(|tensor| tensor.map(drop))
    });
    loader.flush(None); // writes the bytes that arrived before an error too
    if outcome.is_err() {
        let directory = loader.cache_directory()?;
        directory.iter().for_each(|directory| discard_corrupt(&stream, directory));
    }
    outcome?;
    let summary = stream.summary();
    let warning = loader.cache_warning().or_else(|| summary.cache_warning.clone());
    if let Some(warning) = warning.filter(|_| !is_all_cached(checkpoint)) {
        let sentence = format!("not everything was cached: {warning}");
        return Err(Error::new(ErrorKind::Io, sentence).into());
    }
    Ok(summary)
}

/// Whether the loader's cache has all of the checkpoint's objects, in the versions that were opened. A
/// directory that also holds other files is a cause of a warning, and not of an incomplete fetch.
fn is_all_cached(checkpoint: &Checkpoint) -> bool {
    let shards = checkpoint.shards().iter();
    shards.filter(|shard| !is_local(shard.location())).all(is_cached)
}
