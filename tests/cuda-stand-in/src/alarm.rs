//! The alarm: prints one line on standard error that names the incorrect use, and aborts the
//! process.
//!
//! Aborting instead of returning an error makes a test fail even if the code under test ignores
//! errors, and even if the incorrect use would have had no consequence this time.

use std::fmt::Arguments;
use std::io::Write;
use std::process;

/// Raises the alarm with a message in the format of `format!`.
macro_rules! alarm {
    ($($message:tt)*) => { $crate::alarm::ring(format_args!($($message)*)) };
}

/// Writes the message as one line with one call, and aborts.
pub(crate) fn ring(message: Arguments<'_>) -> ! {
    let line = format!("cuda stand-in: {message}\n");
    std::io::stderr().write_all(line.as_bytes()).ok(); // there is no other way to report it
    process::abort()
}
