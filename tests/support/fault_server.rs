//! A web server of one object, in process, whose every answer a script decides.
//!
//! ```text
//! FaultServer::start(bytes, |number, request| request.right().cut(100, End::Reset))
//! ```
//!
//! It speaks HTTP/1.1 on a loopback port that the system picks. [`Request::right`] is what a good
//! server would answer (ranges, `ETag`, `If-Match`); a script changes that, or answers something
//! else altogether. Requests are numbered from 0 in the order of their arrival. On a paused clock,
//! [`serve`] runs as a task of the test's own runtime.

// Not every test uses all of it.
#![allow(dead_code, clippy::unwrap_used, missing_docs)]

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

pub const ETAG: &str = "\"one\"";

/// A request as it came.
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

/// What follows the bytes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The next request on this connection.
    Keep,
    /// The connection is closed in order.
    Fin,
    /// It is reset.
    Reset,
    /// Nothing, for ever.
    Hang,
}

/// How the end of the body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// `Content-Length`; the body's own, or one that is claimed.
    Length(Option<usize>),
    /// `Transfer-Encoding: chunked`, in pieces of so many bytes.
    Chunked(usize),
    /// By the end of the connection.
    Close,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    /// Instead of the two above.
    raw_head: Option<Vec<u8>>,
    body: Vec<u8>,
    framing: Framing,
    before_head: Duration,
    before_body: Duration,
    /// After every so many bytes of head and body, so long a pause.
    drip: Option<(usize, Duration)>,
    /// After so many bytes of the body (negative: before the end of the head).
    cut: Option<isize>,
    end: End,
    /// Whether head or body go on for ever.
    endless: bool,
}

