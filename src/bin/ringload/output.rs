//! Writing to standard output. A full disk or a closed pipe is an error and never a panic.

use crate::failure::{Failure, Outcome};
use serde::Serialize;
use std::io::{self, BufWriter, Write};

/// Calls `write` with a buffered standard output.
///
/// # Errors
/// [`Failure::Output`] when it cannot be written.
pub fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Outcome {
    let mut out = BufWriter::new(io::stdout().lock());
    write(&mut out).and_then(|()| out.flush()).map_err(Failure::Output)
}

/// Prints the answer to `--help` or `--version`.
///
/// # Errors
/// As [`print`].
pub fn print_help(answer: &clap::Error) -> Outcome {
    answer.print().and_then(|()| io::stdout().flush()).map_err(Failure::Output)
}

/// Prints `value` as one indented JSON object.
///
/// # Errors
/// As [`print`].
pub fn print_json(value: &impl Serialize) -> Outcome {
    print(|out| {
        serde_json::to_writer_pretty(&mut *out, value)?;
        writeln!(out)
    })
}
