//! What the command sets for its process: the standard streams (whether standard output is open, and
//! the log's way to standard error), and how limits of the process and signals act.
//!
//! Rust's runtime opens /dev/null in the place of a standard stream that is closed (`>&-`), so that
//! later files do not get its number. All output would then vanish and the exit status would be 0. So
//! standard output is examined by a function that the loader of the program calls before the runtime
//! starts.

#![allow(unsafe_code)]

use crate::failure::{Failure, Outcome};
#[cfg(target_env = "gnu")]
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use std::ffi::CString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static IS_OUTPUT_CLOSED: AtomicBool = AtomicBool::new(false);

// SAFETY: entries of this section are pointers to functions that the program's loader calls once,
// before `main`. The function makes a system call and stores to an atomic, which need no runtime.
#[used]
#[unsafe(link_section = ".init_array")]
static EXAMINE: extern "C" fn() = examine;

extern "C" fn examine() {
    // SAFETY: F_GETFD reads the flags of a descriptor, which need not be open.
    let is_closed = unsafe { nix::libc::fcntl(1, nix::libc::F_GETFD) } == -1;
    IS_OUTPUT_CLOSED.store(is_closed, Ordering::Relaxed);
}

/// Makes a write beyond the limit of file sizes (`ulimit -f`) an error instead of the end of the
/// process.
pub fn survive_file_limits() {
    // SAFETY: nothing else in the process handles this signal, and ignoring it runs no code.
    unsafe { nix::libc::signal(nix::libc::SIGXFSZ, nix::libc::SIG_IGN) };
}

/// Whether the process was started to ignore `signal`, as `nohup` and shells' background jobs do.
pub fn is_ignored(signal: nix::libc::c_int) -> bool {
    let mut action = std::mem::MaybeUninit::<nix::libc::sigaction>::zeroed();
    // SAFETY: without a new action, the call only writes the present one to memory of its type, of
    // which zeroes are a value, too.
    let action = unsafe {
        nix::libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    action.sa_sigaction == nix::libc::SIG_IGN
}

/// Under a limit of the address space (`ulimit -v`), makes all threads allocate from one arena. glibc
/// reserves 64 MiB of addresses for each further arena, at moments that depend on timing: the rest of
/// a load that was found to fit could then allocate nothing.
pub fn share_one_arena_if_limited() {
    #[cfg(target_env = "gnu")]
    if getrlimit(Resource::RLIMIT_AS).is_ok_and(|(limit_bytes, _)| limit_bytes != RLIM_INFINITY) {
        // SAFETY: mallopt changes a setting of the allocator, and no other thread runs yet.
        unsafe { nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1) };
    }
}

/// What to say when a signal ends the process.
struct LastWords {
    /// Nothing is said unless this exists.
    kept: CString,
    sentence: String,
}

static LAST_WORDS: OnceLock<LastWords> = OnceLock::new();

/// Makes Ctrl-C and SIGTERM print `sentence` on standard error before they end the process, if `kept`
/// exists then.
pub fn explain_interrupts(kept: &Path, sentence: String) {
    let Ok(kept) = CString::new(kept.as_os_str().as_bytes()) else { return };
    if LAST_WORDS.set(LastWords { kept, sentence }).is_err() {
        return;
    }
    for signal in [nix::libc::SIGINT, nix::libc::SIGTERM] {
        let handler = speak_and_end as *const () as nix::libc::sighandler_t;
        // SAFETY: the handler makes calls only that POSIX permits in a handler, and a signal that was
        // ignored stays so.
        unsafe {
            if nix::libc::signal(signal, handler) == nix::libc::SIG_IGN {
                nix::libc::signal(signal, nix::libc::SIG_IGN);
            }
        }
    }
}

extern "C" fn speak_and_end(signal: nix::libc::c_int) {
    // SAFETY: access, write, signal and raise may be called in a handler. The path ends with a zero,
    // the length is that of the sentence, and both live as long as the process.
    unsafe {
        if let Some(LastWords { kept, sentence }) = LAST_WORDS.get()
            && nix::libc::access(kept.as_ptr(), nix::libc::F_OK) == 0
        {
            nix::libc::write(2, sentence.as_ptr().cast(), sentence.len());
        }
        nix::libc::signal(signal, nix::libc::SIG_DFL);
        nix::libc::raise(signal);
    }
}

/// Checks that the process was started with an open standard output.
///
/// # Errors
/// [`Failure::Output`] if it is closed.
pub fn check_output() -> Outcome {
    match IS_OUTPUT_CLOSED.load(Ordering::Relaxed) {
        true => Err(Failure::Output(io::Error::from_raw_os_error(nix::libc::EBADF))),
        false => Ok(()),
    }
}

/// Standard error for the log. A line that cannot be written (the disk is full, the reader is gone) is
/// lost, because no log line is worth the load that it reports on.
#[derive(Debug, Default)]
pub struct LossyStderr;

impl Write for LossyStderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Lost, as the type says.
        let _ = io::stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
