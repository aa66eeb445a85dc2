//! ringload's own functions: loads as streams of tensors, and ranges into the caller's memory.
//!
//! ```text
//! status   return values, and the last error of each thread
//! range    ranges, and their destinations
//! tensor   tensors as C sees them
//! ```
//!
//! Every function may be called from any thread, several at once. Threads that share a stream get
//! one tensor each. If a stream is freed while a thread waits for its next tensor, the call of that
//! thread returns RINGLOAD_STATUS_END or an error. A tensor may be released by any thread, also
//! after its stream and loader were freed. A forked child has to make its own loaders, as calls
//! with the loaders of its parent fail.

mod range;
mod status;
mod tensor;

pub use range::{RingloadRange, RingloadRangeCallback};
pub use status::RingloadStatus;
pub use tensor::RingloadTensor;

use super::abi::{guarded, items, put, utf8};
use super::handles::{Handles, InvalidHandle};
use crate::error::{Error, ErrorKind, Result};
use crate::load::{Loader, TensorStream};
use crate::options::invalid;
use crate::source::{Cancellation, Progress};
use crate::sync::Mutex;
use range::{location_at, memory, request};
use status::{Outcome, status_of};
use std::ffi::{c_char, c_int, c_void};
use std::ops::ControlFlow;
use std::sync::Arc;
use tensor::ExportedTensor;

/// Options of loads, and the resources that loads share: credentials, the pinned ring, the cache.
pub struct RingloadLoader;
/// The tensors of a load, one after the other.
pub struct RingloadStream;

struct OpenStream {
    stream: Mutex<TensorStream>,
    cancellation: Cancellation,
    progress: Progress,
}

static LOADERS: Handles<Mutex<Loader>> = Handles::new(2);
static STREAMS: Handles<OpenStream> = Handles::new(3);
static TENSORS: Handles<ExportedTensor> = Handles::new(4);

fn error_of(handle: InvalidHandle, what: &str) -> Error {
    let message = match handle {
        InvalidHandle::Closed => format!("this is not a {what}, or it was freed"),
        InvalidHandle::Forked => {
            format!("this {what} was made before the process was forked; make another one")
        }
    };
    Error::new(ErrorKind::InvalidInput, message)
}

fn loader_at(loader: *const RingloadLoader) -> Result<Arc<Mutex<Loader>>> {
    LOADERS.get(loader).map_err(|error| error_of(error, "loader"))
}

fn stream_at(stream: *const RingloadStream) -> Result<Arc<OpenStream>> {
    STREAMS.get(stream).map_err(|error| error_of(error, "stream"))
}

/// Returns the version of the library, such as `0.1.0`.
#[unsafe(no_mangle)]
pub extern "C" fn ringload_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Returns the message of the last call of this thread that failed, or an empty text if none did.
/// The text is valid until another call of this thread fails.
#[unsafe(no_mangle)]
pub extern "C" fn ringload_error() -> *const c_char {
    guarded(c"".as_ptr(), status::last_error)
}

