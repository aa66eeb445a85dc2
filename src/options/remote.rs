//! How object stores and web servers are reached.

use super::environment;
use crate::error::{Error, ErrorKind, Result};
use http::{HeaderName, HeaderValue};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Looks a variable up; the process's environment, or a test's.
pub(crate) type Env = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// How object stores and web servers are reached. Set through [`Loader`](crate::Loader).
#[derive(Clone)]
pub(crate) struct RemoteOptions {
    /// The region of an S3 bucket; wins over profile and environment.
    pub region: Option<String>,
    /// The base URL of a compatible store, instead of the provider's own.
    pub endpoint: Option<String>,
    /// What requests to S3 are signed with, instead of what is found.
    pub s3_credentials: Option<S3Credentials>,
    /// Sent with every request to the host that a location names, and not to others.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Connections of a load; `None` scales them with what is measured.
    pub connections: Option<usize>,
    /// Whether whole-object checksums are checked.
    pub verify: bool,
    pub retries: RetryLimits,
    pub env: Env,
}

/// Keys for S3, given by the caller instead of found where the SDKs look
/// ([`Loader::s3_credentials`](crate::Loader::s3_credentials)).
#[derive(Clone, PartialEq, Eq)]
pub struct S3Credentials {
    /// The access key's name.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// The token of temporary keys.
    pub session_token: Option<String>,
}

/// Without anything secret.
impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = &self.access_key_id;
        f.debug_struct("S3Credentials").field("access_key_id", id).finish_non_exhaustive()
    }
}

/// How long and how often a request is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryLimits {
    /// How often one range is asked for without getting further, the first time included.
    pub attempts: u32,
    /// Until when a range that failed is asked for again: no wait begins that would end later than
    /// this after the range was first asked for. It does not cut off an attempt that is under way:
    /// each of its steps is bounded by the limits below, and a body that keeps moving may take as
    /// long as it needs.
    pub total: Duration,
    /// How long connecting may take, TLS included.
    pub connect: Duration,
    /// How long the first byte of an answer may take.
    pub first_byte: Duration,
    /// A body that brings less than [`STALLED_BYTES`](Self::STALLED_BYTES) in this time is stalled.
    pub stalled: Duration,
}

impl RetryLimits {
    /// What a body has to bring in [`stalled`](Self::stalled) to count as moving.
    pub const STALLED_BYTES: u64 = 64 << 10;
}

impl Default for RetryLimits {
    fn default() -> Self {
        Self {
            attempts: 8,
            total: Duration::from_secs(120),
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(20),
            stalled: Duration::from_secs(10),
        }
    }
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self {
            region: None,
            endpoint: None,
            s3_credentials: None,
            headers: Vec::new(),
            connections: None,
            verify: false,
            retries: RetryLimits::default(),
            env: Arc::new(environment),
        }
    }
}

impl RemoteOptions {
    /// The variable `name`, if it is set and not empty.
    pub fn env(&self, name: &str) -> Option<String> {
        (self.env)(name)
    }

    /// Options in an environment of these variables alone.
    #[cfg(test)]
    pub fn with_variables(variables: &[(&str, &str)]) -> Self {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let variables: std::collections::HashMap<_, _> = variables.iter().map(own).collect();
        let env = move |name: &str| variables.get(name).filter(|value| !value.is_empty()).cloned();
        Self { env: Arc::new(env), ..Self::default() }
    }

    /// Whether the variable `name` says yes (`1`, `true`, `yes`, `on`).
    pub fn env_flag(&self, name: &str) -> Option<bool> {
        let value = self.env(name)?;
        Some(["1", "true", "yes", "on"].contains(&value.trim().to_ascii_lowercase().as_str()))
    }
}

/// Reads `Name: value` as a header; the value is marked as secret.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput), without the value, for what is no header.
pub(crate) fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue)> {
    let refuse = |what: &str| {
        let sentence = format!("{what}; write a header as 'Name: value'");
        Err(Error::new(ErrorKind::InvalidInput, sentence))
    };
    let Some((name, value)) = text.split_once(':') else {
        return refuse("a header has no colon");
    };
    let Ok(name) = name.trim().parse::<HeaderName>() else {
        return refuse(&format!("{:?} is not the name of a header", name.trim()));
    };
    let Ok(mut value) = HeaderValue::from_str(value.trim()) else {
        return refuse(&format!("the value of the header {name} holds characters that none may"));
    };
    value.set_sensitive(true);
    Ok((name, value))
}

impl fmt::Debug for RemoteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("RemoteOptions")
            .field("region", &self.region)
            .field("headers", &names)
            .field("connections", &self.connections)
            .field("verify", &self.verify)
            .field("retries", &self.retries)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_and_their_values_never_told() {
        let (name, value) = parse_header("Authorization: Bearer s3cret").unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("authorization", "Bearer s3cret"));
        assert!(!format!("{value:?}").contains("s3cret"));
        for wrong in ["no colon s3cret", "a b: s3cret", "X-A: s3cret\n!", ": s3cret"] {
            let error = parse_header(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }
}
