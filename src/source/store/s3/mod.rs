//! S3, at AWS and compatible stores: `s3://bucket/key`.
//!
//! ```text
//! address      endpoint, region and style -> the URL of an object
//! credentials  who we are; shared by all buckets of a client      profiles  ~/.aws
//! sigv4        signs a request                                    time      AWS's times
//! judge        what a refusal means                               list      a directory's names
//! ```
//!
//! The region is that of the option, the environment or the profile, else a guess. A bucket that is
//! elsewhere says where in its refusal; that is remembered, and the request is made again.

mod address;
mod checksum;
mod credentials;
mod judge;
mod list;
mod profiles;
mod sigv4;
mod time;

use super::traits::{Checksum, ListDepth, ListEntry, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::location::ObjectUri;
use crate::options::RemoteOptions;
use crate::source::http::{BoxFuture, Client, ErrorAction, ErrorResponse, RequestPolicy};
use address::Address;
use credentials::Credentials;
use http::Uri;
use profiles::Profiles;
use sigv4::Scope;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Where a bucket is looked for when nobody says where it is.
const GUESS: &str = "us-east-1";
/// More than any page of a listing has.
const PAGE_BYTES_MAX: usize = 16 << 20;

/// What the buckets of a client share.
#[derive(Default)]
pub(super) struct Shared {
    credentials: Arc<Credentials>,
}

/// A bucket.
#[derive(Clone)]
pub(super) struct S3(Arc<Bucket>);

struct Bucket {
    address: Address,
    region: Mutex<Region>,
    /// `None` for anonymous access.
    credentials: Option<Arc<Credentials>>,
}

struct Region {
    name: String,
    /// Whether the user named it.
    is_given: bool,
}

impl S3 {
    /// The bucket that `uri` names.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) where the bucket, the region or the endpoint cannot
    /// be used.
    pub fn new(options: &RemoteOptions, uri: &ObjectUri, shared: &Shared) -> Result<Self> {
        let profiles = Profiles::read(options);
        let address = Address::new(uri.container(), options, &profiles)?;
        let given = configured_region(options, &profiles);
        if let Some(region) = given.as_ref().filter(|region| !is_usable(region, &address)) {
            let sentence = format!("{region:?} is not the name of a region; write it as us-east-1");
            return Err(Error::new(ErrorKind::InvalidInput, sentence));
        }
        let is_given = given.is_some();
        let name = given.unwrap_or_else(|| GUESS.to_owned());
        let credentials = (!is_anonymous(options)).then(|| Arc::clone(&shared.credentials));
        let region = Mutex::new(Region { name, is_given });
        Ok(Self(Arc::new(Bucket { address, region, credentials })))
    }

    fn region(&self) -> String {
        self.0.region.lock().unwrap_or_else(PoisonError::into_inner).name.clone()
    }

    /// Remembers where the bucket says that it is. False where that is no region.
    fn learn(&self, told: &str) -> bool {
        if !is_usable(told, &self.0.address) {
            return false;
        }
        let mut region = self.0.region.lock().unwrap_or_else(PoisonError::into_inner);
        if region.name != told {
            let bucket = self.0.address.bucket();
            if region.is_given {
                let given = &region.name;
                tracing::warn!(bucket, given, told, "the bucket is in another region than given");
            } else {
                tracing::debug!(bucket, told, "the bucket's region");
            }
            *region = Region { name: told.to_owned(), is_given: false };
        }
        true
    }
}

/// The region that is set, by option, environment or profile.
fn configured_region(options: &RemoteOptions, profiles: &Profiles) -> Option<String> {
    let option = options.region.clone();
    let region = option
        .or_else(|| options.env("AWS_REGION"))
        .or_else(|| options.env("AWS_DEFAULT_REGION"))
        .or_else(|| profiles.region().map(str::to_owned));
    region.map(|region| region.trim().to_owned()).filter(|region| !region.is_empty())
}

/// Whether requests for this region can be made. At AWS it is part of the host's name; elsewhere it
/// is only signed.
fn is_usable(region: &str, address: &Address) -> bool {
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let elsewhere = !address.is_aws() && (1..=64).contains(&region.len());
    address::is_region(region) || (elsewhere && region.bytes().all(of_name))
}

fn is_anonymous(options: &RemoteOptions) -> bool {
    let says = |name| options.env_flag(name);
    let unsigned = says("RUNAI_STREAMER_S3_UNSIGNED").or_else(|| says("AWS_NO_SIGN_REQUEST"));
    options.s3_credentials.is_none() && unsigned == Some(true)
}

impl RequestPolicy for S3 {
    fn authorize<'a>(
        &'a self,
        client: &'a Arc<Client>,
        head: &'a mut http::request::Parts,
        now: SystemTime,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let Some(credentials) = &self.0.credentials else {
                return Ok(());
            };
            let credential = credentials.get(client).await.map_err(|error| {
                let bucket = self.0.address.bucket();
                Error::new(error.kind(), format!("cannot read from s3://{bucket}: {error}"))
            })?;
            let region = self.region();
            let scope = Scope { service: "s3", region: &region };
            sigv4::sign(head, b"", &credential, &scope, now)
        })
    }

    fn classify(&self, refusal: &ErrorResponse) -> ErrorAction {
        judge::judge(self, refusal)
    }

    fn renew_credentials(&self) {
        if let Some(credentials) = &self.0.credentials {
            credentials.renew();
        }
    }

    /// Each request is signed for its own URL: a redirect tells the region.
    fn follows_redirects(&self) -> bool {
        false
    }
}

impl Store for S3 {
    fn kind(&self) -> &'static str {
        "s3"
    }

    fn url(&self, key: &str) -> Result<Uri> {
        self.0.address.url(&self.region(), key)
    }

    fn address(&self) -> String {
        self.0.address.server()
    }

    fn entries<'a>(
        &'a self,
        client: &'a Arc<Client>,
        key: &'a str,
        depth: ListDepth,
    ) -> BoxFuture<'a, Result<Option<Vec<ListEntry>>>> {
        Box::pin(async move { list::entries(self, client, key, depth).await.map(Some) })
    }

    fn checksum<'a>(
        &'a self,
        client: &'a Arc<Client>,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Checksum>>> {
        Box::pin(checksum::of_object(self, client, key))
    }
}

#[cfg(test)]
mod tests;