impl Reply {
    pub fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            raw_head: None,
            body: Vec::new(),
            framing: Framing::Length(None),
            before_head: Duration::ZERO,
            before_body: Duration::ZERO,
            drip: None,
            cut: None,
            end: End::Keep,
            endless: false,
        }
    }

    /// Bytes as they are, instead of an answer; then `end`.
    pub fn raw(bytes: impl Into<Vec<u8>>, end: End) -> Self {
        Self { raw_head: Some(bytes.into()), end, ..Self::new(0) }
    }

    /// A redirect.
    pub fn to(status: u16, target: impl Into<String>) -> Self {
        Self::new(status).with("Location", target)
    }

    /// With this header, instead of any other one of its name.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self = self.without(name);
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        self
    }

    pub fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    pub fn body(self, body: &[u8]) -> Self {
        Self { body: body.to_vec(), ..self }
    }

    /// With the body that `change` makes of its own.
    pub fn changed(mut self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        change(&mut self.body);
        self
    }

    pub fn framed(self, framing: Framing) -> Self {
        Self { framing, ..self }
    }

    /// Ends like this after `bytes` of the body.
    pub fn cut(self, bytes: usize, end: End) -> Self {
        Self { cut: Some(bytes as isize), end, ..self }
    }

    /// Ends like this `bytes` before the end of the head.
    pub fn cut_head(self, bytes: usize, end: End) -> Self {
        Self { cut: Some(-(bytes as isize)), end, ..self }
    }

    /// Ends like this after the whole body.
    pub fn ending(self, end: End) -> Self {
        Self { end, ..self }
    }

    pub fn after(self, before_head: Duration) -> Self {
        Self { before_head, ..self }
    }

    pub fn body_after(self, before_body: Duration) -> Self {
        Self { before_body, ..self }
    }

    /// A pause after every `bytes` bytes, head included.
    pub fn dripping(self, bytes: usize, pause: Duration) -> Self {
        Self { drip: Some((bytes, pause)), ..self }
    }

    /// Repeats the body (of raw bytes: those) for ever.
    pub fn endless(self) -> Self {
        Self { endless: true, ..self }
    }

    fn head(&self) -> Vec<u8> {
        if let Some(raw) = &self.raw_head {
            return raw.clone();
        }
        let mut head = format!("HTTP/1.1 {} Status\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &match self.framing {
            Framing::Length(claimed) => {
                format!("Content-Length: {}\r\n", claimed.unwrap_or(self.body.len()))
            }
            Framing::Chunked(_) => "Transfer-Encoding: chunked\r\n".to_owned(),
            Framing::Close => "Connection: close\r\n".to_owned(),
        };
        head += "\r\n";
        head.into_bytes()
    }

    /// The body as it goes over the wire; a cut counts bytes of the object, and cuts before the
    /// frame of the next one.
    fn wire_body(&self) -> Vec<u8> {
        let cut =
            self.cut.map_or(self.body.len(), |cut| (cut.max(0) as usize).min(self.body.len()));
        let Framing::Chunked(size) = self.framing else {
            return self.body[..cut].to_vec();
        };
        let mut wire = Vec::new();
        for (number, chunk) in self.body.chunks(size).enumerate() {
            let start = number * size;
            if start >= cut && self.cut.is_some() {
                return wire;
            }
            wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            wire.extend_from_slice(&chunk[..chunk.len().min(cut - start)]);
            if start + chunk.len() > cut {
                return wire;
            }
            wire.extend_from_slice(b"\r\n");
        }
        if self.cut.is_none() {
            wire.extend_from_slice(b"0\r\n\r\n");
        }
        wire
    }

    /// Sends it; whether the connection serves again.
    async fn send(&self, stream: &mut TcpStream, is_head: bool) -> io::Result<bool> {
        sleep(self.before_head).await;
        let mut head = self.head();
        if let Some(cut @ ..0) = self.cut {
            head.truncate(head.len().saturating_sub(cut.unsigned_abs()));
            self.write(stream, &head).await?;
            return self.finish(stream).await;
        }
        self.write(stream, &head).await?;
        sleep(self.before_body).await;
        let body = self.wire_body();
        let again = if self.raw_head.is_some() { &head } else { &body };
        if !is_head {
            self.write(stream, &body).await?;
        }
        if self.endless {
            loop {
                self.write(stream, again).await?;
            }
        }
        self.finish(stream).await
    }

    async fn write(&self, stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
        let Some((most, pause)) = self.drip else {
            return stream.write_all(bytes).await;
        };
        for piece in bytes.chunks(most) {
            stream.write_all(piece).await?;
            sleep(pause).await;
        }
        Ok(())
    }

    async fn finish(&self, stream: &mut TcpStream) -> io::Result<bool> {
        match self.end {
            End::Keep => return Ok(self.framing != Framing::Close),
            End::Fin => stream.shutdown().await?,
            End::Reset => stream.set_zero_linger()?,
            End::Hang => std::future::pending().await,
        }
        Ok(false)
    }
}

type Script = dyn Fn(usize, &Request) -> Reply + Send + Sync;

/// What all connections of a server share.
struct Shared {
    object: Arc<Vec<u8>>,
    script: Box<Script>,
    seen: Mutex<Seen>,
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
        let (shared, listener, address) = Self::listen(object, script);
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
        let (shared, listener, address) = Self::listen(object, script);
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, end: None, thread: None }
    }

    fn listen(
        object: Vec<u8>,
        script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> (Arc<Shared>, std::net::TcpListener, SocketAddr) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (object, script) = (Arc::new(object), Box::new(script));
        (Arc::new(Shared { object, script, seen: Mutex::default() }), listener, address)
    }

    /// `http://127.0.0.1:PORT`
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
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
async fn serve(mut stream: TcpStream, connection: usize, shared: Arc<Shared>) -> io::Result<()> {
    let mut early = Vec::new();
    while let Some(head) = read_head(&mut stream, &mut early).await? {
        let mut request = parse(&head, connection, &shared.object);
        let number = shared.note(&mut request);
        let reply = (shared.script)(number, &request);
        if !reply.send(&mut stream, request.method == "HEAD").await? {
            break;
        }
    }
    Ok(())
}

/// The next head, without the empty line; `None` at the end. Requests have no bodies.
async fn read_head(stream: &mut TcpStream, early: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    loop {
        if let Some(end) = early.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = early.split_off(end + 4);
            return Ok(Some(std::mem::replace(early, rest)));
        }
        if stream.read_buf(early).await? == 0 {
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
