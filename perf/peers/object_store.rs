//! One object by the crate `object_store`: GETs of ranges, on several connections at once.
//!
//! ```text
//! object-store URL [--connections N] [--sums]
//! ```
//!
//! URL is `http(s)://...` or `s3://BUCKET/KEY`; for the latter the environment says what it says to
//! the AWS SDKs (`AWS_ENDPOINT_URL` among it). Ranges are RANGE_BYTES long, and N of them are under
//! way. Their bytes are dropped as they come, frame by frame: the least that the crate can do. Prints
//! one JSON object, with the keys that client.py has; bytes are those of the tensors. With `--sums`
//! the bytes are kept and taken apart by the object's own header, and figures mean nothing.
//!
//! This file is the source of a crate that is made when it is needed: what it depends on is kept out
//! of the workspace. Certificates are the system's, or SSL_CERT_FILE's.

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::AmazonS3Builder;
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{ClientOptions, GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use serde_json::{Map, Value, json};
use std::error::Error;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const RANGE_BYTES: u64 = 8 << 20;

fn main() -> Result<()> {
    let options = Options::of_arguments(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let told = runtime.block_on(load(&options))?;
    println!("{told}");
    Ok(())
}

struct Options {
    url: String,
    connections: usize,
    sums: bool,
}

impl Options {
    fn of_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let (mut url, mut connections, mut sums) = (None, 16, false);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--connections" => {
                    connections =
                        arguments.next().ok_or("--connections needs a number")?.parse()?;
                }
                "--sums" => sums = true,
                _ => url = Some(argument),
            }
        }
        let url = url.ok_or("usage: object-store URL [--connections N] [--sums]")?;
        Ok(Self { url, connections: std::cmp::max(connections, 1), sums })
    }
}

async fn load(options: &Options) -> Result<Value> {
    let (began, cpu_began) = (Instant::now(), cpu_seconds());
    let (store, path) = open(&options.url)?;
    let header = header(&store, &path).await?;
    let body = header.body();
    let first = std::sync::Mutex::new(None);
    let ranges = ranges(&body);
    let mut got: Vec<(u64, Vec<u8>)> = stream::iter(ranges)
        .map(|range| get(&store, &path, range, options.sums, &first))
        .buffer_unordered(options.connections)
        .try_collect()
        .await?;
    let (ended, cpu_ended) = (Instant::now(), cpu_seconds());
    let first = first.into_inner()?.unwrap_or(ended);
    let mut told = json!({
        "seconds": (ended - began).as_secs_f64(),
        "cpu_seconds": cpu_ended - cpu_began,
        "bytes": body.end - body.start,
        "tensors": header.tensors.len(),
        "first_tensor_seconds": since_start(first),
        "last_tensor_seconds": since_start(ended),
        "peak_rss_bytes": peak_rss_bytes()?,
        "version": env!("CARGO_PKG_VERSION"),
    });
    if options.sums {
        got.sort_by_key(|(begin, _)| *begin);
        let bytes: Vec<u8> = got.into_iter().flat_map(|(_, bytes)| bytes).collect();
        told["sums"] = header.sums(&bytes)?;
    }
    Ok(told)
}

/// The store and the object's path in it.
fn open(url: &str) -> Result<(Arc<dyn ObjectStore>, Path)> {
    let client = client_options();
    let (scheme, rest) = url.split_once("://").ok_or_else(|| format!("{url} is no URL"))?;
    let (host, key) = rest.split_once('/').ok_or_else(|| format!("{url} names no object"))?;
    let store: Arc<dyn ObjectStore> = match scheme {
        "s3" => Arc::new(
            AmazonS3Builder::from_env()
                .with_bucket_name(host)
                .with_client_options(client)
                .build()?,
        ),
        _ => Arc::new(
            HttpBuilder::new()
                .with_url(format!("{scheme}://{host}"))
                .with_client_options(client)
                .build()?,
        ),
    };
    Ok((store, Path::parse(key)?))
}

