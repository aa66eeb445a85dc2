//! `credential_process`: a command that prints credentials.

use super::{Credential, ask, denied};
use crate::error::{Error, Result};
use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long the command may take: it may wait for a person to log in.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);
/// More than any credentials are.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// Runs `command` by the shell and reads what it prints.
///
/// # Errors
/// When it fails, takes too long, or prints something else.
pub(super) async fn run(command: String) -> Result<Credential> {
    let running = tokio::task::spawn_blocking(move || output(&command, PATIENCE));
    let output = running.await.map_err(|_| denied("running the credential_process panicked"))??;
    ask::credential("the credential_process", &output)
}

/// What `command` prints. Its standard error goes where ours does: it talks to the user.
fn output(command: &str, patience: Duration) -> Result<Vec<u8>> {
    let fail = |error| Error::from_io("run the profile's credential_process", error);
    let deadline = Instant::now() + patience;
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = shell.spawn().map_err(fail)?;
    let (stdout, (sender, printed)) = (child.stdout.take(), mpsc::channel());
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout.map(|out| out.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes));
        // Nobody listens any more where the command failed or took too long.
        let _ = sender.send(read.transpose().map(|_| bytes));
    });
    let status = wait(&mut child, deadline).map_err(fail)?.ok_or_else(|| late(patience))?;
    if !status.success() {
        return Err(denied(format!(
            "the profile's credential_process failed ({status}); run it by hand"
        )));
    }
    // What the command has left running may hold its output open.
    match printed.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(outcome) => outcome.map_err(fail),
        Err(_) => Err(late(patience)),
    }
}

/// Waits for the end of `child`; kills it at the `deadline`, and gives `None`.
fn wait(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(POLL);
    }
    // It may have ended just now; either way it is gone.
    let _ = child.kill();
    let _ = child.wait();
    Ok(None)
}

fn late(patience: Duration) -> Error {
    let seconds = patience.as_secs();
    denied(format!("the profile's credential_process took more than {seconds} s; run it by hand"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_run_and_bounded() {
        let printed = output("printf '%s' \"a  b\"", PATIENCE).unwrap();
        assert_eq!(printed, b"a  b", "quotes are the shell's");
        let failed = output("exit 3", PATIENCE).unwrap_err().to_string();
        assert!(failed.contains("exit status: 3"), "{failed}");
        let began = Instant::now();
        let late = output("exec sleep 30", Duration::from_millis(100)).unwrap_err().to_string();
        assert!(late.contains("took more than"), "{late}");
        assert!(began.elapsed() < Duration::from_secs(10));
        let began = Instant::now();
        let held = output("sleep 5 & printf x", Duration::from_millis(500)).unwrap_err();
        assert!(held.to_string().contains("took more than"), "{held}");
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }
}
