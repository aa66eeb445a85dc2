//! An object: opened by its first range, then asked for others, with retries and redirects.
//!
//! Where redirects led (a CDN, a signed URL) is kept and asked directly. When that refuses, as a
//! signed URL does once it has run out, the way there is asked for again.
//!
//! ```text
//! read: until all is there, with retries
//!   gate: a place among the connections
//!     ask_in_time: ask, and ask again elsewhere when the answer is late
//!       ask: the known route, else the store's URL; the head is checked
//!     receive: the body, into place
//! ```

use super::identity::{Identity, changed};
use super::range::{self, ContentRange};
use super::receive::receive;
use super::verify::{Check, Part};
use crate::error::{Error, ErrorKind, Result};
use crate::location::{Location, ObjectUri};
use crate::source::Tally;
use crate::source::http::{Answered, Client, Failure, Host, Origin, Pool, Tries};
use crate::source::store::Store;
use bytes::Bytes;
use http::{StatusCode, Uri};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::{Instant, sleep};

/// A broken range that brought at least this much was not without progress.
const PROGRESS_BYTES: usize = 256 << 10;

type Attempted<T> = std::result::Result<T, Failure>;

/// What an attempt is made with.
struct Asking<'a> {
    pool: &'a Pool,
    tally: &'a Tally,
    host: &'a Host,
}

/// An object of known length and identity, and how to ask for it.
pub(super) struct Object {
    pub client: Arc<Client>,
    pub location: Location,
    pub identity: Identity,
    store: Arc<dyn Store>,
    key: String,
    route: Mutex<Option<Uri>>,
}

impl Object {
    /// Opens the object `uri` of `store` with a request for its first `first_bytes`, which are given
    /// as well. Runs on the control thread's runtime.
    ///
    /// # Errors
    /// What the store says; [`Unsupported`](crate::ErrorKind::Unsupported) for a server without
    /// ranges.
    pub async fn open(
        client: Arc<Client>,
        store: Arc<dyn Store>,
        uri: ObjectUri,
        first_bytes: u64,
    ) -> Result<(Self, Bytes)> {
        let doing = format!("open {uri}");
        let key = uri.key().to_owned();
        let retries = client.options.retries;
        let asking = Arc::clone(&client);
        let mut tries = Tries::new(&doing, retries, asking.tally());
        loop {
            let origin = Origin::of(&store.url(&key)?);
            let host = client.host(&origin);
            match open_once(&client, &*store, &key, first_bytes).await {
                Ok((identity, route, first)) => {
                    host.succeeded();
                    let (location, route) = (Location::Object(uri), Mutex::new(route));
                    return Ok((Self { client, location, identity, store, key, route }, first));
                }
                Err(failure) => sleep(tries.after(failure, &*store, &host)?.wait).await,
            }
        }
    }