/// Makes a loader. Options that are not set have the values of environment variables such as
/// `RINGLOAD_MEMORY_LIMIT`, or else the defaults.
///
/// # Safety
/// `loader` is NULL or points to memory for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringload_loader_new(loader: *mut *mut RingloadLoader) -> c_int {
    status_of(|| {
        if loader.is_null() {
            return invalid("the pointer to the loader is NULL");
        }
        // SAFETY: not NULL; the rest is this function's contract.
        unsafe { put(loader, LOADERS.open(Arc::new(Mutex::new(Loader::from_env())))) };
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
/// - `slice`: `GLOB=DIM:RANK/WORLD`, one per line; loads a part of the tensors whose name matches
/// - `names`: names to load, one per line; a name that no tensor has is an error
/// - `variant`: read the files of this variant in a directory, such as fp16
/// - `all_files`: true or false; whether every file of a directory is read, without its index
/// - `strict`: true or false; whether an index must name only tensors that are where it says
/// - `order`: completion or file
/// - `read_path`: auto, direct, buffered, mapped or gds
/// - `immutable`: true or false; whether nothing writes to the local files, so that tensors may be views
///   of their pages
/// - `read_size`: bytes of one read or range request, such as 8MiB
/// - `engines`: number of threads that read; 0 uses as many as help
/// - `hold_timeout_seconds`: how long a load waits for a held tensor when memory is full
/// - `verify`: true or false; whether files and objects are checked against a checksum of their store or
///   of a file beside them
/// - `manifest`: a file that `ringload sum` wrote; tensors are checked against its checksums
/// - `check_finite`: true or false; whether tensors with NaN or infinity are an error
/// - `region`, `endpoint`: of the object store
/// - `header`: a header `Name: value` to send; each call adds one
/// - `connections`: number of connections; 0 uses as many as help
/// - `pin`: auto, etag, length or none; what tells an object from a replacement
/// - `unpinned`: true or false; whether objects are loaded that nothing tells from a replacement
/// - `s3_access_key_id`, `s3_secret_access_key`, `s3_session_token`: S3 keys
/// - `cache_dir`: directory of the local file cache; empty for no cache
/// - `cache_size`: unlimited, or a size such as 200GiB
/// - `cache_validate`: always, never, or an age such as 10m
/// - `cache_shared`: true or false; whether everyone who may write to the cache is trusted
///
/// # Safety
/// `key` and `value` are NULL or texts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringload_loader_set(
    loader: *mut RingloadLoader,
    key: *const c_char,
    value: *const c_char,
) -> c_int {
    status_of(|| {
        let loader = loader_at(loader)?;
        // SAFETY: this function's contract.
        let (Some(key), Some(value)) = (unsafe { utf8(key) }, unsafe { utf8(value) }) else {
            return invalid("the key and the value of an option have to be texts in UTF-8");
        };
        let mut loader = loader.lock();
        let changed = loader.clone().set(key, value);
        *loader = changed.map_err(|error| Error::new(error.kind(), format!("{key}: {error}")))?;
        Ok(Outcome::Done)
    })
}

/// Frees a loader. Its streams continue. NULL and freed loaders are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn ringload_loader_free(loader: *mut RingloadLoader) {
    guarded((), || drop(LOADERS.close(loader)));
}

/// Starts to load the checkpoint at `location`: a file, an index, a directory, a pattern, or a URI.
///
/// # Safety
/// `location` is NULL or a text. `stream` is NULL or points to memory for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringload_stream_open(
    loader: *mut RingloadLoader,
    location: *const c_char,
    stream: *mut *mut RingloadStream,
) -> c_int {
    status_of(|| {
        let loader = loader_at(loader)?.lock().clone();
        // SAFETY: this function's contract.
        let location = unsafe { location_at(location) }?;
        if stream.is_null() {
            return invalid("the pointer to the stream is NULL");
        }
        let cancellation = Cancellation::new();
        let opened = loader.cancellation(&cancellation).stream(location)?;
        let open =
            OpenStream { cancellation, progress: opened.progress(), stream: Mutex::new(opened) };
        // SAFETY: not NULL; the rest is this function's contract.
        unsafe { put(stream, STREAMS.open(Arc::new(open))) };
        Ok(Outcome::Done)
    })
}

/// Waits for the next tensor. Returns RINGLOAD_STATUS_END when there are no more. The caller has to
/// release the tensor. The stream ends after an error.
///
/// # Safety
/// `tensor` is NULL or points to memory for a tensor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringload_stream_next(
    stream: *mut RingloadStream,
    tensor: *mut RingloadTensor,
) -> c_int {
    status_of(|| {
        let open = stream_at(stream)?;
        if tensor.is_null() {
            return invalid("the pointer to the tensor is NULL");
        }
        let next = open.stream.lock().next();
        let Some(next) = next.transpose()? else { return Ok(Outcome::End) };
        let exported = Arc::new(ExportedTensor::new(next));
        let handle = TENSORS.open(Arc::clone(&exported));
        // SAFETY: not NULL; the rest is this function's contract.
        unsafe { put(tensor, exported.as_c(handle)) };
        Ok(Outcome::Done)
    })
}

