//! Options for object stores and web servers.

use super::environment::{Env, environment_of_others, set_or_variable};
use super::parse::{invalid, one_of, parse_flag};
use crate::error::{Error, Result};
use http::{HeaderName, HeaderValue};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Options for object stores and web servers. Set through [`Loader`](crate::Loader).
#[derive(Clone)]
pub(crate) struct RemoteOptions {
    /// The region of an S3 bucket. Wins over the profile and the environment.
    pub region: Option<String>,
    /// The base URL of a compatible store, instead of the provider's own.
    pub endpoint: Option<String>,
    /// The keys that requests to S3 are signed with, instead of those that the environment or the
    /// configuration files give.
    pub s3_credentials: Option<S3Credentials>,
    /// S3 keys that were set one by one. They become `s3_credentials` when they are complete.
    pub partial_s3_keys: PartialS3Keys,
    /// Headers that are sent with every request to the host that a location names, and to no other
    /// host.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The number of connections of a load. `None` adapts it to the measured throughput.
    pub connections: Option<usize>,
    /// Whether whole-object checksums are checked.
    pub verify: bool,
    pub retries: RetryLimits,
    /// What is compared to notice that an object is replaced while it is read, if it was set.
    pub pin: Option<PinBy>,
    /// Whether objects without anything to compare are read all the same, if it was set.
    pub unpinned: Option<bool>,
    /// Where variables are looked up, those of other options and of the cache, too.
    pub env: Env,
}

/// What is compared in each response to notice that an object is replaced while it is read.
///
/// ```no_run
/// # fn main() -> ringload::Result<()> {
/// use ringload::{Loader, PinBy};
///
/// // A mirror whose copies of an object have different ETags.
/// let model = Loader::new().pin(PinBy::Length).load("https://mirror.example/model.safetensors")?;
/// # drop(model);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PinBy {
    /// The length and the ETag, or the modification time of an object without an ETag.
    #[default]
    Auto,
    /// The length and the ETag, of which the weak and the strong form count as the same.
    Etag,
    /// The length.
    Length,
    /// Nothing.
    None,
}

impl FromStr for PinBy {
    type Err = Error;

    /// Parses `auto`, `etag`, `length` or `none`.
    fn from_str(text: &str) -> Result<Self> {
        let pins = [
            ("auto", Self::Auto),
            ("etag", Self::Etag),
            ("length", Self::Length),
            ("none", Self::None),
        ];
        one_of(text, "something to pin objects by", &pins)
    }
}

/// S3 keys that the caller gives, instead of those that the environment or the configuration files
/// give ([`Loader::s3_credentials`](crate::Loader::s3_credentials)).
///
/// ```no_run
/// # fn main() -> ringload::Result<()> {
/// use ringload::{Loader, S3Credentials};
///
/// let keys = S3Credentials::new("AKIAIOSFODNN7EXAMPLE", "secret");
/// let model = Loader::new().s3_credentials(keys).region("us-east-1").load("s3://bucket/llama-8b/")?;
/// # drop(model);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct S3Credentials {
    /// The id of the access key.
    pub access_key_id: String,
    /// The secret of the access key.
    pub secret_access_key: String,
    /// The session token of temporary keys.
    pub session_token: Option<String>,
}

impl S3Credentials {
    /// Returns permanent keys. Set [`session_token`](Self::session_token) for temporary ones.
    pub fn new(access_key_id: impl Into<String>, secret_access_key: impl Into<String>) -> Self {
        Self {
            access_key_id: access_key_id.into(),
            secret_access_key: secret_access_key.into(),
            session_token: None,
        }
    }
}

/// Shows no secrets.
impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = &self.access_key_id;
        f.debug_struct("S3Credentials").field("access_key_id", id).finish_non_exhaustive()
    }
}

/// S3 keys that may be incomplete.
#[derive(Clone, Default)]
pub(crate) struct PartialS3Keys {
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<String>,
    pub session_token: Option<String>,
}

impl PartialS3Keys {
    /// Returns the keys if both the id and the secret are set.
    pub fn credentials(&self) -> Option<S3Credentials> {
        Some(S3Credentials {
            access_key_id: self.access_key_id.clone()?,
            secret_access_key: self.secret_access_key.clone()?,
            session_token: self.session_token.clone(),
        })
    }
}

