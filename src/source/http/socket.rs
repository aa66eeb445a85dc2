//! A TCP connection that may read ahead.
//!
//! TLS reads one record of 16 KiB at a time. Each `recv` costs more than copying as many bytes
//! within the processor's cache, so a connection under TLS reads [`AHEAD_BYTES`] at a time. Plain
//! connections read nothing ahead: their bytes go straight to their destination.

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::MaybeHttpsStream;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::BufReader;
use tokio::net::TcpStream;

/// A connection, with TLS for `https`.
pub(super) type Stream = MaybeHttpsStream<Socket>;

/// How many bytes a connection under TLS reads at a time.
const AHEAD_BYTES: usize = 64 << 10;

/// A TCP connection that may read ahead.
pub(crate) struct Socket(TokioIo<BufReader<TcpStream>>);

impl Socket {
    /// A connection that reads nothing ahead.
    pub fn plain(stream: TcpStream) -> Self {
        // Reads of at least the buffer's size bypass it, and no read is smaller than one byte.
        Self(TokioIo::new(BufReader::with_capacity(1, stream)))
    }

    /// A connection that TLS runs on.
    pub fn below_tls(stream: TcpStream) -> Self {
        Self(TokioIo::new(BufReader::with_capacity(AHEAD_BYTES, stream)))
    }

    /// The socket of a plain connection.
    pub fn into_inner(self) -> TcpStream {
        self.0.into_inner().into_inner()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.inner().get_ref().as_fd()
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
