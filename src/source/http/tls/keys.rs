//! The key of one direction of a connection: opens and seals records with AES-GCM.
//!
//! ```text
//!            nonce (12 bytes)                       additional data
//! TLS 1.3    IV xor sequence number                 the header
//! TLS 1.2    4 bytes of the IV, 8 of the record     sequence number, type, version, length
//! ```
//!
//! The nonces of sealed records of TLS 1.2 are made as rustls makes them, which has sealed the first
//! records with the same key: IV xor sequence number.

use super::record::{EXPLICIT_NONCE_BYTES, HEADER_BYTES, Record, TAG_BYTES, Version};
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::{ConnectionTrafficSecrets, ContentType, Error};

/// The key of one direction, and the number of the next record.
pub(super) struct RecordKey {
    version: Version,
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
}

impl RecordKey {
    /// A key of `secrets`, the first of them being the number of the next record.
    ///
    /// # Errors
    /// When the cipher is not AES-GCM.
    pub fn new(version: Version, secrets: (u64, ConnectionTrafficSecrets)) -> Result<Self, Error> {
        let unsupported = || Error::General("the cipher is not AES-GCM".to_owned());
        let (sequence, secrets) = secrets;
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            _ => return Err(unsupported()),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| unsupported())?;
        let iv = iv.as_ref().try_into().map_err(|_| unsupported())?;
        Ok(Self { version, key: LessSafeKey::new(key), iv, sequence })
    }

    /// The number of records for which this key was used.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Decrypts `record` into `plaintext`, which has the length of its plaintext.
    ///
    /// # Errors
    /// When the record is not authentic. `plaintext` may have any content then.
    pub fn open(&mut self, record: &Record<'_>, plaintext: &mut [u8]) -> Result<(), Error> {
        let (sequence, next) = self.sequences()?;
        let (mut sealed, mut nonce) = (record.payload, self.nonce(sequence));
        let opened = match self.version {
            Version::Tls13 => {
                let (text, tag) = sealed.split_at(sealed.len() - TAG_BYTES);
                let (nonce, header) =
                    (Nonce::assume_unique_for_key(nonce), Aad::from(record.header));
                self.key.open_separate_gather(nonce, header, text, tag, plaintext)
            }
            Version::Tls12 => {
                let explicit;
                (explicit, sealed) = sealed.split_at(EXPLICIT_NONCE_BYTES);
                nonce[NONCE_LEN - EXPLICIT_NONCE_BYTES..].copy_from_slice(explicit);
                let (text, tag) = sealed.split_at(sealed.len() - TAG_BYTES);
                let aad = Aad::from(additional_data(sequence, record.outer_type(), text.len()));
                let nonce = Nonce::assume_unique_for_key(nonce);
                self.key.open_separate_gather(nonce, aad, text, tag, plaintext)
            }
        };
        opened.map_err(|_| Error::DecryptError)?;
        self.sequence = next;
        Ok(())
    }

    /// Appends a record with `content` of type `kind` to `out`.
    ///
    /// # Errors
    /// When the key was used for all numbers, or there is more content than a record has.
    pub fn seal(
        &mut self,
        kind: ContentType,
        content: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        match self.version {
            Version::Tls12 => self.seal_plaintext(kind, content, out),
            Version::Tls13 => {
                let plaintext = [content, &[u8::from(kind)]].concat();
                self.seal_plaintext(ContentType::ApplicationData, &plaintext, out)
            }
        }
    }

    /// Appends a record of the outer type `outer` with `plaintext`, which in TLS 1.3 includes the type
    /// and the padding.
    pub(super) fn seal_plaintext(
        &mut self,
        outer: ContentType,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let (sequence, next) = self.sequences()?;
        let (nonce, start) = (self.nonce(sequence), out.len());
        let payload_bytes = plaintext.len() + self.version.overhead_bytes();
        let len = u16::try_from(payload_bytes).map_err(|_| Error::EncryptError)?;
        out.push(u8::from(outer));
        out.extend_from_slice(&[3, 3]);
        out.extend_from_slice(&len.to_be_bytes());
        let header: [u8; HEADER_BYTES] = out[start..].try_into().unwrap_or_default();
        if self.version == Version::Tls12 {
            out.extend_from_slice(&nonce[NONCE_LEN - EXPLICIT_NONCE_BYTES..]);
        }
        let text_start = out.len();
        out.extend_from_slice(plaintext);
        let (nonce, text) = (Nonce::assume_unique_for_key(nonce), &mut out[text_start..]);
        let tag = match self.version {
            Version::Tls13 => self.key.seal_in_place_separate_tag(nonce, Aad::from(header), text),
            Version::Tls12 => {
                let aad = Aad::from(additional_data(sequence, outer, plaintext.len()));
                self.key.seal_in_place_separate_tag(nonce, aad, text)
            }
        };
        out.extend_from_slice(tag.map_err(|_| Error::EncryptError)?.as_ref());
        self.sequence = next;
        Ok(())
    }

    /// The number of this record and that of the next one. Numbers are never used twice.
    fn sequences(&self) -> Result<(u64, u64), Error> {
        let next = self.sequence.checked_add(1).ok_or(Error::EncryptError)?;
        Ok((self.sequence, next))
    }

    /// IV xor sequence number.
    fn nonce(&self, sequence: u64) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        let last = nonce[NONCE_LEN - 8..].iter_mut();
        last.zip(sequence.to_be_bytes()).for_each(|(byte, number)| *byte ^= number);
        nonce
    }
}

/// The additional data of a record of TLS 1.2 with `len` bytes of content.
fn additional_data(sequence: u64, kind: ContentType, len: usize) -> [u8; 13] {
    let mut data = [0; 13];
    data[..8].copy_from_slice(&sequence.to_be_bytes());
    data[8..11].copy_from_slice(&[u8::from(kind), 3, 3]);
    data[11..].copy_from_slice(&(len as u16).to_be_bytes());
    data
}
