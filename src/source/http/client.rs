//! The client: what all requests of a loader share, and one attempt of a request.
//!
//! ```text
//! fetch (a small request)       ObjectReader (a range, in source::object)
//!     \                          /
//!      attempt: authorize -> send -> follow redirects
//!                              |
//!                pool (idle connection) or dial, then exchange
//! ```

use super::control::Control;
use super::dial::Connector;
use super::exchange::{Answer, exchange};
use super::failure::{Broken, Failure};
use super::host::Host;
use super::pace::Watch;
use super::pool::{Origin, Pool};
use crate::error::{Error, ErrorKind, Result};
use crate::options::RemoteOptions;
use crate::source::counters::LoadCounters;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, Version, header};
use http_body_util::Full;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::time::timeout;

/// What all requests of a loader share.
pub(crate) struct Client {
    pub options: RemoteOptions,
    connector: Connector,
    hosts: Mutex<HashMap<Origin, Arc<Host>>>,
    control: OnceLock<Control>,
    /// Of the control thread's runtime.
    pool: Pool,
    counters: LoadCounters,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Client {
    /// A client with `options`.
    pub fn new(options: RemoteOptions) -> Arc<Self> {
        Arc::new(Self {
            connector: Connector::new(options.clone()),
            options,
            hosts: Mutex::default(),
            control: OnceLock::new(),
            pool: Pool::default(),
            counters: LoadCounters::default(),
        })
    }

    /// Runs `work` on the thread for small requests and blocks until it is done.
    ///
    /// # Errors
    /// Those of `work`, or of starting the thread.
    pub fn block_on<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.control()?.block_on(work)
    }

    /// Runs `work` on the thread for small requests; may be awaited on any runtime.
    ///
    /// # Errors
    /// Those of `work`, or of starting the thread.
    #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
    pub async fn on_control<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match self.control()?.spawn(work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::new(ErrorKind::Io, "a small request panicked; this is a bug")),
        }
    }

    /// The idle connections of the control thread.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// What small requests had to repeat.
    pub fn counters(&self) -> &LoadCounters {
        &self.counters
    }

    fn control(&self) -> Result<&Control> {
        if let Some(control) = self.control.get() {
            return Ok(control);
        }
        let control = Control::start()?;
        Ok(self.control.get_or_init(|| control))
    }

    /// What is remembered of the server at `origin`.
    pub fn host(&self, origin: &Origin) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || Arc::new(Host::new(self.options.connections));
        Arc::clone(hosts.entry(origin.clone()).or_insert_with(made))
    }

    /// One request as it is: no authorization, no retries, no redirects; any status is an answer.
    /// For credential servers. Runs on the control thread's runtime only.
    ///
    /// # Errors
    /// When there is no answer.
    #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
    pub async fn send_plain(&self, request: Request<Bytes>) -> Result<Response<Bytes>> {
        let doing = format!("ask {} for credentials", Origin::of(request.uri()).as_str());
        let (head, body) = request.into_parts();
        let origin = Origin::of(&head.uri);
        let outcome = match self.send(&self.pool, &origin, &head, &body).await {
            Ok(answer) => self.collect(&self.pool, &origin, answer, 1 << 20).await,
            Err(failure) => Err(failure),
        };
        outcome.map_err(|failure| match failure {
            Failure::Broken(broken) => broken.into_error(&doing),
            Failure::Refused(_) => Error::new(ErrorKind::Io, format!("cannot {doing}")),
            Failure::Stopped(error) => error,
        })
    }

    /// Sends on an idle connection or a new one, and reads the head of the answer.
    pub(super) async fn send(
        &self,
        pool: &Pool,
        origin: &Origin,
        head: &http::request::Parts,
        body: &Bytes,
    ) -> std::result::Result<Answer, Failure> {
        let limits = &self.options.retries;
        loop {
            let idle = pool.take(origin);
            let reused = idle.is_some();
            let stream = match idle {
                Some(stream) => stream,
                None => {
                    let connecting = self.connector.connect(&head.uri);
                    let connected = timeout(limits.connect, connecting).await;
                    let connected = connected.unwrap_or_else(|late| Err(Box::new(late)));
                    connected.map_err(|cause| Broken::connecting(origin.as_str(), cause))?
                }
            };
            let request = self.wire(head, body.clone());
            match timeout(limits.first_byte, exchange(stream, request)).await {
                Ok(Ok(answer)) => return Ok(answer),
                // The server had closed it meanwhile: no fault of anyone's.
                Ok(Err(error)) if reused && !error.is_parse() => continue,
                Ok(Err(error)) => {
                    let parse = error.is_parse();
                    let (word, sentence) = match parse {
                        true => ("no HTTP", format!("{} does not speak HTTP", origin.as_str())),
                        false => (
                            "reset",
                            format!("{} closed the connection before it answered", origin.as_str()),
                        ),
                    };
                    return Err(Broken::passing(word, sentence).caused_by(error).into());
                }
                Err(_) => {
                    let seconds = limits.first_byte.as_secs_f64();
                    let sentence = format!("{} did not answer in {seconds} s", origin.as_str());
                    return Err(Broken::passing("timeout", sentence).into());
                }
            }
        }
    }

    /// The request as it goes on the wire: origin form and `Host`, absolute form for a proxy.
    fn wire(&self, head: &http::request::Parts, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = head.method.clone();
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = head.headers.clone();
        if let Some(authority) = head.uri.authority() {
            // Without a user's name, which is for the Authorization header.
            let host = authority.as_str().rsplit('@').next().unwrap_or_default();
            if let Ok(host) = HeaderValue::from_str(host) {
                request.headers_mut().insert(header::HOST, host);
            }
        }
        match self.connector.plain_proxy(&head.uri) {
            Some(proxy) => {
                *request.uri_mut() = head.uri.clone();
                if let Some(auth) = proxy.basic_auth() {
                    request.headers_mut().insert(header::PROXY_AUTHORIZATION, auth.clone());
                }
            }
            None => {
                let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
                *request.uri_mut() = Uri::try_from(path).unwrap_or_default();
            }
        }
        request
    }

    /// The whole body of an answer.
    pub(super) async fn collect(
        &self,
        pool: &Pool,
        origin: &Origin,
        mut answer: Answer,
        max_bytes: usize,
    ) -> std::result::Result<Response<Bytes>, Failure> {
        let mut bytes = Vec::new();
        let mut piece = vec![0; 16 << 10];
        let mut watch = Watch::new(&self.options.retries, 0);
        loop {
            let read = tokio::select! {
                biased;
                read = answer.body.read(&mut piece) => read,
                () = watch.stalled(bytes.len()) => {
                    let sentence = format!("{} stopped in mid-answer", origin.as_str());
                    return Err(Broken::passing("stalled", sentence).into());
                }
            };
            match read {
                Ok(0) => break,
                Ok(read) if bytes.len() + read > max_bytes => {
                    let sentence =
                        format!("{} answers with more than {max_bytes} bytes", origin.as_str());
                    return Err(Error::new(ErrorKind::Unsupported, sentence).into());
                }
                Ok(read) => bytes.extend_from_slice(&piece[..read]),
                Err(cause) => {
                    let sentence = format!("{} broke off in mid-answer", origin.as_str());
                    return Err(Broken::passing("reset", sentence).caused_by(cause).into());
                }
            }
        }
        pool.keep(origin, answer.body);
        Ok(Response::from_parts(answer.head, bytes.into()))
    }
}
