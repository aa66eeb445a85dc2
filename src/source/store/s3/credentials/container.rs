//! The credentials of ECS tasks and EKS pods, which an agent on the machine issues over HTTP.
//!
//! Hand-written: the provider of `reqsign-aws-core` sends the token to any host, with or without TLS.

use super::issued::{FoundAws, IssuedCredential, denied, unusable};
use super::request::{CONFIGURED, send};
use crate::error::Result;
use crate::options::RemoteOptions;
use crate::source::http::Client;
use crate::source::store::requests::{get, secret_value};
use crate::sys::read_small_text;
use http::{HeaderValue, Uri, header};
use std::net::IpAddr;
use std::path::Path;

/// The agent of ECS, to which relative URIs refer.
const ECS: &str = "http://169.254.170.2";
/// The agents of ECS and EKS, which have no TLS.
const AGENTS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];

/// Requests credentials from the agent that the environment names.
///
/// # Errors
/// When the agent denies them, or does not answer.
pub(super) async fn find(client: &Client) -> Result<FoundAws> {
    let options = &client.options;
    let Some(url) = url(options)? else {
        let nothing = "containers (AWS_CONTAINER_CREDENTIALS_FULL_URI is not set)";
        return Ok(FoundAws::Nothing(nothing.to_owned()));
    };
    let mut request = get(url);
    if let Some(token) = token(options)? {
        request.headers_mut().insert(header::AUTHORIZATION, token);
    }
    let response = send(client, request, CONFIGURED).await?;
    if !response.status().is_success() {
        return Err(denied(format!(
            "the container's credential server answered {}; check the role of the task or pod, and \
             AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            response.status()
        )));
    }
    IssuedCredential::from_json("the container's credential server", response.body())
        .map(FoundAws::Credential)
}

fn url(options: &RemoteOptions) -> Result<Option<Uri>> {
    let relative = options.env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    let (name, text) = match relative {
        Some(path) => ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", format!("{ECS}{path}")),
        None => match options.env("AWS_CONTAINER_CREDENTIALS_FULL_URI") {
            Some(url) => ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url),
            None => return Ok(None),
        },
    };
    let url: Uri = text.parse().map_err(|_| unusable(name))?;
    match is_trusted(&url) {
        true => Ok(Some(url)),
        false => Err(denied(format!(
            "{name} is neither an https URL nor the address of a container agent; it is not asked \
             for credentials"
        ))),
    }
}

/// Whether `url` may receive the token: without TLS, only this machine and the agents may.
fn is_trusted(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback = || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    match url.scheme_str() {
        Some("https") => !host.is_empty(),
        Some("http") => host == "localhost" || AGENTS.contains(&host) || is_loopback(),
        _ => false,
    }
}

/// The token that authorizes the request. Its file is read each time, since it is replaced while a
/// pod runs.
fn token(options: &RemoteOptions) -> Result<Option<HeaderValue>> {
    const FILE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
    const TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
    let (name, token) = match (options.env(FILE), options.env(TOKEN)) {
        (Some(path), _) => {
            let token = read_small_text(Path::new(&path), FILE)?;
            (FILE, token)
        }
        (None, Some(token)) => (TOKEN, token),
        (None, None) => return Ok(None),
    };
    secret_value(token.trim()).map(Some).ok_or_else(|| unusable(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_sent_to_this_machine_or_with_tls_only() {
        for (url, trusted) in [
            ("http://169.254.170.23/v1/credentials", true),
            ("http://[fd00:ec2::23]/v1/credentials", true),
            ("http://127.0.0.1:80/x", true),
            ("http://[::1]/x", true),
            ("http://localhost/x", true),
            ("https://credentials.example.com/x", true),
            ("http://credentials.example.com/x", false),
            ("http://169.254.170.2.example.com/x", false),
            ("ftp://127.0.0.1/x", false),
        ] {
            assert_eq!(is_trusted(&url.parse().unwrap()), trusted, "{url}");
        }
    }
}
