//! Runs a program to its end and measures its time, CPU time and memory through the kernel.
//!
//! Its standard output is returned, and its standard error is part of the error when it fails. It
//! gets its start time in a variable, so that it can report the time until its first tensor. The
//! kernel kills it when the thread that started it ends; Ctrl-C reaches it directly, as it belongs to
//! the foreground processes of the terminal.

use crate::figures::{Figures, monotonic};
use nix::sys::resource::{UsageWho, getrusage};
use serde::de::DeserializeOwned;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Instant;
use wait4::Wait4;

/// The variable with the start time of a process, in nanoseconds of CLOCK_MONOTONIC.
pub const BEGAN_VARIABLE: &str = "RINGLOAD_PERF_BEGAN";

/// A program, its arguments and its variables.
#[derive(Debug, Clone, Default)]
pub struct Invocation {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    /// The words of the programs that run it, which messages leave out.
    outer_words: usize,
}

/// The result of a process that succeeded.
#[derive(Debug)]
pub struct Finished {
    /// What it wrote to its standard output.
    pub output: Vec<u8>,
    /// From its start to its end.
    pub seconds: f64,
    /// User and system time of the process and of the children that it waited for.
    pub cpu_seconds: f64,
    /// `None` if it is not known: the kernel counts from before exec(2), so a value up to the peak of
    /// this process may be that of this process.
    pub peak_rss_bytes: Option<u64>,
}

impl Invocation {
    /// A program without arguments.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self { program: program.as_ref().to_owned(), ..Self::default() }
    }

    /// This program, which runs as a child of itself.
    ///
    /// # Errors
    /// When the path of this executable is not known.
    pub fn own() -> io::Result<Self> {
        Ok(Self::new(std::env::current_exe()?))
    }

    /// With one more argument.
    #[must_use]
    pub fn arg(self, argument: impl AsRef<OsStr>) -> Self {
        self.args([argument])
    }

    /// With more arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// With more arguments, which are separated by spaces.
    #[must_use]
    pub fn words(self, arguments: &str) -> Self {
        self.args(arguments.split_whitespace())
    }

    /// With one more variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The same, as the last arguments of another program, such as `taskset --cpu-list 1`.
    #[must_use]
    pub fn under(self, words: &[&str]) -> Self {
        let (program, arguments) = words.split_first().unwrap_or((&"env", &[]));
        let outer = Self::new(program).args(arguments).arg(&self.program).args(&self.arguments);
        let outer_words = self.outer_words + 1 + arguments.len();
        Self { environment: self.environment, outer_words, ..outer }
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it cannot be started, or fails (with its standard error).
    pub fn run(&self) -> io::Result<Finished> {
        let began = Instant::now();
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env(BEGAN_VARIABLE, monotonic()?.as_nanos().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        die_with_parent(&mut command);
        let named = |how: String| format!("{} {how}", self.named());
        let cannot = |error: io::Error| {
            io::Error::new(error.kind(), named(format!("cannot be started: {error}")))
        };
        let mut child = command.spawn().map_err(cannot)?;
        let (mut out, err) = (child.stdout.take(), child.stderr.take());
        let mut output = Vec::new();
        let errors = std::thread::scope(|scope| {
            let errors = scope.spawn(|| {
                let mut text = String::new();
                err.map(|mut err| err.read_to_string(&mut text)).transpose().map(|_| text)
            });
            out.as_mut().map(|out| out.read_to_end(&mut output)).transpose()?;
            Ok::<_, io::Error>(
                errors.join().unwrap_or_else(|_| Ok(String::new())).unwrap_or_default(),
            )
        })?;
        let ended = child.wait4()?;
        let seconds = began.elapsed().as_secs_f64();
        if !ended.status.success() {
            let message = errors.trim().trim_start_matches("error: ");
            let how = match message {
                "" => format!("ended with {}", ended.status),
                message => format!("ended with {}: {message}", ended.status),
            };
            return Err(io::Error::other(named(how)));
        }
        let usage = ended.rusage;
        let own_peak = getrusage(UsageWho::RUSAGE_SELF)?.max_rss() as u64 * 1024;
        Ok(Finished {
            output,
            seconds,
            cpu_seconds: (usage.utime + usage.stime).as_secs_f64(),
            peak_rss_bytes: Some(usage.maxrss).filter(|&peak| peak > own_peak),
        })
    }

    /// Runs it and returns the figures that it prints.
    ///
    /// # Errors
    /// When it fails, or prints something else.
    pub fn figures(&self) -> io::Result<Figures> {
        let ended = self.run()?;
        Ok(Figures { process_seconds: ended.seconds, ..ended.json()? })
    }

    /// The program and its first arguments, for messages.
    fn named(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.arguments);
        let words = words.skip(self.outer_words).take(7);
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }
}

