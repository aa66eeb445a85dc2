//! A web server of one object, in process, whose responses are scripted.
//!
//! ```text
//! FaultServer::start(bytes, |number, request| request.right().cut(100, End::Reset))
//! ```
//!
//! It speaks HTTP/1.1 on a loopback port that the system picks. [`Request::right`] is the
//! response of a good server (ranges, `ETag`, `If-Match`); a script changes it or returns another
//! one. Requests are numbered from 0 in the order of their arrival. On a paused clock,
//! [`serve`] runs as a task of the test's own runtime. [`FaultServer::start_tls`] speaks TLS.

// Not every test uses all of it.
#![allow(dead_code, unused_imports, clippy::unwrap_used, missing_docs)]

mod fault_reply;
mod fault_wire;

pub use fault_reply::{End, Framing, Reply};
use fault_wire::Wire;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

pub const ETAG: &str = "\"one\"";

/// A request that was received.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    headers: Vec<(String, String)>,
    pub connection: usize,
    /// Its number among those for the same target.
    pub nth: usize,
    pub at: Instant,
    object: Arc<Vec<u8>>,
}

impl Request {
    /// The header `name`, which is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name)?;
        Some(&found.1)
    }

    /// The first and the last byte that it asks for.
    pub fn range(&self) -> Option<(usize, usize)> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()?))
    }

    /// What a good server answers.
    pub fn right(&self) -> Reply {
        let total = self.object.len();
        if self.header("if-match").is_some_and(|etag| etag != ETAG) {
            return Reply::new(412);
        }
        if self.header("if-none-match") == Some(ETAG) {
            return Reply::new(304).with("ETag", ETAG);
        }
        match self.range() {
            Some((first, _)) if first >= total => {
                Reply::new(416).with("Content-Range", format!("bytes */{total}"))
            }
            Some((first, last)) => {
                let last = last.min(total - 1);
                Reply::new(206)
                    .with("ETag", ETAG)
                    .with("Content-Range", format!("bytes {first}-{last}/{total}"))
                    .body(&self.object[first..=last])
            }
            None => Reply::new(200).with("ETag", ETAG).body(&self.object),
        }
    }
}

type Script = dyn Fn(usize, &Request) -> Reply + Send + Sync;

/// What all connections of a server share.
struct Shared {
    object: Arc<Vec<u8>>,
    script: Box<Script>,
    seen: Mutex<Seen>,
    tls: Option<TlsAcceptor>,
}

#[derive(Default)]
struct Seen {
    requests: Vec<Request>,
    by_target: HashMap<String, usize>,
}

impl Shared {
    /// Gives the request its numbers.
    fn note(&self, request: &mut Request) -> usize {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let nth = seen.by_target.entry(request.target.clone()).or_default();
        request.nth = *nth;
        *nth += 1;
        seen.requests.push(request.clone());
        seen.requests.len() - 1
    }
}

/// The server, on a thread of its own; it ends when this is dropped.
pub struct FaultServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl FaultServer {
    /// Serves `object` as `script` says.
    pub fn start(
        object: Vec<u8>,
        script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(None, object, script)
    }

    /// The same over TLS, with a certificate for 127.0.0.1.
    pub fn start_tls(
        tls: TlsAcceptor,
        object: Vec<u8>,
        script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(Some(tls), object, script)
    }

    fn start_with(
        tls: Option<TlsAcceptor>,
        object: Vec<u8>,
        script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let (shared, listener, address) = Self::listen(tls, object, script);
        let serving = Arc::clone(&shared);
        let (end, ended) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let builder = &mut tokio::runtime::Builder::new_current_thread();
            builder.enable_all().build().unwrap().block_on(async {
                tokio::select! {
                    _ = ended => {}
                    () = accept(listener, serving) => {}
                }
            });
        });
        Self { address, shared, end: Some(end), thread: Some(thread) }
    }

    /// The same as a task of the runtime that this is called in; it ends with that.
    pub fn spawn(
        object: Vec<u8>,
        script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let (shared, listener, address) = Self::listen(None, object, script);
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, end: None, thread: None }
    }

    fn listen(
        tls: Option<TlsAcceptor>,
        object: Vec<u8>,
        script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> (Arc<Shared>, std::net::TcpListener, SocketAddr) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (object, script) = (Arc::new(object), Box::new(script));
        let shared = Shared { object, script, seen: Mutex::default(), tls };
        (Arc::new(shared), listener, address)
    }

    /// `http://127.0.0.1:PORT`, or with `https`.
    pub fn origin(&self) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Where its object is.
    pub fn url(&self) -> String {
        format!("{}/x.safetensors", self.origin())
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).requests.clone()
    }
}

impl Drop for FaultServer {
    fn drop(&mut self) {
        self.end.take();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).unwrap();
    let mut connections = tokio::task::JoinSet::new();
    for number in 0.. {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        // A client that went away is none of its business.
        connections.spawn(serve(stream, number, Arc::clone(&shared)));
        while connections.try_join_next().is_some() {}
    }
}

/// Answers the requests of one connection.
async fn serve(stream: TcpStream, connection: usize, shared: Arc<Shared>) -> io::Result<()> {
    let mut wire = match &shared.tls {
        None => Wire::Plain(stream),
        Some(tls) => Wire::Tls(Box::new(tls.accept(stream).await?)),
    };
    let mut early = Vec::new();
    while let Some(head) = read_head(&mut wire, &mut early).await? {
        let mut request = parse(&head, connection, &shared.object);
        let number = shared.note(&mut request);
        let reply = (shared.script)(number, &request);
        if !reply.send(&mut wire, request.method == "HEAD").await? {
            break;
        }
    }
    Ok(())
}

/// The next head, without the empty line; `None` at the end. Requests have no bodies.
async fn read_head(wire: &mut Wire, early: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    loop {
        if let Some(end) = early.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = early.split_off(end + 4);
            return Ok(Some(std::mem::replace(early, rest)));
        }
        if wire.read(early).await? == 0 {
            return Ok(None);
        }
    }
}

fn parse(head: &[u8], connection: usize, object: &Arc<Vec<u8>>) -> Request {
    let text = std::str::from_utf8(head).unwrap();
    let mut lines = text.split("\r\n");
    let mut first = lines.next().unwrap().split(' ').map(str::to_owned);
    let headers = lines.filter_map(|line| line.split_once(": "));
    Request {
        method: first.next().unwrap(),
        target: first.next().unwrap(),
        headers: headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect(),
        connection,
        nth: 0,
        at: Instant::now(),
        object: Arc::clone(object),
    }
}
