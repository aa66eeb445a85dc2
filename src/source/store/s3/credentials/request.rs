//! Requests to credential servers.

use super::issued::denied;
use crate::error::Result;
use crate::source::http::{Client, ServerOrigin};
use crate::source::store::requests::is_transient;
use bytes::Bytes;
use http::{Request, Response};
use std::time::Duration;

/// The number of attempts to reach a server, and their time limit.
#[derive(Clone, Copy)]
pub(super) struct AttemptLimits {
    pub attempts: u32,
    /// The time limit of each attempt.
    pub timeout: Duration,
}

/// The limits for servers that the user configured.
pub(super) const CONFIGURED: AttemptLimits =
    AttemptLimits { attempts: 3, timeout: Duration::from_secs(10) };

/// The wait before the second attempt; it doubles for each further one.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// Sends `request`, and repeats it while the server fails.
///
/// # Errors
/// When there is no response.
pub(super) async fn send(
    client: &Client,
    request: Request<Bytes>,
    limits: AttemptLimits,
) -> Result<Response<Bytes>> {
    let mut wait = FIRST_WAIT;
    for _ in 1..limits.attempts {
        match send_once(client, request.clone(), limits).await {
            Ok(response) if !is_transient(response.status()) => return Ok(response),
            Ok(response) => {
                tracing::debug!(status = %response.status(), "asking for credentials again")
            }
            Err(error) => tracing::debug!(%error, "asking for credentials again"),
        }
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
    send_once(client, request, limits).await
}

async fn send_once(
    client: &Client,
    request: Request<Bytes>,
    limits: AttemptLimits,
) -> Result<Response<Bytes>> {
    let origin = ServerOrigin::of(request.uri());
    let response = tokio::time::timeout(limits.timeout, client.send_plain(request)).await;
    response.unwrap_or_else(|_| {
        let seconds = limits.timeout.as_secs();
        Err(denied(format!("{origin} gave no credentials in {seconds} s; check that it runs")))
    })
}
