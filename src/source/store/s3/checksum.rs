//! The checksum that S3 stores with an object. The response to a HEAD request contains it on
//! request.
//!
//! The checksum of an object that was uploaded in parts may be composed of the checksums of the
//! parts. Such a checksum is ignored.

use super::bucket::S3Bucket;
use crate::error::Result;
use crate::source::http::Client;
use crate::source::store::requests::request;
use crate::source::store::traits::Checksum;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Method};
use std::sync::Arc;

/// Requests the checksum of the object `key`.
pub(super) async fn of_object(
    bucket: &S3Bucket,
    client: &Arc<Client>,
    key: &str,
) -> Result<Option<Checksum>> {
    let doing = format!("read the checksum of s3://{}/{key}", bucket.address.bucket());
    let build = || {
        let mut request = request(Method::HEAD, bucket.address.url(&bucket.region(), key)?);
        request.headers_mut().insert("x-amz-checksum-mode", HeaderValue::from_static("ENABLED"));
        Ok(request)
    };
    let response = client.fetch(bucket, &doing, 1 << 20, build).await?;
    Ok(of_headers(response.headers()))
}

fn of_headers(headers: &HeaderMap) -> Option<Checksum> {
    let get = |name: &str| headers.get(name)?.to_str().ok();
    if get("x-amz-checksum-type").is_some_and(|kind| kind != "FULL_OBJECT") {
        return None;
    }
    let crc64 = get("x-amz-checksum-crc64nvme").and_then(decode).map(u64::from_be_bytes);
    let crc32c = get("x-amz-checksum-crc32c").and_then(decode).map(u32::from_be_bytes);
    let crc32 = get("x-amz-checksum-crc32").and_then(decode).map(u32::from_be_bytes);
    crc64.map(Checksum::Crc64Nvme).or(crc32c.map(Checksum::Crc32c)).or(crc32.map(Checksum::Crc32))
}

/// Decodes `N` bytes from Base64; `None` for a checksum composed of parts (`...-7`).
fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    STANDARD.decode(text.trim()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checksum(headers: &[(&'static str, &'static str)]) -> Option<Checksum> {
        let all = headers.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), HeaderValue::from_static(value))
        });
        of_headers(&all.collect())
    }

    #[test]
    fn only_checksums_of_whole_objects_are_used() {
        let crc32 = ("x-amz-checksum-crc32", "y/Q5Jg==");
        let of_123456789 = Some(Checksum::Crc32(0xCBF4_3926));
        assert_eq!(checksum(&[crc32]), of_123456789);
        assert_eq!(checksum(&[crc32, ("x-amz-checksum-type", "FULL_OBJECT")]), of_123456789);
        assert_eq!(checksum(&[crc32, ("x-amz-checksum-type", "COMPOSITE")]), None);
        assert_eq!(checksum(&[("x-amz-checksum-crc32", "y/Q5Jg==-2")]), None);
        assert_eq!(checksum(&[("x-amz-checksum-crc32", "AAAA")]), None);
        assert_eq!(checksum(&[("x-amz-checksum-sha1", "y/Q5Jg==")]), None);
    }

    #[test]
    fn the_longest_checksum_is_preferred() {
        let crc64 = ("x-amz-checksum-crc64nvme", "rosUhgwYpsM=");
        let crc32c = ("x-amz-checksum-crc32c", "4waSgw==");
        let both = checksum(&[crc32c, crc64]);
        assert_eq!(both, Some(Checksum::Crc64Nvme(0xAE8B_1486_0C18_A6C3)));
        assert_eq!(checksum(&[crc32c]), Some(Checksum::Crc32c(0xE306_9283)));
    }
}
