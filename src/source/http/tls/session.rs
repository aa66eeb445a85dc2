//! A connection after its handshake, without its socket: opens the records that arrive, handles those
//! that are no data, and seals what is sent.
//!
//! ```text
//! input --Record::first--> record --RecordKey::open--> into     where it has room for the record
//!                                                  --> plain    else, and from there to `into`
//!                     data: the content stays there
//!                     handshake: messages             alert: the end, or an error
//!                       new session ticket -> rustls, which keeps it for the next connection
//!                       key update         -> rustls, which derives the next key; answered in `out`
//! ```
//!
//! rustls does what needs the secrets of the handshake, by its `kernel` interface. Bytes of a record
//! are counted only after the record was authenticated. What a record leaves beyond the counted bytes
//! of `into` has no meaning: it may be the type of the record, a message, or anything at all if the
//! record is not authentic. After such a record the session has failed for good.

use super::keys::RecordKey;
use super::messages::Messages;
use super::record::{CONTENT_BYTES_MAX, Record, Version};
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::{
    AlertDescription, ContentType, Error, ExtractedSecrets, HandshakeType, InvalidMessage,
    PeerMisbehaved, ProtocolVersion, SupportedCipherSuite,
};

/// The most records in a row that bring no data. The purpose of more could only be to keep this side
/// busy.
const WITHOUT_DATA_MAX: u32 = 64;

const ALERT_WARNING: u8 = 1;
const ALERT_FATAL: u8 = 2;

/// The message that answers a key update: an update without a request for another one.
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// How a session has ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ended {
    /// The server has sent everything, and says so.
    Closed,
    /// A record was wrong, or the server reports an error.
    Failed(Error),
}

/// What [`Session::receive`] did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Received {
    /// How many bytes of the input were used.
    pub consumed: usize,
    /// How many bytes of content are in the destination.
    pub written: usize,
}

/// A connection after its handshake.
pub(super) struct Session {
    kernel: KernelConnection<ClientConnectionData>,
    version: Version,
    incoming: RecordKey,
    outgoing: RecordKey,
    /// How many records may be sealed with one key.
    sealed_max: u64,
    /// The content of a record that its destination had no room for, up to `plain_read` read.
    plain: Vec<u8>,
    plain_read: usize,
    messages: Messages,
    /// Records that are to be sent.
    out: Vec<u8>,
    /// Whether there is an answer to a key update in `out`.
    answers_update: bool,
    without_data: u32,
    /// Whether the end was announced to the server.
    closes: bool,
    ended: Option<Ended>,
}

impl Session {
    /// Takes over a connection from rustls.
    ///
    /// # Errors
    /// When its version or cipher are not supported here.
    pub fn new(
        secrets: ExtractedSecrets,
        kernel: KernelConnection<ClientConnectionData>,
    ) -> Result<Self, Error> {
        let version = match kernel.protocol_version() {
            ProtocolVersion::TLSv1_2 => Version::Tls12,
            ProtocolVersion::TLSv1_3 => Version::Tls13,
            other => return Err(Error::General(format!("{other:?} is not supported"))),
        };
        let sealed_max = match kernel.negotiated_cipher_suite() {
            SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
            SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
        };
        Ok(Self {
            version,
            incoming: RecordKey::new(version, secrets.rx)?,
            outgoing: RecordKey::new(version, secrets.tx)?,
            kernel,
            sealed_max,
            plain: Vec::new(),
            plain_read: 0,
            messages: Messages::default(),
            out: Vec::new(),
            answers_update: false,
            without_data: 0,
            closes: false,
            ended: None,
        })
    }

    /// How the session has ended, if it has.
    pub fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    /// Whether a complete record is at the beginning of `input`, or one that cannot be one.
    pub fn can_receive(&self, input: &[u8]) -> bool {
        !matches!(Record::first(self.version, input), Ok(None))
    }

    /// The least bytes of records that bring `content` bytes in addition to those that had no room.
    pub fn sealed_bytes_min(&self, content: usize) -> usize {
        let content = content.saturating_sub(self.plain.len() - self.plain_read);
        content + content.div_ceil(CONTENT_BYTES_MAX) * self.version.record_overhead_bytes()
    }

