//! ARNs in the place of an S3 bucket.
//!
//! ```text
//! arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME      an access point: the container of the URI
//! arn:aws:s3:::BUCKET                             a bucket: the same as its name
//! arn:aws:s3::ACCOUNT:accesspoint/ALIAS.mrap      a multi-region access point: refused
//! arn:aws:s3-outposts:... , arn:aws:s3-object-lambda:...                      refused
//! ```
//!
//! The separator after `accesspoint` may be a colon, too.

use crate::error::{Error, ErrorKind, Result};

/// An access point of S3.
#[cfg_attr(not(feature = "s3"), allow(dead_code))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AccessPoint<'a> {
    pub region: &'a str,
    pub account: &'a str,
    pub name: &'a str,
}

impl<'a> AccessPoint<'a> {
    /// The access point whose ARN is `text`, if it is one.
    pub fn of_arn(text: &'a str) -> Option<Self> {
        let mut parts = text.strip_prefix("arn:")?.splitn(5, ':');
        let (partition, service) = (parts.next()?, parts.next()?);
        let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
        let name = resource.strip_prefix("accesspoint")?.strip_prefix(['/', ':'])?;
        let is_name = |text: &str| {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            !text.is_empty() && text.bytes().all(|byte| plain(byte) || byte == b'-')
        };
        let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        let is_access_point = partition.starts_with("aws")
            && service == "s3"
            && is_name(region)
            && is_account
            && is_name(name);
        is_access_point.then_some(Self { region, account, name })
    }
}

/// Splits `rest`, the part of an `s3://` URI that begins with `arn:`, into the container and the key.
///
/// # Errors
/// [`Unsupported`](ErrorKind::Unsupported) for an ARN that cannot be read from;
/// [`InvalidInput`](ErrorKind::InvalidInput) for anything else that is not an ARN of S3. The messages
/// do not repeat the input.
pub(super) fn split(rest: &str) -> Result<(&str, &str)> {
    if let Some(bucket) = rest.strip_prefix("arn:").and_then(bucket_of) {
        return Ok(bucket.split_once('/').unwrap_or((bucket, "")));
    }
    let refuse = |what: &str, remedy: &str| {
        let sentence = format!("the s3:// location names {what}, which cannot be read; {remedy}");
        Err(Error::new(ErrorKind::Unsupported, sentence))
    };
    let service = rest.split(':').nth(2).unwrap_or_default();
    let end_of_name = |resource: &str| {
        let start = resource.find("accesspoint").map(|at| at + "accesspoint".len() + 1)?;
        let name = resource.get(start..)?;
        Some(start + name.find('/').unwrap_or(name.len()))
    };
    let (container, key) = match end_of_name(rest) {
        Some(end) => (&rest[..end], rest[end..].strip_prefix('/').unwrap_or_default()),
        None => (rest, ""),
    };
    match service {
        _ if AccessPoint::of_arn(container).is_some() => Ok((container, key)),
        "s3-outposts" => refuse(
            "an access point of S3 on Outposts",
            "copy the checkpoint to a bucket of a region, and name that",
        ),
        "s3-object-lambda" => {
            refuse("an Object Lambda access point", "name the access point or the bucket behind it")
        }
        "s3" if container.ends_with(".mrap") => refuse(
            "a multi-region access point",
            "name one of its buckets, or an access point of one region",
        ),
        _ => Err(Error::invalid_input(
            "the s3:// location begins with an ARN that names no access point; write \
             s3://arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME/key, or s3://bucket/key",
        )),
    }
}

/// Bucket and key of an ARN without region and account, `PARTITION:s3:::BUCKET/KEY`.
fn bucket_of(arn: &str) -> Option<&str> {
    let (partition, bucket) = arn.split_once(":s3:::")?;
    (partition.starts_with("aws") && !partition.contains(':')).then_some(bucket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::Location;

    #[test]
    fn access_points_are_containers_and_their_keys_follow() {
        for (rest, container, key) in [
            (
                "arn:aws:s3:us-west-2:123456789012:accesspoint/models/a/b.safetensors",
                "arn:aws:s3:us-west-2:123456789012:accesspoint/models",
                "a/b.safetensors",
            ),
            (
                "arn:aws-cn:s3:cn-north-1:123456789012:accesspoint:models/a/",
                "arn:aws-cn:s3:cn-north-1:123456789012:accesspoint:models",
                "a/",
            ),
            (
                "arn:aws:s3:us-west-2:123456789012:accesspoint/models",
                "arn:aws:s3:us-west-2:123456789012:accesspoint/models",
                "",
            ),
            ("arn:aws:s3:::bucket/a/b", "bucket", "a/b"),
            ("arn:aws:s3:::bucket", "bucket", ""),
        ] {
            assert_eq!(split(rest).unwrap(), (container, key));
            let parsed = Location::parse(&format!("s3://{rest}")).unwrap();
            assert_eq!(Location::parse(&parsed.to_string()).unwrap(), parsed, "{rest}");
        }
        let found = AccessPoint::of_arn("arn:aws:s3:us-west-2:123456789012:accesspoint/models");
        let expected = AccessPoint { region: "us-west-2", account: "123456789012", name: "models" };
        assert_eq!(found, Some(expected));
    }

    #[test]
    fn other_arns_are_refused_with_a_remedy_and_not_repeated() {
        for (rest, kind, part) in [
            (
                "arn:aws:s3::123456789012:accesspoint/s3cret.mrap/a",
                ErrorKind::Unsupported,
                "name one of its buckets",
            ),
            (
                "arn:aws:s3-outposts:us-west-2:123456789012:outpost/op-1/accesspoint/s3cret/a",
                ErrorKind::Unsupported,
                "on Outposts",
            ),
            (
                "arn:aws:s3-object-lambda:us-west-2:123456789012:accesspoint/s3cret/a",
                ErrorKind::Unsupported,
                "bucket behind it",
            ),
            ("arn:aws:s3:us-west-2:12:accesspoint/s3cret", ErrorKind::InvalidInput, "write s3://"),
            ("arn:aws:iam::123456789012:role/s3cret", ErrorKind::InvalidInput, "write s3://"),
            ("arn:aws:s3:a@b:123456789012:accesspoint/s3cret", ErrorKind::InvalidInput, "write"),
            ("arn:", ErrorKind::InvalidInput, "write s3://"),
            ("arn:aws:s3:x:accesspoint\u{e9}", ErrorKind::InvalidInput, "write s3://"),
        ] {
            let error = Location::parse(&format!("s3://{rest}")).unwrap_err();
            assert_eq!(error.kind(), kind, "{rest}");
            let error = error.to_string();
            assert!(error.contains(part) && !error.contains("s3cret"), "{error}");
        }
    }
}
