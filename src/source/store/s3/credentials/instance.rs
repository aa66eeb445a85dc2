//! EC2: the instance metadata service (IMDSv2), which gives its answers for a token only.
//!
//! Elsewhere nobody answers at its address, so it is asked last, and for a short time.

use super::ask::{self, Patience, ask};
use super::{Found, denied};
use crate::error::Result;
use crate::options::RemoteOptions;
use crate::source::http::Client;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use std::time::Duration;

const TOKEN: &str = "x-aws-ec2-metadata-token";
const TOKEN_TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";

/// Whether anybody is there.
const KNOCK: Patience = Patience { attempts: 1, timeout: Duration::from_secs(1) };
/// Somebody is.
const TALK: Patience = Patience { attempts: 3, timeout: Duration::from_secs(2) };

/// The credentials of the instance's role.
///
/// # Errors
/// When the service is there and does not give them.
pub(super) async fn find(client: &Client) -> Result<Found> {
    let nothing = |why: &str| Ok(Found::Nothing(format!("EC2 instance metadata ({why})")));
    if client.options.env_flag("AWS_EC2_METADATA_DISABLED") == Some(true) {
        return nothing("AWS_EC2_METADATA_DISABLED is set");
    }
    let base = base(&client.options);
    let mut request = request(&base, "/latest/api/token")?;
    *request.method_mut() = Method::PUT;
    request.headers_mut().insert(TOKEN_TTL, HeaderValue::from_static("21600"));
    let token = match ask(client, request, KNOCK).await {
        Ok(answer) if answer.status().is_success() => answer.into_body(),
        Ok(answer) => return nothing(&format!("{base} answered {}", answer.status())),
        Err(_) => return nothing(&format!("no answer from {base}")),
    };
    let mut token = HeaderValue::from_maybe_shared(token).map_err(|_| {
        denied("the EC2 instance metadata service gives a token that cannot be used")
    })?;
    token.set_sensitive(true);
    let roles = get(client, &base, ROLES, &token).await?;
    if roles.status() == StatusCode::NOT_FOUND {
        return nothing("the instance has no role");
    }
    let roles = String::from_utf8_lossy(succeeded(&roles)?).into_owned();
    let Some(role) = roles.lines().map(str::trim).find(|role| !role.is_empty()) else {
        return nothing("the instance has no role");
    };
    let answer = get(client, &base, &format!("{ROLES}{role}"), &token).await?;
    let body = succeeded(&answer)?;
    ask::credential("the instance metadata service", body).map(Found::Credential)
}

fn base(options: &RemoteOptions) -> String {
    let url = options.env("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| {
        let mode = options.env("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE").unwrap_or_default();
        let is_v6 = mode.eq_ignore_ascii_case("IPv6");
        if is_v6 { "http://[fd00:ec2::254]" } else { "http://169.254.169.254" }.to_owned()
    });
    url.trim_end_matches('/').to_owned()
}

fn request(base: &str, path: &str) -> Result<Request<Bytes>> {
    let url: std::result::Result<Uri, _> = format!("{base}{path}").parse();
    let url = url.ok().filter(|url| url.scheme().is_some() && url.host().is_some());
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = url.ok_or_else(|| ask::unusable("AWS_EC2_METADATA_SERVICE_ENDPOINT"))?;
    Ok(request)
}

async fn get(
    client: &Client,
    base: &str,
    path: &str,
    token: &HeaderValue,
) -> Result<Response<Bytes>> {
    let mut request = request(base, path)?;
    request.headers_mut().insert(TOKEN, token.clone());
    ask(client, request, TALK).await
}

fn succeeded(answer: &Response<Bytes>) -> Result<&Bytes> {
    if answer.status().is_success() {
        return Ok(answer.body());
    }
    Err(denied(format!(
        "the EC2 instance metadata service answered {}; check the instance's role, and its hop limit \
         where this is a container",
        answer.status()
    )))
}
