//! The handshake, by rustls, and the taking over of what it has agreed on.
//!
//! rustls gets one record after the other and none beyond its last one, so that all records after the
//! handshake are left to the session.

use super::record::{CONTENT_BYTES_MAX, HEADER_BYTES};
use super::session::Session;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{ClientConfig, Error, HandshakeKind};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What a handshake leads to.
pub(super) struct Connected {
    pub session: Session,
    /// Bytes that have arrived after the handshake.
    pub early: Vec<u8>,
    /// Whether an earlier session went on.
    pub resumed: bool,
}

/// What the handshake needs next.
pub(super) enum Next {
    Again,
    Send,
    Receive,
    Done,
}

/// Makes the handshake over `socket`.
///
/// # Errors
/// I/O errors, of which those of TLS contain a [`rustls::Error`].
pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    socket: &mut S,
) -> io::Result<Connected> {
    let mut connection = UnbufferedClientConnection::new(config, name).map_err(failed)?;
    let (mut incoming, mut offered, mut outgoing) = (Vec::new(), 0, Vec::new());
    loop {
        let status = connection.process_tls_records(&mut incoming[..offered]);
        let (next, used) = step(status, &mut outgoing);
        incoming.drain(..used);
        offered -= used;
        match next {
            Ok(Next::Again) => {}
            Ok(Next::Send) => {
                socket.write_all(&outgoing).await?;
                outgoing.clear();
            }
            Ok(Next::Receive) => offered = receive(socket, &mut incoming, offered).await?,
            Ok(Next::Done) => break,
            Err(error) => {
                tell(&mut connection, socket).await;
                return Err(failed(error));
            }
        }
    }
    if offered > 0 {
        return Err(failed(Error::HandshakeNotComplete)); // a message beyond the last one
    }
    let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
    let taken = connection.dangerous_into_kernel_connection();
    let session = taken.and_then(|(secrets, kernel)| Session::new(secrets, kernel));
    Ok(Connected { session: session.map_err(failed)?, early: incoming, resumed })
}

/// What follows from the `status`, and how many bytes of the input it has used.
pub(super) fn step<T>(
    status: UnbufferedStatus<'_, '_, T>,
    outgoing: &mut Vec<u8>,
) -> (Result<Next, Error>, usize) {
    let next = match status.state {
        Ok(ConnectionState::EncodeTlsData(state)) => encode(state, outgoing),
        Ok(ConnectionState::TransmitTlsData(state)) => {
            state.done();
            Ok(Next::Send)
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(Next::Receive),
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Next::Done),
        // The server speaks before it was asked, or closes the connection.
        Ok(_) => Err(Error::HandshakeNotComplete),
        Err(error) => Err(error),
    };
    (next, status.discard)
}

fn encode<T>(mut state: EncodeTlsData<'_, T>, outgoing: &mut Vec<u8>) -> Result<Next, Error> {
    let start = outgoing.len();
    loop {
        match state.encode(&mut outgoing[start..]) {
            Ok(bytes) => {
                outgoing.truncate(start + bytes);
                return Ok(Next::Again);
            }
            Err(EncodeError::InsufficientSize(more))
                if more.required_size > outgoing.len() - start =>
            {
                outgoing.resize(start + more.required_size, 0);
            }
            Err(error) => return Err(Error::General(error.to_string())),
        }
    }
}

/// Receives until `incoming` has one record more than the `offered` bytes. Returns how many bytes
/// rustls is to see. It also gets to see what cannot be a record, and says what that is.
pub(super) async fn receive(
    socket: &mut (impl AsyncRead + Unpin),
    incoming: &mut Vec<u8>,
    offered: usize,
) -> io::Result<usize> {
    loop {
        let new = &incoming[offered..];
        if let &[kind, _, _, high, low, ..] = new {
            let len = usize::from(u16::from_be_bytes([high, low]));
            let is_record = (20..=24).contains(&kind) && len <= CONTENT_BYTES_MAX + 2048;
            if !is_record {
                return Ok(incoming.len());
            }
            if new.len() >= HEADER_BYTES + len {
                return Ok(offered + HEADER_BYTES + len);
            }
        }
        if socket.read_buf(incoming).await? == 0 {
            let sentence = "the connection was closed in the handshake of TLS";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, sentence));
        }
    }
}

/// Sends the alert for an error, if rustls has one. Nothing depends on whether it arrives.
async fn tell(connection: &mut UnbufferedClientConnection, socket: &mut (impl AsyncWrite + Unpin)) {
    let mut outgoing = Vec::new();
    while let Ok(ConnectionState::EncodeTlsData(state)) =
        connection.process_tls_records(&mut []).state
    {
        if encode(state, &mut outgoing).is_err() {
            break;
        }
    }
    let _ = socket.write_all(&outgoing).await;
}

/// The error of a connection with TLS.
pub(super) fn failed(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
