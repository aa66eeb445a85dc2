//! The URL of an object, from the endpoint, the region and the addressing style.
//!
//! ```text
//! AWS                     https://BUCKET.s3.REGION.amazonaws.com/KEY
//!   a bucket with dots    https://s3.REGION.amazonaws.com/BUCKET/KEY   (the wildcard of the
//!                                                                        certificate is one label)
//! a compatible store      ENDPOINT/BUCKET/KEY; BUCKET. before the host if virtual addressing is set
//! an access point         https://NAME-ACCOUNT.s3-accesspoint.REGION.amazonaws.com/KEY
//! ```
//!
//! `addressing_style` of the profile's `s3` section (`path`, `virtual` or `auto`) sets the style unless
//! a variable does.

use super::profiles::Profiles;
use crate::error::{Error, ErrorKind, Result};
use crate::location::AccessPoint;
use crate::location::escape::{path, segment};
use crate::options::RemoteOptions;
use crate::source::store::requests::{base_url, url};
use http::Uri;
use http::uri::Scheme;

/// The address of a bucket, without its region.
#[derive(Debug)]
pub(super) struct Address {
    bucket: String,
    endpoint: Option<Endpoint>,
    /// Whether the bucket is part of the host name.
    in_host: bool,
    access_point: Option<AccessPointHost>,
}

/// The parts of an access point's address.
#[derive(Debug)]
struct AccessPointHost {
    /// The first part of the host name.
    label: String,
    region: String,
}

/// The base URL of a compatible store.
#[derive(Debug)]
struct Endpoint {
    scheme: Scheme,
    authority: String,
    /// The path of the URL, without a slash at the end.
    path: String,
}

impl Address {
    /// The address of `bucket`, which may be the ARN of an access point.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for an invalid bucket name, endpoint or addressing
    /// style; [`Unsupported`](ErrorKind::Unsupported) for a directory bucket and for the alias of
    /// something that cannot be read.
    pub fn new(bucket: &str, options: &RemoteOptions, profiles: &Profiles) -> Result<Self> {
        let access_point = AccessPoint::of_arn(bucket).map(|found| AccessPointHost {
            label: format!("{}-{}", found.name, found.account),
            region: found.region.to_owned(),
        });
        if access_point.is_none() {
            check_name(bucket)?;
        }
        let endpoint = endpoint(options, profiles)?;
        let of_profile = profiles.has_virtual_addressing()?;
        let in_host = options.env_flag("RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING").or(of_profile);
        let in_host = in_host.unwrap_or(endpoint.is_none()) && fits_in_host(bucket);
        Ok(Self { bucket: bucket.to_owned(), endpoint, in_host, access_point })
    }

    /// The region that the bucket's name tells: that of an access point.
    pub fn region(&self) -> Option<&str> {
        self.access_point.as_ref().map(|access_point| &*access_point.region)
    }

    /// Whether the bucket is at AWS.
    pub fn is_aws(&self) -> bool {
        self.endpoint.is_none()
    }

    /// The URL of a server other than AWS; empty for AWS, where bucket names are unique.
    pub fn server(&self) -> String {
        let url =
            |Endpoint { scheme, authority, path }: &_| format!("{scheme}://{authority}{path}");
        self.endpoint.as_ref().map(url).unwrap_or_default()
    }

    /// The name of the bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The URL of the object `key`, or of the bucket for `""`.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) where the URL is too long.
    pub fn url(&self, region: &str, key: &str) -> Result<Uri> {
        url(&format!("{}/{}", self.base(region), path(key)), format_args!("s3://{}", self.bucket))
    }

    /// The URL of the bucket with this query.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) where the URL is too long.
    pub fn query_url(&self, region: &str, query: &[(&str, &str)]) -> Result<Uri> {
        let pairs = query.iter().map(|(name, value)| format!("{name}={}", segment(value)));
        let pairs: Vec<_> = pairs.collect();
        url(
            &format!("{}/?{}", self.base(region), pairs.join("&")),
            format_args!("s3://{}", self.bucket),
        )
    }

