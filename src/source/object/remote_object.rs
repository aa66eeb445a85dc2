//! Requests ranges of an object, with redirects and hedged requests.
//!
//! The target of redirects (a CDN, a signed URL) is remembered and requested directly. When that
//! server refuses, as happens when a signed URL expires, the redirects are followed again.
//!
//! ```text
//! request_hedged: request, repeated on another connection when the response is late
//!   request: at the remembered URL, else at the store's; the head is checked
//! ```

use super::identity::{Mismatch, ObjectIdentity};
use super::open::{Opened, open_once};
use super::range::{self, ContentRange};
use crate::error::{Error, ErrorKind, Result, option};
use crate::location::{Location, ObjectUri};
use crate::options::PinBy;
use crate::source::counters::LoadCounters;
use crate::source::http::{
    Attempted, Client, Repeat, RetryState, ServerOrigin, ServerResponse, ServerState,
    TransportError,
};
use crate::source::purpose::Purpose;
use crate::source::stop::{Stop, stopped};
use crate::source::store::Store;
use crate::source::verify::{ChecksumVerifier, ExpectedSum};
use crate::sync::Mutex;
use bytes::Bytes;
use http::{StatusCode, Uri};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often a changed object is requested again, to see whether several servers have copies of it.
const COPY_REQUESTS: usize = 3;

/// How often a request without a response is checked for being late.
const LATE_CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// A timer that is so late has waited for a processor.
const OVERSLEPT_MIN: Duration = Duration::from_millis(10);

/// The state with which ranges are read.
pub(super) struct ReadContext<'a, S> {
    pub sockets: &'a S,
    pub counters: &'a LoadCounters,
    pub stop: &'a Stop,
}

impl<S> ReadContext<'_, S> {
    /// Awaits `work` unless the load is stopped first.
    ///
    /// # Errors
    /// [`Cancelled`](ErrorKind::Cancelled) when the load is stopped.
    pub async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.stop.stopped() => Err(stopped()),
        }
    }
}

/// A range of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestedRange {
    pub offset: u64,
    pub len: u64,
}

/// An object of known length and identity, and how to request it.
pub(super) struct Object {
    pub client: Arc<Client>,
    pub location: Location,
    pub identity: ObjectIdentity,
    pub store: Arc<dyn Store>,
    key: String,
    /// The URL on another server to which the store redirected.
    route: Mutex<Option<Uri>>,
    /// Whether the server has refused preconditions, which then are compared in its responses alone.
    lacks_preconditions: AtomicBool,
}

impl Object {
    /// Opens the object `uri` of `store` with a request for its first `first_bytes`, and returns
    /// these bytes too. If the object still has the identity `known`, no bytes are sent. Runs on
    /// the control thread's runtime.
    ///
    /// # Errors
    /// The errors of the store; [`Unsupported`](ErrorKind::Unsupported) for a server
    /// without ranges.
    pub async fn open(
        client: Arc<Client>,
        store: Arc<dyn Store>,
        uri: ObjectUri,
        first_bytes: u64,
        known: Option<ObjectIdentity>,
        purpose: Purpose,
    ) -> Result<(Self, Bytes)> {
        let doing = format!("open {uri}");
        let key = uri.key().to_owned();
        let counting = Arc::clone(&client);
        let mut retry = RetryState::new(&doing, client.options.retries, counting.counters());
        let mut repeated = false;
        loop {
            let server = client.server(&ServerOrigin::of(&store.url(&key)?));
            server.concurrency.turn(repeated).await;
            repeated = true;
            let opening = server.open_object();
            let opened =
                open_once(&client, &*store, &key, first_bytes, known.as_ref(), purpose).await;
            drop(opening);
            match opened {
                Ok(opened) => {
                    server.succeeded();
                    let opened = opened.or(known.map(Opened::without_bytes));
                    let Some(Opened { identity, route, first }) = opened else {
                        // Not reached: without `known`, an object is never reported as unchanged.
                        return Err(Mismatch::Etag.error(&uri.into()));
                    };
                    identity.check_pinned(&client.options, &Location::Object(uri.clone()))?;
                    let object = Self::known(client, store, uri, identity);
                    *object.route.lock() = route;
                    return Ok((object, first));
                }
                Err(failure) => sleep(retry.after(failure, &*store, &server)?).await,
            }
        }
    }

