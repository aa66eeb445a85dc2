//! ringload's own functions: loads as streams of tensors, and ranges into the caller's memory.
//!
//! ```text
//! status   what functions return, and the last error of a thread
//! range    ranges, and the memory they go to
//! tensor   what a C program is given of a tensor
//! ```
//!
//! Every function may be called from any thread, several at once. Threads that share a stream get one
//! tensor each; a stream that is freed while another thread waits for its next tensor ends for that one.
//! A tensor may be released by any thread, also after its stream and loader were freed. After a fork the
//! child makes its own loaders: what it has of its parent's is an error there.

mod range;
mod status;
mod tensor;

pub use range::{RingloadRange, RingloadRangeCallback};
pub use status::RingloadStatus;
pub use tensor::RingloadTensor;

use super::abi::{guarded, items, put, utf8};
use super::handles::{Handles, Stale};
use crate::error::{Error, ErrorKind, Result};
use crate::load::CancelHandle;
use crate::load::{Loader, Progress, TensorStream};
use range::{location_at, memory, request};
use status::{Outcome, returned};
use std::ffi::{c_char, c_int, c_void};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tensor::Owned;

/// Options of loads, and what loads share: credentials, the pinned ring, the cache.
pub struct RingloadLoader;
/// The tensors of a load, one after the other.
pub struct RingloadStream;

/// A loader's options.
type Loading = Mutex<Loader>;

struct Streaming {
    stream: Mutex<TensorStream>,
    cancel: CancelHandle,
    progress: Progress,
}

static LOADERS: Handles<Loading> = Handles::new(2);
static STREAMS: Handles<Streaming> = Handles::new(3);
static TENSORS: Handles<Owned> = Handles::new(4);

fn refuse<T>(sentence: impl Into<String>) -> Result<T> {
    Err(Error::new(ErrorKind::InvalidInput, sentence))
}

fn refusal(stale: Stale, what: &str) -> Error {
    let sentence = match stale {
        Stale::Closed => format!("this is no {what}, or one that was freed"),
        Stale::OfParent => {
            "this was made before the process was forked; make another one".to_owned()
        }
    };
    Error::new(ErrorKind::InvalidInput, sentence)
}

fn options_of(loader: *const RingloadLoader) -> Result<Arc<Loading>> {
    LOADERS.get(loader).map_err(|stale| refusal(stale, "loader"))
}

fn stream_of(stream: *const RingloadStream) -> Result<Arc<Streaming>> {
    STREAMS.get(stream).map_err(|stale| refusal(stale, "stream"))
}

fn locked(loading: &Loading) -> MutexGuard<'_, Loader> {
    loading.lock().unwrap_or_else(PoisonError::into_inner)
}

fn loader_of(loader: *const RingloadLoader) -> Result<Loader> {
    Ok(locked(&*options_of(loader)?).clone())
}

/// The version of the library, as `0.1.0`.
#[unsafe(no_mangle)]
pub extern "C" fn ringload_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Why the last call of this thread that failed did, in a sentence; empty if none did. It is there until
/// another call of this thread fails.
#[unsafe(no_mangle)]
pub extern "C" fn ringload_error() -> *const c_char {
    guarded(c"".as_ptr(), status::last_error)
}

/// Makes a loader with the default options.
///
/// # Safety
/// `loader` is NULL or a place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringload_loader_new(loader: *mut *mut RingloadLoader) -> c_int {
    returned(|| {
        if loader.is_null() {
            return refuse("there is no place for the loader");
        }
        // SAFETY: not NULL; else this function's contract.
        unsafe { put(loader, LOADERS.open(Arc::default())) };
        Ok(Outcome::Done)
    })
}

/// Sets an option for later loads.
///
/// - `memory_limit`: unlimited, min, or a size such as 4GiB
/// - `device`: cpu, cuda or cuda:N
/// - `device_map`: rules GLOB=DEVICE, one per line; the first that matches a tensor's name counts
/// - `dtype`: cast floats to F32, F16 or BF16
/// - `allocation`: of GPU memory, per shard or tensor
/// - `tensors`: globs of names to load, one per line
/// - `names`: names to load, one per line; a name that no tensor has is an error
/// - `order`: completion or file
/// - `read_path`: auto, direct, buffered, mapped or gds
/// - `read_size`: bytes of one read or range request, such as 8MiB
/// - `engines`: number of threads that read; 0 uses as many as help
/// - `hold_timeout_seconds`: how long a load waits for a held tensor when memory is full
/// - `verify`: true or false; whether objects are checked against their store's checksums
/// - `region`, `endpoint`: of the object store
/// - `header`: a header `Name: value` to send; each call adds one
/// - `connections`: number of connections; 0 uses as many as help
/// - `s3_access_key_id`, `s3_secret_access_key`, `s3_session_token`: S3 keys
/// - `cache_dir`: directory of the local file cache; empty for no cache
/// - `cache_size`: unlimited, or a size such as 200GiB
/// - `cache_validate`: always, never, or an age such as 10m
///
/// # Safety
/// `key` and `value` are NULL or texts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringload_loader_set(
    loader: *mut RingloadLoader,
    key: *const c_char,
    value: *const c_char,
) -> c_int {
    returned(|| {
        let loading = options_of(loader)?;
        // SAFETY: this function's contract.
        let (Some(key), Some(value)) = (unsafe { utf8(key) }, unsafe { utf8(value) }) else {
            return refuse("an option's key and value have to be texts in UTF-8");
        };
        let mut loader = locked(&loading);
        let changed = loader.clone().set(key, value);
        *loader = changed.map_err(|error| Error::new(error.kind(), format!("{key}: {error}")))?;
        Ok(Outcome::Done)
    })
}

