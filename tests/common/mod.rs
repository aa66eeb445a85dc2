//! What the integration tests share: checkpoints written by the `safetensors` crate, raw files made
//! by hand, and (with the `cli` feature) the real command as a child process.

// Each test binary uses a part of this.
#![allow(dead_code, clippy::unwrap_used)]

pub mod c_library;
pub mod certificates;
pub mod child;
#[cfg(feature = "cli")]
pub mod command;
pub mod moto;
pub mod nginx;
pub mod proxy;
#[cfg(feature = "cli")]
#[allow(unsafe_code)]
pub mod seccomp;
pub mod servers;
pub mod shared_library;
pub mod stand_in;
pub mod trace;

#[path = "../support/fault_server.rs"]
pub mod fault_server;
pub mod model;

use ringload::Dtype;
use ringload_measure::page_cache;
use safetensors::tensor::TensorView;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The time after which a test counts as hanging. No test that passes comes near it, however busy
/// the machine is.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// A tensor as it is written, and as it has to be loaded.
#[derive(Debug, Clone)]
pub struct Expected {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Expected {
    /// A tensor with pseudo-random bytes of this `seed`.
    pub fn new(name: impl Into<String>, dtype: Dtype, shape: &[usize], seed: u64) -> Self {
        let len_bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        let (name, shape) = (name.into(), shape.to_vec());
        Expected { name, dtype, shape, bytes: noise(seed, len_bytes) }
    }

    /// `len_bytes` of U8.
    pub fn of_bytes(name: impl Into<String>, len_bytes: usize, seed: u64) -> Self {
        Self::new(name, Dtype::U8, &[len_bytes], seed)
    }
}

/// `len` bytes that look random and are the same for the same seed (splitmix64).
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = vec![0; len.next_multiple_of(8)];
    for word in bytes.chunks_exact_mut(8) {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A temporary directory on the disk of the build (not on tmpfs); removed on drop.
pub fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Writes `tensors` to `path` with the `safetensors` crate.
pub fn write(path: &Path, tensors: &[Expected], metadata: Option<HashMap<String, String>>) {
    let views = tensors.iter().map(|tensor| {
        let Expected { name, dtype, shape, bytes } = tensor;
        (name, TensorView::new((*dtype).into(), shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, metadata, path).unwrap();
}

/// Writes an index that puts each tensor of `shards` into its shard's file.
pub fn write_index<'a>(path: &Path, shards: impl IntoIterator<Item = (&'a str, &'a [Expected])>) {
    let weight_map: BTreeMap<_, _> = shards
        .into_iter()
        .flat_map(|(file, tensors)| tensors.iter().map(move |tensor| (&tensor.name, file)))
        .collect();
    let index = serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": weight_map });
    fs::write(path, index.to_string()).unwrap();
}

/// The files of a checkpoint with one tensor per shard, `one.safetensors` and `two.safetensors`, and
/// with an index if `indexed`.
pub fn sharded(tensors: &[Expected; 2], indexed: bool) -> Vec<(String, Vec<u8>)> {
    let directory = directory();
    let shards = ["one.safetensors", "two.safetensors"].into_iter().zip(tensors.chunks(1));
    for (name, tensors) in shards.clone() {
        write(&directory.path().join(name), tensors, None);
    }
    if indexed {
        write_index(&directory.path().join("model.safetensors.index.json"), shards);
    }
    let files = fs::read_dir(directory.path()).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read(path).unwrap())
    });
    files.collect()
}

/// A file of a header's text (its length in front) and `data`.
pub fn raw_file(header: impl AsRef<[u8]>, data: &[u8]) -> Vec<u8> {
    let header = header.as_ref();
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

/// Removes the file from the page cache, as far as the kernel follows the advice.
pub fn evict(path: &Path) {
    page_cache::evict(path).unwrap();
}

/// Reads the file into the page cache.
pub fn warm(path: &Path) {
    page_cache::read(path).unwrap();
}

/// Whether the file system of `directory` supports direct I/O; tests that need it are skipped
/// elsewhere.
pub fn has_direct_io(directory: &Path) -> bool {
    let path = directory.join("probe");
    fs::write(&path, vec![0; 64 << 10]).unwrap();
    File::open(&path).unwrap().sync_all().unwrap();
    let works = ringload::internals::probe_direct(&path).is_ok();
    fs::remove_file(path).unwrap();
    works
}

/// Reports on standard error that a test was skipped, and why.
pub fn skip(why: &str) {
    eprintln!("skipped: {why}");
}

/// Whether everything is tested that is checked before a merge: `tests/run.sh --full`.
pub fn is_full() -> bool {
    std::env::var_os("RINGLOAD_TEST_FULL").is_some()
}

/// Whether the long test campaigns are enabled: `tests/run.sh --long`.
pub fn is_long() -> bool {
    std::env::var_os("RINGLOAD_TEST_LONG").is_some()
}

/// Runs `body` on a separate thread; panics if it takes longer than [`PATIENCE`].
pub fn in_time<T: Send + 'static>(what: &str, body: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, waiting) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || done.send(body()));
    match waiting.recv_timeout(PATIENCE) {
        Ok(answer) => answer,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("{what} hangs"),
        Err(_) => std::panic::resume_unwind(thread.join().unwrap_err()),
    }
}

/// Waits until `condition` holds, which `what` names; panics if it takes longer than [`PATIENCE`].
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "it hangs: waited until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// How many bytes the cache in `directory` has of the objects whose locations contain `name`.
pub fn cached_bytes(directory: &Path, name: &str) -> u64 {
    let Ok(cache) = ringload::CacheAdmin::open(directory) else { return 0 };
    let entries = cache.entries();
    let wanted = entries.iter().filter(|entry| entry.location.to_string().contains(name));
    wanted.map(|entry| entry.present_bytes).sum()
}

/// `directory/name` for each name.
pub fn paths<const N: usize>(directory: &Path, names: [&str; N]) -> [PathBuf; N] {
    names.map(|name| directory.join(name))
}
