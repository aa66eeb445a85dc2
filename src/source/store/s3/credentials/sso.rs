//! IAM Identity Center: exchanges the token that `aws sso login` stored in `~/.aws/sso/cache` for the
//! credentials of a role.

use super::issued::{bad_profile, denied, not_a_credential, unusable};
use super::request::{CONFIGURED, send};
use crate::error::{Error, Result};
use crate::location::escape::segment;
use crate::source::http::Client;
use crate::source::store::requests::{get, secret_value};
use crate::source::store::s3::aws_credential::AwsCredential;
use crate::source::store::s3::profiles::{Profiles, expand};
use crate::source::store::s3::{address, time};
use crate::sys::read_small;
use bytes::Bytes;
use http::{Request, StatusCode};
use reqsign_core::hash::hex_sha1;
use reqsign_core::time::Timestamp;
use serde::Deserialize;

/// The role whose credentials a profile uses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SsoLogin {
    profile: String,
    account_id: String,
    role_name: String,
    region: String,
    /// The name of the session, or else the URL of the portal. The token's file is named after its
    /// hash.
    cache_key: String,
}

impl SsoLogin {
    /// The login of the profile `name`, if it has one.
    ///
    /// # Errors
    /// For missing settings.
    pub fn of(profiles: &Profiles, name: &str) -> Result<Option<Self>> {
        let get = |key| profiles.get(name, key);
        let session = get("sso_session");
        if session.is_none() && get("sso_start_url").is_none() {
            return Ok(None);
        }
        let of_session = |key| match session {
            Some(session) => profiles.section_get("sso-session", session, key).or_else(|| get(key)),
            None => get(key),
        };
        let or_missing = |key: &str, value: Option<&str>| match value {
            Some(value) => Ok(value.to_owned()),
            None => Err(bad_profile(name, &format!("has no {key}, which its login (SSO) needs"))),
        };
        let start_url = or_missing("sso_start_url", of_session("sso_start_url"))?;
        let region = or_missing("sso_region", of_session("sso_region"))?;
        if !address::is_region(&region) {
            return Err(bad_profile(name, "has an sso_region that is not a region"));
        }
        Ok(Some(Self {
            profile: name.to_owned(),
            account_id: or_missing("sso_account_id", get("sso_account_id"))?,
            role_name: or_missing("sso_role_name", get("sso_role_name"))?,
            region,
            cache_key: session.map_or(start_url, str::to_owned),
        }))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CachedToken {
    access_token: String,
    expires_at: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortalResponse {
    role_credentials: RoleCredentials,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RoleCredentials {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    /// The time of expiration in milliseconds since the epoch.
    expiration: i64,
}

/// Exchanges the cached token for credentials.
///
/// # Errors
/// When there is no token, it has expired, or the portal rejects it.
pub(super) async fn credential(client: &Client, login: &SsoLogin) -> Result<AwsCredential> {
    let response = send(client, request(client, login)?, CONFIGURED).await?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED => return Err(log_in(login, "is not accepted any more")),
        status => {
            return Err(denied(format!(
                "the login (SSO) of the AWS profile {:?} gives no credentials of the role {:?} \
                 (the portal answered {status}); check sso_account_id and sso_role_name",
                login.profile, login.role_name
            )));
        }
    }
    let Ok(PortalResponse { role_credentials: keys }) = serde_json::from_slice(response.body())
    else {
        return Err(not_a_credential("the SSO portal"));
    };
    Ok(AwsCredential {
        access_key_id: keys.access_key_id,
        secret_access_key: keys.secret_access_key,
        session_token: Some(keys.session_token),
        expires: Timestamp::from_millisecond(keys.expiration).ok(),
    })
}

/// The request to the portal, with the cached token.
fn request(client: &Client, login: &SsoLogin) -> Result<Request<Bytes>> {
    let token = secret_value(&cached_token(client, login)?);
    let token = token.ok_or_else(|| log_in(login, "cannot be used"))?;
    let base = client.options.env("AWS_ENDPOINT_URL_SSO").unwrap_or_else(|| {
        let region = &login.region;
        format!("https://portal.sso.{region}.{}", address::domain(region))
    });
    let (role, account) = (segment(&login.role_name), segment(&login.account_id));
    let base = base.trim_end_matches('/');
    let url = format!("{base}/federation/credentials?role_name={role}&account_id={account}");
    let mut request = get(url.parse().map_err(|_| unusable("AWS_ENDPOINT_URL_SSO"))?);
    request.headers_mut().insert("x-amz-sso_bearer_token", token);
    Ok(request)
}

/// The token of the last login.
fn cached_token(client: &Client, login: &SsoLogin) -> Result<String> {
    let name = hex_sha1(login.cache_key.as_bytes());
    let path = expand(&client.options, &format!("~/.aws/sso/cache/{name}.json"));
    let bytes = path.and_then(|path| read_small(&path, "login (SSO)").ok());
    let bytes = bytes.ok_or_else(|| log_in(login, "is missing"))?;
    let Ok(token) = serde_json::from_slice::<CachedToken>(&bytes) else {
        return Err(log_in(login, "cannot be read"));
    };
    match time::parse(&token.expires_at) {
        Some(expires) if expires > Timestamp::now() => Ok(token.access_token),
        _ => Err(log_in(login, "has expired")),
    }
}

/// The error that asks the user to log in.
fn log_in(login: &SsoLogin, what: &str) -> Error {
    let profile = &login.profile;
    denied(format!(
        "the login (SSO) of the AWS profile {profile:?} {what}; run 'aws sso login --profile \
         {profile}'"
    ))
}
