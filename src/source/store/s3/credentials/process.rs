//! `credential_process`: a command that prints credentials.
//!
//! Hand-written: the provider of `reqsign-aws-core` splits the command at blanks instead of running
//! it by the shell, and quotes its output in errors.

use super::issued::{IssuedCredential, denied};
use crate::error::{Error, Result};
use crate::source::store::s3::aws_credential::AwsCredential;
use crate::sys::{on_own_thread, spawn};
use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The time limit of the command, which may wait for the user to log in.
const TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// The maximum length of the output, which exceeds the length of any credentials.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// Runs `command` by the shell and parses the credentials that it prints.
///
/// # Errors
/// When it fails, exceeds its time limit, or prints something else.
pub(super) async fn run(command: String) -> Result<AwsCredential> {
    let output = on_own_thread(move || output(&command, TIMEOUT)).await??;
    IssuedCredential::from_json("the credential_process", &output)
}

/// The output of `command`. The command inherits standard error, through which it may prompt the
/// user.
fn output(command: &str, timeout: Duration) -> Result<Vec<u8>> {
    let fail = |error| Error::from_io("run the profile's credential_process", error);
    let deadline = Instant::now() + timeout;
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = shell.spawn().map_err(fail)?;
    let (stdout, (sender, printed)) = (child.stdout.take(), mpsc::channel());
    spawn("ringload-credentials", move || {
        let mut bytes = Vec::new();
        let read = stdout.map(|out| out.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes));
        // If the command failed or took too long, the receiver is gone.
        let _ = sender.send(read.transpose().map(|_| bytes));
    })?;
    let status = wait(&mut child, deadline).map_err(fail)?.ok_or_else(|| late(timeout))?;
    if !status.success() {
        return Err(denied(format!(
            "the profile's credential_process failed ({status}); run it by hand"
        )));
    }
    // A process that the command left running may hold the pipe open.
    match printed.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(outcome) => outcome.map_err(fail),
        Err(_) => Err(late(timeout)),
    }
}

/// Waits for `child` to exit. At the `deadline` kills it and returns `None`.
fn wait(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    // An error means that it has exited just now.
    let _ = child.kill();
    let _ = child.wait();
    Ok(None)
}

fn late(timeout: Duration) -> Error {
    let seconds = timeout.as_secs();
    denied(format!("the profile's credential_process took more than {seconds} s; run it by hand"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_run_and_bounded() {
        let printed = output("printf '%s' \"a  b\"", TIMEOUT).unwrap();
        assert_eq!(printed, b"a  b", "the shell interprets quotes");
        let failed = output("exit 3", TIMEOUT).unwrap_err().to_string();
        assert!(failed.contains("exit status: 3"), "{failed}");
        let began = Instant::now();
        let late = output("exec sleep 30", Duration::from_millis(100)).unwrap_err().to_string();
        assert!(late.contains("took more than"), "{late}");
        assert!(began.elapsed() < Duration::from_secs(10));
        let began = Instant::now();
        let held =
            output("sleep 5 2>/dev/null & printf x", Duration::from_millis(500)).unwrap_err();
        assert!(held.to_string().contains("took more than"), "{held}");
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }
}
