//! Puts handshake messages together, which may be split over records or share one.

use rustls::{Error, HandshakeType, InvalidMessage, PeerMisbehaved};

/// The header of a message: type and length.
const HEADER_BYTES: usize = 4;

/// The most bytes of a message. A ticket has at most 64 KiB, and is the longest one that is taken.
const MESSAGE_BYTES_MAX: usize = (64 << 10) + 1024;

/// The bytes of messages that are not complete.
#[derive(Default)]
pub(super) struct Messages(Vec<u8>);

impl Messages {
    /// Adds the content of a record.
    ///
    /// # Errors
    /// When it is empty, which is forbidden.
    pub fn push(&mut self, content: &[u8]) -> Result<(), Error> {
        if content.is_empty() {
            return Err(InvalidMessage::InvalidEmptyPayload.into());
        }
        self.0.extend_from_slice(content);
        Ok(())
    }

    /// Takes the next complete message: its type and its payload.
    ///
    /// # Errors
    /// When the message is longer than any that is expected.
    pub fn pop(&mut self) -> Result<Option<(HandshakeType, Vec<u8>)>, Error> {
        let &[kind, a, b, c, ..] = &self.0[..] else { return Ok(None) };
        let len = u32::from_be_bytes([0, a, b, c]) as usize;
        if len > MESSAGE_BYTES_MAX {
            return Err(InvalidMessage::HandshakePayloadTooLarge.into());
        }
        let Some(payload) = self.0.get(HEADER_BYTES..HEADER_BYTES + len) else { return Ok(None) };
        let message = (HandshakeType::from(kind), payload.to_vec());
        self.0.drain(..HEADER_BYTES + len);
        Ok(Some(message))
    }

    /// Whether no message has begun.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks that no message has begun, as nothing may come between its parts.
    ///
    /// # Errors
    /// When one has.
    pub fn expect_none(&self) -> Result<(), Error> {
        match self.is_empty() {
            true => Ok(()),
            false => Err(PeerMisbehaved::MessageInterleavedWithHandshakeMessage.into()),
        }
    }
}
