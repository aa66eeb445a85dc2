//! A TCP connection that may read ahead.
//!
//! rustls reads one record of 16 KiB at a time. Each `recv` costs more than copying as many bytes
//! within the processor's cache, so a connection that rustls serves reads [`AHEAD_BYTES`] at a time.
//! Other connections read nothing ahead: their bytes go straight to their destination.
//!
//! A connection is registered with the runtime of the thread that uses it. While it is idle it is
//! registered with none, so that the next thread that needs one can take it.

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;

/// How many bytes a connection that rustls serves reads at a time.
const AHEAD_BYTES: usize = 64 << 10;

/// A TCP connection that may read ahead.
pub(crate) struct Socket(TokioIo<BufReader<Movable>>);

/// A TCP connection that can move from one runtime to another.
pub(super) enum Movable {
    InRuntime(TcpStream),
    Idle(std::net::TcpStream),
    /// It could not be moved.
    Lost,
}

impl Socket {
    /// A connection that reads nothing ahead.
    pub fn plain(stream: TcpStream) -> Self {
        // Reads of at least the buffer's size bypass it, and no read is smaller than one byte.
        Self::ahead(1, stream)
    }

    /// A connection that rustls serves.
    pub fn below_rustls(stream: TcpStream) -> Self {
        Self::ahead(AHEAD_BYTES, stream)
    }

    fn ahead(bytes: usize, stream: TcpStream) -> Self {
        Self(TokioIo::new(BufReader::with_capacity(bytes, Movable::InRuntime(stream))))
    }

    /// The connection, which has read nothing ahead.
    pub fn into_inner(self) -> Movable {
        self.0.into_inner().into_inner()
    }

    /// The connection.
    pub fn inner(&self) -> &Movable {
        self.0.inner().get_ref()
    }

    /// The connection.
    pub fn inner_mut(&mut self) -> &mut Movable {
        self.0.inner_mut().get_mut()
    }
}

impl Movable {
    /// The socket.
    ///
    /// # Errors
    /// Those of moving it out of its runtime.
    pub fn into_std(self) -> io::Result<std::net::TcpStream> {
        match self {
            Self::InRuntime(stream) => stream.into_std(),
            Self::Idle(stream) => Ok(stream),
            Self::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// The descriptor, if the connection was not lost.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::InRuntime(stream) => Some(stream.as_fd()),
            Self::Idle(stream) => Some(stream.as_fd()),
            Self::Lost => None,
        }
    }

    /// Moves the connection out of its runtime.
    ///
    /// # Errors
    /// Those of the system. The connection is closed then.
    pub fn leave_runtime(&mut self) -> io::Result<()> {
        self.replace(|socket| match socket {
            Self::InRuntime(stream) => Ok(Self::Idle(stream.into_std()?)),
            other => Ok(other),
        })
    }

    /// Moves the connection to the runtime that this is called in.
    ///
    /// # Errors
    /// Those of the system. The connection is closed then.
    pub fn enter_runtime(&mut self) -> io::Result<()> {
        self.replace(|socket| match socket {
            Self::Idle(stream) => Ok(Self::InRuntime(TcpStream::from_std(stream)?)),
            other => Ok(other),
        })
    }

    fn replace(&mut self, by: impl FnOnce(Self) -> io::Result<Self>) -> io::Result<()> {
        *self = by(std::mem::replace(self, Self::Lost))?;
        Ok(())
    }

    fn stream(self: Pin<&mut Self>) -> io::Result<Pin<&mut TcpStream>> {
        match self.get_mut() {
            Self::InRuntime(stream) => Ok(Pin::new(stream)),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for Movable {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, into)
    }
}

impl AsyncWrite for Movable {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }
}

impl Connection for Socket {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
