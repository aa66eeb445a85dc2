//! The file `entry`: the metadata of an entry, as text with a checksum.
//!
//! ```text
//! ringload cache entry, version 2
//! {"address":"...","scopes":["..."],"location":"s3://bucket/model.safetensors","len_bytes":1234,...}
//! SHA-256 of all lines above, in hexadecimal digits
//! ```
//!
//! An entry with any other text is not used.

use super::key::{self, sha256};
use crate::location::{Location, LocationText, ObjectUri};
use crate::source::ObjectIdentity;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// The version increases with each change that makes older entries unreadable.
const TITLE: &str = "ringload cache entry, version 2\n";

/// The maximum length of an entry's metadata. HTTP headers and locations are shorter than this.
pub(super) const BYTES_MAX: usize = 256 << 10;

/// The metadata of an entry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Meta {
    /// The name of the object's address.
    pub address: String,
    /// The names of the locations that the object belongs to: see [`key::scopes`].
    pub scopes: Vec<String>,
    pub location: LocationText,
    pub len_bytes: u64,
    /// In base64, as an HTTP header may contain any byte.
    etag: Option<String>,
    last_modified: Option<String>,
}

impl Meta {
    /// The metadata of the object `uri`, whose address has the name `address`.
    pub fn new(address: &str, uri: &ObjectUri, identity: &ObjectIdentity) -> Self {
        let encode = |bytes: Option<&[u8]>| bytes.map(|bytes| STANDARD.encode(bytes));
        Self {
            address: address.to_owned(),
            scopes: key::scopes(uri),
            location: LocationText::from(&Location::from(uri.clone())),
            len_bytes: identity.len_bytes,
            etag: encode(identity.etag()),
            last_modified: encode(identity.last_modified()),
        }
    }

    /// The object's identity when it was cached.
    pub fn identity(&self) -> Option<ObjectIdentity> {
        let decode = |text: &Option<String>| {
            text.as_ref().map(|text| STANDARD.decode(text)).transpose().ok()
        };
        let (etag, last_modified) = (decode(&self.etag)?, decode(&self.last_modified)?);
        ObjectIdentity::from_parts(self.len_bytes, etag.as_deref(), last_modified.as_deref())
    }

    /// The text of the file.
    pub fn to_text(&self) -> String {
        // Serializing strings and numbers cannot fail.
        let json = serde_json::to_string(self).unwrap_or_default();
        let text = format!("{TITLE}{json}\n");
        format!("{text}{}\n", sha256(text.as_bytes()))
    }

    /// The metadata in the text of a file; `None` where it is damaged.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let json = text.strip_prefix(TITLE)?.lines().next()?;
        let meta: Self = serde_json::from_str(json).ok()?;
        // The text is valid only if the metadata serializes to exactly the same bytes.
        (meta.to_text() == text).then_some(meta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::Scheme;

    #[test]
    fn any_flipped_byte_is_noticed() {
        let identity = ObjectIdentity::from_parts(1234, Some(b"\"e\xfftag\""), None).unwrap();
        let uri = ObjectUri::new(Scheme::S3, "bucket", "a\nb\u{e9}");
        let meta = Meta::new("0123", &uri, &identity);
        let text = meta.to_text().into_bytes();
        let read = Meta::parse(&text).unwrap();
        assert_eq!(read.to_text(), meta.to_text());
        assert_eq!(read.identity().unwrap(), identity);
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut flipped = text.clone();
                flipped[at] ^= 1 << bit;
                assert!(Meta::parse(&flipped).is_none(), "byte {at}, bit {bit}");
            }
            assert!(Meta::parse(&text[..at]).is_none(), "cut at {at}");
        }
        assert!(Meta::parse(&[&text[..], b"\n"].concat()).is_none());
    }
}