    /// Opens the records at the beginning of `input` until `into` is full, no complete record is left
    /// or the session has ended. Content beyond `into` is left for [`take_plain`](Self::take_plain).
    pub fn receive(&mut self, input: &[u8], into: &mut [u8]) -> Received {
        let mut done = Received::default();
        while self.ended.is_none() && self.is_drained() && done.written < into.len() {
            match self.receive_record(&input[done.consumed..], &mut into[done.written..]) {
                Ok(Some(record)) => {
                    done.consumed += record.consumed;
                    done.written += record.written;
                }
                Ok(None) => break,
                Err(error) => self.fail(error),
            }
        }
        done
    }

    /// Moves content that had no room to `into`. Returns the number of bytes.
    pub fn take_plain(&mut self, into: &mut [u8]) -> usize {
        let plain = &self.plain[self.plain_read..];
        let bytes = plain.len().min(into.len());
        into[..bytes].copy_from_slice(&plain[..bytes]);
        self.plain_read += bytes;
        bytes
    }

    /// Whether all content was taken.
    pub fn is_drained(&self) -> bool {
        self.plain_read == self.plain.len()
    }

    /// Seals at most [`CONTENT_BYTES_MAX`] of `data`. Returns how many bytes that are.
    ///
    /// # Errors
    /// When the session has failed, or no more records may be sealed.
    pub fn send(&mut self, data: &[u8]) -> Result<usize, Error> {
        if let Some(Ended::Failed(error)) = &self.ended {
            return Err(error.clone());
        }
        if self.outgoing.sequence() >= self.sealed_max {
            self.update_outgoing()?;
        }
        let bytes = data.len().min(CONTENT_BYTES_MAX);
        self.outgoing.seal(ContentType::ApplicationData, &data[..bytes], &mut self.out)?;
        Ok(bytes)
    }

    /// Announces that nothing more is sent.
    pub fn close(&mut self) {
        if !std::mem::replace(&mut self.closes, true) {
            self.alert(ALERT_WARNING, AlertDescription::CloseNotify);
        }
    }

    /// The records that are to be sent.
    pub fn to_send(&self) -> &[u8] {
        &self.out
    }

    /// Records that `bytes` bytes of [`to_send`](Self::to_send) were sent.
    pub fn sent(&mut self, bytes: usize) {
        self.out.drain(..bytes);
        self.answers_update &= !self.out.is_empty();
    }

    /// Handles the record at the beginning of `input`, if it is complete.
    fn receive_record(&mut self, input: &[u8], into: &mut [u8]) -> Result<Option<Received>, Error> {
        let Some(record) = Record::first(self.version, input)? else { return Ok(None) };
        let len = record.plaintext_bytes();
        let fits = len <= into.len();
        let plaintext = match fits {
            true => &mut into[..len],
            false => {
                self.plain_read = 0;
                self.plain.resize(len, 0);
                &mut self.plain[..]
            }
        };
        let opened = self.incoming.open(&record, plaintext);
        let opened = opened.and_then(|()| record.content(plaintext));
        let (kind, content_bytes) = opened?;
        let consumed = record.len_bytes();
        if kind == ContentType::ApplicationData {
            self.messages.expect_none()?;
            self.count(content_bytes > 0)?;
            if fits {
                return Ok(Some(Received { consumed, written: content_bytes }));
            }
            self.plain.truncate(content_bytes);
            return Ok(Some(Received { consumed, written: self.take_plain(into) }));
        }
        let content = plaintext[..content_bytes].to_vec();
        self.discard_plain();
        self.count(false)?;
        match kind {
            ContentType::Handshake => self.handshake(&content)?,
            ContentType::Alert => self.alerted(&content)?,
            got_type => {
                let expect_types = vec![ContentType::ApplicationData, ContentType::Handshake];
                return Err(Error::InappropriateMessage { expect_types, got_type });
            }
        }
        Ok(Some(Received { consumed, written: 0 }))
    }