/// Plain HTTP is allowed, and only HTTP/1.1 is spoken: in HTTP/2 all ranges would share a connection.
fn client_options() -> ClientOptions {
    ClientOptions::new().with_allow_http(true).with_http1_only().with_timeout_disabled()
}

/// Reads one range; gives its bytes only when they are to be kept.
async fn get(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    range: Range<u64>,
    keep: bool,
    first: &std::sync::Mutex<Option<Instant>>,
) -> Result<(u64, Vec<u8>)> {
    let begin = range.start;
    let wanted = range.end - range.start;
    let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
    let mut frames = store.get_opts(path, options).await?.into_stream();
    let (mut kept, mut count) = (Vec::new(), 0);
    while let Some(frame) = frames.try_next().await? {
        count += frame.len() as u64;
        if keep {
            kept.extend_from_slice(&frame);
        }
    }
    if count != wanted {
        return Err(format!("{count} bytes came, and {wanted} were asked for").into());
    }
    if let Ok(mut first) = first.lock() {
        first.get_or_insert_with(Instant::now);
    }
    Ok((begin, kept))
}

/// Where tensors are in the object, by name.
struct Header {
    start: u64,
    tensors: Vec<(String, Range<u64>)>,
}

async fn header(store: &Arc<dyn ObjectStore>, path: &Path) -> Result<Header> {
    let length = store.get_range(path, 0..8).await?;
    let length = u64::from_le_bytes(length.as_ref().try_into()?);
    let start = 8 + length;
    let text = store.get_range(path, 8..start).await?;
    let entries: Map<String, Value> = serde_json::from_slice(&text)?;
    let tensors = entries
        .into_iter()
        .filter(|(name, _)| name != "__metadata__")
        .map(|(name, entry)| {
            let offset = |index: usize| entry["data_offsets"][index].as_u64();
            let (begin, end) = offset(0).zip(offset(1)).ok_or("a tensor has no offsets")?;
            Ok((name, begin..end))
        })
        .collect::<Result<_>>()?;
    Ok(Header { start, tensors })
}

impl Header {
    /// The bytes of all tensors, in the object.
    fn body(&self) -> Range<u64> {
        let end = self.tensors.iter().map(|(_, range)| range.end).max().unwrap_or(0);
        self.start..self.start + end
    }

    fn sums(&self, body: &[u8]) -> Result<Value> {
        let mut sums = Map::new();
        for (name, range) in &self.tensors {
            let range = usize::try_from(range.start)?..usize::try_from(range.end)?;
            let bytes = body.get(range).ok_or("a tensor lies behind the end")?;
            sums.insert(name.clone(), crc32fast::hash(bytes).into());
        }
        Ok(Value::Object(sums))
    }
}

fn ranges(body: &Range<u64>) -> Vec<Range<u64>> {
    let end = body.end;
    body.clone()
        .step_by(RANGE_BYTES as usize)
        .map(|begin| begin..std::cmp::min(begin + RANGE_BYTES, end))
        .collect()
}

/// CPU time of all threads of this process.
fn cpu_seconds() -> f64 {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)
        .map(|time| std::time::Duration::from(time).as_secs_f64())
        .unwrap_or(f64::NAN)
}

/// Seconds from the start of the process, where RINGLOAD_PERF_BEGAN tells it, as to client.py.
fn since_start(instant: Instant) -> Option<f64> {
    use nix::time::{ClockId, clock_gettime};
    let began: f64 = std::env::var("RINGLOAD_PERF_BEGAN").ok()?.parse().ok()?;
    let now = std::time::Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?);
    Some(now.as_secs_f64() - instant.elapsed().as_secs_f64() - began / 1e9)
}

/// The most that this program had resident: `ru_maxrss` starts from what the parent had.
fn peak_rss_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 =
        line.and_then(|line| line.split_whitespace().next()).ok_or("no VmHWM")?.parse()?;
    Ok(kib * 1024)
}
