//! What reqsign, which knows where credentials are kept, needs of its surroundings.
//!
//! Its requests (for tokens, to metadata servers) run on the client's thread for small requests,
//! whichever thread asks for a signature. Its variables are those of the client's options. The
//! client is held weakly: a store keeps what it made of a context, and the client keeps its stores.

use super::parts::is_passing;
use crate::error::{Error, ErrorKind};
use crate::options::RemoteOptions;
use crate::source::http::Client;
use bytes::Bytes;
use http::{Request, Response};
use reqsign_core::{CommandExecute, CommandOutput, Context, FileRead, HttpSend};
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How often a credential server that fails is asked.
const ATTEMPTS: u32 = 3;
/// The first wait between two attempts is a random part of this, the next of four times as much.
const FIRST_WAIT: Duration = Duration::from_millis(400);
/// A program that is to print credentials does not get longer.
const COMMAND_MAX: Duration = Duration::from_secs(30);

/// What reqsign works with, on behalf of `client`.
pub(super) fn context(client: &Arc<Client>) -> Context {
    Context::new()
        .with_http_send(Surroundings::of(client))
        .with_file_read(Surroundings::of(client))
        .with_env(Surroundings::of(client))
        .with_command_execute(Surroundings::of(client))
}

struct Surroundings {
    client: Weak<Client>,
    options: RemoteOptions,
}

impl Surroundings {
    fn of(client: &Arc<Client>) -> Self {
        Self { client: Arc::downgrade(client), options: client.options.clone() }
    }

    fn client(&self) -> reqsign_core::Result<Arc<Client>> {
        let gone = || reqsign_core::Error::unexpected("the load has ended");
        self.client.upgrade().ok_or_else(gone)
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Surroundings")
    }
}

impl HttpSend for Surroundings {
    async fn http_send(&self, request: Request<Bytes>) -> reqsign_core::Result<Response<Bytes>> {
        let client = self.client()?;
        let asking = Arc::clone(&client);
        let answer = client.on_control(async move { ask(&asking, &request).await }).await;
        answer
            .map_err(|error| reqsign_core::Error::unexpected(error.to_string()).with_source(error))
    }
}

/// Sends `request`, again if the server is in trouble. A server that cannot be reached is not
/// tried again: most likely this is not the machine that has it.
async fn ask(client: &Client, request: &Request<Bytes>) -> crate::Result<Response<Bytes>> {
    let mut wait = FIRST_WAIT;
    for _ in 1..ATTEMPTS {
        match client.send_plain(request.clone()).await {
            Ok(answer) if !is_passing(answer.status()) => return Ok(answer),
            Err(error) if error.kind() != ErrorKind::Io => return Err(error),
            _ => {}
        }
        tokio::time::sleep(wait.mul_f64(fastrand::f64())).await;
        wait *= 4;
    }
    client.send_plain(request.clone()).await
}

impl FileRead for Surroundings {
    async fn file_read(&self, path: &str) -> reqsign_core::Result<Vec<u8>> {
        std::fs::read(path).map_err(|error| {
            let error = Error::from_io(format_args!("read {path}"), error);
            reqsign_core::Error::config_invalid(error.to_string()).with_source(error)
        })
    }
}

impl reqsign_core::Env for Surroundings {
    fn var(&self, key: &str) -> Option<String> {
        self.options.env(key)
    }

    /// None: what wants variables by the dozen is told by its own options instead.
    fn vars(&self) -> HashMap<String, String> {
        HashMap::new()
    }

    fn home_dir(&self) -> Option<PathBuf> {
        self.var("HOME").map(PathBuf::from)
    }
}

impl CommandExecute for Surroundings {
    async fn command_execute(
        &self,
        program: &str,
        args: &[&str],
    ) -> reqsign_core::Result<CommandOutput> {
        let mut command = Command::new(program);
        command.args(args).stdin(std::process::Stdio::null());
        let fail = {
            let program = program.to_owned();
            move |why: &dyn fmt::Display| {
                reqsign_core::Error::config_invalid(format!("cannot run {program}: {why}"))
            }
        };
        let running = async move {
            // Neither an engine nor the thread for small requests may wait for a program.
            let running = tokio::task::spawn_blocking(move || command.output());
            Ok(tokio::time::timeout(COMMAND_MAX, running).await)
        };
        match self.client()?.on_control(running).await {
            Ok(Ok(Ok(Ok(output)))) => Ok(CommandOutput {
                status: output.status.code().unwrap_or(-1),
                stdout: output.stdout,
                stderr: output.stderr,
            }),
            Ok(Ok(Ok(Err(error)))) => Err(fail(&error)),
            Ok(Ok(Err(_))) => Err(fail(&"it panicked")),
            Ok(Err(_)) => Err(fail(&format!("it took more than {} s", COMMAND_MAX.as_secs()))),
            Err(error) => Err(fail(&error)),
        }
    }
}
