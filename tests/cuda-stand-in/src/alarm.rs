//! The alarm: one line on standard error that says what was done wrong, and the process ends.
//!
//! Aborting, rather than answering an error, is what makes a test fail even where the code under
//! test swallows errors, and where the wrong use would have gone well this time.

use std::fmt::Arguments;
use std::io::Write;
use std::process;

/// Rings the alarm with a message as `format!` makes it.
macro_rules! alarm {
    ($($message:tt)*) => { $crate::alarm::ring(format_args!($($message)*)) };
}

/// Writes the message as one line, in one piece, and aborts.
pub(crate) fn ring(message: Arguments<'_>) -> ! {
    let line = format!("cuda stand-in: {message}\n");
    std::io::stderr().write_all(line.as_bytes()).ok(); // nobody is left to tell otherwise
    process::abort()
}
