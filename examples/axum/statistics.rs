//! The mean, minimum and maximum of a tensor.

use ringload::cast::Cast;
use ringload::{Dtype, Tensor};
use serde::Serialize;

/// The number of elements that are cast at a time, which fit into the processor's cache.
const CAST_ELEMENTS: usize = 16 << 10;

/// Statistics of all elements, in double precision. A NaN makes the mean NaN, and is ignored by the
/// minimum and the maximum.
#[derive(Debug, Serialize, PartialEq)]
pub struct Statistics {
    mean: f64,
    min: f64,
    max: f64,
}

impl Statistics {
    /// Returns the statistics of a tensor. The result is `None` if the tensor is not in host
    /// memory, has no elements, or if its elements are not numbers of whole bytes.
    pub fn of(tensor: &Tensor) -> Option<Self> {
        let mut sums = Sums::default();
        sums.add(tensor.dtype(), tensor.host_bytes()?)?;
        (sums.count > 0.0).then(|| Self {
            mean: sums.sum / sums.count,
            min: sums.min,
            max: sums.max,
        })
    }
}

#[derive(Debug)]
struct Sums {
    count: f64,
    sum: f64,
    min: f64,
    max: f64,
}

impl Default for Sums {
    fn default() -> Self {
        Self { count: 0.0, sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY }
    }
}

impl Sums {
    fn add(&mut self, dtype: Dtype, bytes: &[u8]) -> Option<()> {
        match dtype {
            Dtype::F64 => self.add_all(bytes, f64::from_le_bytes),
            Dtype::F32 => self.add_all(bytes, |b| f32::from_le_bytes(b).into()),
            Dtype::U8 => self.add_all(bytes, |b| u8::from_le_bytes(b).into()),
            Dtype::I8 => self.add_all(bytes, |b| i8::from_le_bytes(b).into()),
            Dtype::U16 => self.add_all(bytes, |b| u16::from_le_bytes(b).into()),
            Dtype::I16 => self.add_all(bytes, |b| i16::from_le_bytes(b).into()),
            Dtype::U32 => self.add_all(bytes, |b| u32::from_le_bytes(b).into()),
            Dtype::I32 => self.add_all(bytes, |b| i32::from_le_bytes(b).into()),
            Dtype::U64 => self.add_all(bytes, |b| u64::from_le_bytes(b) as f64),
            Dtype::I64 => self.add_all(bytes, |b| i64::from_le_bytes(b) as f64),
            other => self.add_cast(Cast::new(other, Dtype::F32)?, bytes),
        }
        Some(())
    }

    /// Adds floats of fewer than 32 bits, which are cast in parts.
    fn add_cast(&mut self, cast: Cast, bytes: &[u8]) {
        let element_bytes = cast.from().bitsize() / 8;
        let mut cast_bytes = vec![0; CAST_ELEMENTS * 4];
        for part in bytes.chunks(CAST_ELEMENTS * element_bytes) {
            let target = &mut cast_bytes[..part.len() / element_bytes * 4];
            cast.run(part, target);
            self.add_all(target, |b| f32::from_le_bytes(b).into());
        }
    }

    fn add_all<const N: usize>(&mut self, bytes: &[u8], read: impl Fn([u8; N]) -> f64) {
        for element in bytes.as_chunks::<N>().0 {
            let value = read(*element);
            self.count += 1.0;
            self.sum += value;
            self.min = self.min.min(value);
            self.max = self.max.max(value);
        }
    }
}
