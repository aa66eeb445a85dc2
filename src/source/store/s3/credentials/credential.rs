//! A credential of AWS, and the errors of obtaining one.

use crate::error::{Error, ErrorKind, Result};
use crate::options::S3Credentials;
use crate::source::store::credential_cache::Found;
use crate::source::store::s3::time;
use reqsign_core::SigningCredential;
use reqsign_core::time::Timestamp;
use serde::Deserialize;
use std::fmt;
use std::time::Duration;

/// The result of a source of credentials. Where it has none, the text describes the source:
/// `the environment (AWS_ACCESS_KEY_ID is not set)`.
pub(super) type FoundAws = Found<AwsCredential>;

/// How long a credential must still be valid to be used: a request has to reach the server in time.
const VALID_FOR_MIN: Duration = Duration::from_secs(10);

/// What requests are signed with.
#[derive(Clone, Default, PartialEq, Eq)]
pub(in crate::source::store) struct AwsCredential {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: Option<String>,
    pub expires: Option<Timestamp>,
}

impl From<&S3Credentials> for AwsCredential {
    fn from(given: &S3Credentials) -> Self {
        let S3Credentials { access_key_id, secret_access_key, session_token } = given.clone();
        Self { access_key_id, secret_access_key, session_token, expires: None }
    }
}

/// Omits the secret fields.
impl fmt::Debug for AwsCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsCredential").field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl SigningCredential for AwsCredential {
    fn is_valid(&self) -> bool {
        self.is_valid_at(Timestamp::now() + VALID_FOR_MIN)
    }

    fn is_valid_at(&self, time: Timestamp) -> bool {
        self.expires.is_none_or(|expires| expires > time)
    }
}

/// A credential as ECS, EC2, STS and credential processes write it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct IssuedCredential {
    access_key_id: String,
    secret_access_key: String,
    #[serde(alias = "SessionToken")]
    token: Option<String>,
    expiration: Option<String>,
}

impl IssuedCredential {
    /// Parses `{"AccessKeyId": ..., "SecretAccessKey": ..., "Token": ..., "Expiration": ...}`;
    /// `Token` may be called `SessionToken`.
    ///
    /// # Errors
    /// Where `json` is something else; the error does not repeat it.
    pub fn from_json(issuer: &str, json: &[u8]) -> Result<AwsCredential> {
        let issued: Option<Self> = serde_json::from_slice(json).ok();
        issued.ok_or_else(|| not_a_credential(issuer))?.checked(issuer)
    }

    /// The credential that `issuer` issued.
    ///
    /// # Errors
    /// For an empty key, or an expiration that is not a time.
    pub fn checked(self, issuer: &str) -> Result<AwsCredential> {
        if self.access_key_id.is_empty() {
            return Err(not_a_credential(issuer));
        }
        let invalid =
            || denied(format!("the credentials of {issuer} have an Expiration that is not a time"));
        let expires = self.expiration.filter(|text| !text.is_empty());
        let expires = expires.map(|text| time::parse(&text).ok_or_else(invalid)).transpose()?;
        Ok(AwsCredential {
            access_key_id: self.access_key_id,
            secret_access_key: self.secret_access_key,
            session_token: self.token.filter(|token| !token.is_empty()),
            expires,
        })
    }
}

/// The error of a response without credentials.
pub(super) fn not_a_credential(issuer: &str) -> Error {
    denied(format!("{issuer} did not return credentials"))
}

/// The error of a profile that cannot be used.
pub(super) fn bad_profile(profile: &str, why: &str) -> Error {
    denied(format!("the AWS profile {profile:?} {why}; check ~/.aws/config"))
}

/// The error of a URL or header value, named `what`, that a request cannot have.
pub(super) fn unusable(what: &str) -> Error {
    denied(format!("{what} cannot be used in a request; check it"))
}

/// An error of kind [`PermissionDenied`](ErrorKind::PermissionDenied).
pub(super) fn denied(sentence: impl Into<String>) -> Error {
    Error::new(ErrorKind::PermissionDenied, sentence)
}
