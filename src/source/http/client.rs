//! The client: the state that all requests of a loader share, and the sending of one request.
//!
//! ```text
//! fetch (a small request)       ObjectReader (a range, in source::object)
//!     \                          /
//!      attempt: authorize -> send -> follow redirects
//!                              |
//!                pool (an idle connection), ahead or connect, then send_request
//! ```

use super::ahead::AHEAD_MAX;
use super::attempt_error::{AttemptError, Attempted, TransportError};
use super::body::Body;
use super::connect::Connector;
use super::control::ControlThread;
use super::origin::ServerOrigin;
use super::pool::Pool;
use super::request::send_request;
use super::server::ServerState;
use super::stall::StallTimeout;
use crate::error::{Error, ErrorKind, Result, Size};
use crate::options::RemoteOptions;
use crate::source::cancellation::Cancellation;
use crate::source::counters::LoadCounters;
use crate::sync::Mutex;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, Version, header};
use http_body_util::Full;
use std::collections::HashMap;
use std::future::Future;
#[cfg(feature = "s3")]
use std::path::Path;
use std::sync::{Arc, OnceLock};
use tokio::time::{Instant, sleep, timeout};

/// The HTTP client that all requests of a loader share.
pub(crate) struct Client {
    pub options: RemoteOptions,
    connector: Arc<Connector>,
    servers: Mutex<HashMap<ServerOrigin, Arc<ServerState>>>,
    control: OnceLock<ControlThread>,
    pool: Arc<Pool>,
    counters: LoadCounters,
}

impl Client {
    /// A client with `options`.
    pub fn new(options: RemoteOptions) -> Arc<Self> {
        Arc::new(Self {
            connector: Arc::new(Connector::new(options.clone())),
            options,
            servers: Mutex::default(),
            control: OnceLock::new(),
            pool: Arc::default(),
            counters: LoadCounters::default(),
        })
    }

