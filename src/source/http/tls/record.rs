//! Records of TLS: their headers and limits (RFC 8446, section 5; RFC 5246, section 6.2).

use rustls::{ContentType, Error, InvalidMessage, PeerMisbehaved};

/// The length of the header: type, version, and length of the payload.
pub(super) const HEADER_BYTES: usize = 5;

/// The most bytes of content that a record has.
pub(super) const CONTENT_BYTES_MAX: usize = 1 << 14;

/// The length of the tag that authenticates a record.
pub(super) const TAG_BYTES: usize = 16;

/// The part of the nonce that a record of TLS 1.2 carries.
pub(super) const EXPLICIT_NONCE_BYTES: usize = 8;

/// The most bytes that a record of either version has, with its header.
pub(super) const RECORD_BYTES_MAX: usize = HEADER_BYTES + CONTENT_BYTES_MAX + 256;

/// The version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Tls12,
    Tls13,
}

impl Version {
    /// The bytes of the payload in addition to the plaintext: nonce and tag.
    pub fn overhead_bytes(self) -> usize {
        match self {
            Self::Tls12 => EXPLICIT_NONCE_BYTES + TAG_BYTES,
            Self::Tls13 => TAG_BYTES,
        }
    }

    /// The least bytes of a record in addition to its content.
    pub fn record_overhead_bytes(self) -> usize {
        HEADER_BYTES + self.payload_bytes().0
    }

    /// The least and the most bytes of a payload. The plaintext of TLS 1.3 ends with a type, and with
    /// padding.
    fn payload_bytes(self) -> (usize, usize) {
        let overhead = self.overhead_bytes();
        match self {
            Self::Tls12 => (overhead, overhead + CONTENT_BYTES_MAX),
            Self::Tls13 => (overhead + 1, CONTENT_BYTES_MAX + 256),
        }
    }
}

/// A complete record that was not opened yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'a> {
    pub version: Version,
    /// Type, version and length as they were received.
    pub header: &'a [u8],
    pub payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record at the beginning of `input`; `None` if it has not arrived completely.
    ///
    /// # Errors
    /// When no such record may be sent on a connection that was set up.
    pub fn first(version: Version, input: &'a [u8]) -> Result<Option<Self>, Error> {
        let Some((header, rest)) = input.split_at_checked(HEADER_BYTES) else { return Ok(None) };
        let record = Self { version, header, payload: rest };
        let got_type = record.outer_type();
        let expected: &[ContentType] = match version {
            // All records are encrypted, and look like data.
            Version::Tls13 => &[ContentType::ApplicationData],
            Version::Tls12 => {
                &[ContentType::Alert, ContentType::Handshake, ContentType::ApplicationData]
            }
        };
        if !expected.contains(&got_type) {
            return Err(Error::InappropriateMessage { expect_types: expected.to_vec(), got_type });
        }
        // The version in a record of TLS 1.3 says nothing, but it is authenticated.
        if version == Version::Tls12 && header[1..3] != [3, 3] {
            return Err(Error::InvalidMessage(InvalidMessage::UnknownProtocolVersion));
        }
        let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let (least, most) = version.payload_bytes();
        if len > most {
            return Err(Error::PeerSentOversizedRecord);
        }
        if len < least {
            return Err(Error::DecryptError);
        }
        Ok(rest.get(..len).map(|payload| Self { payload, ..record }))
    }

    /// The type in the header.
    pub fn outer_type(&self) -> ContentType {
        ContentType::from(self.header[0])
    }

    /// The length of the record with its header.
    pub fn len_bytes(&self) -> usize {
        self.header.len() + self.payload.len()
    }

    /// The length of the plaintext: the content and, in TLS 1.3, its type and padding.
    pub fn plaintext_bytes(&self) -> usize {
        self.payload.len() - self.version.overhead_bytes()
    }

    /// The type of the content, and its length within the `plaintext` of this record.
    ///
    /// # Errors
    /// When the content is too long, or has no type.
    pub fn content(&self, plaintext: &[u8]) -> Result<(ContentType, usize), Error> {
        let (kind, len) = match self.version {
            Version::Tls12 => (self.outer_type(), plaintext.len()),
            Version::Tls13 => {
                let last = plaintext.iter().rposition(|&byte| byte != 0);
                let last = last.ok_or(PeerMisbehaved::IllegalTlsInnerPlaintext)?;
                (ContentType::from(plaintext[last]), last)
            }
        };
        if len > CONTENT_BYTES_MAX {
            return Err(Error::PeerSentOversizedRecord);
        }
        Ok((kind, len))
    }
}
