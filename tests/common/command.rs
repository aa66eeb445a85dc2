//! Runs the real command to its end; kills it when it hangs.

use super::{Expected, PATIENCE};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The variables that the command reads. They are removed, unless a test sets them.
const VARIABLES: [&str; 11] = [
    "RINGLOAD_CACHE_DIR",
    "RINGLOAD_CACHE_SIZE",
    "RINGLOAD_CACHE_VALIDATE",
    "RINGLOAD_CACHE_SHARED",
    "RINGLOAD_PIN",
    "RINGLOAD_UNPINNED",
    "RINGLOAD_MEMORY_LIMIT",
    "RINGLOAD_CONCURRENCY",
    "RUNAI_STREAMER_MEMORY_LIMIT",
    "RUNAI_STREAMER_CONCURRENCY",
    "RINGLOAD_LOG",
];

/// The command as built for these tests, in an environment without its variables.
pub fn ringload() -> Command {
    of_program(Path::new(env!("CARGO_BIN_EXE_ringload")))
}

/// As [`ringload`], for a copy of the binary.
pub fn of_program(program: &Path) -> Command {
    let mut command = Command::new(program);
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    command
}

/// The exit status and output of a finished command.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// Checks for exit status 0 and an empty standard error; returns standard output.
    #[track_caller]
    pub fn quiet_success(self) -> String {
        assert!(self.status.success() && self.stderr.is_empty(), "{self:#?}");
        self.stdout
    }

    /// Checks the same and returns standard output as JSON.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let stdout = self.quiet_success();
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
    }

    /// Checks for a failure: exit status 1, a report on standard error, and no other output. Returns
    /// the report.
    #[track_caller]
    pub fn failure(self) -> String {
        assert_eq!(self.status.code(), Some(1), "{self:#?}");
        assert!(self.stdout.is_empty(), "{self:#?}");
        assert!(self.stderr.starts_with("error: "), "{self:#?}");
        self.assert_no_panic();
        self.stderr
    }

    /// Checks for wrong usage: exit status 2 and a message on standard error, which is returned.
    #[track_caller]
    pub fn wrong_usage(self) -> String {
        assert_eq!(self.status.code(), Some(2), "{self:#?}");
        assert!(self.stdout.is_empty(), "{self:#?}");
        assert!(self.stderr.starts_with("error: "), "{self:#?}");
        self.assert_no_panic();
        self.stderr
    }

    #[track_caller]
    pub fn assert_no_panic(&self) {
        assert_eq!(self.status.signal(), None, "{self:#?}");
        for word in ["panicked", "RUST_BACKTRACE", "this is a bug"] {
            assert!(!self.stderr.contains(word), "{self:#?}");
        }
    }
}

/// Runs `command` with both outputs piped; kills it and panics if it outlasts [`PATIENCE`].
#[track_caller]
pub fn run(command: &mut Command) -> Finished {
    finish(start(command))
}

/// Waits for `child` and reads its outputs; kills it and panics if it outlasts [`PATIENCE`].
#[track_caller]
pub fn finish(mut child: Child) -> Finished {
    let stdout = read_beside(child.stdout.take().unwrap());
    let stderr = read_beside(child.stderr.take().unwrap());
    let status = wait(&mut child);
    let text = |reader: thread::JoinHandle<Vec<u8>>| {
        String::from_utf8(reader.join().unwrap()).expect("outputs are UTF-8")
    };
    Finished { status, stdout: text(stdout), stderr: text(stderr) }
}

/// Starts `command` with standard input empty and both outputs piped.
#[track_caller]
pub fn start(command: &mut Command) -> Child {
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    piped.spawn().unwrap_or_else(|error| panic!("cannot start {piped:?}: {error}"))
}

/// Waits for `child`; kills it and panics if it outlasts [`PATIENCE`].
#[track_caller]
pub fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            child.kill().ok(); // it may have ended just now
            panic!("the command hangs");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn read_beside(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// SHA-256 in lower-case hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    sum.as_ref().iter().fold(String::new(), |mut digits, byte| {
        write!(digits, "{byte:02x}").unwrap();
        digits
    })
}

/// What `load --digest` has to print for `tensors`.
pub fn digest_lines<'a>(tensors: impl IntoIterator<Item = &'a Expected>) -> String {
    let sums: BTreeMap<_, _> =
        tensors.into_iter().map(|tensor| (&tensor.name, sha256(&tensor.bytes))).collect();
    sums.into_iter().map(|(name, sum)| format!("{sum}  {name}\n")).collect()
}
