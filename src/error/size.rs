//! Sizes in messages.

use std::fmt;

const UNITS: [(&str, u64); 5] =
    [("PiB", 1 << 50), ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Shows a number of bytes in the largest unit that makes it at least 1. A number that is no multiple
/// of its unit is followed by the exact one: `4 GiB`, `1.50 MiB (1572865 bytes)`, `1 byte`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0;
        match UNITS.into_iter().find(|&(_, unit_bytes)| bytes >= unit_bytes) {
            None => write!(f, "{bytes} byte{}", if bytes == 1 { "" } else { "s" }),
            Some((unit, unit_bytes)) if bytes.is_multiple_of(unit_bytes) => {
                write!(f, "{} {unit}", bytes / unit_bytes)
            }
            Some((unit, unit_bytes)) => {
                let value = bytes as f64 / unit_bytes as f64;
                write!(f, "{value:.2} {unit} ({bytes} bytes)")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short_and_exact() {
        let shown = |bytes| Size(bytes).to_string();
        assert_eq!([0, 1, 1023].map(shown), ["0 bytes", "1 byte", "1023 bytes"]);
        assert_eq!([1024, 4 << 30, 5 << 40].map(shown), ["1 KiB", "4 GiB", "5 TiB"]);
        assert_eq!(shown((3 << 19) + 1), "1.50 MiB (1572865 bytes)");
        assert_eq!(shown(1000 << 10), "1000 KiB");
        assert_eq!(shown(u64::MAX), "16384.00 PiB (18446744073709551615 bytes)");
    }
}
