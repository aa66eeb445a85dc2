//! Conversions from and to the types of the `safetensors` crate.

use super::Dtype;
use crate::error::{Error, ErrorKind, Result};

/// ```
/// use ringload::Dtype;
///
/// assert_eq!(safetensors::Dtype::from(Dtype::BF16), safetensors::Dtype::BF16);
/// ```
impl From<Dtype> for safetensors::Dtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::BOOL => Self::BOOL,
            Dtype::F4 => Self::F4,
            Dtype::F6_E2M3 => Self::F6_E2M3,
            Dtype::F6_E3M2 => Self::F6_E3M2,
            Dtype::U8 => Self::U8,
            Dtype::I8 => Self::I8,
            Dtype::F8_E5M2 => Self::F8_E5M2,
            Dtype::F8_E4M3 => Self::F8_E4M3,
            Dtype::F8_E8M0 => Self::F8_E8M0,
            Dtype::F8_E4M3FNUZ => Self::F8_E4M3FNUZ,
            Dtype::F8_E5M2FNUZ => Self::F8_E5M2FNUZ,
            Dtype::I16 => Self::I16,
            Dtype::U16 => Self::U16,
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::BF16,
            Dtype::I32 => Self::I32,
            Dtype::U32 => Self::U32,
            Dtype::F32 => Self::F32,
            Dtype::C64 => Self::C64,
            Dtype::F64 => Self::F64,
            Dtype::I64 => Self::I64,
            Dtype::U64 => Self::U64,
        }
    }
}

impl TryFrom<safetensors::Dtype> for Dtype {
    type Error = Error;

    /// Fails with [`Unsupported`](ErrorKind::Unsupported) for a type that a later version of the
    /// `safetensors` crate adds.
    fn try_from(dtype: safetensors::Dtype) -> Result<Self> {
        Self::ALL.into_iter().find(|own| safetensors::Dtype::from(*own) == dtype).ok_or_else(|| {
            let fact = format!("ringload does not know the type {dtype} of the safetensors crate");
            Error::new(ErrorKind::Unsupported, fact)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The types were those of the `safetensors` crate, and new ones came with it. Now a version of
    /// the crate that knows another type fails here. The crate lists its types in the message about an
    /// unknown one.
    #[test]
    fn the_types_are_exactly_those_of_the_safetensors_crate() {
        let message = serde_json::from_str::<safetensors::Dtype>("\"?\"").unwrap_err().to_string();
        let mut theirs: Vec<_> = message.split('`').skip(3).step_by(2).collect();
        let mut own = Dtype::ALL.map(Dtype::as_str);
        theirs.sort_unstable();
        own.sort_unstable();
        assert_eq!(own, *theirs, "{message}");
    }

    #[test]
    fn names_sizes_and_conversions_agree_with_the_safetensors_crate() {
        for own in Dtype::ALL {
            let theirs = safetensors::Dtype::from(own);
            assert_eq!((own.to_string(), own.bitsize()), (theirs.to_string(), theirs.bitsize()));
            assert_eq!(Dtype::try_from(theirs).unwrap(), own);
            assert_eq!(own.as_str().parse::<Dtype>().unwrap(), own);
            assert_eq!(serde_json::to_string(&own).unwrap(), format!("\"{own}\""));
        }
        let error = "f32".parse::<Dtype>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("\"f32\"") && error.to_string().contains("F32, C64"));
    }
}
