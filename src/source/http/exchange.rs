//! One request and its answer on one connection: hyper for the head, the socket for the body.
//!
//! hyper writes the request and parses the head of the answer. Then the connection is taken apart
//! again ([`Connection::into_parts`]), and what is left of the body is read from the socket straight
//! into the memory that it is for. Three duties come with that:
//!
//! 1. hyper may have read on while it parsed: what it handed to the body's channel comes first,
//!    then its read buffer, then the socket. No byte may be lost or come twice.
//! 2. The end of the body is ours to find, so this is done only where `Content-Length` says it.
//!    Chunked bodies and those that end with the connection are left to hyper (`Framed`).
//! 3. A connection serves again only if all of the body was read, not a byte more had arrived, and
//!    the server did not say `Connection: close`.

use super::socket::Socket;
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Version, header, response};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{Builder, Connection};
use hyper::rt::{Read, ReadBuf};
use hyper_rustls::MaybeHttpsStream;
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::net::TcpStream;

/// A connection, with TLS where the scheme says so.
pub(super) type Stream = MaybeHttpsStream<Socket>;

type Driver = Connection<Stream, Full<Bytes>>;

/// What hyper may read at once while it parses a head; all of the body in it is copied once more.
const HEAD_READ_BYTES: usize = 16 << 10;

/// The head of an answer, and its body to be read.
pub(crate) struct Answer {
    pub head: response::Parts,
    pub body: Body,
}

/// The body of an answer, not read yet.
pub(crate) enum Body {
    /// Its length is known: what hyper had read of it, then the socket.
    Raw(Box<Raw>),
    /// Left to hyper.
    Framed(Box<Framed>),
}

pub(crate) struct Raw {
    /// Missing while the socket is detached.
    io: Option<Stream>,
    early: BytesMut,
    left: u64,
    reusable: bool,
}

pub(crate) struct Framed {
    driver: Option<Driver>,
    incoming: Incoming,
    frame: Bytes,
}

/// Sends `request` (in the form that goes on the wire) and reads the head of the answer.
///
/// # Errors
/// hyper's, when the connection breaks or what comes is no HTTP.
pub(super) async fn exchange(io: Stream, request: Request<Full<Bytes>>) -> hyper::Result<Answer> {
    let is_head = request.method() == Method::HEAD;
    let (mut sender, mut driver) =
        Builder::new().read_buf_exact_size(Some(HEAD_READ_BYTES)).handshake(io).await?;
    let answer = {
        let mut answering = pin!(sender.send_request(request));
        let mut ended = false;
        poll_fn(|cx| {
            // When it has ended, the answer is there or never comes; either way `answering` knows.
            ended = ended || driver.poll_without_shutdown(cx).is_ready();
            answering.as_mut().poll(cx)
        })
        .await?
    };
    let (head, incoming) = answer.into_parts();
    // An answer to HEAD tells the length of what it does not bring, as "not modified" may.
    let is_bare = is_head || head.status == http::StatusCode::NOT_MODIFIED;
    let length = if is_bare { Some(0) } else { content_length(&head.headers) };
    match length {
        Some(length) => raw(head, incoming, driver, length).await,
        None => {
            let framed = Framed { driver: Some(driver), incoming, frame: Bytes::new() };
            Ok(Answer { head, body: Body::Framed(Box::new(framed)) })
        }
    }
}

/// Takes the connection back from hyper; see the three duties above.
async fn raw(
    head: response::Parts,
    mut incoming: Incoming,
    driver: Driver,
    length: u64,
) -> hyper::Result<Answer> {
    let mut early = BytesMut::new();
    poll_fn(|cx| drain(&mut incoming, cx, &mut early)).await?;
    drop(incoming);
    let parts = driver.into_parts();
    early.extend_from_slice(&parts.read_buf);
    let beyond = early.len() as u64 > length;
    early.truncate(length.min(early.len() as u64) as usize);
    let left = length - early.len() as u64;
    let reusable = !beyond && keeps_alive(head.version, &head.headers);
    Ok(Answer {
        head,
        body: Body::Raw(Box::new(Raw { io: Some(parts.io), early, left, reusable })),
    })
}

/// Moves the frames that are there already to `early`.
fn drain(
    incoming: &mut Incoming,
    cx: &mut Context<'_>,
    early: &mut BytesMut,
) -> Poll<hyper::Result<()>> {
    while let Poll::Ready(Some(frame)) = Pin::new(&mut *incoming).poll_frame(cx) {
        if let Ok(data) = frame?.into_data() {
            early.extend_from_slice(&data);
        }
    }
    Poll::Ready(Ok(()))
}

/// The length of the body where the head gives it, and nothing else says otherwise.
fn content_length(headers: &HeaderMap) -> Option<u64> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn keeps_alive(version: Version, headers: &HeaderMap) -> bool {
    let says_close = |value: &http::HeaderValue| {
        let mut words = value.to_str().unwrap_or("close").split(',');
        words.any(|word| word.trim().eq_ignore_ascii_case("close"))
    };
    version == Version::HTTP_11 && !headers.get_all(header::CONNECTION).iter().any(says_close)
}

