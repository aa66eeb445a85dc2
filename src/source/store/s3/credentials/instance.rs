//! The credentials of EC2 instances, from the instance metadata service (IMDSv2), which answers
//! only requests with a session token.
//!
//! On other machines its address does not answer, so it is tried last and with a short time limit.
//!
//! Hand-written: the provider of `reqsign-aws-core` has no time limits and no IPv6 endpoint, and
//! reports an instance without a role as an error.

use super::issued::{FoundAws, IssuedCredential, denied, unusable};
use super::request::{AttemptLimits, send};
use crate::error::Result;
use crate::options::RemoteOptions;
use crate::source::http::Client;
use crate::source::store::requests::request;
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, Uri};
use std::time::Duration;

const TOKEN: &str = "x-aws-ec2-metadata-token";
const TOKEN_TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";

/// The limits of the first request, which shows whether this is an EC2 instance.
const PROBE: AttemptLimits = AttemptLimits { attempts: 1, timeout: Duration::from_secs(1) };
/// The limits of the following requests.
const KNOWN: AttemptLimits = AttemptLimits { attempts: 3, timeout: Duration::from_secs(2) };

/// The credentials of the instance's role.
///
/// # Errors
/// When the service answers, but denies them.
pub(super) async fn find(client: &Client) -> Result<FoundAws> {
    let nothing = |why: &str| Ok(FoundAws::Nothing(format!("EC2 instance metadata ({why})")));
    if client.options.env_flag("AWS_EC2_METADATA_DISABLED") == Some(true) {
        return nothing("AWS_EC2_METADATA_DISABLED is set");
    }
    let base = base(&client.options);
    let mut request = request(Method::PUT, url(&base, "/latest/api/token")?);
    request.headers_mut().insert(TOKEN_TTL, HeaderValue::from_static("21600"));
    let token = match send(client, request, PROBE).await {
        Ok(response) if response.status().is_success() => response.into_body(),
        Ok(response) => return nothing(&format!("{base} answered {}", response.status())),
        Err(_) => return nothing(&format!("no answer from {base}")),
    };
    let mut token = HeaderValue::from_maybe_shared(token).map_err(|_| {
        denied("the EC2 instance metadata service gave a token that a header cannot hold")
    })?;
    token.set_sensitive(true);
    let roles = get(client, &base, ROLES, &token).await?;
    if roles.status() == StatusCode::NOT_FOUND {
        return nothing("the instance has no role");
    }
    let roles = String::from_utf8_lossy(body(&roles)?).into_owned();
    let Some(role) = roles.lines().map(str::trim).find(|role| !role.is_empty()) else {
        return nothing("the instance has no role");
    };
    let response = get(client, &base, &format!("{ROLES}{role}"), &token).await?;
    IssuedCredential::from_json("the instance metadata service", body(&response)?)
        .map(FoundAws::Credential)
}

fn base(options: &RemoteOptions) -> String {
    let url = options.env("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| {
        let mode = options.env("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE").unwrap_or_default();
        let is_v6 = mode.eq_ignore_ascii_case("IPv6");
        if is_v6 { "http://[fd00:ec2::254]" } else { "http://169.254.169.254" }.to_owned()
    });
    url.trim_end_matches('/').to_owned()
}

fn url(base: &str, path: &str) -> Result<Uri> {
    let url: Option<Uri> = format!("{base}{path}").parse().ok();
    url.filter(|url| url.scheme().is_some() && url.host().is_some())
        .ok_or_else(|| unusable("AWS_EC2_METADATA_SERVICE_ENDPOINT"))
}

async fn get(
    client: &Client,
    base: &str,
    path: &str,
    token: &HeaderValue,
) -> Result<Response<Bytes>> {
    let mut request = request(Method::GET, url(base, path)?);
    request.headers_mut().insert(TOKEN, token.clone());
    send(client, request, KNOWN).await
}

/// The body of a successful response.
fn body(response: &Response<Bytes>) -> Result<&Bytes> {
    match response.status() {
        status if status.is_success() => Ok(response.body()),
        status => Err(denied(format!(
            "the EC2 instance metadata service answered {status}; check the instance's role, and, \
             in a container, its hop limit"
        ))),
    }
}
