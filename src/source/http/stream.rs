//! Connections: without TLS, with TLS whose records are opened here, and with TLS by rustls.

use super::socket::{Movable, Socket};
use super::tls::TlsStream;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_rustls::MaybeHttpsStream;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A connection to a server.
pub(super) enum Stream {
    Http(Socket),
    Https(Box<TlsStream>),
    /// TLS that only rustls speaks.
    Rustls(Box<MaybeHttpsStream<Socket>>),
}

impl Stream {
    /// Moves the connection to the runtime that this is called in.
    ///
    /// # Errors
    /// Those of the system. The connection is closed then.
    pub fn enter_runtime(&mut self) -> io::Result<()> {
        self.socket().enter_runtime()
    }

    /// Moves the connection out of its runtime.
    ///
    /// # Errors
    /// Those of the system. The connection is closed then.
    pub fn leave_runtime(&mut self) -> io::Result<()> {
        self.socket().leave_runtime()
    }

    /// Whether the server has neither closed the connection nor sent anything since its last response.
    /// Such bytes would be taken for the next response. Not checked where rustls serves the connection,
    /// which may have messages of TLS.
    pub fn is_quiet(&mut self) -> bool {
        let tcp = match self {
            Self::Http(tcp) => tcp,
            Self::Https(tls) => return tls.is_quiet(),
            Self::Rustls(_) => return true,
        };
        let Some(fd) = tcp.inner_mut().fd() else { return false };
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(fd.as_raw_fd(), &mut [0], flags) == Err(Errno::EAGAIN)
    }

    fn socket(&mut self) -> &mut Movable {
        match self {
            Self::Http(socket) => socket.inner_mut(),
            Self::Https(tls) => tls.socket_mut(),
            Self::Rustls(rustls) => match &mut **rustls {
                MaybeHttpsStream::Http(socket) => socket.inner_mut(),
                MaybeHttpsStream::Https(tls) => tls.inner_mut().get_mut().0.inner_mut().inner_mut(),
            },
        }
    }

    /// Reads what has arrived into `into`, which is not empty; waits if nothing has. Returns the number
    /// of bytes, 0 at the end of the connection.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        if let Self::Https(tls) = self {
            return tls.poll_fill(cx, into);
        }
        let mut buffer = ReadBuf::new(into);
        ready!(Pin::new(self).poll_read(cx, buffer.unfilled()))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Http(socket) => Pin::new(socket).poll_read(cx, into),
            Self::Https(tls) => Pin::new(tls).poll_read(cx, into),
            Self::Rustls(tls) => Pin::new(tls).poll_read(cx, into),
        }
    }
}

impl Write for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Http(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Https(tls) => Pin::new(tls).poll_write(cx, bytes),
            Self::Rustls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Http(socket) => Pin::new(socket).poll_flush(cx),
            Self::Https(tls) => Pin::new(tls).poll_flush(cx),
            Self::Rustls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Http(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Https(tls) => Pin::new(tls).poll_shutdown(cx),
            Self::Rustls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