/// Returns how many bytes of tensors have arrived, and the bytes of all tensors of the load.
///
/// # Safety
/// `done_bytes` and `total_bytes` are NULL or point to memory for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringload_stream_progress(
    stream: *mut RingloadStream,
    done_bytes: *mut u64,
    total_bytes: *mut u64,
) -> c_int {
    status_of(|| {
        let progress = stream_at(stream)?.progress.clone();
        // SAFETY: this function's contract.
        unsafe { put(done_bytes, progress.done_bytes()) };
        // SAFETY: this function's contract.
        unsafe { put(total_bytes, progress.total_bytes()) };
        Ok(Outcome::Done)
    })
}

/// Frees a stream, and cancels its load if it is still running. Its tensors stay valid. NULL and
/// freed streams are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn ringload_stream_free(stream: *mut RingloadStream) {
    guarded((), || {
        if let Some(open) = STREAMS.close(stream) {
            open.cancellation.cancel();
        }
    });
}

/// Releases a tensor. Its pointers must not be used any more. NULL and released tensors are
/// ignored.
///
/// # Safety
/// `tensor` is NULL, or was filled by ringload_stream_next.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringload_tensor_release(tensor: *mut RingloadTensor) {
    guarded((), || {
        // SAFETY: this function's contract.
        if let Some(tensor) = unsafe { tensor.as_mut() } {
            drop(TENSORS.close(tensor.owner));
            *tensor = RingloadTensor::released();
        }
    });
}

/// Copies a tensor from any device to host memory. `len_bytes` has to be the length of the tensor.
///
/// # Safety
/// `tensor` is NULL, or was filled by ringload_stream_next. `into` has `len_bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringload_tensor_copy(
    tensor: *const RingloadTensor,
    into: *mut c_void,
    len_bytes: u64,
) -> c_int {
    status_of(|| {
        // SAFETY: this function's contract.
        let owner = unsafe { tensor.as_ref() }.map(|tensor| tensor.owner);
        let Some(exported) = owner.and_then(|owner| TENSORS.get_in_any_process(owner)) else {
            return Err(error_of(InvalidHandle::Closed, "tensor"));
        };
        // SAFETY: this function's contract.
        let Some(into) = (unsafe { memory(into, len_bytes) }) else {
            return invalid("the destination is NULL or exceeds the address space");
        };
        exported.copy_to(into)?;
        Ok(Outcome::Done)
    })
}

/// Reads ranges of files and objects into memory of the caller, and returns when nothing is in
/// flight any more. `callback` may be NULL. Otherwise it is called on this thread with the index of
/// each range when its memory is filled, and the read stops if it does not return 0.
///
/// After an error, and when the callback stopped the read, the memory of ranges that the callback
/// was not called with is unspecified. Memory whose address is congruent to the offset modulo 4096
/// can be read into without a copy.
///
/// # Safety
/// `ranges` has `count` ranges. Their memory is allocated, and nothing else uses it during the
/// call. `callback` is NULL or may be called with `user_data`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringload_read(
    loader: *mut RingloadLoader,
    ranges: *const RingloadRange,
    count: usize,
    callback: RingloadRangeCallback,
    user_data: *mut c_void,
) -> c_int {
    status_of(|| {
        let loader = loader_at(loader)?.lock().clone();
        // SAFETY: this function's contract.
        let Some(ranges) = (unsafe { items(ranges, count) }) else {
            return invalid("the ranges are NULL");
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
            true => Err(Error::new(ErrorKind::Cancelled, "the callback stopped the read")),
            false => Ok(Outcome::Done),
        }
    })
}
