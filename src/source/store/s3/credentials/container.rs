//! ECS tasks and EKS pods: an agent beside the container gives credentials over HTTP.

use super::ask::{self, CONFIGURED, ask};
use super::{Found, denied};
use crate::error::{Error, Result};
use crate::options::RemoteOptions;
use crate::source::http::Client;
use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header};
use std::net::IpAddr;

/// The agent of ECS.
const ECS: &str = "http://169.254.170.2";
/// The agents of ECS and EKS, which are asked without TLS.
const AGENTS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];

/// Asks the agent, if the environment names one.
///
/// # Errors
/// When it refuses, or does not answer.
pub(super) async fn find(client: &Client) -> Result<Found> {
    let options = &client.options;
    let Some(url) = url(options)? else {
        let nothing = "containers (AWS_CONTAINER_CREDENTIALS_FULL_URI is not set)";
        return Ok(Found::Nothing(nothing.to_owned()));
    };
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = url;
    if let Some(token) = token(options)? {
        request.headers_mut().insert(header::AUTHORIZATION, token);
    }
    let answer = ask(client, request, CONFIGURED).await?;
    if !answer.status().is_success() {
        return Err(denied(format!(
            "the container's credential server answered {}; check the role of the task or pod, and \
             AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            answer.status()
        )));
    }
    let credential = ask::credential("the container's credential server", answer.body());
    credential.map(Found::Credential)
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
    let url: Uri = text.parse().map_err(|_| ask::unusable(name))?;
    if is_trusted(&url) { Ok(Some(url)) } else { Err(untrusted(name)) }
}

/// Without TLS a token goes only to this machine, or to the agents' addresses.
fn is_trusted(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback = || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    let near = host == "localhost" || AGENTS.contains(&host) || is_loopback();
    match url.scheme_str() {
        Some("https") => !host.is_empty(),
        Some("http") => near,
        _ => false,
    }
}

fn untrusted(name: &str) -> Error {
    denied(format!(
        "{name} is neither https nor the address of a container agent; credentials are not asked \
         for there"
    ))
}

/// What the agent knows us by. The file is read each time: it is replaced while a pod runs.
fn token(options: &RemoteOptions) -> Result<Option<HeaderValue>> {
    const FILE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
    const TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
    let (name, token) = match options.env(FILE) {
        Some(path) => {
            let token = std::fs::read_to_string(&path)
                .map_err(|error| Error::from_io(format_args!("read {path} ({FILE})"), error))?;
            (FILE, Some(token))
        }
        None => (TOKEN, options.env(TOKEN)),
    };
    let Some(token) = token else {
        return Ok(None);
    };
    let mut value = HeaderValue::from_str(token.trim()).map_err(|_| ask::unusable(name))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_stay_near_or_under_tls() {
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
