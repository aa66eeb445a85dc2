//! A bucket: its address, its region, and the credentials that its requests are signed with.

use super::address::{Address, is_region};
use super::credentials::AwsCredentials;
use super::profiles::Profiles;
use crate::error::{Error, Result};
use crate::location::ObjectUri;
use crate::options::RemoteOptions;
use crate::sync::Mutex;
use std::path::PathBuf;
use std::sync::Arc;

/// The region that is tried first where none is configured.
const DEFAULT_REGION: &str = "us-east-1";

/// A bucket.
pub(in crate::source::store) struct S3Bucket {
    pub(super) address: Address,
    region: Mutex<Region>,
    /// `None` for anonymous access.
    pub(super) credentials: Option<Arc<AwsCredentials>>,
    /// The file of certificates that the profile names.
    pub(in crate::source::store) ca_bundle: Option<PathBuf>,
}

struct Region {
    name: String,
    /// Whether the user configured the region.
    is_configured: bool,
}

impl S3Bucket {
    /// The bucket that `uri` names.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for an unusable bucket, region,
    /// endpoint or profile.
    pub fn new(
        options: &RemoteOptions,
        uri: &ObjectUri,
        credentials: &Arc<AwsCredentials>,
    ) -> Result<Self> {
        let profiles = Profiles::read(options)?;
        let address = Address::new(uri.container(), options, &profiles)?;
        let of_name = address.region().map(str::to_owned);
        let configured = of_name.or_else(|| profiles.configured_region(options));
        if let Some(region) = configured.as_ref().filter(|region| !is_usable(region, &address)) {
            return Err(Error::invalid_input(format!(
                "{region:?} is not the name of a region; write it like us-east-1"
            )));
        }
        let is_configured = configured.is_some();
        let name = configured.unwrap_or_else(|| DEFAULT_REGION.to_owned());
        let credentials = (!is_anonymous(options)).then(|| Arc::clone(credentials));
        let region = Mutex::new(Region { name, is_configured });
        let ca_bundle = profiles.ca_bundle(options);
        Ok(Self { address, region, credentials, ca_bundle })
    }

    /// The region that requests are signed for.
    pub(super) fn region(&self) -> String {
        self.region.lock().name.clone()
    }

    /// Remembers the region that the server reported. Returns false if `reported` is not a region.
    pub(super) fn set_region(&self, reported: &str) -> bool {
        if !is_usable(reported, &self.address) {
            return false;
        }
        let mut region = self.region.lock();
        if region.name != reported {
            let bucket = self.address.bucket();
            if region.is_configured {
                let configured = &region.name;
                tracing::warn!(bucket, configured, reported, "the bucket is in another region");
            } else {
                tracing::debug!(bucket, reported, "the bucket's region");
            }
            *region = Region { name: reported.to_owned(), is_configured: false };
        }
        true
    }
}

/// Whether requests for this region can be made. At AWS the region is part of the host name; at
/// other servers it is only part of the signature.
fn is_usable(region: &str, address: &Address) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let elsewhere = !address.is_aws() && (1..=64).contains(&region.len());
    is_region(region) || (elsewhere && region.bytes().all(is_allowed))
}

fn is_anonymous(options: &RemoteOptions) -> bool {
    let flag = |name| options.env_flag(name);
    let unsigned = flag("RUNAI_STREAMER_S3_UNSIGNED").or_else(|| flag("AWS_NO_SIGN_REQUEST"));
    options.s3_credentials.is_none() && unsigned == Some(true)
}
