//! `SO_RCVLOWAT`, which has no safe wrapper in the crates that this one uses.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Asks the kernel not to report `socket` as readable, and not to wake whoever waits for that, before
/// `bytes` bytes are there, or the end of the connection. If they are there already, it wakes at once.
///
/// # Errors
/// Those of setsockopt(2).
pub(crate) fn set_receive_low_water(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let value = c_int::try_from(bytes).unwrap_or(c_int::MAX);
    // SAFETY: the kernel reads one `c_int` at the address, and `value` lives until it returns.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const value).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
