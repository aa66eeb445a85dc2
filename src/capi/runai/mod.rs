//! The functions of Run:ai Model Streamer's `libstreamer.so`, 0.17: for programs that load it, such
//! as its own Python package (`STREAMER_LIBRARY=/path/libringload.so`).
//!
//! ```text
//! submission  the ranges of a request     streamer  settings and threads   reading  one submission
//! sources     open objects                queue     requests, responses    listing  list_files
//! code        response codes
//! ```
//!
//! Functions may be called from any thread, several at once. Each response goes to one of the
//! threads that wait for one. A forked child cannot use the streamers of its parent and starts its
//! own.

mod code;
mod listing;
mod queue;
mod reading;
mod sources;
mod streamer;
mod submission;

pub use code::RunaiFileStreamerResponse;
pub use listing::RunaiFileStreamerFileListCallback;

use super::abi::{guarded, items, put, text, texts, utf8};
use super::handles::{Handles, InvalidHandle};
use crate::location::Location;
use crate::options::Device;
use crate::ring::PAGE_BYTES;
use crate::source::{FileSource, Source};
use RunaiFileStreamerResponse as Code;
use code::Failure;
use listing::Listing;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use streamer::{Credentials, Streamer};
use submission::{Arrays, Submission};

/// Identifies the request that a response belongs to.
pub type RunaiFileStreamerSubmissionId = u64;

/// A kind of device: RUNAI_FILE_STREAMER_DEVICE_CPU or RUNAI_FILE_STREAMER_DEVICE_CUDA.
pub type RunaiFileStreamerDeviceType = c_int;
/// Host memory.
pub const RUNAI_FILE_STREAMER_DEVICE_CPU: RunaiFileStreamerDeviceType = 0;
/// The memory of a CUDA GPU.
pub const RUNAI_FILE_STREAMER_DEVICE_CUDA: RunaiFileStreamerDeviceType = 1;

/// The device of a request's destinations.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RunaiFileStreamerDevice {
    /// The kind of the device.
    pub r#type: RunaiFileStreamerDeviceType,
    /// The number of the GPU. Ignored for host memory.
    pub id: c_int,
}

static STREAMERS: Handles<Streamer> = Handles::new(1);

/// Runs `body` and returns its code. A failure becomes the last one of this thread.
fn code_of(body: impl FnOnce() -> Result<(), Failure>) -> c_int {
    guarded(Code::UnknownError as c_int, || match body() {
        Ok(()) => Code::Success as c_int,
        Err(failure) => failure.report(),
    })
}

fn streamer_of(handle: *const c_void) -> Result<Arc<Streamer>, Code> {
    STREAMERS.get(handle).map_err(|invalid| match invalid {
        InvalidHandle::Closed => Code::InvalidParameterError,
        InvalidHandle::Forked => Code::UnknownError, // its reader threads do not exist here
    })
}

/// Starts a streamer with the options of the environment.
///
/// Threads are started with the first request. Returns INVALID_PARAMETER_ERROR if a variable does
/// not parse.
///
/// # Safety
/// `streamer` is NULL or points to memory for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn runai_file_streamer_start(streamer: *mut *mut c_void) -> c_int {
    code_of(|| {
        if streamer.is_null() {
            return Err(Code::InvalidParameterError.into());
        }
        let handle = STREAMERS.open(Arc::new(Streamer::new()?));
        // SAFETY: not NULL; the rest is this function's contract.
        unsafe { put(streamer, handle) };
        Ok(())
    })
}

/// Ends a streamer: threads that wait for a response get FINISHED_ERROR, and running reads are
/// cancelled. When this returns, nothing writes to the memory of its requests any more. NULL and
/// ended streamers are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn runai_file_streamer_end(streamer: *mut c_void) {
    guarded((), || {
        if let Some(streamer) = STREAMERS.close(streamer) {
            streamer.queue.end();
        }
    });
}

/// Sets the credentials for object stores, once, before the first request for an object.
///
/// Keys are access_key_id, secret_access_key, session_token, region and endpoint; others are
/// ignored. Setting the same credentials again succeeds, and setting others returns
/// CREDENTIALS_ALREADY_SET. Without this call, credentials come from the environment and the
/// configuration files.
///
/// # Safety
/// `param_keys` and `param_values` each have `num_params` texts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn runai_file_streamer_set_credentials(
    streamer: *mut c_void,
    param_keys: *const *const c_char,
    param_values: *const *const c_char,
    num_params: c_uint,
) -> c_int {
    code_of(|| {
        let streamer = streamer_of(streamer)?;
        let invalid = Code::InvalidParameterError;
        let count = num_params as usize;
        // SAFETY: this function's contract.
        let keys = unsafe { texts(param_keys, count) }.ok_or(invalid)?;
        // SAFETY: this function's contract.
        let values = unsafe { texts(param_values, count) }.ok_or(invalid)?;
        let pairs = keys.into_iter().zip(values);
        let pairs = pairs.map(|(key, value)| Some((key.to_str()?.into(), value.to_str()?.into())));
        let credentials: Credentials = pairs.collect::<Option<_>>().ok_or(invalid)?;
        Ok(streamer.set_credentials(credentials)?)
    })
}