impl Finished {
    /// The JSON object that the program printed, possibly after other lines.
    ///
    /// # Errors
    /// When it printed something else.
    pub fn json<T: DeserializeOwned>(&self) -> io::Result<T> {
        let text = String::from_utf8_lossy(&self.output);
        let start = text.find("\n{").map_or_else(|| text.find('{'), |found| Some(found + 1));
        let parsed = start.map(|start| serde_json::from_str(&text[start..]));
        parsed.transpose()?.ok_or_else(|| {
            io::Error::other(format!("a measured program printed no JSON object, but {text:?}"))
        })
    }
}

/// The start time that this process was given.
pub(crate) fn began_nanoseconds() -> Option<u64> {
    std::env::var(BEGAN_VARIABLE).ok()?.parse().ok()
}

/// Makes the kernel kill the process of `command` when the thread that starts it ends.
#[allow(unsafe_code)]
pub fn die_with_parent(command: &mut Command) {
    // SAFETY: runs between fork and exec; prctl(2) is one system call, takes no lock and no memory.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Invocation {
        Invocation::new("sh").args(["-c", script])
    }

    #[test]
    fn a_run_tells_output_time_and_memory() {
        let ended = shell("echo out; echo $A").env("A", "b").run().unwrap();
        assert_eq!(ended.output, b"out\nb\n");
        assert!(ended.seconds > 0.0);
        let large = shell("head -c 200M /dev/zero | tail -c 200M | wc -c").run().unwrap();
        assert!(large.peak_rss_bytes > Some(200_000_000), "{large:?}");
        let busy = shell("i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done");
        let busy = busy.under(&["taskset", "--cpu-list", "0"]).run().unwrap();
        assert!(busy.cpu_seconds > 0.01 && busy.cpu_seconds < busy.seconds + 0.1, "{busy:?}");
    }

    #[test]
    fn a_failure_says_what_the_process_said() {
        let message = shell("echo 'error: no disk' >&2; exit 3").run().unwrap_err().to_string();
        assert!(message.contains("exit status: 3") && message.ends_with(": no disk"), "{message}");
        assert!(
            shell("kill -9 $$").run().unwrap_err().to_string().ends_with("signal: 9 (SIGKILL)")
        );
        let outer = shell("exit 3").under(&["timeout", "9"]).run().unwrap_err().to_string();
        assert_eq!(outer, "sh -c exit 3 ended with exit status: 3");
        let missing = Invocation::new("/nowhere").run().unwrap_err().to_string();
        assert!(missing.starts_with("/nowhere cannot be started: "), "{missing}");
    }

    #[test]
    fn figures_may_follow_other_lines() {
        let figures = r#"{"bytes": 1, "seconds": 2.0, "cpu_seconds": 1.0}"#;
        let run = shell(&format!("echo log; echo '{figures}'")).figures().unwrap();
        assert_eq!((run.bytes, run.seconds), (1, 2.0));
        assert!(run.process_seconds > 0.0);
        assert!(shell("echo none").figures().is_err());
    }

    #[test]
    fn a_process_knows_when_it_was_started() {
        let began = shell("echo $RINGLOAD_PERF_BEGAN").run().unwrap().output;
        let began: u128 = String::from_utf8(began).unwrap().trim().parse().unwrap();
        assert!(began > 0 && began <= monotonic().unwrap().as_nanos());
    }
}
