//! Credentials as their servers issue them, and the errors of obtaining them.

use crate::error::{Error, ErrorKind, Result};
use crate::source::store::credential_cache::Found;
use crate::source::store::s3::aws_credential::AwsCredential;
use crate::source::store::s3::time;
use serde::Deserialize;

/// The result of a source of credentials. If the source has none, the text describes the source:
/// `the environment (AWS_ACCESS_KEY_ID is not set)`.
pub(super) type FoundAws = Found<AwsCredential>;

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
