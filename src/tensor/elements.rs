//! Bytes of host memory as slices of elements.

use crate::dtype::Dtype;
use crate::error::{Error, Result};
use std::any::type_name;

/// A type of elements, for [`Tensor::as_slice`](super::Tensor::as_slice): the integers of 8 to 64
/// bits, `f32` and `f64`. No other crate can implement it.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("model.safetensors");
/// # let norm = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &[0; 24])?;
/// # safetensors::serialize_to_file([("norm", norm)], None, &path)?;
/// let model = ringload::Loader::new().load(&path)?;
/// let norm = model.get("norm").ok_or("no norm")?;
/// assert_eq!(norm.as_slice::<f32>()?.len(), 6);
/// assert!(norm.as_slice::<u8>().is_err(), "the elements are F32");
/// # Ok(())
/// # }
/// ```
pub trait Element: sealed::Plain {}

mod sealed {
    use crate::dtype::Dtype;

    /// # Safety
    /// The type has no padding, and all bits are valid.
    pub unsafe trait Plain: Copy + 'static {
        /// The dtypes whose elements have this type, or the same bits.
        const DTYPES: &'static [Dtype];
    }
}

macro_rules! elements {
    ($($element:ty: $($dtype:ident)*;)*) => {$(
        // SAFETY: a number of the language, of which all bits are valid.
        unsafe impl sealed::Plain for $element {
            const DTYPES: &'static [Dtype] = &[$(Dtype::$dtype),*];
        }
        impl Element for $element {}
    )*};
}

elements! {
    u8: U8 BOOL F8_E4M3 F8_E4M3FNUZ F8_E5M2 F8_E5M2FNUZ F8_E8M0;
    u16: U16 BF16 F16;
    u32: U32;
    u64: U64;
    i8: I8;
    i16: I16;
    i32: I32;
    i64: I64;
    f32: F32;
    f64: F64;
}

/// The bytes of elements of `dtype` as a slice of `T`.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) if `T` is not the type of these elements, or the
/// bytes are not aligned for it.
pub(super) fn elements_of<T: Element>(bytes: &[u8], dtype: Dtype) -> Result<&[T]> {
    let element = type_name::<T>();
    if !T::DTYPES.contains(&dtype) {
        return Err(Error::invalid_input(format!("elements of {dtype} are not {element}")));
    }
    // SAFETY: `Plain` says that `T` has no padding and that all bits are valid. The middle of the
    // bytes is aligned, and lives as long as they do.
    let (before, elements, after) = unsafe { bytes.align_to::<T>() };
    if before.is_empty() && after.is_empty() {
        return Ok(elements);
    }
    Err(Error::invalid_input(format!(
        "the elements are not aligned for {element}, because they are not aligned in the file; \
         copy the bytes instead"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_another_type_or_alignment_are_refused() {
        let numbers = [1_u64, u64::MAX];
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
        let mut memory = [0_u64; 4];
        // SAFETY: the bytes of integers.
        let (_, room, _) = unsafe { memory.align_to_mut::<u8>() };
        room[..16].copy_from_slice(&bytes);
        assert_eq!(elements_of::<u64>(&room[..16], Dtype::U64).unwrap(), numbers);
        assert_eq!(elements_of::<u16>(&room[..2], Dtype::BF16).unwrap(), [1]);
        assert!(elements_of::<f64>(&room[..0], Dtype::F64).unwrap().is_empty());

        let refused = |result: Result<&[u64]>| result.unwrap_err().to_string();
        let other = refused(elements_of(&room[..16], Dtype::I64));
        assert_eq!(other, "elements of I64 are not u64");
        for unaligned in [1..17, 4..12] {
            let message = refused(elements_of(&room[unaligned], Dtype::U64));
            assert!(message.contains("not aligned for u64"), "{message}");
        }
    }
}
