//! Opens an object: requests its first bytes, length and identity.

use super::body_writer::BodyWriter;
use super::identity::ObjectIdentity;
use super::range::{self, ContentRange};
use super::receive::{NoSocketReader, Receiver};
use crate::source::http::{Attempted, Client};
use crate::source::stop::Stop;
use crate::source::store::Store;
use bytes::Bytes;
use http::{StatusCode, Uri};
use std::sync::Arc;

/// An object that was just opened.
pub(super) struct Opened {
    pub identity: ObjectIdentity,
    /// The URL on another server to which the store redirected.
    pub route: Option<Uri>,
    pub first: Bytes,
}

impl Opened {
    /// An opened object of which no bytes were sent.
    pub fn without_bytes(identity: ObjectIdentity) -> Self {
        Self { identity, route: None, first: Bytes::new() }
    }
}

/// Makes one attempt to read the first `first_bytes` of the object `key`. Returns `None` if the object
/// still has the identity `known`.
///
/// # Errors
/// When there is no usable response.
pub(super) async fn open_once(
    client: &Arc<Client>,
    store: &dyn Store,
    key: &str,
    first_bytes: u64,
    known: Option<&ObjectIdentity>,
) -> Attempted<Option<Opened>> {
    let (pool, uri) = (client.pool(), store.url(key)?);
    let mut request = range::request(uri.clone(), 0, first_bytes);
    if let Some(known) = known {
        known.require_changed(request.headers_mut());
    }
    let mut answered = client.attempt(pool, store, request, true).await?;
    let (status, headers) = (answered.response.status(), answered.response.headers());
    let body_bytes = answered.response.body().left();
    let total_bytes = match status {
        StatusCode::NOT_MODIFIED if known.is_some() => {
            answered.keep_connection(pool);
            return Ok(None);
        }
        StatusCode::PARTIAL_CONTENT => ContentRange::of(headers)
            .and_then(|range| range.total_bytes)
            .ok_or_else(|| range::wrong_range(&answered.origin))?,
        // A server may send the whole object if it is not longer than the range.
        StatusCode::OK => body_bytes
            .filter(|&bytes| bytes <= first_bytes)
            .ok_or_else(|| range::no_ranges(&answered.origin))?,
        StatusCode::RANGE_NOT_SATISFIABLE if range::unsatisfied_total(headers) == Some(0) => {
            return Ok(Some(Opened::without_bytes(ObjectIdentity::of(headers, 0))));
        }
        StatusCode::RANGE_NOT_SATISFIABLE => return Err(range::wrong_range(&answered.origin)),
        _ => return Err(client.error_response(pool, answered).await.into()),
    };
    let identity = ObjectIdentity::of(headers, total_bytes);
    let len = first_bytes.min(total_bytes);
    range::refuse_encoding(headers, &answered.origin)?;
    if !range::fits(&answered.response, 0, len) {
        return Err(range::wrong_range(&answered.origin));
    }
    if len == 0 {
        return Ok(Some(Opened::without_bytes(identity)));
    }
    let (limits, origin) = (&client.options.retries, &answered.origin);
    let receiver = Receiver { sockets: &NoSocketReader, stop: &Stop::default(), limits, origin };
    let writer = BodyWriter::in_memory(len as usize)?;
    let (outcome, writer) = receiver.receive(answered.response.body_mut(), writer).await;
    outcome?;
    let route = answered.redirected_from(&uri);
    answered.keep_connection(pool);
    Ok(Some(Opened { identity, route, first: writer.into_bytes() }))
}
