//! The body of a response, which is read from the socket straight into its destination.
//!
//! After hyper has parsed the head, the connection is taken apart
//! ([`Connection::into_parts`](hyper::client::conn::http1::Connection::into_parts)), and the rest
//! of the body is read from the socket. This requires three precautions:
//!
//! 1. hyper may have read more than the head. Its bytes come in this order: those handed to the
//!    body's channel, those in its read buffer, those on the socket. None may be lost or repeated.
//! 2. The end of the body has to be found here, so this is done only where `Content-Length` gives
//!    it. Chunked bodies and those that end with the connection are left to hyper ([`Framed`]).
//! 3. A connection is reused only if the whole body was read, no byte beyond it had arrived, and the
//!    server did not send `Connection: close`.

use super::socket::Socket;
use super::stream::Stream;
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Version, header, response};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::Connection;
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::net::TcpStream;

/// A connection that hyper drives.
pub(super) type HyperConnection = Connection<Stream, Full<Bytes>>;

/// The unread part of the body of a response.
pub(crate) enum Body {
    /// A body of known length: the bytes that hyper had read, then the bytes from the socket.
    Raw(Box<Raw>),
    /// A body that hyper reads.
    Framed(Box<Framed>),
}

pub(crate) struct Raw {
    /// `None` while the socket is detached, and if the body broke off.
    stream: Option<Stream>,
    /// The bytes that hyper had read.
    early: BytesMut,
    /// How many bytes are still to come from the socket.
    left: u64,
    reusable: bool,
}

pub(crate) struct Framed {
    connection: Option<HyperConnection>,
    incoming: Incoming,
    frame: Bytes,
}

/// Appends the frames in hyper's channel to `early`.
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

fn keeps_alive(version: Version, headers: &HeaderMap) -> bool {
    let closes = |value: &http::HeaderValue| {
        let mut options = value.to_str().unwrap_or("close").split(',');
        options.any(|option| option.trim().eq_ignore_ascii_case("close"))
    };
    version == Version::HTTP_11 && !headers.get_all(header::CONNECTION).iter().any(closes)
}

impl Body {
    /// Takes the connection back from hyper, for a body of `length` bytes. See the head of this
    /// module.
    pub(super) async fn raw(
        head: &response::Parts,
        mut incoming: Incoming,
        connection: HyperConnection,
        length: u64,
    ) -> Self {
        let mut early = BytesMut::new();
        let drained = poll_fn(|cx| drain(&mut incoming, cx, &mut early)).await;
        drop(incoming);
        let parts = connection.into_parts();
        early.extend_from_slice(&parts.read_buf);
        let beyond = early.len() as u64 > length;
        early.truncate(length.min(early.len() as u64) as usize);
        let left = length - early.len() as u64;
        let reusable = !beyond && keeps_alive(head.version, &head.headers);
        // A body that broke off right after the head ends here.
        let stream = drained.is_ok().then_some(parts.io);
        Self::Raw(Box::new(Raw { stream, early, left, reusable }))
    }

    /// A body that hyper reads.
    pub(super) fn framed(incoming: Incoming, connection: HyperConnection) -> Self {
        let connection = Some(connection);
        Self::Framed(Box::new(Framed { connection, incoming, frame: Bytes::new() }))
    }

    /// Reads as much of the body as has arrived into `into`, which is not empty; waits if nothing
    /// has. Returns the number of bytes, 0 at the end of the body.
    ///
    /// TLS delivers a record of 16 KiB at a time. All that have arrived are read at once, as waking
    /// up for each of them would cost more than reading it.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the connection ends before the body does; else those of
    /// the connection.
    pub async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| {
            let mut bytes = 0;
            while bytes < into.len() {
                match self.poll_read(cx, &mut into[bytes..]) {
                    Poll::Ready(Ok(more)) if more > 0 => bytes += more,
                    // The end or an error is reported again by the next call.
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

    /// How many bytes were not read yet, if the length is known.
    pub fn left(&self) -> Option<u64> {
        match self {
            Body::Raw(raw) => Some(raw.early.len() as u64 + raw.left),
            Body::Framed(_) => None,
        }
    }

    /// The connection, if it can be reused.
    pub(super) fn into_connection(self) -> Option<Stream> {
        let Body::Raw(raw) = self else { return None };
        let is_read = raw.left == 0 && raw.early.is_empty();
        raw.stream.filter(|_| raw.reusable && is_read)
    }

    /// Moves bytes that hyper had read to `into`; `None` when there are no more.
    pub fn early(&mut self, into: &mut [u8]) -> Option<usize> {
        match self {
            Body::Raw(raw) if !raw.early.is_empty() && !into.is_empty() => {
                Some(raw.take_early(into))
            }
            _ => None,
        }
    }

    /// The socket, and how many bytes come from it at least before `left` more bytes of the body are
    /// there; if the rest of the body is the bytes on the socket, in records of TLS or as they are.
    pub fn socket(&self, left: usize) -> Option<(BorrowedFd<'_>, usize)> {
        match self {
            Body::Raw(raw) if raw.early.is_empty() => match raw.stream.as_ref()? {
                Stream::Http(socket) => Some((socket.inner().fd()?, left)),
                Stream::Https(tls) => Some((tls.fd()?, tls.to_come(left))),
                Stream::Rustls(_) => None,
            },
            _ => None,
        }
    }

    /// Takes the socket out of the runtime and makes it blocking. Returns `None` unless the rest of
    /// the body is exactly the bytes on the socket: without TLS or framing, and with nothing read
    /// ahead.
    pub fn detach(&mut self) -> Option<Arc<File>> {
        let Body::Raw(raw) = self else { return None };
        if !raw.early.is_empty() || !matches!(raw.stream, Some(Stream::Http(_))) {
            return None;
        }
        let Some(Stream::Http(socket)) = raw.stream.take() else { return None };
        let socket = socket.into_inner().into_std().ok()?;
        socket.set_nonblocking(false).ok()?;
        Some(Arc::new(File::from(OwnedFd::from(socket))))
    }

    /// Takes the socket back after the rest of the body was read from it.
    pub fn attach(&mut self, socket: Arc<File>) {
        let Body::Raw(raw) = self else { return };
        raw.left = 0;
        raw.stream = Arc::into_inner(socket).and_then(|socket| {
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
        if self.left == 0 {
            return Poll::Ready(Ok(0));
        }
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        };
        let most = self.left.min(into.len() as u64) as usize;
        let bytes = ready!(stream.poll_fill(cx, &mut into[..most]))?;
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

    /// The next frame of data. Trailers count as empty frames.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Bytes>>> {
        if let Some(connection) = &mut self.connection
            && connection.poll_without_shutdown(cx).is_ready()
        {
            // All bytes that hyper has read are in the channel, and so is its error.
            self.connection = None;
        }
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        let data = |frame: hyper::body::Frame<Bytes>| frame.into_data().unwrap_or_default();
        Poll::Ready(frame.map(|frame| frame.map(data)))
    }
}