    /// Counts the records without data.
    fn count(&mut self, has_data: bool) -> Result<(), Error> {
        self.without_data = if has_data { 0 } else { self.without_data + 1 };
        match self.without_data > WITHOUT_DATA_MAX {
            true => Err(PeerMisbehaved::TooManyEmptyFragments.into()),
            false => Ok(()),
        }
    }

    /// Handles the messages that `content` completes.
    fn handshake(&mut self, content: &[u8]) -> Result<(), Error> {
        self.messages.push(content)?;
        while let Some((kind, payload)) = self.messages.pop()? {
            match (self.version, kind) {
                (Version::Tls13, HandshakeType::NewSessionTicket) => {
                    self.kernel.handle_new_session_ticket(&payload)?;
                }
                (Version::Tls13, HandshakeType::KeyUpdate) => self.key_update(&payload)?,
                (Version::Tls12, HandshakeType::HelloRequest) if payload.is_empty() => {
                    self.alert(ALERT_WARNING, AlertDescription::NoRenegotiation);
                }
                (_, got_type) => {
                    let expect_types =
                        vec![HandshakeType::NewSessionTicket, HandshakeType::KeyUpdate];
                    return Err(Error::InappropriateHandshakeMessage { expect_types, got_type });
                }
            }
        }
        Ok(())
    }

    /// The server uses its next key from the next record on.
    fn key_update(&mut self, payload: &[u8]) -> Result<(), Error> {
        // No message may go on in a record with another key.
        if !self.messages.is_empty() {
            return Err(PeerMisbehaved::KeyEpochWithPendingFragment.into());
        }
        let is_requested = match payload {
            [0] => false,
            [1] => true,
            _ => return Err(InvalidMessage::InvalidKeyUpdate.into()),
        };
        self.incoming = RecordKey::new(self.version, self.kernel.update_rx_secret()?)?;
        // One answer is enough for several requests.
        if is_requested && !self.answers_update {
            self.update_outgoing()?;
        }
        Ok(())
    }

    /// Announces the next key of this side, and uses it.
    fn update_outgoing(&mut self) -> Result<(), Error> {
        if self.version == Version::Tls12 {
            return Err(Error::EncryptError);
        }
        self.outgoing.seal(ContentType::Handshake, &KEY_UPDATE, &mut self.out)?;
        self.outgoing = RecordKey::new(self.version, self.kernel.update_tx_secret()?)?;
        self.answers_update = true;
        Ok(())
    }

    fn alerted(&mut self, content: &[u8]) -> Result<(), Error> {
        self.messages.expect_none()?;
        let &[level, description] = content else {
            return Err(InvalidMessage::MissingData("alert").into());
        };
        let description = AlertDescription::from(description);
        let is_warning = level == ALERT_WARNING;
        match (self.version, description) {
            (_, AlertDescription::CloseNotify) => self.ended = Some(Ended::Closed),
            (Version::Tls13, AlertDescription::UserCanceled) if is_warning => {}
            (Version::Tls12, _) if is_warning => {}
            _ => return Err(Error::AlertReceived(description)),
        }
        Ok(())
    }

    fn discard_plain(&mut self) {
        self.plain.clear();
        self.plain_read = 0;
    }

    /// Ends the session by `error`, and tells the server. The content of the wrong record is lost.
    fn fail(&mut self, error: Error) {
        self.discard_plain();
        let description = match &error {
            Error::DecryptError => Some(AlertDescription::BadRecordMac),
            Error::PeerSentOversizedRecord => Some(AlertDescription::RecordOverflow),
            Error::InvalidMessage(_) => Some(AlertDescription::DecodeError),
            Error::AlertReceived(_) => None,
            _ => Some(AlertDescription::UnexpectedMessage),
        };
        if let Some(description) = description {
            self.alert(ALERT_FATAL, description);
        }
        self.ended = Some(Ended::Failed(error));
    }

    /// Seals an alert. One that cannot be sealed is left out: the connection ends all the same.
    fn alert(&mut self, level: u8, description: AlertDescription) {
        let content = [level, u8::from(description)];
        let _ = self.outgoing.seal(ContentType::Alert, &content, &mut self.out);
    }
}

#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod message_tests;
#[cfg(test)]
mod record_tests;
