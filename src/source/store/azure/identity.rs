//! Managed identity: the token that Azure gives to a virtual machine, or to a service.
//!
//! The servers for the two differ in address, version and a secret header. Hand-written: reqsign knows
//! only the server of virtual machines, at a fixed address.

use crate::location::escape::segment;
use bytes::Bytes;
use http::{Request, StatusCode};
use reqsign_azure_storage::Credential;
use reqsign_core::time::Timestamp;
use reqsign_core::{Context, Error, Result};
use serde::Deserialize;
use serde_json::Value;

const MACHINE: &str = "http://169.254.169.254";
const RESOURCE: &str = "https://storage.azure.com/";

#[derive(Deserialize)]
struct Token {
    access_token: String,
    /// Seconds since the epoch, as a number or a string.
    expires_on: Option<Value>,
}

/// The token of a virtual machine, from its metadata server.
pub(super) async fn of_machine(context: &Context) -> Result<Credential> {
    let host = context.env_var("AZURE_POD_IDENTITY_AUTHORITY_HOST");
    let host = host.unwrap_or_else(|| MACHINE.to_owned());
    let url = format!("{}/metadata/identity/oauth2/token", host.trim_end_matches('/'));
    let request = Request::get(query(context, &url, "2018-02-01")).header("Metadata", "true");
    request_token(context, request).await
}

/// The token of a service (App Service, Functions, Container Apps), from its server at `endpoint`.
pub(super) async fn of_service(context: &Context, endpoint: &str) -> Result<Credential> {
    let secret = context.env_var("IDENTITY_HEADER").unwrap_or_default();
    let request =
        Request::get(query(context, endpoint, "2019-08-01")).header("X-IDENTITY-HEADER", secret);
    request_token(context, request).await
}

fn query(context: &Context, url: &str, version: &str) -> String {
    let resource = segment(RESOURCE);
    let client = context.env_var("AZURE_CLIENT_ID");
    let client = client.map_or_else(String::new, |id| format!("&client_id={}", segment(&id)));
    format!("{url}?api-version={version}&resource={resource}{client}")
}

async fn request_token(context: &Context, request: http::request::Builder) -> Result<Credential> {
    let request = request.body(Bytes::new()).map_err(|error| {
        Error::config_invalid("the URL of the identity server is invalid").with_source(error)
    })?;
    let response = context.http_send(request).await?;
    if response.status() != StatusCode::OK {
        let sentence = format!("the identity server answered {}", response.status());
        return Err(Error::credential_invalid(sentence));
    }
    // The parser's error is dropped, because it could quote the token.
    let token: Token = serde_json::from_slice(response.body())
        .map_err(|_| Error::unexpected("the identity server did not return a token"))?;
    Ok(Credential::with_bearer_token(&token.access_token, token.expires_on.and_then(time)))
}

fn time(seconds: Value) -> Option<Timestamp> {
    let seconds = match seconds {
        Value::String(text) => text.parse().ok()?,
        number => number.as_i64()?,
    };
    Timestamp::from_second(seconds).ok()
}
