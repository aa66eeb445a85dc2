//! STS: credentials of a role, for other credentials or for a token of a web identity.

use super::ask::{self, CONFIGURED, ask};
use super::plan::Role;
use super::{Credential, denied};
use crate::error::{Error, Result};
use crate::location::escape::segment;
use crate::options::RemoteOptions;
use crate::source::http::{Client, ErrorResponse, ServerOrigin};
use crate::source::store::s3::address::{domain, is_region};
use crate::source::store::s3::judge::said;
use crate::source::store::s3::profiles::Profiles;
use crate::source::store::s3::sigv4::{Scope, sign};
use crate::source::store::s3::{configured_region, time};
use crate::source::store::said::xml;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use std::time::{Duration, SystemTime};

/// A clock that differs by this much is why a signature is refused.
const SKEW: Duration = Duration::from_secs(4 * 60);

/// Where STS is.
#[derive(Debug)]
pub(super) struct Sts {
    url: Uri,
    region: String,
}

impl Sts {
    /// The STS of the region of a profile, else of the region that is used otherwise; the one for
    /// all regions where none is known.
    ///
    /// # Errors
    /// Where an endpoint that is set is no URL.
    pub fn of(options: &RemoteOptions, profiles: &Profiles, region: Option<&str>) -> Result<Self> {
        let region = region.map(str::to_owned).or_else(|| configured_region(options, profiles));
        let region = region.filter(|region| is_region(region));
        for name in ["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"] {
            if let Some(url) = options.env(name) {
                let url: Uri = url.parse().map_err(|_| ask::unusable(name))?;
                url.host().ok_or_else(|| ask::unusable(name))?;
                return Ok(Self { url, region: region.unwrap_or_else(global) });
            }
        }
        let legacy = options.env("AWS_STS_REGIONAL_ENDPOINTS").is_some_and(|way| way == "legacy");
        let region = region.filter(|region| !legacy || domain(region) != domain("us-east-1"));
        let (host, region) = match region {
            Some(region) => (format!("sts.{region}.{}", domain(&region)), region),
            None => ("sts.amazonaws.com".to_owned(), global()),
        };
        let url = format!("https://{host}/").parse().map_err(|_| ask::unusable("the region"))?;
        Ok(Self { url, region })
    }
}

/// The region that the STS for all regions is signed for.
fn global() -> String {
    "us-east-1".to_owned()
}

/// Assumes `role` with `credential`.
///
/// # Errors
/// When STS refuses, or does not answer.
pub(super) async fn assume(
    client: &Client,
    sts: &Sts,
    role: &Role,
    credential: &Credential,
) -> Result<Credential> {
    let mut form = form("AssumeRole", role);
    if let Some(id) = &role.external_id {
        append(&mut form, "ExternalId", id);
    }
    let origin = ServerOrigin::of(&sts.url);
    let host = client.server(&origin);
    let scope = Scope { service: "sts", region: &sts.region };
    let mut corrected = false;
    loop {
        let (mut head, body) = request(sts, &form).into_parts();
        sign(&mut head, &body, credential, &scope, host.now())?;
        let answer = post(client, Request::from_parts(head, body)).await?;
        match answer.date() {
            Some(there)
                if !answer.status.is_success() && !corrected && differs(there, host.now()) =>
            {
                corrected = true;
                host.set_clock(there);
            }
            _ => return credential_of(&answer, role),
        }
    }
}

/// Assumes `role` with the token in the file `token_file`, which is read each time: it is replaced
/// while a pod runs.
///
/// # Errors
/// When the file cannot be read; when STS refuses, or does not answer.
pub(super) async fn assume_with_token(
    client: &Client,
    sts: &Sts,
    role: &Role,
    token_file: &str,
) -> Result<Credential> {
    let token = std::fs::read_to_string(token_file).map_err(|error| {
        Error::from_io(format_args!("read the web identity token in {token_file}"), error)
    })?;
    let mut form = form("AssumeRoleWithWebIdentity", role);
    append(&mut form, "WebIdentityToken", token.trim());
    let answer = post(client, request(sts, &form)).await?;
    credential_of(&answer, role)
}

/// What is asked for, as far as it is the same for all actions.
fn form(action: &str, role: &Role) -> String {
    let mut form = format!("Action={action}&Version=2011-06-15");
    append(&mut form, "RoleArn", &role.arn);
    let session = role.session_name.clone().unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        format!("ringload-{}", now.as_secs())
    });
    append(&mut form, "RoleSessionName", &session);
    if let Some(seconds) = role.duration_seconds {
        append(&mut form, "DurationSeconds", &seconds.to_string());
    }
    form
}

fn append(form: &mut String, name: &str, value: &str) {
    form.push_str(&format!("&{name}={}", segment(value)));
}

fn request(sts: &Sts, form: &str) -> Request<Bytes> {
    let mut request = Request::new(Bytes::from(form.to_owned()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = sts.url.clone();
    let urlencoded = HeaderValue::from_static("application/x-www-form-urlencoded");
    request.headers_mut().insert(header::CONTENT_TYPE, urlencoded);
    request
}

async fn post(client: &Client, request: Request<Bytes>) -> Result<ErrorResponse> {
    let (head, body) = ask(client, request, CONFIGURED).await?.into_parts();
    Ok(ErrorResponse { status: head.status, headers: head.headers, body })
}

fn differs(there: SystemTime, here: SystemTime) -> bool {
    let by = there.duration_since(here).unwrap_or_else(|earlier| earlier.duration());
    by > SKEW
}

/// The credentials in an answer of STS, else why there are none.
fn credential_of(answer: &ErrorResponse, role: &Role) -> Result<Credential> {
    if !answer.status.is_success() {
        return Err(denied(format!(
            "the role {} cannot be assumed: {}; check its trust policy",
            role.arn,
            said(answer)
        )));
    }
    let get = |name| xml(answer, name).ok_or_else(|| denied("what STS gives are no credentials"));
    let expires = get("Expiration")?;
    Ok(Credential {
        access_key_id: get("AccessKeyId")?,
        secret_access_key: get("SecretAccessKey")?,
        session_token: Some(get("SessionToken")?),
        expires: time::parse(&expires),
    })
}
