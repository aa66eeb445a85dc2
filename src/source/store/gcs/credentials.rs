//! Google's application default credentials, searched in the order of Google's own libraries:
//!
//! 1. the file that `GOOGLE_APPLICATION_CREDENTIALS` (or `RUNAI_STREAMER_GCS_CREDENTIAL_FILE`)
//!    names,
//! 2. the file that `gcloud auth application-default login` wrote,
//! 3. the metadata server of Google's own machines.
//!
//! The first one that exists is used, and an error is reported if it does not work. Without this
//! error, the server would deny the unauthorized request for an unclear reason.

use crate::error::{Error, ErrorKind, Result};
use crate::source::store::credential_cache::Found;
use crate::source::store::metadata;
use crate::sys::check_named;
use reqsign_core::{Context, ProvideCredential};
use reqsign_google::{
    Credential, FileCredentialProvider, ServiceAccountTokenCredentialProvider,
    VmMetadataCredentialProvider,
};

const FILE_VARIABLES: [&str; 2] =
    ["GOOGLE_APPLICATION_CREDENTIALS", "RUNAI_STREAMER_GCS_CREDENTIAL_FILE"];
/// The permission to read objects only.
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_only";

/// Searches for credentials and obtains a token with them.
///
/// # Errors
/// [`PermissionDenied`](ErrorKind::PermissionDenied) where there are credentials, but they do not
/// work; the error of reading the file that a variable names.
pub(super) async fn search(context: &Context) -> Result<Found<Credential>> {
    for variable in FILE_VARIABLES {
        if let Some(path) = context.env_var(variable) {
            check_named(variable, &path, "file of credentials")?;
            return token_of_file(context, &path, variable).await.map(Found::Credential);
        }
    }
    let well_known = well_known(context);
    if let Some(path) = &well_known
        && context.file_read(path).await.is_ok()
    {
        let from = "gcloud auth application-default login";
        return token_of_file(context, path, from).await.map(Found::Credential);
    }
    if let Some(credential) = token_of_machine(context).await {
        return Ok(Found::Credential(credential));
    }
    let [variable, _] = FILE_VARIABLES;
    let well_known = well_known.map_or("no HOME".to_owned(), |path| format!("no {path}"));
    let nothing = format!("{variable} is not set; {well_known}; no metadata server answers");
    Ok(Found::Nothing(nothing))
}

/// The token for the credentials in the file at `path`; `from` says what named the file.
async fn token_of_file(context: &Context, path: &str, from: &str) -> Result<Credential> {
    let fail = |why: &str| {
        let sentence = format!(
            "the Google credentials in {path} (from {from}) {why}; renew them, or set \
             RINGLOAD_GCS_ANONYMOUS=1 to read without (in Rust, with Loader::from_env)"
        );
        Error::new(ErrorKind::PermissionDenied, sentence)
    };
    let refused = |error| fail("do not work").with_source(error);
    let provider = FileCredentialProvider::new(path).with_scope(SCOPE);
    let credential = provider.provide_credential(context).await.map_err(refused)?;
    let credential = credential.ok_or_else(|| fail("are empty"))?;
    let Some(account) = credential.service_account else {
        return Ok(credential);
    };
    // The key of a service account signs the request for a token.
    let exchange = ServiceAccountTokenCredentialProvider::new(account).with_scope(SCOPE);
    let credential = exchange.provide_credential(context).await.map_err(refused)?;
    credential.ok_or_else(|| fail("give no token"))
}

/// The path at which gcloud stores the application default credentials.
fn well_known(context: &Context) -> Option<String> {
    let directory = match context.env_var("CLOUDSDK_CONFIG") {
        Some(directory) => directory,
        None => format!("{}/.config/gcloud", context.home_dir()?.display()),
    };
    Some(format!("{directory}/application_default_credentials.json"))
}

/// The token of the service account of this machine, if it is one of Google's.
async fn token_of_machine(context: &Context) -> Option<Credential> {
    if context.env_var("NO_GCE_CHECK").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return None;
    }
    let in_cloud = context.env_var("GCE_METADATA_HOST").is_some()
        || metadata::firmware_says("product_name", "Google");
    let provider = VmMetadataCredentialProvider::new().with_scope(SCOPE);
    let response = metadata::request(in_cloud, provider.provide_credential(context)).await?;
    response.inspect_err(|error| tracing::debug!(%error, "no token from a metadata server")).ok()?
}