/// Sets how files are read, once, before the first request: a list of io_uring_direct,
/// io_uring_buffered, libaio_direct and sync_buffered in order of preference.
///
/// All of them are available, so the first one counts. With a direct strategy, pages that are in
/// the page cache are still read from there.
///
/// # Safety
/// `candidates` is NULL or a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn runai_file_streamer_set_fs_strategy(
    streamer: *mut c_void,
    candidates: *const c_char,
) -> c_int {
    code_of(|| {
        let streamer = streamer_of(streamer)?;
        // SAFETY: this function's contract.
        let list = unsafe { utf8(candidates) }.ok_or(Code::InvalidParameterError)?;
        streamer.set_strategy(list)
    })
}

/// Requests ranges of files and objects, and returns at once.
///
/// `num_ranges` has the number of ranges of each file. `range_offsets`, `range_sizes` and
/// `range_dsts` have all ranges, file by file: the offset in the file, the length in bytes, and the
/// destination. Each range gets exactly one response, even if it is empty. Files and objects may be
/// mixed.
///
/// The arrays may be freed when this returns. The destinations must stay allocated until the
/// response was taken or the streamer was ended. They must overlap neither each other nor the
/// destinations of other requests. On a GPU, work that was queued before must not use them any
/// more.
///
/// `out_submission_id` may be NULL. It gets the number of the request, which its responses carry,
/// or 0 if the arguments cannot be used and nothing was requested.
///
/// # Safety
/// The arrays and the destinations are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn runai_file_streamer_request(
    streamer: *mut c_void,
    out_submission_id: *mut RunaiFileStreamerSubmissionId,
    num_files: c_uint,
    paths: *const *const c_char,
    num_ranges: *const c_uint,
    range_offsets: *const usize,
    range_sizes: *const usize,
    range_dsts: *const *mut c_void,
    device: RunaiFileStreamerDevice,
) -> c_int {
    code_of(|| {
        // SAFETY: this function's contract.
        unsafe { put(out_submission_id, 0) };
        let streamer = streamer_of(streamer)?;
        let device = device.as_device()?;
        let arrays = Arrays {
            num_files,
            paths,
            num_ranges,
            offsets: range_offsets,
            sizes: range_sizes,
            destinations: range_dsts,
        };
        // SAFETY: this function's contract.
        let mut submission = unsafe { Submission::new(0, device, &arrays) }?;
        submission.id = streamer.next_id();
        // SAFETY: this function's contract.
        unsafe { put(out_submission_id, submission.id) };
        Ok(streamer.submit(submission)?)
    })
}

impl RunaiFileStreamerDevice {
    fn as_device(self) -> Result<Device, Code> {
        match self.r#type {
            RUNAI_FILE_STREAMER_DEVICE_CPU => Ok(Device::Host),
            RUNAI_FILE_STREAMER_DEVICE_CUDA => {
                u32::try_from(self.id).map(Device::cuda).map_err(|_| Code::InvalidDevice)
            }
            _ => Err(Code::UnsupportedDeviceType),
        }
    }
}

/// Waits for the next response of any request, at most `timeout_ms` milliseconds; 0 waits without a
/// limit.
///
/// Returns the outcome of the range: SUCCESS, or the reason why its destination does not hold its
/// bytes. Returns TIMED_OUT if no response came in time, and FINISHED_ERROR if the streamer was
/// ended. `submission_done` gets 1 with the last response of a request, else 0. `out_submission_id`
/// and `submission_done` may be NULL.
///
/// # Safety
/// The pointers are NULL or point to memory for the values.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn runai_file_streamer_response(
    streamer: *mut c_void,
    out_submission_id: *mut RunaiFileStreamerSubmissionId,
    file_index: *mut c_uint,
    index: *mut c_uint,
    submission_done: *mut c_int,
    timeout_ms: c_uint,
) -> c_int {
    code_of(|| {
        if file_index.is_null() || index.is_null() {
            return Err(Code::InvalidParameterError.into());
        }
        let closed = matches!(STREAMERS.get(streamer), Err(InvalidHandle::Closed));
        let ended = closed && STREAMERS.was_opened(streamer);
        let streamer = match ended {
            true => return Err(Code::FinishedError.into()),
            false => streamer_of(streamer)?,
        };
        let timeout = (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms.into()));
        let response = streamer.queue.response(timeout);
        let values = response.as_ref().ok();
        // SAFETY: this function's contract.
        unsafe {
            put(out_submission_id, values.map_or(0, |response| response.submission));
            put(file_index, values.map_or(0, |response| response.file));
            put(index, values.map_or(0, |response| response.index));
            put(submission_done, values.is_some_and(|response| response.is_last).into());
        }
        response?.outcome
    })
}