/// Frees a loader. Its streams go on. NULL and freed ones are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn ringload_loader_free(loader: *mut RingloadLoader) {
    guarded((), || drop(LOADERS.close(loader)));
}

/// Begins to load the checkpoint at `location`: a file, an index, a directory, a pattern, or a URI.
///
/// # Safety
/// `location` is NULL or a text, `stream` NULL or a place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringload_stream_open(
    loader: *mut RingloadLoader,
    location: *const c_char,
    stream: *mut *mut RingloadStream,
) -> c_int {
    returned(|| {
        let loader = loader_of(loader)?;
        // SAFETY: this function's contract.
        let location = unsafe { location_at(location) }?;
        if stream.is_null() {
            return refuse("there is no place for the stream");
        }
        let opened = loader.stream(location)?;
        let streaming = Streaming {
            cancel: opened.cancel_handle(),
            progress: opened.progress(),
            stream: Mutex::new(opened),
        };
        // SAFETY: not NULL; else this function's contract.
        unsafe { put(stream, STREAMS.open(Arc::new(streaming))) };
        Ok(Outcome::Done)
    })
}

/// Waits for the next tensor; RINGLOAD_STATUS_END when there are no more. The tensor is yours until you
/// release it. After an error the stream ends.
///
/// # Safety
/// `tensor` is NULL or a place for a tensor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringload_stream_next(
    stream: *mut RingloadStream,
    tensor: *mut RingloadTensor,
) -> c_int {
    returned(|| {
        let streaming = stream_of(stream)?;
        if tensor.is_null() {
            return refuse("there is no place for the tensor");
        }
        let next = streaming.stream.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some(next) = next.transpose()? else { return Ok(Outcome::End) };
        let owned = Arc::new(Owned::new(next));
        let handle = TENSORS.open(Arc::clone(&owned));
        // SAFETY: not NULL; else this function's contract.
        unsafe { put(tensor, owned.told(handle)) };
        Ok(Outcome::Done)
    })
}

/// How many bytes of tensors were given out, and how many there are in all.
///
/// # Safety
/// `done_bytes` and `total_bytes` are NULL or places for numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringload_stream_progress(
    stream: *mut RingloadStream,
    done_bytes: *mut u64,
    total_bytes: *mut u64,
) -> c_int {
    returned(|| {
        let progress = stream_of(stream)?.progress.clone();
        // SAFETY: this function's contract.
        unsafe { put(done_bytes, progress.done_bytes()) };
        // SAFETY: this function's contract.
        unsafe { put(total_bytes, progress.total_bytes()) };
        Ok(Outcome::Done)
    })
}

/// Frees a stream, and stops its load if that is not done. Its tensors stay. NULL and freed ones are
/// ignored.
#[unsafe(no_mangle)]
pub extern "C" fn ringload_stream_free(stream: *mut RingloadStream) {
    guarded((), || {
        if let Some(streaming) = STREAMS.close(stream) {
            streaming.cancel.cancel();
        }
    });
}

/// Gives a tensor back: what it points to is gone. NULL and released ones are ignored.
///
/// # Safety
/// `tensor` is NULL, or was filled by ringload_stream_next.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringload_tensor_release(tensor: *mut RingloadTensor) {
    guarded((), || {
        // SAFETY: this function's contract.
        if let Some(tensor) = unsafe { tensor.as_mut() } {
            drop(TENSORS.close(tensor.owner));
            *tensor = RingloadTensor::none();
        }
    });
}

/// Copies a tensor to host memory, wherever it is; `len_bytes` has to be its own.
///
/// # Safety
/// `tensor` is NULL, or was filled by ringload_stream_next; `into` has `len_bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringload_tensor_copy(
    tensor: *const RingloadTensor,
    into: *mut c_void,
    len_bytes: u64,
) -> c_int {
    returned(|| {
        // SAFETY: this function's contract.
        let owner = unsafe { tensor.as_ref() }.map(|tensor| tensor.owner);
        let Some(owned) = owner.and_then(|owner| TENSORS.get_anywhere(owner)) else {
            return Err(refusal(Stale::Closed, "tensor"));
        };
        // SAFETY: this function's contract.
        let Some(into) = (unsafe { memory(into, len_bytes) }) else {
            return refuse("the memory for the tensor is NULL or longer than memory can be");
        };
        owned.copy_to(into)?;
        Ok(Outcome::Done)
    })
}

/// Reads ranges of files and objects into memory of the caller; returns when nothing is in flight any
/// more. With a `callback`, that is called on this thread with each range that is there.
///
/// After an error, or when the callback stopped it, ranges that it was not called with hold anything.
/// Memory whose address is congruent to the offset modulo 4096 is read into directly.
///
/// # Safety
/// `ranges` has `count` ranges; their memory is there, and nobody else uses it during the call; `callback`
/// is NULL or may be called with `user_data`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringload_read(
    loader: *mut RingloadLoader,
    ranges: *const RingloadRange,
    count: usize,
    callback: RingloadRangeCallback,
    user_data: *mut c_void,
) -> c_int {
    returned(|| {
        let loader = loader_of(loader)?;
        // SAFETY: this function's contract.
        let Some(ranges) = (unsafe { items(ranges, count) }) else {
            return refuse("the ranges are NULL");
        };
        let requests = ranges.iter().map(|range| {
            // SAFETY: this function's contract.
            unsafe { request(range) }
        });
        let mut requests = requests.collect::<Result<Vec<_>>>()?;
        let mut stopped = false;
        loader.read_into(&mut requests, |range| {
            // SAFETY: this function's contract.
            stopped = callback.is_some_and(|callback| unsafe { callback(range, user_data) } != 0);
            if stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        match stopped {
            true => Err(Error::new(ErrorKind::Cancelled, "the callback stopped the reading")),
            false => Ok(Outcome::Done),
        }
    })
}