impl Body {
    /// Reads as much of the body into `into`, which is not empty, as is here already, and waits for
    /// some if nothing is; 0 at its end.
    ///
    /// TLS gives a record of 16 KiB at a time: one by one, waking and waiting would cost more than
    /// reading them.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the connection ends before the body does; else the
    /// connection's.
    pub async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| {
            let mut bytes = 0;
            while bytes < into.len() {
                match self.poll_read(cx, &mut into[bytes..]) {
                    Poll::Ready(Ok(more)) if more > 0 => bytes += more,
                    // Whatever it is, it is there again when nothing stands before it.
                    _ if bytes > 0 => break,
                    nothing => return nothing,
                }
            }
            Poll::Ready(Ok(bytes))
        })
        .await
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Body::Raw(raw) => raw.poll_read(cx, into),
            Body::Framed(framed) => framed.poll_read(cx, into),
        }
    }

    /// How many bytes are still to come, where that is known.
    pub fn left(&self) -> Option<u64> {
        match self {
            Body::Raw(raw) => Some(raw.early.len() as u64 + raw.left),
            Body::Framed(_) => None,
        }
    }

    /// The connection, if it can serve another request.
    pub fn into_connection(self) -> Option<Stream> {
        match self {
            Body::Raw(raw) => {
                let served = raw.left == 0 && raw.early.is_empty();
                raw.io.filter(|_| raw.reusable && served)
            }
            Body::Framed(_) => None,
        }
    }

    /// Moves bytes that are here already to `into`; `None` when there are none (any more).
    pub fn early(&mut self, into: &mut [u8]) -> Option<usize> {
        match self {
            Body::Raw(raw) if !raw.early.is_empty() && !into.is_empty() => {
                Some(raw.take_early(into))
            }
            _ => None,
        }
    }

    /// The socket, taken out of the runtime, where all that is left of the body comes over it as it
    /// is: no TLS, no framing, nothing read ahead. It then blocks.
    pub fn detach(&mut self) -> Option<Arc<File>> {
        let Body::Raw(raw) = self else { return None };
        if !raw.early.is_empty() || !matches!(raw.io, Some(Stream::Http(_))) {
            return None;
        }
        let Some(Stream::Http(io)) = raw.io.take() else { return None };
        let socket = io.into_inner().into_std().ok()?;
        socket.set_nonblocking(false).ok()?;
        Some(Arc::new(File::from(OwnedFd::from(socket))))
    }

    /// Takes the socket back, over which the rest of the body has come.
    pub fn attach(&mut self, socket: Arc<File>) {
        let Body::Raw(raw) = self else { return };
        raw.left = 0;
        raw.io = Arc::into_inner(socket).and_then(|socket| {
            let socket = std::net::TcpStream::from(OwnedFd::from(socket));
            socket.set_nonblocking(true).ok()?;
            Some(Stream::Http(Socket::plain(TcpStream::from_std(socket).ok()?)))
        });
    }
}

impl Raw {
    fn take_early(&mut self, into: &mut [u8]) -> usize {
        let bytes = self.early.len().min(into.len());
        self.early.copy_to_slice(&mut into[..bytes]);
        bytes
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        if !self.early.is_empty() {
            return Poll::Ready(Ok(self.take_early(into)));
        }
        let Some(io) = self.io.as_mut().filter(|_| self.left > 0) else {
            return Poll::Ready(Ok(0));
        };
        let most = self.left.min(into.len() as u64) as usize;
        let mut buffer = ReadBuf::new(&mut into[..most]);
        ready!(Pin::new(io).poll_read(cx, buffer.unfilled()))?;
        let bytes = buffer.filled().len();
        self.left -= bytes as u64;
        match bytes {
            0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            bytes => Poll::Ready(Ok(bytes)),
        }
    }
}

impl Framed {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        while self.frame.is_empty() {
            match self.poll_frame(cx) {
                Poll::Ready(Some(frame)) => {
                    self.frame = frame.map_err(io::Error::other)?;
                }
                Poll::Ready(None) => return Poll::Ready(Ok(0)),
                Poll::Pending => return Poll::Pending,
            }
        }
        let bytes = self.frame.len().min(into.len());
        self.frame.copy_to_slice(&mut into[..bytes]);
        Poll::Ready(Ok(bytes))
    }

    /// The next frame of data; trailers are passed over as empty frames.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Bytes>>> {
        if let Some(driver) = &mut self.driver
            && driver.poll_without_shutdown(cx).is_ready()
        {
            // What it has read is in the channel, its error as well.
            self.driver = None;
        }
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        let data = |frame: hyper::body::Frame<Bytes>| frame.into_data().unwrap_or_default();
        Poll::Ready(frame.map(|frame| frame.map(data)))
    }
}
