//! `ringload hold`: keeps checkpoints in the page cache until it is told to stop.
//!
//! ```text
//! open the checkpoint; say the limits, and fail if they are too low (`limits`)
//!   -->  fetch objects into the local file cache, or copy all to huge pages (`huge`)
//!   -->  read and lock the files (`lock`)  -->  report, tell systemd  -->  wait for a signal (`stop`)
//! ```
//!
//! Loads need not know of it: they find the pages in memory. The end of the process unlocks the pages.
//! `--status` asks the kernel which processes hold what (`status`), so that nothing can be out of date.

mod huge;
mod limits;
mod lock;
mod status;
mod stop;

use crate::failure::Outcome;
use crate::locations::{CheckpointArgs, is_local};
use crate::options::StorageOptions;
use crate::{fetch, format, output};
use huge::Copies;
use limits::Limits;
use lock::Shares;
use ringload::internals::{HeldCheckpoint, HeldFile, shown};
use ringload::{Checkpoint, Loader, Location, LocationText};
use sd_notify::NotifyState;
use serde::Serialize;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use stop::Stop;

/// Keep checkpoints in memory, so that loads of them need no disk, until told to stop.
#[derive(Debug, clap::Args)]
#[command(mut_arg("arguments", |locations| locations.required(false).required_unless_present("status")))]
pub struct Args {
    #[command(flatten)]
    checkpoint: CheckpointArgs<StorageOptions>,
    /// Hold at most this much, such as 20GiB: the files in their order, as far as that goes
    #[arg(long, value_name = "SIZE", value_parser = format::parse_size)]
    budget: Option<u64>,
    /// Copy the checkpoint to this empty directory of a tmpfs with huge pages, and hold the copy; it is
    /// removed at the end
    #[arg(long, value_name = "DIR", conflicts_with = "budget")]
    huge: Option<PathBuf>,
    /// List what is held on this machine, and by which process
    #[arg(long, conflicts_with_all = ["arguments", "budget", "huge"])]
    status: bool,
}

/// The answer of `--json`, once everything is held.
#[derive(Debug, Serialize)]
struct Report {
    pid: u32,
    /// The length of all files.
    bytes: u64,
    held_bytes: u64,
    seconds: f64,
    files: Vec<FileReport>,
}

#[derive(Debug, Serialize)]
struct FileReport {
    location: LocationText,
    /// The local file: of an object, that in the local file cache.
    path: LocationText,
    bytes: u64,
    held_bytes: u64,
}

/// Runs the subcommand.
///
/// # Errors
/// When a checkpoint cannot be opened or fetched, or a limit does not permit to hold it.
pub fn run(args: Args) -> Outcome {
    let json = args.checkpoint.json;
    if args.status {
        return status::print(json);
    }
    // Before any thread exists: each inherits the signals that are blocked.
    let stop = Stop::on_signals()?;
    // The name is what `--status` looks for, and nothing else depends on it.
    let _ = nix::sys::prctl::set_name(status::PROCESS_NAME);
    let began = Instant::now();
    let held = match hold(args, &stop) {
        Err(_) if stop.was_requested() => return Ok(()),
        outcome => outcome?,
    };
    print(&held.report(began.elapsed().as_secs_f64()), json)?;
    stop.wait();
    tell_service_manager(&[NotifyState::Stopping]);
    drop(held);
    match json {
        true => Ok(()),
        false => output::print(|out| writeln!(out, "released")),
    }
}

/// What is held, until this value is dropped.
struct Held {
    checkpoint: HeldCheckpoint,
    shares: Shares,
    _copies: Option<Copies>,
}

fn hold(args: Args, stop: &Stop) -> Outcome<Held> {
    let CheckpointArgs { locations, options, json } = args.checkpoint;
    let (loader, locations) = (options.loader()?, locations.parse()?);
    let loader = loader.cancellation(stop.cancellation());
    let loader = match args.huge {
        Some(_) => loader,
        None => with_cache(loader, &locations)?,
    };
    let opened = Arc::new(loader.open(locations.clone())?);
    let shares = |opened: &Checkpoint| {
        Shares::new(opened.shards().iter().map(|shard| shard.len_bytes()), args.budget)
    };
    let limits = Limits::of_this_process();
    if !json {
        // A standard error that is closed is no reason not to hold.
        let _ = writeln!(io::stderr(), "{}", limits.sentence());
    }
    limits.check(shares(&opened).bytes())?;
    let (opened, copies) = match &args.huge {
        Some(directory) => {
            let copies = Copies::make(&loader, locations, directory)?;
            (Arc::new(loader.open(copies.location())?), Some(copies))
        }
        None => {
            if opened.shards().iter().any(|shard| !is_local(shard.location())) {
                fetch::fill(&loader, &loader, &opened)?;
            }
            (opened, None)
        }
    };
    let shares = shares(&opened);
    let checkpoint = HeldCheckpoint::new(opened)?;
    lock::hold(&checkpoint, &shares, stop.cancellation())?;
    Ok(Held { checkpoint, shares, _copies: copies })
}

/// The loader, which fills its cache with the objects among `locations`.
fn with_cache(loader: Loader, locations: &[Location]) -> Outcome<Loader> {
    if locations.iter().all(is_local) {
        return Ok(loader);
    }
    let no_cache = "files are held, and there is no cache for those of a store; give --cache-dir, set \
                    RINGLOAD_CACHE_DIR, or copy them with --huge";
    fetch::filling(loader, no_cache)
}

impl Held {
    fn report(&self, seconds: f64) -> Report {
        let files = self.checkpoint.files();
        let shares = files.iter().zip(self.shares.of_files());
        let report = |(file, held_bytes): (&HeldFile, u64)| FileReport {
            location: LocationText::from(file.location()),
            path: LocationText::from(file.path().as_path()),
            bytes: file.len_bytes(),
            held_bytes,
        };
        Report {
            pid: std::process::id(),
            bytes: files.iter().map(|file| file.len_bytes()).sum(),
            held_bytes: self.shares.bytes(),
            seconds,
            files: shares.map(report).collect(),
        }
    }
}

fn print(report: &Report, json: bool) -> Outcome {
    let files = format::count(report.files.len(), "file");
    let held = match report.held_bytes == report.bytes {
        true => format::size(report.bytes),
        false => {
            format!("{} of {}", format::size(report.held_bytes), format::size(report.bytes))
        }
    };
    let sentence = format!("holding {held}, {files}, after {}", format::duration(report.seconds));
    match json {
        true => output::print_json(report)?,
        false => output::print(|out| {
            for file in &report.files {
                let part = if file.held_bytes == file.bytes { "" } else { " (in part)" };
                writeln!(out, "{}{part}", shown(&file.path))?;
            }
            writeln!(out, "{sentence}; Ctrl-C or SIGTERM ends it")
        })?,
    }
    tell_service_manager(&[NotifyState::Ready, NotifyState::Status(&sentence)]);
    Ok(())
}

/// Tells systemd, where it has started this process as a service of the type `notify`.
fn tell_service_manager(states: &[NotifyState]) {
    if let Err(cause) = sd_notify::notify(states) {
        tracing::warn!("the service manager could not be told: {cause}");
    }
}
