//! Sends one request on one connection and reads the head of the response.
//!
//! hyper writes the request and parses the head. A body of known length is then read from the
//! socket itself: see [`Body`].

use super::body::{Body, HyperConnection};
use super::stream::Stream;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::client::conn::http1::Builder;
use std::future::{Future, poll_fn};
use std::pin::pin;

/// How many bytes hyper may read at once while it parses a head. Bytes of the body among them are
/// copied once more.
const HEAD_READ_BYTES: usize = 16 << 10;

/// Sends `request` unchanged and reads the head of the response.
///
/// # Errors
/// The error of hyper, when the connection breaks or the response is not HTTP.
pub(super) async fn send_request(
    stream: Stream,
    request: Request<Full<Bytes>>,
) -> hyper::Result<Response<Body>> {
    let is_head = request.method() == Method::HEAD;
    let mut builder = Builder::new();
    builder.read_buf_exact_size(Some(HEAD_READ_BYTES));
    let (mut sender, mut connection): (_, HyperConnection) = builder.handshake(stream).await?;
    let response = {
        let mut responding = pin!(sender.send_request(request));
        let mut ended = false;
        poll_fn(|cx| {
            // Once the connection has ended, `responding` is ready with the response or an error.
            ended = ended || connection.poll_without_shutdown(cx).is_ready();
            responding.as_mut().poll(cx)
        })
        .await?
    };
    let (head, incoming) = response.into_parts();
    // Responses to HEAD and "not modified" may give the length of a body that they do not have.
    let is_bare = is_head || head.status == StatusCode::NOT_MODIFIED;
    let length = if is_bare { Some(0) } else { content_length(&head.headers) };
    let body = match length {
        Some(length) => Body::raw(&head, incoming, connection, length).await,
        None => Body::framed(incoming, connection),
    };
    Ok(Response::from_parts(head, body))
}

/// The length of the body, if `Content-Length` determines it.
fn content_length(headers: &HeaderMap) -> Option<u64> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