    /// What the store is, in a word.
    pub fn kind(&self) -> &'static str {
        self.store.kind()
    }

    /// What its bytes are to be checked against.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) where the store keeps no checksum of it; else what the
    /// store says.
    pub async fn check(&self) -> Result<Check> {
        let expected = self.store.checksum(&self.client, &self.key).await?.ok_or_else(|| {
            let sentence = format!(
                "{} has no checksum of the whole object in its store; load it without --verify, or \
                 upload it with one (for S3: --checksum-algorithm CRC64NVME)",
                self.location
            );
            Error::new(ErrorKind::Unsupported, sentence)
        })?;
        Ok(Check::new(self.location.clone(), self.identity.len_bytes, expected))
    }

    /// Fills `into` with the bytes from `offset`, as often as it takes; they lie within the object.
    /// `part` gets every piece once, in order, soon after it has come.
    ///
    /// # Errors
    /// [`Changed`](crate::ErrorKind::Changed) where the object was replaced; what is left when
    /// retries are used up.
    pub async fn read(
        &self,
        pool: &Pool,
        tally: &Tally,
        offset: u64,
        into: &mut [u8],
        part: &mut Part,
    ) -> Result<()> {
        let doing = format!("read {}", self.location);
        let mut tries = Tries::new(&doing, self.client.options.retries, tally);
        let mut filled = 0;
        while filled < into.len() {
            let origin = Origin::of(&self.store.url(&self.key)?);
            let host = self.client.host(&origin);
            let asking = Asking { pool, tally, host: &host };
            let (at, mut got) = (offset + filled as u64, 0);
            let inside = host.gate.enter().await;
            let before = part.clone();
            let outcome = self.read_once(&asking, at, &mut into[filled..], &mut got, part).await;
            drop(inside);
            host.gate.brought(got as u64);
            filled += got;
            if got == 0 {
                *part = before; // what came is to be asked for again
            }
            let Err(failure) = outcome else {
                host.succeeded();
                continue;
            };
            if got >= PROGRESS_BYTES {
                tries.progressed();
            }
            let again = tries.after(failure, &*self.store, &host)?;
            if again.throttled {
                host.gate.throttled();
            }
            sleep(again.wait).await;
        }
        Ok(())
    }

    async fn read_once(
        &self,
        asking: &Asking<'_>,
        offset: u64,
        into: &mut [u8],
        got: &mut usize,
        part: &mut Part,
    ) -> Attempted<()> {
        let mut answered = self.ask_in_time(asking, offset, into.len() as u64).await?;
        let limits = &self.client.options.retries;
        receive(&mut answered, limits, into, got, &mut |piece| part.update(piece)).await?;
        answered.keep_connection(asking.pool);
        Ok(())
    }

    /// Asks for a range, and once more on another connection when the answer is late; the first
    /// good answer counts. The other one's connection is closed: its body is not wanted.
    async fn ask_in_time(&self, asking: &Asking<'_>, offset: u64, len: u64) -> Attempted<Answered> {
        let Asking { pool, tally, host } = asking;
        let began = Instant::now();
        let mut first = pin!(self.ask(pool, offset, len));
        let answered = match host.tail.late_after() {
            None => first.await?,
            Some(late) => tokio::select! {
                biased;
                answered = first.as_mut() => answered?,
                () = sleep(late) => {
                    if host.tail.take_second() {
                        tally.retry("late");
                        first_good(first, pin!(self.ask(pool, offset, len))).await?
                    } else {
                        first.await?
                    }
                }
            },
        };
        host.tail.record(began.elapsed());
        Ok(answered)
    }

    /// Asks for a range; the answer is the one to read.
    async fn ask(&self, pool: &Pool, offset: u64, len: u64) -> Attempted<Answered> {
        let known = self.route().clone();
        if let Some(uri) = known {
            let answered = self.ask_at(pool, uri, false, offset, len).await?;
            if !answered.answer.head.status.is_client_error() {
                return self.checked(pool, answered, offset, len).await;
            }
            let status = answered.answer.head.status;
            tracing::debug!(location = %self.location, %status, "following the redirects again");
            *self.route() = None;
        }
        let uri = self.store.url(&self.key)?;
        let answered = self.ask_at(pool, uri.clone(), true, offset, len).await?;
        *self.route() = route(&uri, &answered);
        self.checked(pool, answered, offset, len).await
    }

    async fn ask_at(
        &self,
        pool: &Pool,
        uri: Uri,
        trusted: bool,
        offset: u64,
        len: u64,
    ) -> Attempted<Answered> {
        let mut request = range::request(uri, offset, len);
        self.identity.pin(request.headers_mut());
        self.client.attempt(pool, &*self.store, request, trusted).await
    }

    /// Lets an answer pass that brings exactly the bytes asked for, of this object.
    async fn checked(
        &self,
        pool: &Pool,
        answered: Answered,
        offset: u64,
        len: u64,
    ) -> Attempted<Answered> {
        let (headers, origin) = (&answered.answer.head.headers, &answered.origin);
        let range = ContentRange::of(headers);
        match answered.answer.head.status {
            StatusCode::PARTIAL_CONTENT => {}
            StatusCode::OK => {
                self.identity.check(headers, None, &self.location)?;
                return Err(range::no_ranges(origin));
            }
            StatusCode::PRECONDITION_FAILED => {
                return Err(changed(&self.location, "its ETag").into());
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                return Err(changed(&self.location, "its length").into());
            }
            _ => return Err(self.client.refusal(pool, answered).await.into()),
        }
        range::refuse_encoding(headers, origin)?;
        self.identity.check(headers, range.and_then(|range| range.total_bytes), &self.location)?;
        let body_bytes = answered.answer.body.left();
        let fits = range.is_some_and(|range| range.first == offset && range.len_bytes() == len)
            && body_bytes.is_none_or(|bytes| bytes == len);
        if fits { Ok(answered) } else { Err(range::wrong_range(origin)) }
    }

    fn route(&self) -> MutexGuard<'_, Option<Uri>> {
        self.route.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whichever succeeds first; if none does, how the last one failed.
async fn first_good<T, F: Future<Output = Attempted<T>>>(
    mut a: Pin<&mut F>,
    mut b: Pin<&mut F>,
) -> Attempted<T> {
    tokio::select! {
        answer = a.as_mut() => match answer {
            Err(_) => b.await,
            answer => answer,
        },
        answer = b.as_mut() => match answer {
            Err(_) => a.await,
            answer => answer,
        },
    }
}

/// Where redirects from `uri` led, if it is another server. One on the same server is followed each
/// time, as it wants the same authorization.
fn route(uri: &Uri, answered: &Answered) -> Option<Uri> {
    let elsewhere = Origin::of(uri) != answered.origin;
    (elsewhere && answered.answer.head.status.is_success()).then(|| answered.uri.clone())
}

async fn open_once(
    client: &Arc<Client>,
    store: &dyn Store,
    key: &str,
    first_bytes: u64,
) -> Attempted<(Identity, Option<Uri>, Bytes)> {
    let (pool, uri) = (client.pool(), store.url(key)?);
    let request = range::request(uri.clone(), 0, first_bytes);
    let mut answered = client.attempt(pool, store, request, true).await?;
    let head = &answered.answer.head;
    let whole = head.status == StatusCode::OK;
    let total_bytes = match head.status {
        StatusCode::PARTIAL_CONTENT => {
            ContentRange::of(&head.headers).and_then(|range| range.total_bytes)
        }
        // A server may send a whole object of less than the range; a longer one is no answer.
        StatusCode::OK => answered.answer.body.left().filter(|&bytes| bytes <= first_bytes),
        StatusCode::RANGE_NOT_SATISFIABLE => match range::unsatisfied_total(&head.headers) {
            Some(0) => return Ok((Identity::of(&head.headers, 0), None, Bytes::new())),
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
    let fits = whole
        || ContentRange::of(&head.headers)
            .is_some_and(|range| range.first == 0 && range.len_bytes() == len);
    if !fits || answered.answer.body.left().is_some_and(|bytes| bytes != len) {
        return Err(range::wrong_range(&answered.origin));
    }
    let mut first = vec![0; len as usize];
    let limits = &client.options.retries;
    receive(&mut answered, limits, &mut first, &mut 0, &mut |_| {}).await?;
    let route = route(&uri, &answered);
    answered.keep_connection(pool);
    Ok((identity, route, first.into()))
}
