//! STS: exchanges credentials, or the token of a web identity, for the credentials of a role.

use super::issued::{IssuedCredential, denied, not_a_credential, unusable};
use super::request::{CONFIGURED, send};
use super::role_chain::Role;
use crate::error::Result;
use crate::location::escape::segment;
use crate::options::RemoteOptions;
use crate::source::http::{Client, ErrorBody, ErrorResponse, ServerOrigin};
use crate::source::store::requests::request;
use crate::source::store::s3::address::{domain, is_region};
use crate::source::store::s3::aws_credential::AwsCredential;
use crate::source::store::s3::profiles::Profiles;
use crate::source::store::s3::sigv4::{Scope, sign};
use crate::sys::read_small_text;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use serde::Deserialize;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// If the clocks differ by more than this, a rejected signature is blamed on the clock.
const SKEW: Duration = Duration::from_secs(4 * 60);

/// The STS endpoint.
#[derive(Debug)]
pub(super) struct Sts {
    url: Uri,
    region: String,
}

impl Sts {
    /// The endpoint of `region`, or else of the configured region. The global endpoint if neither
    /// is known.
    ///
    /// # Errors
    /// For a configured endpoint that is not a URL.
    pub fn of(options: &RemoteOptions, profiles: &Profiles, region: Option<&str>) -> Result<Self> {
        let region = region.map(str::to_owned).or_else(|| profiles.configured_region(options));
        let region = region.filter(|region| is_region(region));
        for name in ["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"] {
            if let Some(url) = options.env(name) {
                let url: Uri = url.parse().map_err(|_| unusable(name))?;
                url.host().ok_or_else(|| unusable(name))?;
                return Ok(Self { url, region: region.unwrap_or_else(global) });
            }
        }
        let legacy =
            options.env("AWS_STS_REGIONAL_ENDPOINTS").is_some_and(|value| value == "legacy");
        let region = region.filter(|region| !legacy || domain(region) != domain("us-east-1"));
        let (host, region) = match region {
            Some(region) => (format!("sts.{region}.{}", domain(&region)), region),
            None => ("sts.amazonaws.com".to_owned(), global()),
        };
        let url = format!("https://{host}/").parse().map_err(|_| unusable("the region"))?;
        Ok(Self { url, region })
    }
}

/// The region that requests to the global endpoint are signed for.
fn global() -> String {
    "us-east-1".to_owned()
}

/// Assumes `role` with `credential`.
///
/// # Errors
/// When STS denies the role, or does not answer.
pub(super) async fn assume(
    client: &Client,
    sts: &Sts,
    role: &Role,
    credential: &AwsCredential,
) -> Result<AwsCredential> {
    let form = form("AssumeRole", role, ("ExternalId", role.external_id.as_deref()));
    let origin = ServerOrigin::of(&sts.url);
    let host = client.server(&origin);
    let scope = Scope { service: "sts", region: &sts.region };
    let mut corrected = false;
    loop {
        let (mut head, body) = form_request(sts, &form).into_parts();
        sign(&mut head, &body, credential, &scope, host.now())?;
        let response = post(client, Request::from_parts(head, body)).await?;
        match response.date() {
            Some(date)
                if !response.status.is_success() && !corrected && differs(date, host.now()) =>
            {
                corrected = true;
                host.set_clock(date);
            }
            _ => return credential_of(&response, role),
        }
    }
}

/// Assumes `role` with the token in the file `token_file`, which is read each time, since it is
/// replaced while a pod runs.
///
/// # Errors
/// When the file cannot be read; when STS denies the role, or does not answer.
pub(super) async fn assume_with_token(
    client: &Client,
    sts: &Sts,
    role: &Role,
    token_file: &str,
) -> Result<AwsCredential> {
    let token = read_small_text(Path::new(token_file), "file with the web identity token")?;
    let form = form("AssumeRoleWithWebIdentity", role, ("WebIdentityToken", Some(token.trim())));
    let response = post(client, form_request(sts, &form)).await?;
    credential_of(&response, role)
}

/// The form parameters of `action`. Only `own` differs between actions.
fn form(action: &str, role: &Role, own: (&str, Option<&str>)) -> String {
    let session_name = role.session_name.clone().unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        format!("ringload-{}", now.as_secs())
    });
    let duration = role.duration_seconds.map(|seconds| seconds.to_string());
    let parameters = [
        ("RoleArn", Some(role.arn.as_str())),
        ("RoleSessionName", Some(&session_name)),
        ("DurationSeconds", duration.as_deref()),
        own,
    ];
    let mut form = format!("Action={action}&Version=2011-06-15");
    for (name, value) in parameters {
        form.extend(value.map(|value| format!("&{name}={}", segment(value))));
    }
    form
}

fn form_request(sts: &Sts, form: &str) -> Request<Bytes> {
    let mut request = request(Method::POST, sts.url.clone());
    *request.body_mut() = Bytes::from(form.to_owned());
    let urlencoded = HeaderValue::from_static("application/x-www-form-urlencoded");
    request.headers_mut().insert(header::CONTENT_TYPE, urlencoded);
    request
}

async fn post(client: &Client, request: Request<Bytes>) -> Result<ErrorResponse> {
    let (head, body) = send(client, request, CONFIGURED).await?.into_parts();
    Ok(ErrorResponse { status: head.status, headers: head.headers, body })
}

fn differs(theirs: SystemTime, ours: SystemTime) -> bool {
    let by = theirs.duration_since(ours).unwrap_or_else(|earlier| earlier.duration());
    by > SKEW
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StsDocument {
    #[serde(alias = "AssumeRoleWithWebIdentityResult")]
    assume_role_result: AssumeRoleResult,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AssumeRoleResult {
    credentials: IssuedCredential,
}

/// The credentials in a response of STS.
fn credential_of(response: &ErrorResponse, role: &Role) -> Result<AwsCredential> {
    if !response.status.is_success() {
        return Err(denied(format!(
            "the role {} cannot be assumed: {}; check its trust policy",
            role.arn,
            ErrorBody::from_xml(&response.body).describe(response.status)
        )));
    }
    let document: StsDocument =
        quick_xml::de::from_reader(&response.body[..]).map_err(|_| not_a_credential("STS"))?;
    document.assume_role_result.credentials.checked("STS")
}
