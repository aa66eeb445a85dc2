//! The file `entry`: what an entry is, as text with a checksum.
//!
//! ```text
//! ringload cache entry, version 1
//! {"location":"s3://bucket/model.safetensors","len_bytes":1234,"etag":"...","last_modified":"..."}
//! SHA-256 of all above, in hexadecimal digits
//! ```
//!
//! Whatever is not exactly that is no entry.

use super::key::hex;
use crate::source::ObjectIdentity;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Changes with anything that makes older entries unreadable.
const TITLE: &str = "ringload cache entry, version 1\n";

/// No entry is longer: headers and locations are not.
pub(super) const BYTES_MAX: usize = 256 << 10;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    /// Without secrets, for people.
    pub location: String,
    pub len_bytes: u64,
    /// In base64: a header may hold any byte.
    etag: Option<String>,
    last_modified: Option<String>,
}

impl Meta {
    /// Of the object at `location`.
    pub fn new(location: &str, identity: &ObjectIdentity) -> Self {
        let encode = |bytes: Option<&[u8]>| bytes.map(|bytes| STANDARD.encode(bytes));
        Self {
            location: location.to_owned(),
            len_bytes: identity.len_bytes,
            etag: encode(identity.etag()),
            last_modified: encode(identity.last_modified()),
        }
    }

    /// What the object was.
    pub fn identity(&self) -> Option<ObjectIdentity> {
        let decode = |text: &Option<String>| {
            text.as_ref().map(|text| STANDARD.decode(text)).transpose().ok()
        };
        let (etag, last_modified) = (decode(&self.etag)?, decode(&self.last_modified)?);
        ObjectIdentity::from_parts(self.len_bytes, etag.as_deref(), last_modified.as_deref())
    }

    /// As it stands in the file.
    pub fn to_text(&self) -> String {
        // Serializing strings and numbers does not fail.
        let json = serde_json::to_string(self).unwrap_or_default();
        let text = format!("{TITLE}{json}\n");
        let sum = hex(digest(&SHA256, text.as_bytes()).as_ref());
        format!("{text}{sum}\n")
    }

    /// The one in a file; `None` for what is none.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let json = text.strip_prefix(TITLE)?.lines().next()?;
        let meta: Self = serde_json::from_str(json).ok()?;
        // Written the same way again: every byte counts.
        (meta.to_text() == text).then_some(meta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_byte_makes_it_none() {
        let identity = ObjectIdentity::from_parts(1234, Some(b"\"e\xfftag\""), None).unwrap();
        let meta = Meta::new("s3://bucket/a\nb\u{e9}", &identity);
        let text = meta.to_text().into_bytes();
        let read = Meta::parse(&text).unwrap();
        assert_eq!(read, meta);
        assert_eq!(read.identity().unwrap(), identity);
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut flipped = text.clone();
                flipped[at] ^= 1 << bit;
                assert_eq!(Meta::parse(&flipped), None, "byte {at}, bit {bit}");
            }
            assert_eq!(Meta::parse(&text[..at]), None, "cut at {at}");
        }
        assert_eq!(Meta::parse(&[&text[..], b"\n"].concat()), None);
    }
}
