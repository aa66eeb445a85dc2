//! The standard streams of the process: whether standard output is open, and the log's way to
//! standard error.
//!
//! Rust's runtime opens /dev/null in the place of a standard stream that is closed (`>&-`), so that
//! later files do not get its number. All output would then vanish and the exit status would be 0. So
//! standard output is examined by a function that the loader of the program calls before the runtime
//! starts.

#![allow(unsafe_code)]

use crate::failure::{Failure, Outcome};
use std::io::{self, Write};
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
