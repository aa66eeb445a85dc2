//! The context for the crate reqsign, which implements the credential sources of GCS and Azure.
//!
//! reqsign's requests (for tokens, to metadata servers) run on the client's thread for small
//! requests, even if another thread authorizes a request. Its environment variables are those of
//! the client's options. The context holds a weak reference to the client, because a store may
//! outlive the client.

use super::credential_cache::{CredentialCache, Found};
use super::requests::{bearer, is_transient};
use crate::error::{Error, ErrorKind};
use crate::options::RemoteOptions;
use crate::source::http::Client;
use crate::sys::{on_own_thread, read_small};
use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, header};
use reqsign_core::{
    CommandExecute, CommandOutput, Context, Env, FileRead, HttpSend, SigningCredential,
};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// The number of attempts to request credentials from a failing server.
const ATTEMPTS: u32 = 3;
/// The wait before the second attempt is a random part of this; it quadruples for the next one.
const FIRST_WAIT: Duration = Duration::from_millis(400);
/// The time limit of a program that prints credentials.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// The context for reqsign that makes its requests with `client`.
pub(super) fn context(client: &Arc<Client>) -> Context {
    let environment =
        ClientEnvironment { client: Arc::downgrade(client), options: client.options.clone() };
    Context::new()
        .with_http_send(environment.clone())
        .with_file_read(environment.clone())
        .with_env(environment.clone())
        .with_command_execute(environment)
}

/// Adds a bearer token to a request: the `token` of the credentials in `cache`, or of those that
/// `search` finds. Without credentials the request is unchanged.
///
/// # Errors
/// The errors of `search`; [`InvalidInput`](ErrorKind::InvalidInput) for a token that a
/// header cannot hold.
pub(super) async fn add_token<C: SigningCredential>(
    head: &mut Parts,
    cache: &CredentialCache<C>,
    search: impl Future<Output = crate::Result<Found<C>>>,
    token: impl FnOnce(C) -> Option<String>,
) -> crate::Result<()> {
    if let Some(token) = cache.get(search).await?.and_then(token) {
        let unusable = || Error::invalid_input("the access token holds characters of no token");
        head.headers.insert(header::AUTHORIZATION, bearer(&token).ok_or_else(unusable)?);
    }
    Ok(())
}

#[derive(Clone)]
struct ClientEnvironment {
    client: Weak<Client>,
    options: RemoteOptions,
}

impl ClientEnvironment {
    fn client(&self) -> reqsign_core::Result<Arc<Client>> {
        let ended = || reqsign_core::Error::unexpected("the load has ended");
        self.client.upgrade().ok_or_else(ended)
    }
}

impl fmt::Debug for ClientEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientEnvironment")
    }
}

impl HttpSend for ClientEnvironment {
    async fn http_send(&self, request: Request<Bytes>) -> reqsign_core::Result<Response<Bytes>> {
        let client = self.client()?;
        let sender = Arc::clone(&client);
        let response = client.on_control(async move { send(&sender, &request).await }).await;
        response
            .map_err(|error| reqsign_core::Error::unexpected(error.to_string()).with_source(error))
    }
}

/// Sends `request`, and repeats it while the server fails. A server that cannot be reached is not
/// tried again, since most likely this machine has no such server.
async fn send(client: &Client, request: &Request<Bytes>) -> crate::Result<Response<Bytes>> {
    let mut wait = FIRST_WAIT;
    for _ in 1..ATTEMPTS {
        match client.send_plain(request.clone()).await {
            Ok(response) if !is_transient(response.status()) => return Ok(response),
            Err(error) if error.kind() != ErrorKind::Io => return Err(error),
            _ => {}
        }
        tokio::time::sleep(wait.mul_f64(fastrand::f64())).await;
        wait *= 4;
    }
    client.send_plain(request.clone()).await
}

impl FileRead for ClientEnvironment {
    async fn file_read(&self, path: &str) -> reqsign_core::Result<Vec<u8>> {
        read_small(Path::new(path), "credentials file").map_err(|error| {
            reqsign_core::Error::config_invalid(error.to_string()).with_source(error)
        })
    }
}

impl Env for ClientEnvironment {
    fn var(&self, key: &str) -> Option<String> {
        self.options.env(key)
    }

    /// Empty: the providers that read all variables are configured by their own options instead.
    fn vars(&self) -> HashMap<String, String> {
        HashMap::new()
    }

    fn home_dir(&self) -> Option<PathBuf> {
        self.var("HOME").map(PathBuf::from)
    }
}

impl CommandExecute for ClientEnvironment {
    async fn command_execute(
        &self,
        program: &str,
        args: &[&str],
    ) -> reqsign_core::Result<CommandOutput> {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null());
        let work = async move {
            // The thread for small requests must not wait for a program.
            let running = on_own_thread(move || command.output());
            Ok(tokio::time::timeout(COMMAND_TIMEOUT, running).await)
        };
        let why = match self.client()?.on_control(work).await {
            Ok(Ok(Ok(Ok(output)))) => {
                return Ok(CommandOutput {
                    status: output.status.code().unwrap_or(-1),
                    stdout: output.stdout,
                    stderr: output.stderr,
                });
            }
            Ok(Ok(Ok(Err(error)))) => error.to_string(),
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(_)) => format!("it took more than {} s", COMMAND_TIMEOUT.as_secs()),
            Err(error) => error.to_string(),
        };
        Err(reqsign_core::Error::config_invalid(format!("cannot run {program}: {why}")))
    }
}
