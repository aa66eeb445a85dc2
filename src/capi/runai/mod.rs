//! The functions of Run:ai Model Streamer's `libstreamer.so`, 0.17: for programs that load it, such as
//! its own Python package (`STREAMER_LIBRARY=/path/libringload.so`).
//!
//! ```text
//! submission  what a request asks for     streamer  queues and threads    reading  one submission
//! sources     files and objects, open     code      response codes        listing  list_files
//! ```
//!
//! Functions may be called from any thread, several at once; each response goes to one of the threads
//! that wait for one. After a fork, streamers are the parent's: the child starts its own.

mod code;
mod listing;
mod reading;
mod sources;
mod streamer;
mod submission;

pub use code::RunaiFileStreamerResponse;
pub use listing::RunaiFileStreamerFileListCallback;

use super::abi::{guarded, items, put, text, texts, utf8};
use super::handles::{Handles, Stale};
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

/// Says which submission a response is of.
pub type RunaiFileStreamerSubmissionId = u64;

/// A kind of device: one of the two below.
pub type RunaiFileStreamerDeviceType = c_int;
/// Host memory.
pub const RUNAI_FILE_STREAMER_DEVICE_CPU: RunaiFileStreamerDeviceType = 0;
/// Memory of a CUDA GPU.
pub const RUNAI_FILE_STREAMER_DEVICE_CUDA: RunaiFileStreamerDeviceType = 1;

/// Where the destinations of a request are.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RunaiFileStreamerDevice {
    /// What it is.
    pub r#type: RunaiFileStreamerDeviceType,
    /// The number of the GPU; nothing for host memory.
    pub id: c_int,
}

static STREAMERS: Handles<Streamer> = Handles::new(1);

/// Runs `body`; its failure is told to this thread.
fn answered(body: impl FnOnce() -> Result<(), Failure>) -> c_int {
    guarded(Code::UnknownError as c_int, || match body() {
        Ok(()) => Code::Success as c_int,
        Err(failure) => failure.tell(),
    })
}

fn streamer_of(handle: *const c_void) -> Result<Arc<Streamer>, Code> {
    STREAMERS.get(handle).map_err(|stale| match stale {
        Stale::Closed => Code::InvalidParameterError,
        Stale::OfParent => Code::UnknownError, // what was asked for never comes
    })
}

/// Starts a streamer, with the options of the environment.
///
/// Threads are started with the first request. A variable that cannot be read is an
/// INVALID_PARAMETER_ERROR.
///
/// # Safety
/// `streamer` is NULL or a place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn runai_file_streamer_start(streamer: *mut *mut c_void) -> c_int {
    answered(|| {
        if streamer.is_null() {
            return Err(Code::InvalidParameterError.into());
        }
        let handle = STREAMERS.open(Arc::new(Streamer::new()?));
        // SAFETY: not NULL; else this function's contract.
        unsafe { put(streamer, handle) };
        Ok(())
    })
}

/// Ends a streamer: threads that wait for a response get FINISHED_ERROR, reads under way are stopped, and
/// when this returns nobody writes to memory of its requests any more. NULL and ended ones are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn runai_file_streamer_end(streamer: *mut c_void) {
    guarded((), || {
        if let Some(streamer) = STREAMERS.close(streamer) {
            streamer.end();
        }
    });
}

