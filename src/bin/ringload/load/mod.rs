//! `ringload load`: loads a checkpoint and reports how fast it went.
//!
//! ```text
//! TensorStream --tensor-------------------------> kept until the end (no memory limit), or dropped
//!                  \-- --digest --> Digester, one worker a core --> the same
//! ```
//!
//! Without a memory limit all tensors stay resident until the end, as they would in a server, so
//! that the reported peak memory is realistic. Under a limit, and with `--drop`, each tensor is
//! dropped as soon as it has been processed.

mod digest;
pub mod progress;
pub mod report;
mod retention;
mod rows;
mod trace;

use crate::failure::{Failure, Outcome};
use crate::locations::CheckpointArgs;
use crate::options::{LoadOptions, flush};
use crate::output;
use digest::{Digester, Digests};
use report::Report;
use retention::Retention;
use ringload::{LocationText, Progress, Tensor, TensorStream, Timeline};
use std::path::PathBuf;
use std::thread::{self, Scope};
use trace::{Trace, TraceFile};

/// Load a checkpoint into memory and report bytes, time and speed.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    checkpoint: CheckpointArgs<LoadOptions>,
    /// Print the SHA-256 of each tensor's bytes, sorted by name, as sha256sum does
    #[arg(long)]
    digest: bool,
    /// Drop each tensor as it arrives, as under a memory limit, instead of keeping all until the end
    #[arg(long)]
    drop: bool,
    /// Write a timeline of the load's slots to this file, for ui.perfetto.dev or chrome://tracing
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

/// Runs the subcommand.
///
/// # Errors
/// When the checkpoint cannot be loaded or the answer cannot be written.
pub fn run(args: Args) -> Outcome {
    let trace_file = args.trace.as_deref().map(TraceFile::open).transpose()?;
    let CheckpointArgs { locations, options, json } = args.checkpoint;
    let progress = Progress::new();
    let loader = options.loader()?.timeline(trace_file.is_some()).progress(&progress);
    let locations = locations.parse()?;
    let named: Vec<_> = locations.iter().map(LocationText::from).collect();
    let (stream, outcome) = thread::scope(|scope| {
        let _bar = progress::show(scope, &progress);
        let mut stream = loader.stream(locations)?;
        if let Some(file) = &trace_file {
            file.check(stream.checkpoint(), options.path("manifest"))?;
        }
        let outcome = consume(scope, &mut stream, args.digest, args.drop);
        Ok::<_, Failure>((stream, outcome))
    })?;
    let traced = trace_file.map_or(Ok(()), |file| {
        let timeline = match &outcome {
            Ok(results) => results.timeline.clone(),
            Err(_) => stream.timeline(),
        };
        file.write(&Trace::new(&stream, &timeline.unwrap_or_default(), &named))
    });
    drop(stream);
    flush(&loader); // writes the bytes that arrived before an error too
    outcome?.print(json, loader.cache_warning())?;
    traced
}

/// The results of a load, taken before its tensors are dropped.
struct LoadResults {
    report: Report,
    digests: Option<Digests>,
    timeline: Option<Timeline>,
}

impl LoadResults {
    fn of(stream: &TensorStream, digests: Option<Digests>) -> Outcome<Self> {
        Ok(Self { report: Report::of(stream)?, digests, timeline: stream.timeline() })
    }

    fn print(self, json: bool, cache_warning: Option<String>) -> Outcome {
        let report = self.report.with_cache_warning(cache_warning);
        match (json, self.digests) {
            (true, digests) => output::print_json(&report.with_digests(digests)),
            (false, Some(digests)) => output::print(|out| digest::write(out, &digests)),
            (false, None) => output::print(|out| report.write(out)),
        }
    }
}

/// Takes every tensor of the stream, and hashes them if `digest`.
fn consume<'scope>(
    scope: &'scope Scope<'scope, '_>,
    stream: &mut TensorStream,
    digest: bool,
    drop: bool,
) -> Outcome<LoadResults> {
    // The memory limit applies to host memory only.
    let host = !drop && stream.summary().memory_limit_bytes.is_none();
    let retention = Retention { host, gpus: !drop };
    if digest {
        let digester = Digester::start(scope, retention)?;
        // On an error the digester is dropped: its workers empty the queue and end with the scope.
        for tensor in stream.by_ref() {
            digester.take(tensor?);
        }
        let (digests, _tensors) = digester.finish()?;
        LoadResults::of(stream, Some(digests))
    } else {
        let _tensors = keep_or_drop(stream, retention)?;
        LoadResults::of(stream, None)
    }
}

/// Runs the stream to its end and returns the tensors that are kept.
fn keep_or_drop(stream: &mut TensorStream, retention: Retention) -> ringload::Result<Vec<Tensor>> {
    stream.filter(|tensor| !matches!(tensor, Ok(tensor) if !retention.keeps(tensor))).collect()
}