/// How often and for how long a request is tried.
///
/// ```
/// let mut limits = ringload::RetryLimits::default();
/// limits.attempts = 3;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryLimits {
    /// How often a range is requested without any progress, including the first request.
    pub attempts: u32,
    /// For how long a failed range is retried. No wait begins that would end later than this after
    /// the first request. A running attempt is not cut off: its steps are bounded by the limits
    /// below, and a body that makes progress may take as long as it needs.
    pub total: Duration,
    /// How long connecting may take, TLS included.
    pub connect: Duration,
    /// How long the first byte of a response may take.
    pub first_byte: Duration,
    /// A body that delivers fewer than [`STALLED_BYTES`](Self::STALLED_BYTES) in this time is
    /// stalled, and its request fails.
    pub stalled: Duration,
}

impl RetryLimits {
    /// How many bytes a body has to deliver within [`stalled`](Self::stalled).
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
            partial_s3_keys: PartialS3Keys::default(),
            headers: Vec::new(),
            connections: None,
            verify: false,
            retries: RetryLimits::default(),
            pin: None,
            unpinned: None,
            env: Arc::new(environment_of_others),
        }
    }
}

impl RemoteOptions {
    pub const PIN_VARIABLE: &str = "RINGLOAD_PIN";
    pub const UNPINNED_VARIABLE: &str = "RINGLOAD_UNPINNED";

    /// Returns these options, in which the options that were not set have the values of their
    /// variables.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput), naming the variable that does not parse.
    pub fn in_force(&self) -> Result<Self> {
        let pin = self.pin_in_force()?;
        let unpinned = match self.unpinned {
            Some(unpinned) => unpinned,
            None => self.own_env_flag(Self::UNPINNED_VARIABLE)?,
        };
        Ok(Self { pin: Some(pin), unpinned: Some(unpinned), ..self.clone() })
    }

    /// Returns what replacements are noticed by: the value that was set, else that of the variable.
    ///
    /// # Errors
    /// As [`in_force`](Self::in_force).
    pub fn pin_in_force(&self) -> Result<PinBy> {
        set_or_variable(self.pin, Self::PIN_VARIABLE, str::parse, |name: &str| self.env(name))
    }

    /// Returns what was set to notice replacements by, or the default.
    pub fn pin(&self) -> PinBy {
        self.pin.unwrap_or_default()
    }

    /// Returns the variable `name`, or `None` if it is unset or empty.
    pub fn env(&self, name: &str) -> Option<String> {
        (self.env)(name)
    }

    /// Returns the default options in an environment of these variables alone.
    #[cfg(test)]
    pub fn with_variables(variables: &[(&str, &str)]) -> Self {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let variables: std::collections::HashMap<_, _> = variables.iter().map(own).collect();
        let env = move |name: &str| variables.get(name).filter(|value| !value.is_empty()).cloned();
        Self { env: Arc::new(env), ..Self::default() }
    }

    /// Returns the flag in a variable of ringload's own; false if it is not set.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput), naming the variable, if it is not a flag.
    pub fn own_env_flag(&self, name: &str) -> Result<bool> {
        set_or_variable(None, name, parse_flag, |name: &str| self.env(name))
    }

    /// Returns whether the variable `name` of another program is `1`, `true`, `yes` or `on`; `None` if
    /// it is not set. Any other value is false, as for those programs.
    pub fn env_flag(&self, name: &str) -> Option<bool> {
        let value = self.env(name)?;
        Some(["1", "true", "yes", "on"].contains(&value.trim().to_ascii_lowercase().as_str()))
    }
}

/// Parses `Name: value` as a header whose value is marked as sensitive.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) if `text` is not a header. The message does not
/// contain the value.
pub(crate) fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue)> {
    let refuse = |what: &str| invalid(format!("{what}; write a header as 'Name: value'"));
    let Some((name, value)) = text.split_once(':') else {
        return refuse("a header has no colon");
    };
    let Ok(name) = name.trim().parse::<HeaderName>() else {
        return refuse(&format!("{:?} is not the name of a header", name.trim()));
    };
    let Ok(mut value) = HeaderValue::from_str(value.trim()) else {
        return refuse(&format!("the value of the header {name} contains invalid characters"));
    };
    value.set_sensitive(true);
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn headers_are_parsed_and_their_values_never_printed() {
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
