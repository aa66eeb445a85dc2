//! Casts between float types, which `--dtype` applies to tensors while they are loaded.
//!
//! The kernels that cast on a GPU (`kernels/cast.cu`) give the same bits; tests compare the two.
//!
//! - Values are rounded to nearest, ties to even. As in IEEE 754, a value too large for the target
//!   type becomes an infinity. Subnormal values are kept and never flushed to zero.
//! - A NaN stays a NaN. Its sign and the upper bits of its payload are kept, and it becomes quiet.
//! - `F8_E4M3` is the OCP format without infinities (`S.1111.111` is its NaN), `F8_E5M2` is the
//!   upper half of an `F16`.
//!
//! ```text
//! F32, F16, BF16, F8_E4M3, F8_E5M2  --widen-->  bits of an F32  --narrow-->  F32, F16, BF16
//! ```
//!
//! Elements are little-endian bytes of any alignment. The loop has no branches, so that the compiler
//! can vectorize it. Elements of 8 bits are looked up in a table that each run computes once.

mod format;

use crate::dtype::Dtype;
use format::{BF16, F8E4M3, F8E5M2, F16, F32, Format, Narrow};

/// A cast from one element type to another; see the [module documentation](self).
#[derive(Debug, Clone, Copy)]
pub struct Cast {
    from: Dtype,
    to: Dtype,
}

/// Casts the elements of its first argument into its second.
type CastElements = fn(&[u8], &mut [u8]);

impl Cast {
    /// Returns the cast of elements from type `from` to type `to`.
    ///
    /// `None` if `from` is not one of the types above, `to` is not F32, F16 or BF16, or both are the
    /// same type.
    ///
    /// ```
    /// use ringload::{Dtype, cast::Cast};
    ///
    /// let cast = Cast::new(Dtype::F32, Dtype::BF16).unwrap();
    /// let mut bf16 = [0; 2];
    /// cast.run(&1.0_f32.to_le_bytes(), &mut bf16);
    /// assert_eq!(bf16, [0x80, 0x3f]);
    /// assert!(Cast::new(Dtype::I32, Dtype::F32).is_none());
    /// ```
    pub fn new(from: Dtype, to: Dtype) -> Option<Self> {
        function(from, to).map(|_| Self { from, to })
    }

    /// The element type of the source.
    pub fn from(&self) -> Dtype {
        self.from
    }

    /// The element type of the target.
    pub fn to(&self) -> Dtype {
        self.to
    }

    /// The length in bytes of the target for a source of `source_bytes` bytes. An incomplete element
    /// at the end is not counted.
    pub fn target_bytes(&self, source_bytes: u64) -> u64 {
        // All types with a cast have a whole number of bytes.
        let bytes = |dtype: Dtype| dtype.bitsize() as u64 / 8;
        source_bytes / bytes(self.from) * bytes(self.to)
    }

    /// Casts the elements of `source` into `target`.
    ///
    /// # Panics
    /// If the length of `target` is not [`target_bytes`](Self::target_bytes) of the source's length,
    /// or if `source` ends within an element.
    pub fn run(&self, source: &[u8], target: &mut [u8]) {
        // Every cast has one.
        if let Some(run) = function(self.from, self.to) {
            run(source, target);
        }
    }
}

/// The function that casts elements from type `from` to type `to`, if they can be cast.
fn function(from: Dtype, to: Dtype) -> Option<CastElements> {
    let run: CastElements = match (from, to) {
        (Dtype::F32, Dtype::F16) => run::<4, 2, F32, F16>,
        (Dtype::F32, Dtype::BF16) => run::<4, 2, F32, BF16>,
        (Dtype::F16, Dtype::F32) => run::<2, 4, F16, F32>,
        (Dtype::F16, Dtype::BF16) => run::<2, 2, F16, BF16>,
        (Dtype::BF16, Dtype::F32) => run::<2, 4, BF16, F32>,
        (Dtype::BF16, Dtype::F16) => run::<2, 2, BF16, F16>,
        (Dtype::F8_E4M3, Dtype::F32) => run_by_table::<4, F8E4M3, F32>,
        (Dtype::F8_E4M3, Dtype::F16) => run_by_table::<2, F8E4M3, F16>,
        (Dtype::F8_E4M3, Dtype::BF16) => run_by_table::<2, F8E4M3, BF16>,
        (Dtype::F8_E5M2, Dtype::F32) => run_by_table::<4, F8E5M2, F32>,
        (Dtype::F8_E5M2, Dtype::F16) => run_by_table::<2, F8E5M2, F16>,
        (Dtype::F8_E5M2, Dtype::BF16) => run_by_table::<2, F8E5M2, BF16>,
        _ => return None,
    };
    Some(run)
}

const LENGTHS: &str = "the target of a cast must hold as many elements as its source";

/// Casts elements of `S` bytes to elements of `T` bytes.
fn run<const S: usize, const T: usize, From: Format<S>, To: Narrow<T>>(
    source: &[u8],
    target: &mut [u8],
) {
    let (source, source_rest) = source.as_chunks::<S>();
    let (target, target_rest) = target.as_chunks_mut::<T>();
    assert!(
        source.len() == target.len() && source_rest.is_empty() && target_rest.is_empty(),
        "{LENGTHS}"
    );
    for (from, to) in std::iter::zip(source, target) {
        *to = To::narrow(From::widen(*from));
    }
}

/// The same as `run` for elements of one byte. The table makes long runs up to 4 times as fast.
fn run_by_table<const T: usize, From: Format<1>, To: Narrow<T>>(source: &[u8], target: &mut [u8]) {
    const TABLE_ELEMENTS_MIN: usize = 1024;
    if source.len() < TABLE_ELEMENTS_MIN {
        return run::<1, T, From, To>(source, target);
    }
    let (target, target_rest) = target.as_chunks_mut::<T>();
    assert!(source.len() == target.len() && target_rest.is_empty(), "{LENGTHS}");
    let table: [[u8; T]; 256] = std::array::from_fn(|value| To::narrow(From::widen([value as u8])));
    for (from, to) in std::iter::zip(source, target) {
        *to = table[usize::from(*from)];
    }
}

#[cfg(test)]
mod tests;
