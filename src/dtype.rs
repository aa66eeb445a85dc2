//! The type of the elements of a tensor.
//!
//! [`Dtype`] has the types of the safetensors format under their names in a header. It is an enum of
//! this crate, so that a new minor version of the `safetensors` crate changes nothing for users of
//! [`Tensor`](crate::Tensor). Only the two conversions of the feature `safetensors` name that crate.

#[cfg(feature = "safetensors")]
mod safetensors_dtype;

use crate::error::{Error, ErrorKind, Result};
use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// The type of the elements of a tensor, named as in the header of a safetensors file.
///
/// ```
/// use ringload::Dtype;
///
/// let dtype: Dtype = "BF16".parse().unwrap();
/// assert_eq!((dtype, dtype.bitsize()), (Dtype::BF16, 16));
/// assert_eq!(dtype.to_string(), "BF16");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[non_exhaustive]
#[allow(non_camel_case_types)] // The names are those of the format.
pub enum Dtype {
    /// A boolean in one byte.
    BOOL,
    /// A float of 4 bits: MXFP4.
    F4,
    /// A float of 6 bits with 2 bits of exponent: MXFP6.
    F6_E2M3,
    /// A float of 6 bits with 3 bits of exponent: MXFP6.
    F6_E3M2,
    /// An unsigned integer of 8 bits.
    U8,
    /// A signed integer of 8 bits.
    I8,
    /// A float of 8 bits with 5 bits of exponent, as OCP defines it.
    F8_E5M2,
    /// A float of 8 bits with 4 bits of exponent and no infinities, as OCP defines it.
    F8_E4M3,
    /// A power of two in 8 bits: the scale of MX blocks.
    F8_E8M0,
    /// A float of 8 bits with 4 bits of exponent, no infinities and no negative zero.
    F8_E4M3FNUZ,
    /// A float of 8 bits with 5 bits of exponent, no infinities and no negative zero.
    F8_E5M2FNUZ,
    /// A signed integer of 16 bits.
    I16,
    /// An unsigned integer of 16 bits.
    U16,
    /// A float of 16 bits: IEEE 754 half precision.
    F16,
    /// A float of 16 bits: the upper half of an F32.
    BF16,
    /// A signed integer of 32 bits.
    I32,
    /// An unsigned integer of 32 bits.
    U32,
    /// A float of 32 bits.
    F32,
    /// A complex number of two floats of 32 bits.
    C64,
    /// A float of 64 bits.
    F64,
    /// A signed integer of 64 bits.
    I64,
    /// An unsigned integer of 64 bits.
    U64,
}

impl Dtype {
    /// All types, ordered by their alignment.
    pub const ALL: [Self; 22] = [
        Self::BOOL,
        Self::F4,
        Self::F6_E2M3,
        Self::F6_E3M2,
        Self::U8,
        Self::I8,
        Self::F8_E5M2,
        Self::F8_E4M3,
        Self::F8_E8M0,
        Self::F8_E4M3FNUZ,
        Self::F8_E5M2FNUZ,
        Self::I16,
        Self::U16,
        Self::F16,
        Self::BF16,
        Self::I32,
        Self::U32,
        Self::F32,
        Self::C64,
        Self::F64,
        Self::I64,
        Self::U64,
    ];

    /// The name of the type in the header of a safetensors file, such as `BF16`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BOOL => "BOOL",
            Self::F4 => "F4",
            Self::F6_E2M3 => "F6_E2M3",
            Self::F6_E3M2 => "F6_E3M2",
            Self::U8 => "U8",
            Self::I8 => "I8",
            Self::F8_E5M2 => "F8_E5M2",
            Self::F8_E4M3 => "F8_E4M3",
            Self::F8_E8M0 => "F8_E8M0",
            Self::F8_E4M3FNUZ => "F8_E4M3FNUZ",
            Self::F8_E5M2FNUZ => "F8_E5M2FNUZ",
            Self::I16 => "I16",
            Self::U16 => "U16",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::I32 => "I32",
            Self::U32 => "U32",
            Self::F32 => "F32",
            Self::C64 => "C64",
            Self::F64 => "F64",
            Self::I64 => "I64",
            Self::U64 => "U64",
        }
    }

    /// Returns the type that a header names so.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.as_str() == name)
    }

    /// The size of one element in bits. Some types are narrower than a byte.
    pub const fn bitsize(self) -> usize {
        match self {
            Self::F4 => 4,
            Self::F6_E2M3 | Self::F6_E3M2 => 6,
            Self::BOOL
            | Self::U8
            | Self::I8
            | Self::F8_E5M2
            | Self::F8_E4M3
            | Self::F8_E8M0
            | Self::F8_E4M3FNUZ
            | Self::F8_E5M2FNUZ => 8,
            Self::I16 | Self::U16 | Self::F16 | Self::BF16 => 16,
            Self::I32 | Self::U32 | Self::F32 => 32,
            Self::C64 | Self::F64 | Self::I64 | Self::U64 => 64,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Dtype {
    type Err = Error;

    /// Parses the name of a type as the header of a safetensors file has it: `F32`, `BF16`, `F8_E4M3`.
    /// [`parse_dtype`](crate::options::parse_dtype) also takes names such as `bfloat16`.
    fn from_str(name: &str) -> Result<Self> {
        Self::from_name(name).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            let fact =
                format!("{name:?} is not a type of the safetensors format; use one of {names}");
            Error::new(ErrorKind::InvalidInput, fact)
        })
    }
}
