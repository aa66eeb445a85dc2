//! Credentials for AWS: searched in the order of the SDKs, shared by all buckets, and renewed
//! before they expire.
//!
//! ```text
//! search      the order: environment, profile, web identity, container, instance
//! role_chain  how a profile obtains credentials: a first credential, and the roles to assume
//! sts         roles: AssumeRole, AssumeRoleWithWebIdentity
//! container   ECS and EKS pod identity        instance    EC2 (IMDSv2)
//! sso         IAM Identity Center             process     a command that prints credentials
//! request     requests to the servers of these            issued      their responses
//! ```
//!
//! These sources are written here, over the client's own connections, since no crate without OpenSSL
//! or `ring` reads profiles that assume roles, or lets the endpoint of STS be set.

mod container;
mod instance;
mod issued;
mod process;
mod request;
mod role_chain;
mod search;
mod sso;
mod sts;
#[cfg(test)]
mod tests;

use crate::error::Result;
use crate::source::http::Client;
use crate::source::store::credential_cache::CredentialCache;
use crate::source::store::s3::aws_credential::AwsCredential;
use std::sync::Arc;

/// The credentials for AWS, shared by all buckets of an opener.
pub(in crate::source::store) type AwsCredentials = CredentialCache<AwsCredential>;

/// The credentials to use now: those in `cache`, or those that a search finds. May be awaited on any
/// runtime.
///
/// # Errors
/// [`PermissionDenied`](crate::ErrorKind::PermissionDenied), naming the searched sources, if there
/// are no credentials; the error of a source that is configured but fails.
pub(super) async fn get(cache: &AwsCredentials, client: &Arc<Client>) -> Result<AwsCredential> {
    let searching = Arc::clone(client);
    let search = client.on_control(async move { search::find(&searching).await });
    cache.get(search).await?.ok_or_else(|| {
        issued::denied(format!(
            "no AWS credentials found; searched {}; set AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or for a public bucket \
             AWS_NO_SIGN_REQUEST=true",
            cache.nothing().unwrap_or_default()
        ))
    })
}
