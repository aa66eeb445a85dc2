//! Checksums as hexadecimal digits, the first byte first.

use std::fmt::Write;

/// Returns `bytes` as lower-case hexadecimal digits.
pub(crate) fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a string does not fail
        text
    })
}

/// Returns the `N` bytes that `text` has the digits of, in lower or upper case. `None` for any other
/// text.
pub(crate) fn decode<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    if pairs.len() != N {
        return None;
    }
    let digit = |digit: u8| (digit as char).to_digit(16).map(|value| value as u8);
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_taken_in_either_case_and_nothing_else_is() {
        assert_eq!(encode(&[0, 0xAE, 0x8B]), "00ae8b");
        assert_eq!(decode(b"00aE8B"), Some([0, 0xAE, 0x8B]));
        for wrong in [&b"00ae8"[..], b"00ae8b0", b"00ae8g", b"+0ae8b", b"00ae8b00", b"", b"00 ae8"]
        {
            assert_eq!(decode::<3>(wrong), None, "{wrong:?}");
        }
    }
}