    /// The object `uri` of `store`, assumed to have `identity`, without a request. If it has been
    /// replaced, reading it fails.
    pub fn known(
        client: Arc<Client>,
        store: Arc<dyn Store>,
        uri: ObjectUri,
        identity: ObjectIdentity,
    ) -> Self {
        let (key, location) = (uri.key().to_owned(), Location::Object(uri));
        let (route, lacks_preconditions) = (Mutex::default(), AtomicBool::default());
        Self { client, location, identity, store, key, route, lacks_preconditions }
    }

    /// The kind of store.
    pub fn kind(&self) -> &'static str {
        self.store.kind()
    }

    /// What tells the object from a replacement, as far as the options compare it.
    pub fn version(&self) -> String {
        self.identity.version(self.pin())
    }

    /// Whether anything but its length tells the object from a replacement.
    pub fn is_pinned(&self) -> bool {
        self.identity.has_validator(self.pin())
    }

    /// A verifier of the object's bytes.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) if the store has no checksum of the object; else those
    /// of the store.
    pub async fn verifier(&self) -> Result<ChecksumVerifier> {
        let expected = self.store.checksum(&self.client, &self.key).await?.ok_or_else(|| {
            let upload = match self.kind() {
                "http" => "", // web servers keep no checksums
                _ => ", or upload it with one (for S3: aws s3 cp --checksum-algorithm CRC64NVME)",
            };
            let sentence = format!(
                "{} has no checksum of the whole object in its store; load it without {}, or write \
                 a manifest with ringload sum and load with {}{upload}",
                self.location,
                option("verify").on(),
                option("manifest")
            );
            Error::new(ErrorKind::Unsupported, sentence)
        })?;
        let expected = ExpectedSum::of_store(expected);
        ChecksumVerifier::new(self.location.clone(), self.identity.len_bytes, expected)
    }

    /// The state of the object's server.
    ///
    /// # Errors
    /// When the store cannot name the object's URL.
    pub fn server(&self) -> Result<Arc<ServerState>> {
        Ok(self.client.server(&ServerOrigin::of(&self.store.url(&self.key)?)))
    }

    /// Requests a range, and again on another connection when the response is late. Returns the first
    /// success, and how it was repeated if it was, and closes the other connection.
    pub async fn request_hedged<S>(
        &self,
        context: &ReadContext<'_, S>,
        server: &ServerState,
        range: RequestedRange,
    ) -> Attempted<(ServerResponse, Option<Repeat>)> {
        let began = Instant::now();
        let answered = self.hedged(context, server, range).await?;
        server.hedging.record(began.elapsed());
        Ok(answered)
    }

    async fn hedged<S>(
        &self,
        context: &ReadContext<'_, S>,
        server: &ServerState,
        range: RequestedRange,
    ) -> Attempted<(ServerResponse, Option<Repeat>)> {
        let began = Instant::now();
        let mut first = pin!(async { Ok((self.request(range).await?, None)) });
        // For how long the client had no processor, and so did not look at the socket.
        let mut starved = Duration::ZERO;
        loop {
            // Other responses may tell meanwhile what is late, or fill the budget.
            let late = server.hedging.late_after().map(|late| late + starved);
            let left = late.map(|late| late.saturating_sub(began.elapsed()));
            let nap = left.unwrap_or_default().max(LATE_CHECK_INTERVAL);
            let overslept = tokio::select! {
                biased;
                answered = first.as_mut() => return answered,
                overslept = overslept(nap) => overslept,
            };
            if !overslept.is_zero() {
                // The answer may have come, or may be delayed by what the client did not do.
                starved += overslept + late.unwrap_or_default().saturating_sub(starved) / 2;
                continue;
            }
            if late.is_none_or(|late| began.elapsed() < late) {
                continue;
            }
            if let Some(repeat) = server.hedging.try_repeat() {
                context.counters.retry("hedged");
                let second = Box::pin(async {
                    // This response may be late, too.
                    let (answered, repeated) = self.hedged(context, server, range).await?;
                    Ok((answered, repeated.or(Some(repeat))))
                });
                return first_success(first, second).await;
            }
        }
    }

    /// Requests a range and checks the head of the response.
    async fn request(&self, range: RequestedRange) -> Attempted<ServerResponse> {
        // Other requests may find out meanwhile that the server refuses preconditions.
        let conditional = !self.lacks_preconditions.load(Ordering::Relaxed);
        let attempt = |uri, trusted| {
            let mut request = range::request(uri, range.offset, range.len);
            if conditional {
                self.identity.require_unchanged(self.pin(), request.headers_mut());
            }
            self.client.attempt(&*self.store, request, trusted)
        };
        let route = self.route.lock().clone();
        if let Some(uri) = route {
            let answered = attempt(uri, false).await?;
            let status = answered.response.status();
            if !status.is_client_error() {
                return self.checked(answered, range, conditional).await;
            }
            tracing::debug!(location = %self.location, %status, "following the redirects again");
            *self.route.lock() = None;
        }
        let uri = self.store.url(&self.key)?;
        let answered = attempt(uri.clone(), true).await?;
        *self.route.lock() = answered.redirected_from(&uri);
        self.checked(answered, range, conditional).await
    }

    /// The error of a response that does not match the object. A server with another copy of the
    /// object is told apart from a replacement: an object that was replaced does not come back.
    async fn explained(&self, mismatch: &Mismatch, offset: u64) -> Error {
        for _ in 0..if mismatch.may_be_a_copy() { COPY_REQUESTS } else { 0 } {
            let Ok(uri) = self.store.url(&self.key) else { break };
            let request = range::request(uri, offset, 1);
            let Ok(answered) = self.client.attempt(&*self.store, request, true).await else {
                break;
            };
            let headers = answered.response.headers();
            let total_bytes = ContentRange::of(headers).and_then(|range| range.total_bytes);
            if answered.response.status() == StatusCode::PARTIAL_CONTENT
                && self.identity.check(self.pin(), headers, total_bytes).is_ok()
            {
                return mismatch.error_of_copies(&self.location);
            }
        }
        mismatch.error(&self.location)
    }

    fn pin(&self) -> PinBy {
        self.client.options.pin()
    }

    /// Returns the response if its body is exactly the requested range of this object. The request was
    /// `conditional` if it required the object to be unchanged.
    async fn checked(
        &self,
        answered: ServerResponse,
        wanted: RequestedRange,
        conditional: bool,
    ) -> Attempted<ServerResponse> {
        let (headers, origin) = (answered.response.headers(), &answered.origin);
        let range = ContentRange::of(headers);
        let mismatch = match answered.response.status() {
            StatusCode::PARTIAL_CONTENT => {
                range::refuse_encoding(headers, origin)?;
                let total_bytes = range.and_then(|range| range.total_bytes);
                self.identity.check(self.pin(), headers, total_bytes).err()
            }
            StatusCode::OK => {
                let whole = self.identity.len_bytes;
                match self.identity.check(self.pin(), headers, Some(whole)) {
                    Ok(()) => return Err(range::no_ranges(origin)),
                    Err(mismatch) => Some(mismatch),
                }
            }
            StatusCode::PRECONDITION_FAILED => Some(self.identity.failed_precondition()),
            StatusCode::RANGE_NOT_SATISFIABLE => Some(Mismatch::Length),
            StatusCode::NOT_IMPLEMENTED if conditional => {
                self.lacks_preconditions.store(true, Ordering::Relaxed);
                let sentence = format!("{origin} does not implement If-Match");
                return Err(TransportError::transient("no preconditions", sentence).into());
            }
            _ => return Err(self.client.error_response(answered).await.into()),
        };
        if let Some(mismatch) = mismatch {
            drop(answered); // its body is not read
            return Err(self.explained(&mismatch, wanted.offset).await.into());
        }
        match range::fits(&answered.response, wanted.offset, wanted.len) {
            true => Ok(answered),
            false => Err(range::wrong_range(origin, headers)),
        }
    }
}

/// Sleeps for `time`. Returns how much longer that took because the client had no processor, if it is
/// more than a timer may be late.
pub(super) async fn overslept(time: Duration) -> Duration {
    let began = Instant::now();
    sleep(time).await;
    let overslept = began.elapsed().saturating_sub(time);
    if overslept < OVERSLEPT_MIN { Duration::ZERO } else { overslept }
}

/// The first success of the two, or the failure of the second to fail.
async fn first_success<T>(
    mut a: Pin<&mut impl Future<Output = Attempted<T>>>,
    mut b: Pin<Box<impl Future<Output = Attempted<T>>>>,
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
