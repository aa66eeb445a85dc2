//! A connection under TLS: its socket and its session.
//!
//! ```text
//! socket --> memory of the thread (RECEIVE_BYTES) --session--> destination
//!                    |            ^
//!                    `-- carry ---'   what is left of the last read: a part of a record
//! ```
//!
//! One read receives many records, into memory that all connections of a thread share. So a connection
//! itself has at most the beginning of a record and the content of one, together less than 64 KiB.

use super::super::socket::Movable;
use super::handshake::{connect, failed};
use super::record::RECORD_BYTES_MAX;
use super::session::{Ended, Session};
use hyper::rt::{Read, ReadBufCursor, Write};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How many bytes a thread receives at a time.
const RECEIVE_BYTES: usize = 1 << 20;

/// How many bytes hyper gets at a time.
const PIECE_BYTES: usize = 16 << 10;

thread_local! {
    /// The memory into which the connections of this thread receive.
    static RECEIVED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A connection under TLS.
pub(crate) struct TlsStream {
    socket: Movable,
    session: Session,
    /// Received bytes that were not opened: at most a part of a record, and a few small records.
    carry: Vec<u8>,
}

impl TlsStream {
    /// Makes the handshake with the server `name` over `socket`. The ciphers of `config` are all
    /// AES-GCM.
    ///
    /// # Errors
    /// I/O errors, of which those of TLS contain a [`rustls::Error`].
    pub async fn connect(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        mut socket: Movable,
    ) -> io::Result<Self> {
        let connected = connect(config, name, &mut socket).await?;
        tracing::debug!(resumed = connected.resumed, "TLS is set up");
        Ok(Self { socket, session: connected.session, carry: connected.early })
    }

    /// The connection below.
    pub fn socket_mut(&mut self) -> &mut Movable {
        &mut self.socket
    }

    /// The descriptor, if the connection was not lost.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.fd()
    }

    /// How many bytes come from the socket at least before `content` more bytes of content are there.
    pub fn to_come(&self, content: usize) -> usize {
        self.session.sealed_bytes_min(content).saturating_sub(self.carry.len())
    }

    /// Reads as much as one read of the socket brings into `into`, which is not empty; waits if nothing
    /// has arrived. Returns the number of bytes, 0 when the server has announced the end.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] when a record is wrong;
    /// [`io::ErrorKind::UnexpectedEof`] when the connection ends without being announced.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let bytes = self.session.take_plain(into);
            if bytes > 0 {
                return Poll::Ready(Ok(bytes));
            }
            match self.session.ended() {
                Some(Ended::Closed) => return Poll::Ready(Ok(0)),
                Some(Ended::Failed(error)) => return Poll::Ready(Err(failed(error.clone()))),
                None => {}
            }
            let bytes = ready!(self.poll_records(cx, into))?;
            if !self.session.to_send().is_empty() {
                // Answers and alerts. What the socket does not take now is sent before the next
                // request, and an error of the socket is found by then.
                let _ = self.poll_send(cx);
            }
            if bytes > 0 {
                return Poll::Ready(Ok(bytes));
            }
        }
    }

    /// Receives, and opens the records that are complete.
    fn poll_records(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        RECEIVED.with_borrow_mut(|buffer| {
            if buffer.is_empty() {
                *buffer = vec![0; RECEIVE_BYTES];
            }
            let (mut filled, can_receive) =
                (self.carry.len(), self.session.can_receive(&self.carry));
            if !can_receive {
                // Each record is longer than its content. More than that is not wanted, as it would
                // have to be kept: nothing is requested before the answer is complete.
                let wanted = into.len() + into.len() / 64;
                let most = wanted.clamp(RECORD_BYTES_MAX, RECEIVE_BYTES);
                let mut free = ReadBuf::new(&mut buffer[filled..most]);
                ready!(Pin::new(&mut self.socket).poll_read(cx, &mut free))?;
                if free.filled().is_empty() {
                    return Poll::Ready(Err(truncated()));
                }
                filled += free.filled().len();
            }
            Poll::Ready(Ok(self.open(&mut buffer[..filled], into)))
        })
    }

    /// Opens the records in `received`, which gets the carry at its beginning, and keeps the rest.
    fn open(&mut self, received: &mut [u8], into: &mut [u8]) -> usize {
        received[..self.carry.len()].copy_from_slice(&self.carry);
        let opened = self.session.receive(received, into);
        self.carry.clear();
        self.carry.extend_from_slice(&received[opened.consumed..]);
        opened.written
    }

    /// Whether the next bytes to arrive are those of the next response: the server has neither closed
    /// the connection nor sent any data. Takes what it has sent otherwise, such as tickets.
    pub fn is_quiet(&mut self) -> bool {
        let mut received = [0; RECORD_BYTES_MAX];
        loop {
            if !self.session.is_drained() || self.session.ended().is_some() {
                return false;
            }
            let mut filled = self.carry.len();
            if !self.session.can_receive(&self.carry) {
                let Some(free) = received.get_mut(filled..) else { return false };
                let Some(socket) = self.socket.fd() else { return false };
                match recv(socket.as_raw_fd(), free, MsgFlags::MSG_DONTWAIT) {
                    Ok(bytes @ 1..) => filled += bytes,
                    Err(Errno::EAGAIN) => return self.carry.is_empty(),
                    _ => return false,
                }
            }
            let Some(received) = received.get_mut(..filled) else { return false };
            if self.open(received, &mut [0]) > 0 {
                return false;
            }
        }
    }

    /// Sends the records that the session has.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.session.to_send().is_empty() {
            let sent = Pin::new(&mut self.socket).poll_write(cx, self.session.to_send());
            match ready!(sent)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                bytes => self.session.sent(bytes),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The connection ends, which somebody else than the server may have brought about.
fn truncated() -> io::Error {
    let sentence = "the connection was closed without an announcement (close_notify) by TLS";
    io::Error::new(io::ErrorKind::UnexpectedEof, sentence)
}

impl Read for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut piece = [0; PIECE_BYTES];
        let most = into.remaining().min(PIECE_BYTES);
        if most == 0 {
            return Poll::Ready(Ok(()));
        }
        let bytes = ready!(self.poll_fill(cx, &mut piece[..most]))?;
        into.put_slice(&piece[..bytes]);
        Poll::Ready(Ok(()))
    }
}

impl Write for TlsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // At most one record waits to be sent.
        ready!(self.poll_send(cx))?;
        let sealed = self.session.send(bytes).map_err(failed)?;
        let _ = self.poll_send(cx)?;
        Poll::Ready(Ok(sealed))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session.close();
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod openssl_tests;
#[cfg(test)]
mod tests;
