//! Runs one measurement in a child process of this executable, so that time, CPU and memory are
//! those of a whole load in a new process.
//!
//! `ringload load --json` and `ringload bench-reference` print the same figures under the same
//! names. A child is killed when its parent ends; Ctrl-C reaches it directly, as it belongs to the
//! foreground processes of the terminal.

use super::bare;
use crate::failure::{Failure, Outcome};
use ringload::{Error, ErrorKind};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

/// The figures of one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    pub bytes: u64,
    /// The seconds that the run measured; for a load, from the open checkpoint to the last tensor.
    pub seconds: f64,
    /// User and system time: of the whole process for a load, of the measured part for a reference
    /// measurement.
    pub cpu_seconds: f64,
    pub peak_rss_bytes: Option<u64>,
    /// The seconds from the start of the process to its end.
    #[serde(default)]
    pub process_seconds: f64,
}

impl Run {
    pub fn gigabytes_per_second(&self) -> f64 {
        crate::format::gigabytes_per_second(self.bytes, self.seconds)
    }

    /// CPU seconds for each 10^9 bytes.
    pub fn cpu_seconds_per_gigabyte(&self) -> f64 {
        self.cpu_seconds / (self.bytes.max(1) as f64 / 1e9)
    }
}

/// Runs this executable with `arguments` and parses the figures that it prints.
///
/// # Errors
/// When the child process cannot be started, fails (with its error message), or prints something
/// else.
pub fn run(arguments: &[OsString]) -> Outcome<Run> {
    let executable = executable()?;
    let began = Instant::now();
    let output = output(Command::new(executable).args(arguments))?;
    let process_seconds = began.elapsed().as_secs_f64();
    let run: Run = serde_json::from_slice(&output.stdout)
        .map_err(|error| failed(&format!("printed no figures: {error}"), &output))?;
    Ok(Run { process_seconds, ..run })
}

/// The path of this executable.
///
/// # Errors
/// The errors of the operating system.
pub fn executable() -> Outcome<PathBuf> {
    Ok(std::env::current_exe().map_err(|error| Error::from_io("find this executable", error))?)
}

/// Runs `command` to its end with empty standard input and returns its output.
///
/// # Errors
/// When it cannot be started or fails.
pub fn output(command: &mut Command) -> Outcome<Output> {
    bare::die_with_parent(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::from_io(format_args!("start {command:?}"), error))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(failed(&format!("ended with {}", output.status), &output))
}

fn failed(how: &str, output: &Output) -> Failure {
    let message = String::from_utf8_lossy(&output.stderr);
    let message = message.trim().trim_start_matches("error: ");
    let sentence = match message {
        "" => format!("a measuring process {how}"),
        message => format!("a measuring process {how}: {message}"),
    };
    Error::new(ErrorKind::Io, sentence).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_a_load_are_read() {
        let json = r#"{"bytes": 2000000000, "tensors": 1, "seconds": 0.5, "cpu_seconds": 0.4,
                       "peak_rss_bytes": null, "read_path": "direct"}"#;
        let run: Run = serde_json::from_str(json).unwrap();
        assert!((run.gigabytes_per_second() - 4.0).abs() < 1e-9);
        assert!((run.cpu_seconds_per_gigabyte() - 0.2).abs() < 1e-9);
    }

    #[test]
    fn the_message_of_a_failing_process_is_reported() {
        let mut command = Command::new("sh");
        let failure = output(command.args(["-c", "echo 'error: no disk' >&2; exit 1"]));
        let message = failure.unwrap_err().to_string();
        assert!(message.contains("exit status: 1") && message.ends_with(": no disk"), "{message}");
    }
}
