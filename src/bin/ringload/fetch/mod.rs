//! `ringload fetch`: brings objects to disk ahead of the loads that need them.
//!
//! It is a load that drops every tensor and waits for the cache's disk. With `--to` the cache is a
//! hidden directory of its own in the target, so that what broke off goes on from there; complete
//! files are then renamed into place.

mod plain;

use crate::caching::Caching;
use crate::failure::Outcome;
use crate::format;
use crate::load::progress;
use crate::locations::Locations;
use crate::output;
use crate::remote::Remote;
use plain::Target;
use ringload::{Checkpoint, Error, ErrorKind, Loader, MemoryLimit};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

/// What a fetch takes of memory, if no tensor is larger.
const MEMORY_BYTES: u64 = 256 << 20;

/// Bring objects to the local file cache, or to plain files, ahead of the loads that need them.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    locations: Locations,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    caching: Caching,
    /// Write plain safetensors files (and their index) to this directory, instead of to the cache
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What was fetched.
#[derive(Debug, Serialize)]
struct Fetched {
    bytes: u64,
    shards: usize,
    seconds: f64,
    /// Of `bytes`, what was on disk already.
    cached_bytes: u64,
    /// The plain files, with `--to`.
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<Vec<String>>,
}

/// Runs the subcommand.
///
/// # Errors
/// When the objects cannot be fetched, or there is nowhere to put all of them.
pub fn run(args: Args) -> Outcome {
    let loader = args.caching.apply(args.remote.apply(Loader::new())?).cache_patiently(true);
    let target = args.to.map(Target::new).transpose()?;
    let loader = match &target {
        Some(target) => target.cache_of(loader),
        None if loader.cache_directory()?.is_some() => loader,
        None => {
            let sentence = "there is nowhere to put what is fetched; give --to, or --cache-dir or \
                            RINGLOAD_CACHE_DIR for the cache";
            return Err(Error::new(ErrorKind::InvalidInput, sentence).into());
        }
    };
    let checkpoint = Arc::new(loader.open(args.locations.parse()?)?);
    let mut fetched = fetch(&loader, &checkpoint)?;
    if let Some(target) = target {
        fetched.files = Some(target.place(&checkpoint)?);
    }
    match args.json {
        true => output::print_json(&fetched),
        false => output::print(|out| {
            let shards = format::count(fetched.shards, "file");
            let (size, took) = (format::size(fetched.bytes), format::duration(fetched.seconds));
            writeln!(out, "{shards}, {size} in {took}")?;
            if fetched.cached_bytes > 0 {
                writeln!(out, "{} were there already", format::size(fetched.cached_bytes))?;
            }
            fetched.files.iter().flatten().try_for_each(|file| writeln!(out, "{file}"))
        }),
    }
}

/// Brings all of `checkpoint` to the loader's cache.
fn fetch(loader: &Loader, checkpoint: &Arc<Checkpoint>) -> Outcome<Fetched> {
    let largest = checkpoint.tensors().iter().map(|tensor| tensor.len_bytes()).max();
    let limit = MemoryLimit::Bytes(largest.unwrap_or(0).max(MEMORY_BYTES));
    let loader = loader.clone().memory_limit(limit);
    let mut stream = loader.stream_checkpoint(Arc::clone(checkpoint))?;
    let progress = stream.progress();
    let outcome = thread::scope(|scope| {
        let _bar = progress::show(scope, progress);
        stream.by_ref().try_for_each(|tensor| tensor.map(drop))
    });
    loader.flush(None); // also what came before it broke off
    outcome?;
    let summary = stream.summary();
    let trouble = loader.cache_trouble().or(summary.cache_trouble);
    if let Some(trouble) = trouble {
        return Err(Error::new(ErrorKind::Io, format!("not all was kept: {trouble}")).into());
    }
    let shards = checkpoint.shards();
    Ok(Fetched {
        bytes: shards.iter().map(|shard| shard.len_bytes()).sum(),
        shards: shards.len(),
        seconds: summary.seconds,
        cached_bytes: summary.cached_bytes,
        files: None,
    })
}