/// Returns the meaning of a response code. For the code that this thread got last, that is the
/// message of the error. The text is valid until the thread calls another function of the library.
#[unsafe(no_mangle)]
pub extern "C" fn runai_file_streamer_response_str(response_code: c_int) -> *const c_char {
    guarded(c"no response code".as_ptr(), || code::text(response_code))
}

/// Returns the block size for direct reads of the files at `paths` in `out_block`: the address of a
/// range should be congruent to its offset modulo that size. Objects are ignored.
///
/// Returns UNKNOWN_ERROR if the block size of no file can be determined. `out_block` is the page
/// size then, which can be used.
///
/// # Safety
/// `paths` has `num_paths` texts, and `out_block` is NULL or points to memory for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn runai_file_streamer_probe_direct_block_size(
    streamer: *mut c_void,
    paths: *const *const c_char,
    num_paths: c_uint,
    out_block: *mut usize,
) -> c_int {
    code_of(|| {
        // SAFETY: this function's contract.
        unsafe { put(out_block, PAGE_BYTES) };
        streamer_of(streamer)?;
        // SAFETY: this function's contract.
        let pointers = unsafe { items(paths, num_paths as usize) };
        let pointers = pointers.filter(|_| !out_block.is_null());
        let blocks = pointers.ok_or(Code::InvalidParameterError)?.iter().filter_map(|&path| {
            // SAFETY: this function's contract.
            match Location::parse_os(unsafe { text(path) }?) {
                Ok(Location::File(path)) => block_of(&path),
                _ => None,
            }
        });
        let block = blocks.max().ok_or(Code::UnknownError)?;
        // SAFETY: this function's contract.
        unsafe { put(out_block, block) };
        Ok(())
    })
}

fn block_of(path: &Path) -> Option<usize> {
    FileSource::open(path).ok().map(|file| file.block_bytes())
}

/// Calls `callback` with each file in the directory `prefix` of the file system or of a store, and
/// with its size in bytes. If `is_recursive` is not 0, files in subdirectories are included.
///
/// If there are `allow_patterns`, only files whose whole path matches one of them are listed. Files
/// that match one of `ignore_patterns` are not. Patterns are those of fnmatch(3) without flags. The
/// callback is called on this thread, and the path is valid during that call only.
///
/// # Safety
/// The arrays have the given numbers of texts, and `callback` may be called with `user_data`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn runai_file_streamer_list_files(
    streamer: *mut c_void,
    prefix: *const c_char,
    is_recursive: c_int,
    allow_patterns: *const *const c_char,
    num_allow_patterns: c_uint,
    ignore_patterns: *const *const c_char,
    num_ignore_patterns: c_uint,
    callback: RunaiFileStreamerFileListCallback,
    user_data: *mut c_void,
) -> c_int {
    code_of(|| {
        let (streamer, invalid) = (streamer_of(streamer)?, Code::InvalidParameterError);
        let callback = callback.ok_or(invalid)?;
        // SAFETY: this function's contract.
        let prefix = unsafe { text(prefix) }.ok_or(invalid)?;
        // SAFETY: this function's contract.
        let allow = unsafe { texts(allow_patterns, num_allow_patterns as usize) }.ok_or(invalid)?;
        // SAFETY: this function's contract.
        let ignore =
            unsafe { texts(ignore_patterns, num_ignore_patterns as usize) }.ok_or(invalid)?;
        let listing = Listing { prefix, is_recursive: is_recursive != 0, allow, ignore };
        listing.for_each(&streamer.loader(), |path, len_bytes| {
            // SAFETY: this function's contract.
            unsafe { callback(path.as_ptr(), len_bytes, user_data) }
        })
    })
}

#[cfg(test)]
mod tests;
