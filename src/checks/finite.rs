//! Counts NaN and infinity in tensors.
//!
//! | type | NaN | infinity |
//! | --- | --- | --- |
//! | F64, F32, F16, BF16, F8_E5M2, and both halves of C64 | yes | yes |
//! | F8_E4M3 | yes | no |
//! | F8_E4M3FNUZ, F8_E5M2FNUZ | one code | no |
//! | F8_E8M0 | one code | no |
//! | F4, F6, integers, booleans | no | no |
//!
//! Values are looked at as they are stored, before a cast. Extents never end within an element of
//! these types, so each full slot is looked at by itself. Of a tensor of which a part is loaded, the
//! values of that part are looked at.

use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result, option};
use crate::plan::{Extent, Plan};
use crate::sync::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many tensors an error names.
const NAMED_MAX: usize = 5;

/// The number of values that are not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct NonFinite {
    pub nan: u64,
    pub infinite: u64,
}

/// Looks for NaN and infinity in the tensors of a plan.
pub(crate) struct FiniteCheck {
    plan: Arc<Plan>,
    /// The counts of tensors with such values, by their index in the checkpoint.
    found: Mutex<BTreeMap<u32, NonFinite>>,
}

impl NonFinite {
    /// The values of `bytes`, which are whole elements of `dtype`.
    pub fn of(dtype: Dtype, bytes: &[u8]) -> Self {
        let nan = |is: fn(u8) -> bool| Self { nan: count(bytes, is), infinite: 0 };
        match dtype {
            Dtype::F64 => of_floats(bytes, u64::from_le_bytes, 0x7FF0_0000_0000_0000),
            Dtype::F32 | Dtype::C64 => of_floats(bytes, u32::from_le_bytes, 0x7F80_0000),
            Dtype::F16 => of_floats(bytes, u16::from_le_bytes, 0x7C00),
            Dtype::BF16 => of_floats(bytes, u16::from_le_bytes, 0x7F80),
            Dtype::F8_E5M2 => of_e5m2(bytes),
            Dtype::F8_E4M3 => nan(|value| value & 0x7F == 0x7F),
            Dtype::F8_E4M3FNUZ | Dtype::F8_E5M2FNUZ => nan(|value| value == 0x80),
            Dtype::F8_E8M0 => nan(|value| value == 0xFF),
            _ => Self::default(),
        }
    }

    /// Whether there are none.
    pub fn is_zero(self) -> bool {
        self == Self::default()
    }

    /// Adds the counts of other values of the same tensor.
    fn add(&mut self, other: Self) {
        self.nan += other.nan;
        self.infinite += other.infinite;
    }

    /// The error for a checkpoint with `count` tensors with such values, of which `named` are some.
    pub fn error<'a>(count: usize, named: impl Iterator<Item = (&'a str, Self)>) -> Error {
        let named = named.map(|(name, Self { nan, infinite })| {
            format!("{name:?} ({nan} NaN, {infinite} infinite)")
        });
        let named: Vec<_> = named.take(NAMED_MAX).collect();
        let more = if count > named.len() { ", and others" } else { "" };
        let tensors = if count == 1 { "1 tensor holds" } else { &format!("{count} tensors hold") };
        let sentence = format!(
            "{tensors} values that are not finite: {}{more}; load without {} if they are meant \
             to be there",
            named.join(", "),
            option("check_finite").on()
        );
        Error::new(ErrorKind::NotFinite, sentence)
    }
}

/// Counts in `bytes` the floats whose `exponent` bits are all set. With a mantissa of zero they are
/// infinite.
fn of_floats<T, const N: usize>(bytes: &[u8], from: fn([u8; N]) -> T, exponent: T) -> NonFinite
where
    T: Copy
        + PartialEq
        + std::ops::BitAnd<Output = T>
        + std::ops::Shl<u32, Output = T>
        + std::ops::Shr<u32, Output = T>,
{
    let (values, _) = bytes.as_chunks::<N>();
    let is_set = |value: &[u8; N]| from(*value) & exponent == exponent;
    let all = values.iter().filter(|value| is_set(value)).count() as u64;
    if all == 0 {
        return NonFinite::default(); // as nearly always
    }
    // Without its sign, an infinite value is nothing but the exponent.
    let is_infinite = |value: &[u8; N]| from(*value) << 1 >> 1 == exponent;
    let infinite = values.iter().filter(|value| is_infinite(value)).count() as u64;
    NonFinite { nan: all - infinite, infinite }
}

/// As [`of_floats`], of F8_E5M2.
fn of_e5m2(bytes: &[u8]) -> NonFinite {
    let all = count(bytes, |value| value & 0x7C == 0x7C);
    if all == 0 {
        return NonFinite::default();
    }
    let infinite = count(bytes, |value| value & 0x7F == 0x7C);
    NonFinite { nan: all - infinite, infinite }
}

fn count(bytes: &[u8], is: fn(u8) -> bool) -> u64 {
    bytes.iter().filter(|&&value| is(value)).count() as u64
}

impl FiniteCheck {
    /// A check of the tensors of `plan`.
    pub fn new(plan: Arc<Plan>) -> Self {
        Self { plan, found: Mutex::default() }
    }

