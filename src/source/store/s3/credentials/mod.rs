//! Credentials for AWS: found where the SDKs look, kept for all buckets of a client, renewed early.
//!
//! ```text
//! chain       the order: environment, profile, web identity, container, instance
//! plan        what a profile asks for: a base and the roles to assume from there
//! sts         roles: AssumeRole, AssumeRoleWithWebIdentity
//! container   ECS and EKS pod identity        instance   EC2 (IMDSv2)
//! sso         IAM Identity Center's cache     process    a command that prints credentials
//! ask         small requests to the servers of these
//! ```
//!
//! They are written here, over the client's own connections, since no crate without OpenSSL or
//! `ring` reads profiles that assume roles, or lets the endpoint of STS be set.

mod ask;
mod chain;
mod container;
mod instance;
mod plan;
mod process;
mod sso;
mod sts;
#[cfg(test)]
mod tests;

use crate::error::{Error, ErrorKind, Result};
use crate::options::S3Credentials;
use crate::source::http::Client;
use crate::source::store::keyring::{self, Keyring};
use reqsign_core::SigningCredential;
use reqsign_core::time::Timestamp;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What a source of credentials has: them, or what to call it in the list of places that have none:
/// `the environment (AWS_ACCESS_KEY_ID is not set)`.
type Found = keyring::Found<Credential>;

/// What is left of them when they are good: a request has to arrive in time.
const ARRIVING: Duration = Duration::from_secs(10);

/// What requests are signed with.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Credential {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: Option<String>,
    pub expires: Option<Timestamp>,
}

impl From<&S3Credentials> for Credential {
    fn from(given: &S3Credentials) -> Self {
        let S3Credentials { access_key_id, secret_access_key, session_token } = given.clone();
        Self { access_key_id, secret_access_key, session_token, expires: None }
    }
}

/// Without anything secret.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl SigningCredential for Credential {
    fn is_valid(&self) -> bool {
        self.is_valid_at(Timestamp::now() + ARRIVING)
    }

    fn is_valid_at(&self, time: Timestamp) -> bool {
        self.expires.is_none_or(|expires| expires > time)
    }
}

/// The credentials of a client, shared by all of its buckets.
#[derive(Default)]
pub(super) struct Credentials {
    keyring: Keyring<Credential>,
}

impl Credentials {
    /// The credentials to use now. May be awaited on any runtime.
    ///
    /// # Errors
    /// [`PermissionDenied`](ErrorKind::PermissionDenied), with the places looked at, when there are
    /// none; what a source says that is configured but gives nothing.
    pub async fn get(&self, client: &Arc<Client>) -> Result<Credential> {
        let asking = Arc::clone(client);
        let search = client.on_control(async move { chain::find(&asking).await });
        match self.keyring.get(search).await? {
            Some(credential) => Ok(credential),
            None => Err(denied(format!(
                "no AWS credentials found; looked at {}; set AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or for a public bucket \
                 RUNAI_STREAMER_S3_UNSIGNED=1",
                self.keyring.nothing().unwrap_or_default()
            ))),
        }
    }

    /// Gives up credentials that a server refuses as expired.
    pub fn renew(&self) {
        self.keyring.forget();
    }
}

fn denied(sentence: impl Into<String>) -> Error {
    Error::new(ErrorKind::PermissionDenied, sentence)
}
