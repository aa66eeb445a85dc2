//! Standard output, written so that a full disk or a closed pipe is an error and never a panic.

use crate::failure::{Failure, Outcome};
use serde::Serialize;
use std::io::{self, BufWriter, Write};

/// Lets `write` fill standard output through one buffer.
///
/// # Errors
/// [`Failure::Output`] for whatever the writing met.
pub fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Outcome {
    let mut out = BufWriter::new(io::stdout().lock());
    write(&mut out).and_then(|()| out.flush()).map_err(Failure::Output)
}

/// Prints `value` as one JSON object, indented, with a line break at its end.
///
/// # Errors
/// As [`print`].
pub fn print_json(value: &impl Serialize) -> Outcome {
    print(|out| {
        serde_json::to_writer_pretty(&mut *out, value)?;
        writeln!(out)
    })
}
