//! Requests to stores: authorization, redirects, and the retries of small requests.

use super::attempt_error::Attempted;
use super::body::Body;
use super::client::Client;
use super::error_response::{BODY_BYTES_MAX, ErrorResponse};
use super::origin::ServerOrigin;
use super::policy::RequestPolicy;
use super::redirect::{redirect, refused};
use super::retry::RetryState;
use super::sent_secrets::SentSecrets;
use crate::error::Result;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use std::sync::Arc;

/// The most redirects that are followed in a row.
const REDIRECTS_MAX: usize = 10;

const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("ringload/", env!("CARGO_PKG_VERSION")));

/// A response whose body was not read yet, and the server that it came from.
pub(crate) struct ServerResponse {
    pub response: Response<Body>,
    /// The URL after all redirects.
    pub uri: Uri,
    /// The origin of the URL.
    pub origin: ServerOrigin,
}

impl ServerResponse {
    /// Keeps the connection for the next request of `client`, if it can be reused.
    pub fn keep_connection(self, client: &Client) {
        client.keep(&self.origin, self.response.into_body());
    }

    /// The URL that a request to `uri` was redirected to successfully, if it is on another server.
    /// Redirects within a server are followed each time, as they need the same authorization.
    pub fn redirected_from(&self, uri: &Uri) -> Option<Uri> {
        let elsewhere = ServerOrigin::of(uri) != self.origin;
        (elsewhere && self.response.status().is_success()).then(|| self.uri.clone())
    }
}

impl Client {
    /// Makes a small request, with retries, and returns the response (2xx) with its whole body of at
    /// most `max_bytes`. Runs on the control thread's runtime only (see
    /// [`block_on`](Self::block_on)). `doing` continues "cannot": `list s3://bucket/model/`.
    ///
    /// `build` makes the request for each attempt: with an absolute URL, without authorization.
    ///
    /// # Errors
    /// As `policy` classifies an error response; the last failure when retries are used up.
    pub async fn fetch(
        self: &Arc<Self>,
        policy: &dyn RequestPolicy,
        doing: &str,
        max_bytes: usize,
        build: impl Fn() -> Result<Request<Bytes>> + Send + Sync,
    ) -> Result<Response<Bytes>> {
        let mut retry = RetryState::new(doing, self.options.retries, self.counters());
        let mut repeated = false;
        loop {
            let request = build()?;
            let server = self.server(&ServerOrigin::of(request.uri()));
            server.concurrency.turn(repeated).await;
            repeated = true;
            match self.fetch_once(policy, request, max_bytes).await {
                Ok(response) => {
                    server.succeeded();
                    return Ok(response);
                }
                Err(failure) => {
                    tokio::time::sleep(retry.after(failure, policy, &server)?).await;
                }
            }
        }
    }

    async fn fetch_once(
        self: &Arc<Self>,
        policy: &dyn RequestPolicy,
        request: Request<Bytes>,
        max_bytes: usize,
    ) -> Attempted<Response<Bytes>> {
        let answered = self.attempt(policy, request, true).await?;
        if !answered.response.status().is_success() {
            return Err(self.error_response(answered).await.into());
        }
        self.collect(&answered.origin, answered.response, max_bytes).await
    }

    /// Makes one attempt: signs the request, sends it, and follows redirects. Returns the response
    /// with any status. `trusted` says that the URL is the store's own: only then are secrets sent.
    ///
    /// # Errors
    /// When there is no response.
    pub async fn attempt(
        self: &Arc<Self>,
        policy: &dyn RequestPolicy,
        request: Request<Bytes>,
        trusted: bool,
    ) -> Attempted<ServerResponse> {
        let (mut head, body) = request.into_parts();
        head.headers.insert(header::USER_AGENT, USER_AGENT);
        head.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let bare = head.clone();
        let mut origin = ServerOrigin::of(&head.uri);
        if trusted {
            for (name, value) in &self.options.headers {
                head.headers.insert(name, value.clone());
            }
            let now = self.server(&origin).now();
            policy.authorize(self, &mut head, now).await?;
        }
        for _ in 0..=REDIRECTS_MAX {
            let mut response = self.send(&origin, &head, &body).await?;
            let secrets = SentSecrets::of(&head, &body);
            secrets.remove_from_headers(response.headers_mut());
            response.extensions_mut().insert(secrets);
            let target = match policy.follows_redirects() {
                true => redirect(&head.uri, &response)?,
                false => None,
            };
            let Some(target) = target else {
                return Ok(ServerResponse { response, uri: head.uri, origin });
            };
            let next = ServerOrigin::of(&target);
            if next != origin {
                // Secrets are sent to the first server only.
                head = bare.clone();
            }
            if response.status() == StatusCode::SEE_OTHER {
                head.method = Method::GET;
            }
            self.keep(&origin, response.into_body());
            head.uri = target;
            origin = next;
        }
        let redirects = REDIRECTS_MAX + 1;
        Err(refused(format!("{redirects} redirects in a row, the last one to {origin}")))
    }

    /// Converts `answered` to an error response, with as much of its body as can be read.
    pub async fn error_response(&self, answered: ServerResponse) -> ErrorResponse {
        let ServerResponse { response, origin, .. } = answered;
        let (status, headers) = (response.status(), response.headers().clone());
        let secrets = response.extensions().get::<SentSecrets>().cloned().unwrap_or_default();
        let collected = self.collect(&origin, response, BODY_BYTES_MAX).await;
        let body = collected.map(Response::into_body).unwrap_or_default();
        ErrorResponse { status, headers, body: secrets.removed_from_body(body) }
    }
}
