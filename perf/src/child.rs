//! Runs a client as a child process and measures its time, CPU time and memory through the kernel.
//!
//! The child may be bound to one core (`taskset`). Its standard output is captured, and its standard
//! error is shown when it fails. It gets its start time in a variable, so that it can report the time
//! until its first tensor.

use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use wait4::Wait4;

/// A program and its arguments.
#[derive(Debug, Clone, Default)]
pub struct Invocation {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

/// The result of a process that succeeded.
#[derive(Debug)]
pub struct Finished {
    pub output: Vec<u8>,
    pub seconds: f64,
    /// User and system time of the process and of the children that it waited for.
    pub cpu_seconds: f64,
    /// `None` if it is not known: the kernel counts from before exec(2), so a value up to the peak of
    /// this process may be that of this process.
    pub peak_rss_bytes: Option<u64>,
}

/// The variable with the start time of a client's process, in nanoseconds of CLOCK_MONOTONIC. Without
/// it, the client reports no `first_tensor_seconds` and `last_tensor_seconds`.
pub const BEGAN_VARIABLE: &str = "RINGLOAD_PERF_BEGAN";

/// The time after which a client counts as hanging.
const TIME_MAX: Duration = Duration::from_secs(900);

impl Invocation {
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self { program: program.as_ref().to_owned(), ..Self::default() }
    }

    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    #[must_use]
    pub fn envs(self, pairs: &[(String, String)]) -> Self {
        pairs.iter().fold(self, |invocation, (name, value)| invocation.env(name, value))
    }

    /// Pipes the standard output of the program into sha256sum(1).
    #[must_use]
    pub fn summed(&self) -> Self {
        let shell = Self::new("sh").args(["-c", "\"$@\" | sha256sum", "sh"]).arg(&self.program);
        Self { environment: self.environment.clone(), ..shell.args(&self.arguments) }
    }

    /// Runs it to its end, on `core` alone if one is given.
    ///
    /// # Errors
    /// When it cannot be started, fails (with its standard error), or takes longer than any load.
    pub fn run(&self, core: Option<usize>) -> Result<Finished> {
        let mut command = self.command(core);
        let began = Instant::now();
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
        let nanoseconds = i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec());
        command.env(BEGAN_VARIABLE, nanoseconds.to_string());
        let mut stderr = tempfile::tempfile()?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr.try_clone()?);
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", self.named()))?;
        let watch = Watch::over(child.id());
        let mut output = Vec::new();
        if let Some(mut out) = child.stdout.take() {
            out.read_to_end(&mut output)?;
        }
        let ended = child.wait4()?;
        let seconds = began.elapsed().as_secs_f64();
        if watch.has_killed() {
            bail!("{} had not ended after {} s", self.named(), TIME_MAX.as_secs());
        }
        if !ended.status.success() {
            let mut text = String::new();
            std::io::Seek::rewind(&mut stderr)?;
            stderr.read_to_string(&mut text)?;
            bail!("{} ended with {}:\n{}", self.named(), ended.status, text.trim());
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

    fn command(&self, core: Option<usize>) -> Command {
        let mut command = match core {
            Some(core) => {
                let mut command = Command::new("taskset");
                command.args(["--cpu-list", &core.to_string()]).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The program and its first arguments, for messages.
    fn named(&self) -> String {
        let words = std::iter::once(&self.program).chain(self.arguments.iter().take(6));
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }
}

impl From<&Command> for Invocation {
    fn from(command: &Command) -> Self {
        let pairs = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        Self {
            program: command.get_program().to_owned(),
            arguments: command.get_args().map(OsStr::to_owned).collect(),
            environment: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        }
    }
}

/// Kills a process that takes too long.
struct Watch {
    done: std::sync::mpsc::Sender<()>,
    thread: std::thread::JoinHandle<bool>,
}

impl Watch {
    fn over(process: u32) -> Self {
        let (done, waits) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let is_late =
                waits.recv_timeout(TIME_MAX) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
            if is_late {
                // The process was not waited for yet, so its id is still valid.
                let _ = kill(Pid::from_raw(process as i32), Signal::SIGKILL);
            }
            is_late
        });
        Self { done, thread }
    }

    fn has_killed(self) -> bool {
        drop(self.done);
        self.thread.join().unwrap_or(false)
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
        let ended = shell("echo out; echo $A").env("A", "b").run(None).unwrap();
        assert_eq!(ended.output, b"out\nb\n");
        assert!(ended.seconds > 0.0);
        let large = shell("head -c 200M /dev/zero | tail -c 200M | wc -c").run(None).unwrap();
        assert!(large.peak_rss_bytes > Some(200_000_000), "{large:?}");
        let busy =
            shell("i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done").run(Some(0)).unwrap();
        assert!(busy.cpu_seconds > 0.01 && busy.cpu_seconds < busy.seconds + 0.1, "{busy:?}");
    }

    #[test]
    fn a_failure_says_what_the_process_said() {
        let message = shell("echo no disk >&2; exit 3").run(None).unwrap_err().to_string();
        assert!(message.contains("exit status: 3") && message.ends_with("no disk"), "{message}");
        assert!(Invocation::new("/nowhere").run(None).is_err());
    }
}
