//! The credential that requests to AWS are signed with.

use crate::options::S3Credentials;
use reqsign_core::SigningCredential;
use reqsign_core::time::Timestamp;
use std::fmt;
use std::time::Duration;

/// How long a credential must still be valid to be used: a request has to reach the server in time.
const VALID_FOR_MIN: Duration = Duration::from_secs(10);

/// An access key and its session token.
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
