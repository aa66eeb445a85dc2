//! Tokens of Microsoft Entra, for an account whose key or signature is not given. The sources are
//! searched in this order. The first one that is configured is used, and an error is reported if it
//! does not work:
//!
//! 1. workload identity (Kubernetes): `AZURE_FEDERATED_TOKEN_FILE` with `AZURE_TENANT_ID` and
//!    `AZURE_CLIENT_ID`,
//! 2. a client's secret: `AZURE_CLIENT_SECRET` with the same two,
//! 3. managed identity: `IDENTITY_ENDPOINT` (App Service, Container Apps), or the metadata server
//!    of Azure's virtual machines,
//! 4. `az login`.

use super::identity;
use crate::error::{Error, ErrorKind, Result};
use crate::source::store::credential_cache::Found;
use crate::source::store::metadata;
use crate::sys::check_named;
use reqsign_azure_storage::{
    AzureCliCredentialProvider, ClientSecretCredentialProvider, Credential,
    WorkloadIdentityCredentialProvider,
};
use reqsign_core::{Context, ProvideCredential};

/// The asset tag of the chassis of Azure's virtual machines.
const CHASSIS: &str = "7783-7084-3265-9085-8269-3286-77";

/// Searches for credentials and obtains a token with them.
///
/// # Errors
/// [`PermissionDenied`](ErrorKind::PermissionDenied) where there are credentials, but they do not
/// work; the error of reading the file that `AZURE_FEDERATED_TOKEN_FILE` names.
pub(super) async fn search(context: &Context) -> Result<Found<Credential>> {
    let set = |name: &str| context.env_var(name);
    if let (Some(tenant), Some(client)) = (set("AZURE_TENANT_ID"), set("AZURE_CLIENT_ID")) {
        let authority = set("AZURE_AUTHORITY_HOST")
            .unwrap_or_else(|| "https://login.microsoftonline.com".to_owned());
        if let Some(file) = set("AZURE_FEDERATED_TOKEN_FILE") {
            check_named("AZURE_FEDERATED_TOKEN_FILE", &file, "token file")?;
            let provider = WorkloadIdentityCredentialProvider::new()
                .with_tenant_id(tenant)
                .with_client_id(client)
                .with_federated_token_file(file)
                .with_authority_host(authority);
            let from = "the workload identity of AZURE_FEDERATED_TOKEN_FILE";
            return must_work(from, provider.provide_credential(context).await);
        }
        if let Some(secret) = set("AZURE_CLIENT_SECRET") {
            let provider = ClientSecretCredentialProvider::new()
                .with_tenant_id(tenant)
                .with_client_id(client)
                .with_client_secret(secret)
                .with_authority_host(authority);
            let from = "the client of AZURE_CLIENT_ID and AZURE_CLIENT_SECRET";
            return must_work(from, provider.provide_credential(context).await);
        }
    }
    if let Some(endpoint) = set("IDENTITY_ENDPOINT") {
        let token = identity::of_service(context, &endpoint).await;
        return must_work("the managed identity of IDENTITY_ENDPOINT", token.map(Some));
    }
    let in_cloud = set("AZURE_POD_IDENTITY_AUTHORITY_HOST").is_some()
        || metadata::firmware_says("chassis_asset_tag", CHASSIS);
    if let Some(Ok(credential)) = metadata::request(in_cloud, identity::of_machine(context)).await {
        return Ok(Found::Credential(credential));
    }
    if let Ok(Some(credential)) =
        AzureCliCredentialProvider::new().provide_credential(context).await
    {
        return Ok(Found::Credential(credential));
    }
    let nothing = "AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN, \
        AZURE_STORAGE_CONNECTION_STRING, AZURE_FEDERATED_TOKEN_FILE, AZURE_CLIENT_SECRET and \
        IDENTITY_ENDPOINT are not set; no metadata server answers; no az login";
    Ok(Found::Nothing(nothing.to_owned()))
}

/// The token of the configured source `from`, or the error that it does not work.
fn must_work(
    from: &str,
    outcome: reqsign_core::Result<Option<Credential>>,
) -> Result<Found<Credential>> {
    let fail = |why: &str| {
        let sentence = format!("{from} gives no token{why}; check its configuration");
        Error::new(ErrorKind::PermissionDenied, sentence)
    };
    match outcome {
        Ok(Some(credential)) => Ok(Found::Credential(credential)),
        Ok(None) => Err(fail(" (its file is missing or empty)")),
        Err(error) => Err(fail("").with_source(error)),
    }
}
