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

use crate::caching::{self, Caching};
use crate::failure::Outcome;
use crate::format;
use crate::locations::Locations;
use crate::output;
use crate::remote::Remote;
use digest::{Digester, Digests};
use report::Report;
use retention::Retention;
use ringload::{
    Device, DeviceMap, Loader, Location, MemoryLimit, ReadPath, Tensor, TensorStream, Timeline,
};
use std::path::PathBuf;
use std::thread;
use trace::{Trace, TraceFile};

/// Load a checkpoint into memory and report bytes, time and speed.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    locations: Locations,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    caching: Caching,
    /// Stream under this cap on memory: 'unlimited', 'min', or a size such as 4GiB
    #[arg(long, value_name = "LIMIT")]
    memory_limit: Option<MemoryLimit>,
    /// Where tensors end up: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Host)]
    device: Device,
    /// Tensors whose name matches end up on another device; the first match counts. May be repeated
    #[arg(long, value_name = "GLOB=DEVICE", value_parser = parse_rule)]
    device_map: Vec<(String, Device)>,
    /// Cast floats to this type on the way in: f32, f16 or bf16
    #[arg(long, value_name = "DTYPE", value_parser = ringload::options::parse_dtype)]
    dtype: Option<ringload::Dtype>,
    /// How to read files: auto, direct, buffered, mapped or gds
    #[arg(long, value_name = "PATH", value_parser = str::parse::<ReadPath>)]
    read_path: Option<ReadPath>,
    /// Threads that read; 0 lets ringload choose
    #[arg(long, value_name = "N", default_value_t = 0)]
    engines: usize,
    /// Bytes that one read or range asks for [default: 8MiB; less under a small limit]
    #[arg(long, value_name = "BYTES", value_parser = format::parse_size)]
    read_size: Option<u64>,
    /// Only tensors whose name matches this pattern; may be repeated
    #[arg(long, value_name = "GLOB")]
    tensors: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Print the SHA-256 of each tensor's bytes, sorted by name, as sha256sum does
    #[arg(long)]
    digest: bool,
    /// Drop each tensor as it comes, as under a cap, instead of keeping all until the end
    #[arg(long)]
    drop: bool,
    /// Write a timeline of the load's slots to this file, for ui.perfetto.dev or chrome://tracing
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Check every object against the checksum that its store keeps of it
    #[arg(long)]
    verify: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// When the checkpoint cannot be loaded or the answer cannot be written.
pub fn run(args: Args) -> Outcome {
    let trace_file = args.trace.as_deref().map(TraceFile::open).transpose()?;
    let loader = args.loader()?.timeline(trace_file.is_some());
    let locations: Vec<Location> = args.locations.parse()?;
    let named = locations.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let mut stream = loader.stream(locations)?;
    let outcome = consume(&mut stream, args.digest, args.drop);
    let traced = trace_file.map_or(Ok(()), |file| {
        let timeline = match &outcome {
            Ok(results) => results.timeline.clone(),
            Err(_) => stream.timeline(),
        };
        file.write(&Trace::new(&stream, &timeline.unwrap_or_default(), &named))
    });
    drop(stream);
    caching::flush(&loader); // also what arrived before an error
    outcome?.print(args.json, loader.cache_trouble())?;
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

    fn print(self, json: bool, cache_trouble: Option<String>) -> Outcome {
        let report = self.report.with_cache_trouble(cache_trouble);
        match (json, self.digests) {
            (true, digests) => output::print_json(&report.with_digests(digests)),
            (false, Some(digests)) => output::print(|out| digest::write(out, &digests)),
            (false, None) => output::print(|out| report.write(out)),
        }
    }
}

impl Args {
    /// The loader these options describe. What is not given is left to the library, which reads
    /// the environment.
    fn loader(&self) -> ringload::Result<Loader> {
        let mut devices = DeviceMap::from(self.device);
        for (glob, device) in &self.device_map {
            devices = devices.with(glob, *device)?;
        }
        let loader = Loader::new().engines(self.engines).verify(self.verify).device(devices);
        let mut loader = self.caching.apply(self.remote.apply(loader)?);
        if let Some(limit) = self.memory_limit {
            loader = loader.memory_limit(limit);
        }
        if let Some(dtype) = self.dtype {
            loader = loader.dtype(dtype);
        }
        if let Some(path) = self.read_path {
            loader = loader.read_path(path);
        }
        if let Some(bytes) = self.read_size {
            loader = loader.read_bytes(bytes);
        }
        if !self.tensors.is_empty() {
            loader = loader.tensors(self.tensors.iter().cloned());
        }
        Ok(loader)
    }
}

/// `GLOB=DEVICE`; a glob may hold a `=` itself.
fn parse_rule(text: &str) -> Result<(String, Device), String> {
    let (glob, device) = text.rsplit_once('=').ok_or("use GLOB=DEVICE, e.g. 'lm_head.*=cuda:1'")?;
    Ok((glob.to_owned(), device.parse().map_err(|e: ringload::Error| e.to_string())?))
}

/// Takes every tensor of the stream while a progress bar is shown, and hashes them if `digest`.
fn consume(stream: &mut TensorStream, digest: bool, drop: bool) -> Outcome<LoadResults> {
    // The memory limit applies to host memory only.
    let host = !drop && stream.summary().memory_limit_bytes.is_none();
    let retention = Retention { host, gpus: !drop };
    let progress = stream.progress();
    thread::scope(|scope| {
        let _bar = progress::show(scope, progress);
        if digest {
            let digester = Digester::start(scope, retention);
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
    })
}

/// Runs the stream to its end and returns the tensors that stay.
fn keep_or_drop(stream: &mut TensorStream, retention: Retention) -> ringload::Result<Vec<Tensor>> {
    stream.filter(|tensor| !matches!(tensor, Ok(tensor) if !retention.keeps(tensor))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_a_device_map_end_in_a_device() {
        let rule = parse_rule("a=b*=cuda:1");
        assert_eq!(rule, Ok(("a=b*".to_owned(), Device::cuda(1))));
        assert!(parse_rule("lm_head").is_err_and(|e| e.contains("GLOB=DEVICE")));
        assert!(parse_rule("lm_head=gpu").is_err_and(|e| e.contains("\"gpu\"")));
    }
}