    /// The URL of the bucket, without a slash at the end.
    fn base(&self, region: &str) -> String {
        let aws;
        let Endpoint { scheme, authority, path } = match &self.endpoint {
            Some(endpoint) => endpoint,
            None => {
                let service = if self.access_point.is_some() { "s3-accesspoint" } else { "s3" };
                let authority = format!("{service}.{region}.{}", domain(region));
                aws = Endpoint { scheme: Scheme::HTTPS, authority, path: String::new() };
                &aws
            }
        };
        let bucket = &self.bucket;
        match &self.access_point {
            Some(AccessPointHost { label, .. }) => format!("{scheme}://{label}.{authority}{path}"),
            None if self.in_host => format!("{scheme}://{bucket}.{authority}{path}"),
            None => format!("{scheme}://{authority}{path}/{bucket}"),
        }
    }
}

/// The domain of the AWS partition that `region` belongs to.
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

/// Whether `region` has the form of a region, so that it can be part of a host name.
pub(super) fn is_region(region: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=64).contains(&region.len()) && region.bytes().all(is_allowed)
}

fn endpoint(options: &RemoteOptions, profiles: &Profiles) -> Result<Option<Endpoint>> {
    let variable = |name: &'static str| Some((name, options.env(name)?));
    let of_aws = || {
        variable("AWS_ENDPOINT_URL_S3")
            .or_else(|| variable("AWS_ENDPOINT_URL"))
            .or_else(|| Some(("the profile's endpoint_url", profiles.s3_endpoint()?.to_owned())))
    };
    let ignores_aws = options
        .env_flag("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")
        .unwrap_or_else(|| profiles.ignores_endpoints());
    let option = options.endpoint.clone().map(|url| ("the endpoint", url));
    let configured = option
        .or_else(|| variable("RUNAI_STREAMER_S3_ENDPOINT"))
        .or_else(|| of_aws().filter(|_| !ignores_aws));
    configured.map(|(what, url)| Endpoint::parse(what, &url)).transpose()
}

impl Endpoint {
    fn parse(what: &str, url: &str) -> Result<Self> {
        let refuse = || {
            // The message does not repeat the URL, which may hold a password.
            Error::invalid_input(format!("{what} is not a URL; write it as https://host[:port]"))
        };
        let (_, uri) = base_url(url).ok_or_else(refuse)?;
        let (scheme, authority) = uri.scheme().zip(uri.authority()).ok_or_else(refuse)?;
        Ok(Self {
            scheme: scheme.clone(),
            authority: authority.to_string(),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

/// Rejects invalid bucket names, since the name can be part of a host name.
fn check_name(bucket: &str) -> Result<()> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let starts_well = bucket.starts_with(|first: char| first.is_ascii_alphanumeric());
    if !starts_well || !bucket.bytes().all(is_allowed) {
        // The message does not repeat the name: the user may have written credentials before it.
        return Err(Error::invalid_input(
            "an s3:// location names its bucket with letters, digits, '-', '_' and '.'; write \
             s3://bucket/key, and give credentials by environment or profile",
        ));
    }
    if bucket.ends_with("--x-s3") {
        let sentence = format!(
            "s3://{bucket} is a directory bucket (S3 Express), which cannot be read; copy the \
             checkpoint to a general purpose bucket"
        );
        return Err(Error::new(ErrorKind::Unsupported, sentence));
    }
    let alias = [
        (".mrap", "a multi-region access point", "name one of its buckets"),
        ("--op-s3", "an access point of S3 on Outposts", "copy the checkpoint to a bucket"),
    ];
    match alias.into_iter().find(|(suffix, ..)| bucket.ends_with(suffix)) {
        None => Ok(()),
        Some((_, what, remedy)) => {
            let sentence = format!("s3://{bucket} is {what}, which cannot be read; {remedy}");
            Err(Error::new(ErrorKind::Unsupported, sentence))
        }
    }
}

/// Whether the wildcard certificate covers a host name with this bucket.
fn fits_in_host(bucket: &str) -> bool {
    bucket.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
