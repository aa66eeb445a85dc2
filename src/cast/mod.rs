//! Casts between float types: what `--dtype` does to tensors on their way into host memory, and what
//! the kernels that do it on a GPU (`kernels/cast.cu`) are compared with. Both give the same bits.
//!
//! - Values are rounded to nearest, ties to even. What is too large for the type becomes an
//!   infinity, as IEEE 754 has it; what is subnormal stays so, and nothing is flushed to zero.
//! - A NaN stays a NaN: its sign and the upper bits of its payload are kept, and it is made quiet.
//! - `F8_E4M3` is the OCP format without infinities (`S.1111.111` is its NaN), `F8_E5M2` is the
//!   upper half of an `F16`.
//!
//! ```text
//! F32, F16, BF16, F8_E4M3, F8_E5M2  --widen-->  bits of an F32  --narrow-->  F32, F16, BF16
//! ```
//!
//! Elements are little-endian bytes of any alignment. The loop has no branches, so that the compiler
//! makes vector code of it; the types of 8 bits are looked up instead, 256 values cast once a run.

mod format;

use format::{F8E4M3, F8E5M2, F16, F32, Format, Half, Narrow};
use safetensors::Dtype;

/// A cast from one type to another. See the [module's head](self).
#[derive(Debug, Clone, Copy)]
pub struct Cast {
    from: Dtype,
    to: Dtype,
    run: fn(&[u8], &mut [u8]),
}

impl Cast {
    /// The cast of elements of type `from` to type `to`; `None` where there is none: from anything
    /// but the types above, to anything but F32, F16 and BF16, and from a type to itself.
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
        let run: fn(&[u8], &mut [u8]) = match (from, to) {
            (Dtype::F32, Dtype::F16) => run::<4, 2, F32, F16>,
            (Dtype::F32, Dtype::BF16) => run::<4, 2, F32, Half>,
            (Dtype::F16, Dtype::F32) => run::<2, 4, F16, F32>,
            (Dtype::F16, Dtype::BF16) => run::<2, 2, F16, Half>,
            (Dtype::BF16, Dtype::F32) => run::<2, 4, Half, F32>,
            (Dtype::BF16, Dtype::F16) => run::<2, 2, Half, F16>,
            (Dtype::F8_E4M3, Dtype::F32) => run_by_table::<4, F8E4M3, F32>,
            (Dtype::F8_E4M3, Dtype::F16) => run_by_table::<2, F8E4M3, F16>,
            (Dtype::F8_E4M3, Dtype::BF16) => run_by_table::<2, F8E4M3, Half>,
            (Dtype::F8_E5M2, Dtype::F32) => run_by_table::<4, F8E5M2, F32>,
            (Dtype::F8_E5M2, Dtype::F16) => run_by_table::<2, F8E5M2, F16>,
            (Dtype::F8_E5M2, Dtype::BF16) => run_by_table::<2, F8E5M2, Half>,
            _ => return None,
        };
        Some(Self { from, to, run })
    }

    /// The type it takes.
    pub fn from(&self) -> Dtype {
        self.from
    }

    /// The type it makes.
    pub fn to(&self) -> Dtype {
        self.to
    }

    /// How many bytes it makes of `source_bytes`; a part of an element counts for nothing.
    pub fn target_bytes(&self, source_bytes: u64) -> u64 {
        // All types that are cast are of whole bytes.
        let bytes = |dtype: Dtype| dtype.bitsize() as u64 / 8;
        source_bytes / bytes(self.from) * bytes(self.to)
    }

    /// Casts the elements of `source` into `target`.
    ///
    /// # Panics
    /// When `target` is not as long as [`target_bytes`](Self::target_bytes) says, or `source` ends
    /// within an element: a bug of the caller.
    pub fn run(&self, source: &[u8], target: &mut [u8]) {
        (self.run)(source, target);
    }
}

const LENGTHS: &str = "a cast's target holds as many elements as its source";

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

/// As `run`, for elements of one byte: up to 4 times as fast where they are many more than there are values.
fn run_by_table<const T: usize, From: Format<1>, To: Narrow<T>>(source: &[u8], target: &mut [u8]) {
    const WORTH_A_TABLE: usize = 1024;
    if source.len() < WORTH_A_TABLE {
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