    /// Looks at the `bytes` of `extent`.
    pub fn add(&self, extent: &Extent, bytes: &[u8]) {
        for position in extent.positions() {
            let index = self.plan.tensors()[position];
            let dtype = self.plan.checkpoint().tensors()[index as usize].dtype();
            for range in self.plan.ranges(position, extent) {
                let start = (range.offset_bytes - extent.offset_bytes()) as usize;
                let values = &bytes[start..start + range.len_bytes as usize];
                let counts = NonFinite::of(dtype, values);
                if !counts.is_zero() {
                    self.found.lock().entry(index).or_default().add(counts);
                }
            }
        }
    }

    /// Fails if any tensor that was looked at holds NaN or infinity.
    ///
    /// # Errors
    /// [`NotFinite`](ErrorKind::NotFinite), naming the first of them.
    pub fn result(&self) -> Result<()> {
        let found = self.found.lock();
        if found.is_empty() {
            return Ok(());
        }
        let tensors = self.plan.checkpoint().tensors();
        let named = found.iter().map(|(&index, &counts)| (tensors[index as usize].name(), counts));
        Err(NonFinite::error(found.len(), named))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(dtype: Dtype, values: &[&[u8]]) -> (u64, u64) {
        let NonFinite { nan, infinite } = NonFinite::of(dtype, &values.concat());
        (nan, infinite)
    }

    #[test]
    fn floats_are_told_apart_as_the_language_does() {
        let every = |at: u32| at.wrapping_mul(0x9E37_79B9);
        let edges =
            [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE];
        let edges = edges.iter().map(|value| value.to_bits());
        for bits in
            (0..100_000).map(every).chain(edges).chain([0x7F80_0001, 0x7FFF_FFFF, 0x7F7F_FFFF])
        {
            let value = f32::from_bits(bits);
            let expected = (u64::from(value.is_nan()), u64::from(value.is_infinite()));
            assert_eq!(of(Dtype::F32, &[&bits.to_le_bytes()]), expected, "{bits:08x}");
            assert_eq!(of(Dtype::BF16, &[&bits.to_le_bytes()[2..]]), {
                let value = f32::from_bits(bits & 0xFFFF_0000);
                (u64::from(value.is_nan()), u64::from(value.is_infinite()))
            });
            let value = f64::from_bits(u64::from(bits) << 32 | 1);
            let expected = (u64::from(value.is_nan()), u64::from(value.is_infinite()));
            assert_eq!(of(Dtype::F64, &[&value.to_bits().to_le_bytes()]), expected, "{bits:08x}");
        }
        assert_eq!(
            of(Dtype::F64, &[&f64::NEG_INFINITY.to_le_bytes(), &f64::NAN.to_le_bytes()]),
            (1, 1)
        );
        assert_eq!(
            of(Dtype::C64, &[&f32::NAN.to_le_bytes(), &f32::INFINITY.to_le_bytes()]),
            (1, 1)
        );
    }

    #[test]
    fn every_code_of_the_narrow_types_is_known() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(of(Dtype::F8_E5M2, &[&all]), (6, 2));
        assert_eq!(of(Dtype::F8_E5M2, &[&[0x7C, 0xFC, 0x7B, 0x7D]]), (1, 2));
        assert_eq!(of(Dtype::F8_E4M3, &[&all]), (2, 0));
        assert_eq!(of(Dtype::F8_E4M3, &[&[0x7F, 0xFF, 0x7E, 0x78]]), (2, 0));
        for fnuz in [Dtype::F8_E4M3FNUZ, Dtype::F8_E5M2FNUZ] {
            assert_eq!(of(fnuz, &[&all]), (1, 0));
            assert_eq!(of(fnuz, &[&[0x80, 0x7F, 0xFF]]), (1, 0));
        }
        assert_eq!(of(Dtype::F8_E8M0, &[&all]), (1, 0));
        assert_eq!(of(Dtype::F8_E8M0, &[&[0xFF, 0xFE, 0x7F]]), (1, 0));
        let halves: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        assert_eq!(of(Dtype::F16, &[&halves]), (2 * 1023, 2));
        assert_eq!(of(Dtype::BF16, &[&halves]), (2 * 127, 2));
        for none in [Dtype::F4, Dtype::F6_E2M3, Dtype::F6_E3M2, Dtype::U8, Dtype::BOOL, Dtype::I64]
        {
            assert_eq!(of(none, &[&all]), (0, 0), "{none}");
        }
    }

    #[test]
    fn an_error_names_the_first_tensors_and_counts_all() {
        let counts = NonFinite { nan: 3, infinite: 1 };
        let error = |names: &[&'static str]| {
            NonFinite::error(names.len(), names.iter().map(|name| (*name, counts))).to_string()
        };
        let one = error(&["a\u{1b}[2J"]);
        assert!(one.starts_with("1 tensor holds values that are not finite: \"a"), "{one}");
        assert!(!one.contains('\u{1b}') && one.contains("(3 NaN, 1 infinite); load"), "{one}");
        let six = error(&["a", "b", "c", "d", "e", "f"]);
        assert!(six.starts_with("6 tensors hold"), "{six}");
        assert!(six.contains("\"e\" (3 NaN, 1 infinite), and others;") && !six.contains("\"f\""));
    }
}
