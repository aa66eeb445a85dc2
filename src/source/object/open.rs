//! Opens an object: requests its first bytes, length and identity.

use super::body_writer::BodyWriter;
use super::identity::ObjectIdentity;
use super::range::{self, ContentRange};
use super::receive::{NoSocketReader, Receiver};
use crate::source::http::{Attempted, BodyTime, Client, TransportError};
use crate::source::purpose::Purpose;
use crate::source::stop::Stop;
use crate::source::store::Store;
use crate::source::store::requests::request;
use crate::sync::Mutex;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri, header};
use std::sync::Arc;
use tokio::time::Instant;

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
/// still has the identity `known`. For a load, connections for the rest of the object are opened
/// meanwhile.
///
/// # Errors
/// When there is no usable response.
pub(super) async fn open_once(
    client: &Arc<Client>,
    store: &dyn Store,
    key: &str,
    first_bytes: u64,
    known: Option<&ObjectIdentity>,
    purpose: Purpose,
) -> Attempted<Option<Opened>> {
    let uri = store.url(key)?;
    let mut asked = range::request(uri.clone(), 0, first_bytes);
    if let Some(known) = known {
        known.require_changed(asked.headers_mut());
    }
    let mut answered = client.attempt(store, asked, true).await?;
    let (status, headers) = (answered.response.status(), answered.response.headers());
    let body_bytes = answered.response.body().left();
    let range = ContentRange::of(headers);
    let total_bytes = match status {
        StatusCode::NOT_MODIFIED if known.is_some() => {
            answered.keep_connection(client);
            return Ok(None);
        }
        StatusCode::PARTIAL_CONTENT => match range {
            Some(ContentRange { total_bytes: Some(total_bytes), .. }) => total_bytes,
            Some(_) => length_by_head(client, store, key, headers).await?,
            None => return Err(range::wrong_range(&answered.origin, headers)),
        },
        // A server may send the whole object if it is not longer than the range.
        StatusCode::OK => body_bytes
            .filter(|&bytes| bytes <= first_bytes)
            .ok_or_else(|| range::no_ranges(&answered.origin))?,
        // Of an object that is not empty, the first bytes exist.
        StatusCode::RANGE_NOT_SATISFIABLE
            if range::unsatisfied_total(headers).is_none_or(|total| total == 0) =>
        {
            return Ok(Some(Opened::without_bytes(ObjectIdentity::of(headers, 0))));
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            return Err(range::wrong_range(&answered.origin, headers));
        }
        _ => return Err(client.error_response(answered).await.into()),
    };
    let identity = ObjectIdentity::of(headers, total_bytes);
    let len = first_bytes.min(total_bytes);
    range::refuse_encoding(headers, &answered.origin)?;
    if !range::fits(&answered.response, 0, len) {
        return Err(range::wrong_range(&answered.origin, headers));
    }
    if purpose == Purpose::Load && len < total_bytes {
        client.open_ahead(&answered.uri, total_bytes - len);
    }
    if len == 0 {
        return Ok(Some(Opened::without_bytes(identity)));
    }
    let (limits, origin) = (&client.options.retries, &answered.origin);
    let time = Mutex::new(BodyTime::new(Instant::now()));
    let progress = &|_| _ = time.lock().received(Instant::now());
    let (sockets, stop) = (&NoSocketReader, &Stop::default());
    let receiver = Receiver { sockets, stop, limits, origin, progress };
    let writer = BodyWriter::in_memory(len as usize)?;
    let (outcome, writer) = receiver.receive(answered.response.body_mut(), writer).await;
    outcome?;
    client.server(origin).concurrency.arrived(&time.lock());
    let route = answered.redirected_from(&uri);
    answered.keep_connection(client);
    Ok(Some(Opened { identity, route, first: writer.into_bytes() }))
}

/// The length of the object by a HEAD request, for a server whose responses to ranges do not tell it
/// (`Content-Range: bytes 0-9/*`). `first` are the headers of such a response.
///
/// # Errors
/// When the server does not tell it so either, or the object was replaced meanwhile.
async fn length_by_head(
    client: &Arc<Client>,
    store: &dyn Store,
    key: &str,
    first: &HeaderMap,
) -> Attempted<u64> {
    let request = request(Method::HEAD, store.url(key)?);
    let answered = client.attempt(store, request, true).await?;
    let (status, headers) = (answered.response.status(), answered.response.headers());
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return Err(client.error_response(answered).await.into());
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let length = length.and_then(|length| length.parse().ok());
    let length = length.filter(|_| status == StatusCode::OK);
    let length = length.ok_or_else(|| range::no_length(&answered.origin))?;
    if ObjectIdentity::of(headers, length) != ObjectIdentity::of(first, length) {
        let sentence = format!("{} replaced the object while it was opened", answered.origin);
        return Err(TransportError::transient("replaced", sentence).into());
    }
    answered.keep_connection(client);
    Ok(length)
}
