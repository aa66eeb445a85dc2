//! The size of a tensor.
//!
//! Sizes are computed in bits, because some types are narrower than a byte, and with checked
//! arithmetic, because shapes come from a file.

use crate::dtype::Dtype;

/// The reason why a tensor has no size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SizeError {
    /// The number of elements or of bits exceeds 2^64 - 1.
    Overflow,
    /// This number of bits is not a whole number of bytes.
    PartOfByte(u64),
}

/// Returns the size of a tensor in bytes.
///
/// Dimensions are multiplied from the left, as in the `safetensors` crate. Therefore
/// `[0, huge, huge]` has a size, and `[huge, huge, 0]` overflows.
pub(super) fn len_bytes(dtype: Dtype, shape: &[usize]) -> Result<u64, SizeError> {
    let elements = shape
        .iter()
        .try_fold(1u64, |product, &dimension| product.checked_mul(u64::try_from(dimension).ok()?));
    let bits = elements
        .and_then(|elements| elements.checked_mul(u64::try_from(dtype.bitsize()).ok()?))
        .ok_or(SizeError::Overflow)?;
    if bits.is_multiple_of(8) { Ok(bits / 8) } else { Err(SizeError::PartOfByte(bits)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every type of safetensors 0.8 with its size in bits.
    const ALL: [(&str, u64); 22] = [
        ("BOOL", 8),
        ("F4", 4),
        ("F6_E2M3", 6),
        ("F6_E3M2", 6),
        ("U8", 8),
        ("I8", 8),
        ("F8_E5M2", 8),
        ("F8_E4M3", 8),
        ("F8_E8M0", 8),
        ("F8_E4M3FNUZ", 8),
        ("F8_E5M2FNUZ", 8),
        ("I16", 16),
        ("U16", 16),
        ("F16", 16),
        ("BF16", 16),
        ("I32", 32),
        ("U32", 32),
        ("F32", 32),
        ("C64", 64),
        ("F64", 64),
        ("I64", 64),
        ("U64", 64),
    ];

    #[test]
    fn every_type_is_known_by_name() {
        for (name, bits) in ALL {
            let dtype = Dtype::from_name(name).unwrap();
            assert_eq!(dtype.to_string(), name);
            assert_eq!(len_bytes(dtype, &[2, 4]), Ok(bits), "{name}");
        }
        for name in ["", "f32", "F32 ", "F128", "null"] {
            assert_eq!(Dtype::from_name(name), None, "{name}");
        }
    }

    #[test]
    fn sizes_are_whole_bytes_below_2_to_64() {
        assert_eq!(len_bytes(Dtype::F32, &[]), Ok(4));
        assert_eq!(len_bytes(Dtype::F32, &[3, 0]), Ok(0));
        assert_eq!(len_bytes(Dtype::F32, &[0, usize::MAX, usize::MAX]), Ok(0));
        assert_eq!(len_bytes(Dtype::F32, &[usize::MAX, 2, 0]), Err(SizeError::Overflow));
        assert_eq!(len_bytes(Dtype::U8, &[1 << 61]), Err(SizeError::Overflow));
        assert_eq!(len_bytes(Dtype::F4, &[2]), Ok(1));
        assert_eq!(len_bytes(Dtype::F4, &[3]), Err(SizeError::PartOfByte(12)));
        assert_eq!(len_bytes(Dtype::F6_E2M3, &[2, 2]), Ok(3));
        assert_eq!(len_bytes(Dtype::F6_E3M2, &[]), Err(SizeError::PartOfByte(6)));
    }
}
