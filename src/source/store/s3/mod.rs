//! S3, at AWS and at compatible stores: `s3://bucket/key`.
//!
//! ```text
//! bucket       a bucket: address, region, credentials        classify   error responses
//! address      endpoint, region and style -> URL             list       listings
//! credentials  AWS credentials, shared by all buckets        checksum   checksums of objects
//! sigv4        signatures of requests                        time       the time format of AWS
//! profiles     ~/.aws/config and ~/.aws/credentials          aws_credential   a credential
//! ```
//!
//! The region is that of the option, the environment or the profile, else `us-east-1`. If the bucket
//! is in another region, the server's error response names it; the bucket remembers the region and
//! the request is repeated.

mod address;
mod aws_credential;
mod bucket;
mod checksum;
mod classify;
mod credentials;
mod list;
mod profiles;
mod sigv4;
#[cfg(test)]
mod tests;
mod time;

pub(super) use bucket::S3Bucket;
pub(super) use credentials::AwsCredentials;

use super::traits::{Checksum, ListDepth, ListEntry, Store};
use crate::error::{Error, Result};
use crate::source::http::{Client, ErrorAction, ErrorResponse, RequestPolicy};
use async_trait::async_trait;
use http::Uri;
use sigv4::Scope;
use std::sync::Arc;
use std::time::SystemTime;

#[async_trait]
impl RequestPolicy for S3Bucket {
    async fn authorize(
        &self,
        client: &Arc<Client>,
        head: &mut http::request::Parts,
        now: SystemTime,
    ) -> Result<()> {
        let Some(credentials) = &self.credentials else {
            return Ok(());
        };
        let credential = credentials::get(credentials, client).await.map_err(|error| {
            let bucket = self.address.bucket();
            Error::new(error.kind(), format!("cannot read from s3://{bucket}: {error}"))
        })?;
        let region = self.region();
        sigv4::sign(head, b"", &credential, &Scope { service: "s3", region: &region }, now)
    }

    fn classify(&self, response: &ErrorResponse) -> ErrorAction {
        classify::classify(self, response)
    }

    fn renew_credentials(&self) {
        if let Some(credentials) = &self.credentials {
            credentials.invalidate();
        }
    }

    /// Each request is signed for its own URL, so redirects are not followed. They are classified
    /// instead, as they name the region.
    fn follows_redirects(&self) -> bool {
        false
    }
}

#[async_trait]
impl Store for S3Bucket {
    fn kind(&self) -> &'static str {
        "s3"
    }

    fn url(&self, key: &str) -> Result<Uri> {
        self.address.url(&self.region(), key)
    }

    fn address(&self) -> String {
        self.address.server()
    }

    async fn entries(
        &self,
        client: &Arc<Client>,
        key: &str,
        depth: ListDepth,
    ) -> Result<Option<Vec<ListEntry>>> {
        list::entries(self, client, key, depth).await.map(Some)
    }

    async fn checksum(&self, client: &Arc<Client>, key: &str) -> Result<Option<Checksum>> {
        checksum::of_object(self, client, key).await
    }
}
