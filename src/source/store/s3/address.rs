//! Where a bucket is: the URL of an object, from the endpoint, the region and the style.
//!
//! ```text
//! AWS                     https://BUCKET.s3.REGION.amazonaws.com/KEY
//!   a bucket with dots    https://s3.REGION.amazonaws.com/BUCKET/KEY   (one wildcard in the
//!                                                                        certificate is one label)
//! a compatible store      ENDPOINT/BUCKET/KEY, or BUCKET. before its host where that is wanted
//! ```

use super::profiles::Profiles;
use crate::error::{Error, ErrorKind, Result};
use crate::location::escape::{path, segment};
use crate::options::RemoteOptions;
use crate::source::store::parts::is_base;
use http::Uri;

/// Where a bucket is, but for its region.
#[derive(Debug)]
pub(super) struct Address {
    bucket: String,
    endpoint: Option<Endpoint>,
    /// Whether the bucket is part of the host's name.
    in_host: bool,
}

/// The base URL of a compatible store.
#[derive(Debug)]
struct Endpoint {
    scheme: String,
    authority: String,
    /// Without a slash at its end.
    path: String,
}

impl Address {
    /// The address of `bucket`.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a name that no bucket has, or an endpoint that
    /// is no URL; [`Unsupported`](ErrorKind::Unsupported) for a directory bucket.
    pub fn new(bucket: &str, options: &RemoteOptions, profiles: &Profiles) -> Result<Self> {
        check_name(bucket)?;
        let endpoint = endpoint(options, profiles)?;
        let in_host = options.env_flag("RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING");
        let in_host = in_host.unwrap_or(endpoint.is_none()) && fits_in_host(bucket);
        Ok(Self { bucket: bucket.to_owned(), endpoint, in_host })
    }

    /// Whether it is at AWS.
    pub fn is_aws(&self) -> bool {
        self.endpoint.is_none()
    }

    /// The address of a server that is not AWS; empty for AWS, where the bucket's name says it all.
    pub fn server(&self) -> String {
        let endpoint = self.endpoint.as_ref();
        endpoint.map_or_else(String::new, |Endpoint { scheme, authority, path }| {
            format!("{scheme}://{authority}{path}")
        })
    }

    /// The name of the bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The URL of the object `key`, or of the bucket for `""`.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) where it gets too long.
    pub fn url(&self, region: &str, key: &str) -> Result<Uri> {
        self.parse(&format!("{}/{}", self.base(region), path(key)))
    }

    /// The URL of the bucket with this query.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) where it gets too long.
    pub fn query_url(&self, region: &str, query: &[(&str, &str)]) -> Result<Uri> {
        let pairs = query.iter().map(|(name, value)| format!("{name}={}", segment(value)));
        let pairs: Vec<_> = pairs.collect();
        self.parse(&format!("{}/?{}", self.base(region), pairs.join("&")))
    }

    /// The URL of the bucket, without a slash at its end.
    fn base(&self, region: &str) -> String {
        let aws;
        let (scheme, authority, path) = match &self.endpoint {
            Some(Endpoint { scheme, authority, path }) => {
                (scheme.as_str(), authority, path.as_str())
            }
            None => {
                aws = format!("s3.{region}.{}", domain(region));
                ("https", &aws, "")
            }
        };
        let bucket = &self.bucket;
        match self.in_host {
            true => format!("{scheme}://{bucket}.{authority}{path}"),
            false => format!("{scheme}://{authority}{path}/{bucket}"),
        }
    }

    fn parse(&self, text: &str) -> Result<Uri> {
        text.parse().map_err(|error| {
            let sentence = format!("a key in s3://{} is too long for a URL", self.bucket);
            Error::new(ErrorKind::InvalidInput, sentence).with_source(error)
        })
    }
}

/// The domain of the partition that `region` is in.
pub(super) fn domain(region: &str) -> &'static str {
    const PARTITIONS: [(&str, &str); 6] = [
        ("cn-", "amazonaws.com.cn"),
        ("eusc-", "amazonaws.eu"),
        ("us-iso-", "c2s.ic.gov"),
        ("us-isob-", "sc2s.sgov.gov"),
        ("eu-isoe-", "cloud.adc-e.uk"),
        ("us-isof-", "csp.hci.ic.gov"),
    ];
    let partition = PARTITIONS.iter().find(|(prefix, _)| region.starts_with(prefix));
    partition.map_or("amazonaws.com", |(_, domain)| domain)
}

/// Whether `region` looks like one: it becomes part of a host's name.
pub(super) fn is_region(region: &str) -> bool {
    let of_region = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=64).contains(&region.len()) && region.bytes().all(of_region)
}

fn endpoint(options: &RemoteOptions, profiles: &Profiles) -> Result<Option<Endpoint>> {
    if let Some(url) = &options.endpoint {
        return Endpoint::parse("the endpoint", url).map(Some);
    }
    for name in ["RUNAI_STREAMER_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"] {
        let ignored = name.starts_with("AWS_") && ignores_configured(options);
        if let Some(url) = options.env(name).filter(|_| !ignored) {
            return Endpoint::parse(name, &url).map(Some);
        }
    }
    match profiles.s3_endpoint().filter(|_| !ignores_configured(options)) {
        Some(url) => Endpoint::parse("the profile's endpoint_url", url).map(Some),
        None => Ok(None),
    }
}

fn ignores_configured(options: &RemoteOptions) -> bool {
    options.env_flag("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") == Some(true)
}

impl Endpoint {
    fn parse(what: &str, url: &str) -> Result<Self> {
        let refuse = || {
            // Not repeated: it may hold a password.
            let sentence = format!("{what} is not a URL; write it as https://host[:port]");
            Error::new(ErrorKind::InvalidInput, sentence)
        };
        let uri: Uri = url.trim().parse().map_err(|_| refuse())?;
        let (true, Some(scheme), Some(authority)) =
            (is_base(&uri), uri.scheme_str(), uri.authority())
        else {
            return Err(refuse());
        };
        let path = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { scheme: scheme.to_owned(), authority: authority.to_string(), path })
    }
}

/// Refuses names that no bucket has: they become part of a host's name.
fn check_name(bucket: &str) -> Result<()> {
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if bucket.bytes().all(of_name)
        && bucket.starts_with(|first: char| first.is_ascii_alphanumeric())
    {
        if bucket.ends_with("--x-s3") {
            let sentence = format!(
                "s3://{bucket} is a directory bucket (S3 Express), which cannot be read; copy the \
                 checkpoint to a general purpose bucket"
            );
            return Err(Error::new(ErrorKind::Unsupported, sentence));
        }
        return Ok(());
    }
    // Not repeated: somebody may have put credentials before the bucket.
    let sentence = "an s3:// location names its bucket with letters, digits, '-', '_' and '.'; \
                    write s3://bucket/key, and give credentials by environment or profile";
    Err(Error::new(ErrorKind::InvalidInput, sentence))
}

/// Whether certificates for all buckets cover a host's name with this one.
fn fits_in_host(bucket: &str) -> bool {
    bucket.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
