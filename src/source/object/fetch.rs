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
use super::landing::Landing;
use super::open::{Opened, open_once};
use super::range::{self, ContentRange};
use super::receive::{Kernel, Receiver};
use super::verify::Check;
use crate::error::{Error, ErrorKind, Result};
use crate::location::{Location, ObjectUri};
use crate::source::http::{Answered, Client, Failure, Host, Origin, Pool, Tries};
use crate::source::store::Store;
use crate::source::{LoadCounters, Stop, stopped};
use bytes::Bytes;
use http::{StatusCode, Uri};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::{Instant, sleep};

/// A broken range that brought at least this much was not without progress.
const PROGRESS_BYTES: usize = 256 << 10;

pub(super) type Attempted<T> = std::result::Result<T, Failure>;

/// What ranges are read with.
pub(super) struct With<'a, K> {
    pub kernel: &'a K,
    pub pool: &'a Pool,
    pub counters: &'a LoadCounters,
    pub stop: &'a Stop,
}

impl<K> With<'_, K> {
    /// What `work` gives, unless the load is stopped before.
    ///
    /// # Errors
    /// [`Cancelled`](ErrorKind::Cancelled) when it is.
    pub async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.stop.stopped() => Err(stopped()),
        }
    }
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
    /// as well; none where it is still what it is `known` as. Runs on the control thread's runtime.
    ///
    /// # Errors
    /// What the store says; [`Unsupported`](crate::ErrorKind::Unsupported) for a server without
    /// ranges.
    pub async fn open(
        client: Arc<Client>,
        store: Arc<dyn Store>,
        uri: ObjectUri,
        first_bytes: u64,
        known: Option<Identity>,
    ) -> Result<(Self, Bytes)> {
        let doing = format!("open {uri}");
        let key = uri.key().to_owned();
        let retries = client.options.retries;
        let asking = Arc::clone(&client);
        let mut tries = Tries::new(&doing, retries, asking.counters());
        loop {
            let origin = Origin::of(&store.url(&key)?);
            let host = client.host(&origin);
            match open_once(&client, &*store, &key, first_bytes, known.as_ref()).await {
                Ok(opened) => {
                    host.succeeded();
                    let same = |identity| Opened { identity, route: None, first: Bytes::new() };
                    let Some(Opened { identity, route, first }) = opened.or(known.map(same)) else {
                        // Not reached: nothing was said that it could be the same as.
                        return Err(changed(&uri.into(), "its ETag"));
                    };
                    let object = Self::known(client, store, uri, identity);
                    *object.route() = route;
                    return Ok((object, first));
                }
                Err(failure) => sleep(tries.after(failure, &*store, &host)?.wait).await,
            }
        }
    }

    /// The object `uri` of `store`, which is known as `identity`; nobody is asked. If it is another
    /// one by now, reading it says so.
    pub fn known(
        client: Arc<Client>,
        store: Arc<dyn Store>,
        uri: ObjectUri,
        identity: Identity,
    ) -> Self {
        let key = uri.key().to_owned();
        Self {
            client,
            location: Location::Object(uri),
            identity,
            store,
            key,
            route: Mutex::default(),
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

    /// Fills `landing` with the bytes from `offset`, as often as it takes; they lie within the
    /// object.
    ///
    /// # Errors
    /// [`Changed`](crate::ErrorKind::Changed) where the object was replaced; what is left when
    /// retries are used up; [`Cancelled`](crate::ErrorKind::Cancelled) when told to stop.
    pub async fn read<K: Kernel>(
        &self,
        with: &With<'_, K>,
        offset: u64,
        mut landing: Landing,
    ) -> (Result<()>, Landing) {
        let doing = format!("read {}", self.location);
        let mut tries = Tries::new(&doing, self.client.options.retries, with.counters);
        let start = offset - landing.got() as u64;
        while landing.left() > 0 {
            let got = landing.got();
            let outcome;
            (outcome, landing) = self.read_once(with, start + got as u64, landing).await;
            let Err(failure) = outcome else { continue };
            if landing.got() - got >= PROGRESS_BYTES {
                tries.progressed();
            }
            if let Err(error) = self.recover(with, &mut tries, failure).await {
                return (Err(error), landing);
            }
        }
        (Ok(()), landing)
    }

    /// Waits until it makes sense to ask again after `failure`.
    async fn recover<K>(
        &self,
        with: &With<'_, K>,
        tries: &mut Tries<'_>,
        failure: Failure,
    ) -> Result<()> {
        let host = self.host()?;
        let again = tries.after(failure, &*self.store, &host)?;
        if again.throttled {
            host.gate.throttled();
        }
        with.unless_stopped(sleep(again.wait)).await
    }

    /// One attempt to fill `landing`.
    async fn read_once<K: Kernel>(
        &self,
        with: &With<'_, K>,
        offset: u64,
        landing: Landing,
    ) -> (Attempted<()>, Landing) {
        let host = match self.host() {
            Ok(host) => host,
            Err(error) => return (Err(error.into()), landing),
        };
        let (got, left) = (landing.got(), landing.left() as u64);
        let asking = async {
            let inside = host.gate.enter().await;
            Ok((inside, self.ask_in_time(with, &host, offset, left).await?))
        };
        let answered = with.unless_stopped(asking).await.map_err(Failure::from).flatten();
        let (_inside, mut answered) = match answered {
            Ok(answered) => answered,
            Err(failure) => return (Err(failure), landing),
        };
        let (limits, origin) = (&self.client.options.retries, &answered.origin);
        let receiver = Receiver { kernel: with.kernel, stop: with.stop, limits, origin };
        let (outcome, landing) = receiver.receive(&mut answered.answer.body, landing).await;
        host.gate.brought((landing.got() - got) as u64);
        if outcome.is_ok() {
            host.succeeded();
            answered.keep_connection(with.pool);
        }
        (outcome, landing)
    }

    /// What is remembered of its server.
    fn host(&self) -> Result<Arc<Host>> {
        Ok(self.client.host(&Origin::of(&self.store.url(&self.key)?)))
    }

    /// Asks for a range, and once more on another connection when the answer is late; the first
    /// good answer counts. The other one's connection is closed: its body is not wanted.
    async fn ask_in_time<K>(
        &self,
        with: &With<'_, K>,
        host: &Host,
        offset: u64,
        len: u64,
    ) -> Attempted<Answered> {
        let With { pool, counters, .. } = with;
        let began = Instant::now();
        let mut first = pin!(self.ask(pool, offset, len));
        let answered = match host.tail.late_after() {
            None => first.await?,
            Some(late) => tokio::select! {
                biased;
                answered = first.as_mut() => answered?,
                () = sleep(late) => {
                    if host.tail.take_second() {
                        counters.retry("late");
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
pub(super) fn route(uri: &Uri, answered: &Answered) -> Option<Uri> {
    let elsewhere = Origin::of(uri) != answered.origin;
    (elsewhere && answered.answer.head.status.is_success()).then(|| answered.uri.clone())
}