    /// Runs `work` on the thread for small requests and blocks until it is done or cancelled.
    ///
    /// # Errors
    /// The errors of `work`, or of starting the thread; [`Cancelled`](ErrorKind::Cancelled).
    pub fn block_on<T: Send + 'static>(
        &self,
        cancellation: &Cancellation,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.control()?.block_on(cancellation.ending(work))
    }

    /// Runs `work` on the thread for small requests; may be awaited on any runtime.
    ///
    /// # Errors
    /// The errors of `work`, or of starting the thread.
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

    /// Trusts the certificates in the file `bundle`, too, which the AWS profile names.
    #[cfg(feature = "s3")]
    pub fn trust_also(&self, bundle: &Path) {
        self.connector.trust_also(bundle);
    }

    /// Keeps the connection of a response from `origin` for the next request, if it can be reused.
    pub(super) fn keep(&self, origin: &ServerOrigin, body: Body) {
        let kept = body.into_connection().is_some_and(|stream| self.pool.keep(origin, stream));
        if kept && let Ok(control) = self.control() {
            control.spawn(Pool::close_old(Arc::downgrade(&self.pool)));
        }
    }

    /// Opens connections to the server of `uri` ahead, as many as the requests for `bytes` will use of
    /// those that are not open yet.
    pub fn open_ahead(&self, uri: &Uri, bytes: u64) {
        let origin = ServerOrigin::of(uri);
        let server = self.server(&origin);
        let wanted = server.concurrency.connections_of(bytes);
        let open = server.opening() + self.pool.idle(&origin);
        let Ok(control) = self.control() else { return };
        for made in self.pool.ahead.add(&origin, wanted.saturating_sub(open)) {
            let (connector, uri) = (Arc::clone(&self.connector), uri.clone());
            let (pool, limit) = (Arc::downgrade(&self.pool), self.options.retries.connect);
            control.spawn(async move {
                // A failure is left to the request that finds no connection, and makes its own.
                if let Ok(Ok(mut stream)) = timeout(limit, connector.connect(&uri)).await
                    && stream.leave_runtime().is_ok()
                    && made.send(stream).is_ok()
                {
                    sleep(AHEAD_MAX).await;
                    pool.upgrade().iter().for_each(|pool| pool.ahead.close_old());
                }
            });
        }
    }

    /// Counts the retries of small requests.
    pub fn counters(&self) -> &LoadCounters {
        &self.counters
    }

    fn control(&self) -> Result<&ControlThread> {
        if let Some(control) = self.control.get() {
            return Ok(control);
        }
        let control = ControlThread::start()?;
        Ok(self.control.get_or_init(|| control))
    }

    /// The state that is kept for the server at `origin`.
    pub fn server(&self, origin: &ServerOrigin) -> Arc<ServerState> {
        let mut servers = self.servers.lock();
        let made = || {
            let server = ServerState::new(self.options.connections);
            if origin.is_encrypted() {
                server.concurrency.encrypt();
            }
            Arc::new(server)
        };
        Arc::clone(servers.entry(origin.clone()).or_insert_with(made))
    }

    /// Sends a request to a credential server unchanged, without authorization, retries or
    /// redirects. Returns the response with any status. Runs on the control thread's runtime only.
    ///
    /// # Errors
    /// When there is no response.
    #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
    pub async fn send_plain(&self, request: Request<Bytes>) -> Result<Response<Bytes>> {
        use super::sent_secrets::SentSecrets;
        let (head, body) = request.into_parts();
        let origin = ServerOrigin::of(&head.uri);
        let doing = format!("ask {origin} for credentials");
        let clean = |mut response: Response<Bytes>| {
            let secrets = SentSecrets::of(&head, &body);
            if !response.status().is_success() {
                secrets.remove_from_headers(response.headers_mut());
                response = response.map(|body| secrets.removed_from_body(body));
            }
            response
        };
        let outcome = match self.send(&origin, &head, &body).await {
            Ok(response) => self.collect(&origin, response, 1 << 20).await.map(clean),
            Err(failure) => Err(failure),
        };
        outcome.map_err(|failure| match failure {
            AttemptError::Transport(error) => error.into_error(&doing),
            AttemptError::Response(_) => Error::new(ErrorKind::Io, format!("cannot {doing}")),
            AttemptError::Final(error) => error,
        })
    }

    /// Sends a request on an idle connection or a new one, and reads the head of the response.
    ///
    /// # Errors
    /// When there is no response.
    pub(super) async fn send(
        &self,
        origin: &ServerOrigin,
        head: &http::request::Parts,
        body: &Bytes,
    ) -> Attempted<Response<Body>> {
        let limits = &self.options.retries;
        let transient = |reason, sentence| TransportError::transient(reason, sentence);
        let server = self.server(origin);
        loop {
            let mut idle = self.pool.take(origin);
            let has_answered = idle.is_some();
            if idle.is_none() {
                let made = self.pool.ahead.take(origin);
                idle = self.pool.unless_in_the_way(origin, made).await;
            }
            let unused = self.pool.idle(origin) + self.pool.ahead.len(origin);
            if let Some(most) = server.concurrency.sends_beside(unused) {
                self.pool.close_idle(origin, most);
            }
            let reused = idle.is_some();
            let stream = match idle {
                Some(stream) => stream,
                None => {
                    let connecting = timeout(limits.connect, self.connector.connect(&head.uri));
                    let connected = self.pool.unless_in_the_way(origin, connecting).await;
                    let connected = connected.unwrap_or_else(|late| Err(Box::new(late)));
                    connected.map_err(|cause| AttemptError::connecting(origin, cause))?
                }
            };
            let sending = send_request(stream, self.wire(head, body.clone()));
            let sent = Instant::now();
            let answering = timeout(limits.first_byte, sending);
            let answered = match has_answered {
                true => answering.await,
                false => self.pool.unless_in_the_way(origin, answering).await,
            };
            let error = match answered {
                Ok(Ok(response)) => {
                    let took = sent.elapsed();
                    // However late it was, it says no more about the others.
                    let late = server.hedging.late_after().unwrap_or(took);
                    server.concurrency.answered(took.min(late));
                    return Ok(response);
                }
                Ok(Err(error)) if error.is_parse() => {
                    transient("no HTTP", format!("{origin} does not speak HTTP")).caused_by(error)
                }
                // The server closed the idle connection meanwhile, which is no failure.
                Ok(Err(_)) if reused => continue,
                Ok(Err(error)) => TransportError::closed(origin, error.into()),
                Err(_) => {
                    let seconds = limits.first_byte.as_secs_f64();
                    transient("timeout", format!("{origin} did not answer in {seconds} s"))
                }
            };
            return Err(error.into());
        }
    }

    /// The request as it is sent: in origin form with `Host`, or in absolute form to a proxy.
    fn wire(&self, head: &http::request::Parts, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = head.method.clone();
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = head.headers.clone();
        if let Some(authority) = head.uri.authority() {
            // Without the user name, which belongs in the Authorization header.
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

    /// Reads the whole body of a response, of at most `max_bytes`.
    ///
    /// # Errors
    /// When the body is longer, breaks off or stalls.
    pub(super) async fn collect(
        &self,
        origin: &ServerOrigin,
        response: Response<Body>,
        max_bytes: usize,
    ) -> Attempted<Response<Bytes>> {
        let (head, mut body) = response.into_parts();
        let mut bytes = Vec::new();
        let mut piece = vec![0; 16 << 10];
        let mut stall = StallTimeout::new(&self.options.retries, 0);
        loop {
            let read = tokio::select! {
                biased;
                read = body.read(&mut piece) => read,
                () = stall.expired(bytes.len()) => {
                    let sentence = format!("{origin} stopped in mid-answer");
                    return Err(TransportError::transient("stalled", sentence).into());
                }
            };
            match read {
                Ok(0) => break,
                Ok(read) if bytes.len() + read > max_bytes => {
                    let sentence =
                        format!("{origin} answers with more than {}", Size(max_bytes as u64));
                    return Err(Error::new(ErrorKind::Unsupported, sentence).into());
                }
                Ok(read) => bytes.extend_from_slice(&piece[..read]),
                Err(cause) => {
                    let sentence = format!("{origin} broke off in mid-answer");
                    let error = TransportError::transient("reset", sentence);
                    return Err(error.caused_by(cause).into());
                }
            }
        }
        self.keep(origin, body);
        Ok(Response::from_parts(head, bytes.into()))
    }
}
