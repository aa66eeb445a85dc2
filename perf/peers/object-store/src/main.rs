//! One object by the crate `object_store`: GETs of ranges, on several connections at once.
//!
//! The URL is `http(s)://...` or `s3://BUCKET/KEY`; for the latter the variables of the AWS SDKs apply
//! (`AWS_ENDPOINT_URL` among them). Ranges are RANGE_BYTES long, and `--connections` of
//! them are in flight.
//! Their bytes are dropped frame by frame as they arrive, which is the least that the crate can do.
//! Prints the figures as one JSON object. With `--digest` the bytes are kept, and the object has the
//! SHA-256 of each tensor; the times are not comparable then. Certificates are those of the system, or
//! of SSL_CERT_FILE.

use clap::Parser;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::AmazonS3Builder;
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{ClientOptions, GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use ringload_measure::figures::{Figures, Stopwatch, since_start_seconds};
use safetensors::tensor::Metadata;
use sha2::{Digest, Sha256};
use std::error::Error;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const RANGE_BYTES: u64 = 8 << 20;

#[derive(Parser)]
struct Options {
    url: String,
    /// How many ranges are in flight
    #[arg(long, env, default_value_t = 16)]
    connections: usize,
    /// Print the SHA-256 of every tensor
    #[arg(long)]
    digest: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    println!("{}", runtime.block_on(load(&options))?);
    Ok(())
}

async fn load(options: &Options) -> Result<serde_json::Value> {
    let stopwatch = Stopwatch::start()?;
    let (store, path) = open(&options.url)?;
    // The header: its length, and its text.
    let length = store.get_range(&path, 0..8).await?;
    let start = 8 + u64::from_le_bytes(length.as_ref().try_into()?);
    let header: Metadata = serde_json::from_slice(&store.get_range(&path, 8..start).await?)?;
    let end = start + header.data_len() as u64;
    let ranges = (start..end).step_by(RANGE_BYTES as usize);
    let ranges = ranges.map(|begin| begin..end.min(begin + RANGE_BYTES));
    let first = OnceLock::new();
    let mut pieces: Vec<(u64, Vec<u8>)> = stream::iter(ranges)
        .map(|range| get(&store, &path, range, options.digest, &first))
        .buffer_unordered(options.connections)
        .try_collect()
        .await?;
    let last_tensor_seconds = since_start_seconds();
    let first_tensor_seconds = first.into_inner().or(last_tensor_seconds);
    let figures = stopwatch.figures(end - start)?;
    let figures = Figures { first_tensor_seconds, last_tensor_seconds, ..figures };
    let mut printed = serde_json::to_value(figures)?;
    if options.digest {
        pieces.sort_by_key(|(begin, _)| *begin);
        let bytes: Vec<u8> = pieces.into_iter().flat_map(|(_, bytes)| bytes).collect();
        for (name, info) in header.tensors() {
            let (begin, end) = info.data_offsets;
            let digest = Sha256::digest(&bytes[begin..end]);
            printed["digests"][name] = format!("{digest:x}").into();
        }
    }
    Ok(printed)
}

/// The store and the object's path in it. Only HTTP/1.1 is spoken: in HTTP/2 all ranges would share a
/// connection.
fn open(url: &str) -> Result<(Arc<dyn ObjectStore>, Path)> {
    let client =
        ClientOptions::new().with_allow_http(true).with_http1_only().with_timeout_disabled();
    let (scheme, rest) = url.split_once("://").ok_or_else(|| format!("{url} is no URL"))?;
    let (host, key) = rest.split_once('/').ok_or_else(|| format!("{url} names no object"))?;
    let store: Arc<dyn ObjectStore> = if scheme == "s3" {
        let builder = AmazonS3Builder::from_env().with_bucket_name(host);
        Arc::new(builder.with_client_options(client).build()?)
    } else {
        let builder = HttpBuilder::new().with_url(format!("{scheme}://{host}"));
        Arc::new(builder.with_client_options(client).build()?)
    };
    Ok((store, Path::parse(key)?))
}

/// Reads one range; returns its bytes only if they are to be kept.
async fn get(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    range: Range<u64>,
    keep: bool,
    first_tensor_seconds: &OnceLock<f64>,
) -> Result<(u64, Vec<u8>)> {
    let (begin, wanted) = (range.start, range.end - range.start);
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
        return Err(format!("{count} bytes of a range of {wanted} were received").into());
    }
    if let Some(seconds) = since_start_seconds() {
        first_tensor_seconds.get_or_init(|| seconds);
    }
    Ok((begin, kept))
}
