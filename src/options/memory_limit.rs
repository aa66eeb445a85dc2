//! How much memory the tensors of a load may take.

use super::parse::parse_bytes;
use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// How much host memory the tensors of a load may take at once.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("model.safetensors");
/// # let norm = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &[0; 24])?;
/// # safetensors::serialize_to_file([("norm", norm)], None, &path)?;
/// use ringload::{Loader, MemoryLimit};
///
/// let limit = MemoryLimit::Bytes(2 << 30);
/// assert_eq!("2GiB".parse::<MemoryLimit>()?, limit);
/// for tensor in Loader::new().memory_limit(limit).stream(&path)? {
///     drop(tensor?); // the load goes on in its memory
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum MemoryLimit {
    /// As much as the tensors need. The load never waits for the caller to drop tensors.
    #[default]
    Unlimited,
    /// The size of the largest tensor, or 1 MiB if that is more.
    Min,
    /// Three times [`Min`](Self::Min), for a caller that still holds the last tensor while it waits
    /// for the next one, as a loop in Python does. Wherever the held tensor lies in the ring, the
    /// next one fits.
    MinHoldingOne,
    /// A number of bytes, at least the size of the largest tensor.
    Bytes(u64),
}

impl FromStr for MemoryLimit {
    type Err = Error;

    /// Parses `unlimited`, `min`, or bytes: `4000000000`, `4GiB`, `512MB`, `1.5GiB`.
    fn from_str(text: &str) -> Result<Self> {
        let refuse = || {
            format!(
                "{text:?} is not a memory limit; use \"unlimited\", \"min\", or bytes such as \
                 4000000000, 512MiB or 4GiB"
            )
        };
        match text.trim() {
            "unlimited" => Ok(Self::Unlimited),
            "min" => Ok(Self::Min),
            _ => parse_bytes(text, refuse).map(Self::Bytes),
        }
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("unlimited"),
            Self::Min | Self::MinHoldingOne => f.write_str("min"),
            Self::Bytes(bytes) => write!(f, "{bytes}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_parse_as_documented() {
        let parse = |text: &str| text.parse::<MemoryLimit>().ok();
        assert_eq!(parse("unlimited"), Some(MemoryLimit::Unlimited));
        assert_eq!(parse("min"), Some(MemoryLimit::Min));
        assert_eq!(parse("4000000000"), Some(MemoryLimit::Bytes(4_000_000_000)));
        assert_eq!(parse("4GiB"), Some(MemoryLimit::Bytes(4 << 30)));
        assert_eq!(parse("256 MiB"), Some(MemoryLimit::Bytes(256 << 20)));
        assert_eq!(parse("1.5GiB"), Some(MemoryLimit::Bytes(3 << 29)));
        assert_eq!(parse("2gb"), Some(MemoryLimit::Bytes(2_000_000_000)));
        for wrong in [
            "",
            "0",
            "-1",
            "4 parsecs",
            "1.5",
            "99999999999999999999",
            "18446744073709551615GiB",
            "1e9",
            ".",
        ] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}
