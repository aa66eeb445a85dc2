//! Requests to stores: authorization, redirects, retries.

use super::client::Client;
use super::error_response::{BODY_BYTES_MAX, ErrorResponse};
use super::exchange::Answer;
use super::failure::{Broken, Failure};
use super::policy::RequestPolicy;
use super::pool::{Origin, Pool};
use super::redirect::redirect;
use super::retry::Tries;
use crate::error::Result;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use std::sync::Arc;

/// How many redirects are followed.
const REDIRECTS_MAX: usize = 10;

const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("ringload/", env!("CARGO_PKG_VERSION")));

/// An answer, where it came from, and the connection's origin.
pub(crate) struct Answered {
    pub answer: Answer,
    /// The last URL, after all redirects.
    pub uri: Uri,
    pub origin: Origin,
}

impl Answered {
    /// Keeps the connection for the next request, if it can serve one.
    pub fn keep_connection(self, pool: &Pool) {
        pool.keep(&self.origin, self.answer.body);
    }
}

impl Client {
    /// Makes a small request and gives the answer (2xx) with its whole body of at most `max_bytes`.
    /// Runs on the control thread's runtime only (see [`block_on`](Self::block_on)). `doing`
    /// continues "cannot": `list s3://bucket/model/`.
    ///
    /// `build` makes the request anew for every attempt: absolute URL, without authorization.
    ///
    /// # Errors
    /// What the store makes of a refusal; what is left when retries are used up.
    pub async fn fetch(
        self: &Arc<Self>,
        store: &dyn RequestPolicy,
        doing: &str,
        max_bytes: usize,
        build: impl Fn() -> Result<Request<Bytes>> + Send + Sync,
    ) -> Result<Response<Bytes>> {
        let mut tries = Tries::new(doing, self.options.retries, self.counters());
        loop {
            let request = build()?;
            let host = self.host(&Origin::of(request.uri()));
            let failure = match self.fetch_once(store, request, max_bytes).await {
                Ok(response) => {
                    host.succeeded();
                    return Ok(response);
                }
                Err(failure) => failure,
            };
            let again = tries.after(failure, store, &host)?;
            tokio::time::sleep(again.wait).await;
        }
    }

    async fn fetch_once(
        self: &Arc<Self>,
        store: &dyn RequestPolicy,
        request: Request<Bytes>,
        max_bytes: usize,
    ) -> std::result::Result<Response<Bytes>, Failure> {
        let answered = self.attempt(self.pool(), store, request, true).await?;
        if !answered.answer.head.status.is_success() {
            return Err(self.refusal(self.pool(), answered).await.into());
        }
        self.collect(self.pool(), &answered.origin, answered.answer, max_bytes).await
    }

    /// One attempt: signs the request, sends it, follows redirects. Any other status is an answer.
    /// `trusted` says that the URL is the store's own: only then is anything secret sent.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn attempt(
        self: &Arc<Self>,
        pool: &Pool,
        store: &dyn RequestPolicy,
        request: Request<Bytes>,
        trusted: bool,
    ) -> std::result::Result<Answered, Failure> {
        let (mut head, body) = request.into_parts();
        head.headers.insert(header::USER_AGENT, USER_AGENT);
        head.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let bare = head.clone();
        let mut origin = Origin::of(&head.uri);
        if trusted {
            for (name, value) in &self.options.headers {
                head.headers.insert(name, value.clone());
            }
            let now = self.host(&origin).now();
            store.authorize(self, &mut head, now).await?;
        }
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.send(pool, &origin, &head, &body).await?;
            let Some(to) = redirect(&head.uri, &answer, store.follows_redirects())? else {
                return Ok(Answered { answer, uri: head.uri, origin });
            };
            let next = Origin::of(&to);
            if next != origin {
                // Whatever was secret was for the first server only.
                head = bare.clone();
            }
            if answer.head.status == StatusCode::SEE_OTHER {
                head.method = http::Method::GET;
            }
            pool.keep(&origin, answer.body);
            head.uri = to;
            origin = next;
        }
        let sentence = format!(
            "{} redirects in a row, the last one to {}",
            REDIRECTS_MAX + 1,
            origin.as_str()
        );
        Err(Broken { again: false, ..Broken::passing("redirect", sentence) }.into())
    }

    /// `answer` as a refusal, with what its body says, as far as it can be had.
    pub async fn refusal(&self, pool: &Pool, answered: Answered) -> ErrorResponse {
        let Answered { answer, origin, .. } = answered;
        let (status, headers) = (answer.head.status, answer.head.headers.clone());
        let body = match self.collect(pool, &origin, answer, BODY_BYTES_MAX).await {
            Ok(response) => response.into_body(),
            Err(_) => Bytes::new(),
        };
        ErrorResponse { status, headers, body }
    }
}
