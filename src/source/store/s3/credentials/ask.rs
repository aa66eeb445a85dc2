//! Small requests to credential servers, and the form in which most of them answer.

use super::{Credential, denied};
use crate::error::{Error, Result};
use crate::source::http::{Client, ServerOrigin};
use crate::source::store::parts::is_passing;
use crate::source::store::s3::time;
use bytes::Bytes;
use http::{Request, Response};
use serde::Deserialize;
use std::time::Duration;

/// How often and how long a server is asked.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    pub attempts: u32,
    /// For each attempt.
    pub timeout: Duration,
}

/// For servers that the user configured.
pub(super) const CONFIGURED: Patience = Patience { attempts: 3, timeout: Duration::from_secs(10) };

/// The first wait before asking again; it doubles.
const WAIT: Duration = Duration::from_millis(200);

/// Asks until there is an answer that is not the server's own failure.
///
/// # Errors
/// When there is none.
pub(super) async fn ask(
    client: &Client,
    request: Request<Bytes>,
    patience: Patience,
) -> Result<Response<Bytes>> {
    let mut wait = WAIT;
    for _ in 1..patience.attempts {
        match once(client, request.clone(), patience).await {
            Ok(answer) if !is_passing(answer.status()) => return Ok(answer),
            Ok(answer) => {
                tracing::debug!(status = %answer.status(), "asking for credentials again")
            }
            Err(error) => tracing::debug!(%error, "asking for credentials again"),
        }
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
    once(client, request, patience).await
}

async fn once(
    client: &Client,
    request: Request<Bytes>,
    patience: Patience,
) -> Result<Response<Bytes>> {
    let origin = ServerOrigin::of(request.uri());
    match tokio::time::timeout(patience.timeout, client.send_plain(request)).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let (origin, seconds) = (origin.as_str(), patience.timeout.as_secs());
            Err(denied(format!("{origin} gave no credentials in {seconds} s; check that it runs")))
        }
    }
}

/// A request that cannot be made, since `what` is no URL or no header.
pub(super) fn unusable(what: &str) -> Error {
    denied(format!("{what} cannot be used in a request; check it"))
}

/// Credentials as ECS, EC2 and commands give them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Keys {
    access_key_id: String,
    secret_access_key: String,
    #[serde(alias = "SessionToken")]
    token: Option<String>,
    expiration: Option<String>,
}

/// Reads `{"AccessKeyId": ..., "SecretAccessKey": ..., "Token": ..., "Expiration": ...}`; `Token`
/// may be called `SessionToken`.
///
/// # Errors
/// Where it is something else; without repeating any of it.
pub(super) fn credential(from: &str, json: &[u8]) -> Result<Credential> {
    let keys: Option<Keys> = serde_json::from_slice(json).ok();
    let keys = keys.filter(|keys| !keys.access_key_id.is_empty());
    let keys = keys.ok_or_else(|| denied(format!("what {from} gives are no credentials")))?;
    let expires = match keys.expiration.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => Some(time::parse(text).ok_or_else(|| {
            denied(format!("the credentials of {from} have an Expiration that is no time"))
        })?),
        None => None,
    };
    Ok(Credential {
        access_key_id: keys.access_key_id,
        secret_access_key: keys.secret_access_key,
        session_token: keys.token.filter(|token| !token.is_empty()),
        expires,
    })
}