/// Sets the credentials for object stores, once, before the first request for an object.
///
/// Keys: access_key_id and secret_access_key, session_token, region, endpoint; others are ignored. The
/// same again is fine, others are CREDENTIALS_ALREADY_SET. Without, they are looked for as in ringload's
/// own loads.
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
    answered(|| {
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

/// Says how files are read, once, before the first request: a list of io_uring_direct,
/// io_uring_buffered, libaio_direct and sync_buffered, best first. All are served, so the first counts;
/// `direct` means directly where the file is not in the page cache.
///
/// # Safety
/// `candidates` is NULL or a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn runai_file_streamer_set_fs_strategy(
    streamer: *mut c_void,
    candidates: *const c_char,
) -> c_int {
    answered(|| {
        let streamer = streamer_of(streamer)?;
        // SAFETY: this function's contract.
        let list = unsafe { utf8(candidates) }.ok_or(Code::InvalidParameterError)?;
        streamer.set_strategy(list)
    })
}

/// Asks for ranges of files and objects, and returns at once.
///
/// `num_ranges` has the number of each file's ranges; the three arrays behind it have all of them, file
/// by file: where each begins in its file, how long it is, and where its bytes go. Each range gets
/// exactly one response, also an empty one. Files and stores may be mixed.
///
/// The arrays are not needed any more when this returns. The memory of the ranges is, until their
/// response was taken or the streamer was ended; ranges, also of other requests, must not overlap there.
/// On a GPU, work that was queued before must be done with it.
///
/// `out_submission_id` (may be NULL) gets the number that responses are told apart by; 0 where the
/// arguments cannot be used, and nothing was asked for then.
///
/// # Safety
/// The arrays are as said, and so is the memory.
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
    answered(|| {
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
        let mut submission = unsafe { Submission::read(0, device, &arrays) }?;
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

/// Waits for the next response, of whatever request: at most `timeout_ms` milliseconds, 0 as long as it
/// takes.
///
/// Returns what the range came to: SUCCESS, or why its memory does not hold its bytes. Else TIMED_OUT, or
/// FINISHED_ERROR when the streamer is ended. `submission_done` is 1 with the last response of a request.
/// `out_submission_id` and `submission_done` may be NULL.
///
/// # Safety
/// The pointers are NULL or places for what is written to them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn runai_file_streamer_response(
    streamer: *mut c_void,
    out_submission_id: *mut RunaiFileStreamerSubmissionId,
    file_index: *mut c_uint,
    index: *mut c_uint,
    submission_done: *mut c_int,
    timeout_ms: c_uint,
) -> c_int {
    answered(|| {
        if file_index.is_null() || index.is_null() {
            return Err(Code::InvalidParameterError.into());
        }
        let closed = matches!(STREAMERS.get(streamer), Err(Stale::Closed));
        let ended = closed && STREAMERS.was_given(streamer);
        let streamer = match ended {
            true => return Err(Code::FinishedError.into()),
            false => streamer_of(streamer)?,
        };
        let patience = (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms.into()));
        let response = streamer.response(patience);
        let told = response.as_ref().ok();
        // SAFETY: this function's contract.
        unsafe {
            put(out_submission_id, told.map_or(0, |response| response.submission));
            put(file_index, told.map_or(0, |response| response.file));
            put(index, told.map_or(0, |response| response.index));
            put(submission_done, told.is_some_and(|response| response.is_last).into());
        }
        response?.outcome
    })
}

/// What a response code means. For the code that this thread was answered with last, the very error;
/// so the text is there until the thread calls another function of the library.
#[unsafe(no_mangle)]
pub extern "C" fn runai_file_streamer_response_str(response_code: c_int) -> *const c_char {
    guarded(c"no response code".as_ptr(), || code::sentence(response_code))
}

/// Tells modulo what the address of a range should be congruent to its offset, so that the files at
/// `paths` can be read directly. Objects do not matter.
///
/// UNKNOWN_ERROR where no file can be asked; `out_block` then is the size of a page, and can be used.
///
/// # Safety
/// `paths` has `num_paths` texts, and `out_block` is NULL or a place for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn runai_file_streamer_probe_direct_block_size(
    streamer: *mut c_void,
    paths: *const *const c_char,
    num_paths: c_uint,
    out_block: *mut usize,
) -> c_int {
    answered(|| {
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

/// Calls `callback` with every file in the directory `prefix`, of the file system or a store, and with its
/// size in bytes; with `is_recursive` not 0 also with those further down.
///
/// With `allow_patterns`, only with those whose whole path matches one of them, as fnmatch(3) without flags
/// has it; never with those that match one of `ignore_patterns`. Called on this thread; the path is there
/// during the call only.
///
/// # Safety
/// The arrays have so many texts, and `callback` may be called with `user_data`.
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
    answered(|| {
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
        listing.each(&streamer.loader(), |path, len_bytes| {
            // SAFETY: this function's contract.
            unsafe { callback(path.as_ptr(), len_bytes, user_data) }
        })
    })
}

#[cfg(test)]
mod tests;
