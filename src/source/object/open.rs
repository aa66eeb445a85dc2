//! Opening an object: its first bytes, its length, its identity.

use super::fetch::{Attempted, route};
use super::identity::Identity;
use super::landing::Landing;
use super::range::{self, ContentRange};
use super::receive::{NoKernel, Receiver};
use super::verify::Part;
use crate::error::{Error, ErrorKind, Result};
use crate::ring::{PAGE_BYTES, Ring, Window};
use crate::source::Stop;
use crate::source::http::Client;
use crate::source::store::Store;
use bytes::Bytes;
use http::{StatusCode, Uri};
use std::sync::Arc;

/// An object, just opened.
pub(super) struct Opened {
    pub identity: Identity,
    /// Where redirects led.
    pub route: Option<Uri>,
    pub first: Bytes,
}

/// One attempt to get the first `first_bytes` of the object `key`; `None` where it is still what it is
/// `known` as.
///
/// # Errors
/// When there is no answer, or none that will do.
pub(super) async fn open_once(
    client: &Arc<Client>,
    store: &dyn Store,
    key: &str,
    first_bytes: u64,
    known: Option<&Identity>,
) -> Attempted<Option<Opened>> {
    let (pool, uri) = (client.pool(), store.url(key)?);
    let mut request = range::request(uri.clone(), 0, first_bytes);
    if let Some(known) = known {
        known.unless_same(request.headers_mut());
    }
    let mut answered = client.attempt(pool, store, request, true).await?;
    let head = &answered.answer.head;
    let range = ContentRange::of(&head.headers);
    if head.status == StatusCode::NOT_MODIFIED && known.is_some() {
        answered.keep_connection(pool);
        return Ok(None);
    }
    let whole = head.status == StatusCode::OK;
    let total_bytes = match head.status {
        StatusCode::PARTIAL_CONTENT => range.and_then(|range| range.total_bytes),
        // A server may send a whole object of less than the range; a longer one is no answer.
        StatusCode::OK => answered.answer.body.left().filter(|&bytes| bytes <= first_bytes),
        StatusCode::RANGE_NOT_SATISFIABLE => match range::unsatisfied_total(&head.headers) {
            Some(0) => {
                let identity = Identity::of(&head.headers, 0);
                return Ok(Some(Opened { identity, route: None, first: Bytes::new() }));
            }
            _ => return Err(range::wrong_range(&answered.origin)),
        },
        _ => return Err(client.refusal(pool, answered).await.into()),
    };
    let total_bytes = total_bytes.ok_or_else(|| match whole {
        true => range::no_ranges(&answered.origin),
        false => range::wrong_range(&answered.origin),
    })?;
    range::refuse_encoding(&head.headers, &answered.origin)?;
    let identity = Identity::of(&head.headers, total_bytes);
    let len = first_bytes.min(total_bytes);
    let fits = whole || range.is_some_and(|range| range.first == 0 && range.len_bytes() == len);
    if !fits || answered.answer.body.left().is_some_and(|bytes| bytes != len) {
        return Err(range::wrong_range(&answered.origin));
    }
    if len == 0 {
        return Ok(Some(Opened { identity, route: None, first: Bytes::new() }));
    }
    let (limits, origin) = (&client.options.retries, &answered.origin);
    let receiver = Receiver { kernel: &NoKernel, stop: &Stop::default(), limits, origin };
    let landing = Landing::new(small_window(len as usize)?, len as usize, Part::default());
    let (outcome, landing) = receiver.receive(&mut answered.answer.body, landing).await;
    outcome?;
    let route = route(&uri, &answered);
    answered.keep_connection(pool);
    Ok(Some(Opened { identity, route, first: bytes_of(landing) }))
}

/// A window for a small read of `len` bytes; at least one.
pub(super) fn small_window(len: usize) -> Result<Window> {
    let ring = Ring::new(len.next_multiple_of(PAGE_BYTES), PAGE_BYTES)?;
    let windows = ring.allocate(len).map(|slot| slot.into_windows(&[len]));
    windows.and_then(|mut windows| windows.pop()).ok_or_else(|| {
        Error::new(ErrorKind::OutOfMemory, format!("no memory for {len} bytes of a header"))
    })
}

/// The bytes of a landing in a small window.
pub(super) fn bytes_of(landing: Landing) -> Bytes {
    let len = landing.got();
    let (window, _) = landing.into_parts();
    let full = window.complete();
    full.map(|full| Bytes::copy_from_slice(full.bytes(0..len))).unwrap_or_default()
}
