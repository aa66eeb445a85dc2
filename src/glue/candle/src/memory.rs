//! candle's memory on the CPU: vectors that ringload reads into, which then become tensors.
//!
//! ```text
//! page cache, network   straight into the elements' place
//! disk                  direct I/O needs an address congruent to the offset in the file, which the
//!                       memory of a vector is not. So the vector has room for a block more, the bytes
//!                       are read a little behind their place, and move to it when they are complete
//! a cast                the stored elements are read to the end of the vector, and cast to its
//!                       beginning
//! ```
//!
//! No way takes other memory than that of the tensor.
#![allow(unsafe_code)]

use candle_core::{DType, Device, Error, Result, Tensor};
use half::{bf16, f16};
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};
use ringload::cast::Cast;
use ringload::{Dtype, TensorInfo};
use std::mem::{ManuallyDrop, align_of, size_of};
use std::ptr::NonNull;

/// Direct I/O wants addresses congruent to the offset in the file modulo this, on every disk that has
/// blocks of at most this size.
const BLOCK_BYTES: usize = 4096;
/// Shorter tensors are read through the page cache, which takes about as long.
const DIRECT_BYTES_MIN: u64 = 64 << 10;
/// Memory of at least this length is advised to be of huge pages.
const HUGE_BYTES_MIN: usize = 2 << 20;
const HUGE_PAGE_BYTES: usize = 2 << 20;
/// What the allocator adds to an allocation, rounded up.
const ALLOCATOR_BYTES: usize = 64;
/// How many elements are cast through a buffer where source and target overlap.
const OVERLAP_ELEMENTS: usize = 1024;
/// How many elements a task casts or copies of a tensor that is in memory already.
const TASK_ELEMENTS: usize = 1 << 20;

/// The types of elements on the way from a file to candle.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Elements {
    stored: Dtype,
    /// candle's type of the elements in memory.
    held: DType,
    step: Step,
}

/// What is done to elements that have been read.
#[derive(Debug, Clone, Copy)]
enum Step {
    Nothing,
    Cast(Cast),
    /// candle has U16 as U32.
    Widen,
}

impl Elements {
    /// Elements of type `stored`, cast to `wanted` on the way if both are floats of 16 or 32 bits.
    /// `None` if candle has no such type.
    pub fn new(stored: Dtype, wanted: Option<DType>) -> Option<Self> {
        let own = candle_type(stored)?;
        let cast =
            wanted.and_then(|wanted| Some((wanted, Cast::new(float(own)?, float(wanted)?)?)));
        let (held, step) = match cast {
            Some((held, cast)) => (held, Step::Cast(cast)),
            None if stored == Dtype::U16 => (own, Step::Widen),
            None => (own, Step::Nothing),
        };
        Some(Self { stored, held, step })
    }

    /// candle's type of the elements in memory.
    #[cfg(feature = "cuda")]
    pub fn held(self) -> DType {
        self.held
    }

    /// candle's type of the elements as they are in the file; `None` if they have to be changed.
    #[cfg(feature = "cuda")]
    pub fn unchanged(self) -> Option<DType> {
        candle_type(self.stored).filter(|_| !matches!(self.step, Step::Widen))
    }

    /// Whether the elements in memory, cast to `wanted`, are those of the file cast to `wanted`.
    pub fn serve(self, wanted: DType) -> bool {
        !matches!(self.step, Step::Cast(_)) || self.held == wanted || self.held == DType::F32
    }

    /// Writes `from` to `into` as the elements are held.
    fn change(self, from: &[u8], into: &mut [u8]) {
        match self.step {
            Step::Nothing => into.copy_from_slice(from),
            Step::Cast(cast) => cast.run(from, into),
            Step::Widen => {
                for (from, into) in from.as_chunks::<2>().0.iter().zip(into.as_chunks_mut::<4>().0)
                {
                    *into = u32::from(u16::from_ne_bytes(*from)).to_ne_bytes();
                }
            }
        }
    }

    fn stored_bytes(self) -> usize {
        self.stored.bitsize() / 8
    }

    fn held_bytes(self) -> usize {
        self.held.size_in_bytes()
    }
}

/// candle's type for the elements of a file; `None` if it has none.
fn candle_type(stored: Dtype) -> Option<DType> {
    Some(match stored {
        Dtype::U8 => DType::U8,
        Dtype::U16 | Dtype::U32 => DType::U32,
        Dtype::I16 => DType::I16,
        Dtype::I32 => DType::I32,
        Dtype::I64 => DType::I64,
        Dtype::BF16 => DType::BF16,
        Dtype::F16 => DType::F16,
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        Dtype::F8_E4M3 => DType::F8E4M3,
        _ => return None,
    })
}

/// ringload's name of a float that is cast on the way.
fn float(dtype: DType) -> Option<Dtype> {
    match dtype {
        DType::BF16 => Some(Dtype::BF16),
        DType::F16 => Some(Dtype::F16),
        DType::F32 => Some(Dtype::F32),
        _ => None,
    }
}

/// The memory of one tensor, which is being read into.
pub(crate) struct HostTensor {
    words: Words,
    shape: Vec<usize>,
    count: usize,
    elements: Elements,
    /// Where the bytes of the file are in the memory.
    start: usize,
}

/// Words of the elements' size: the allocator has memory of zeros without touching it.
enum Words {
    One(Vec<u8>),
    Two(Vec<u16>),
    Four(Vec<u32>),
    Eight(Vec<u64>),
}

impl HostTensor {
    /// Memory to read all of the tensor into, past the page cache if `direct`.
    pub fn for_reading(info: &TensorInfo, elements: Elements, direct: bool) -> Self {
        let block = (direct && info.len_bytes() >= DIRECT_BYTES_MIN).then_some(BLOCK_BYTES);
        let mut tensor = Self::new(info.shape(), elements, block.unwrap_or(0));
        if let Some(block) = block {
            let address = tensor.address().as_ptr() as usize;
            let wanted = info.offset_bytes() as usize % block;
            tensor.start += (wanted + block - address % block) % block;
        }
        tensor
    }

    /// Memory for elements of this shape, with room for `spare` bytes more. They are to be read to the
    /// end if they become longer by a cast, otherwise to the beginning.
    fn new(shape: &[usize], elements: Elements, spare: usize) -> Self {
        let count = shape.iter().product::<usize>();
        let (stored, held) = (elements.stored_bytes(), elements.held_bytes());
        let bytes = allocated_bytes(count * stored.max(held) + spare);
        let words = match held {
            1 => Words::One(vec![0; bytes]),
            2 => Words::Two(vec![0; bytes.div_ceil(2)]),
            4 => Words::Four(vec![0; bytes.div_ceil(4)]),
            _ => Words::Eight(vec![0; bytes.div_ceil(8)]),
        };
        let start = count * held.saturating_sub(stored);
        let mut tensor = Self { words, shape: shape.to_vec(), count, elements, start };
        let used = count * stored.max(held) + spare;
        advise_huge_pages(&mut tensor.bytes_mut()[..used]);
        tensor
    }

    /// Where the bytes of the file belong.
    pub fn address(&mut self) -> NonNull<u8> {
        let start = self.start;
        NonNull::from(&mut self.bytes_mut()[start..]).cast()
    }

    /// The tensor, when its bytes have been read.
    ///
    /// # Errors
    /// Those of candle.
    pub fn finish(mut self, device: &Device) -> Result<Tensor> {
        let (start, count, elements) = (self.start, self.count, self.elements);
        let bytes = self.bytes_mut();
        match elements.step {
            Step::Nothing if start == 0 => {}
            Step::Nothing => bytes.copy_within(start..start + count * elements.stored_bytes(), 0),
            Step::Cast(_) | Step::Widen => change_within(elements, bytes, start, count),
        }
        self.into_tensor()?.to_device(device)
    }

    /// The tensor of bytes that are in memory already.
    ///
    /// # Errors
    /// Those of candle.
    pub fn copied(bytes: &[u8], shape: &[usize], elements: Elements) -> Result<Tensor> {
        let (stored, held) = (elements.stored_bytes(), elements.held_bytes());
        let mut tensor = Self::new(shape, elements, 0);
        let len = tensor.count * held;
        let into = tensor.bytes_mut()[..len].par_chunks_mut(TASK_ELEMENTS * held);
        let parts = bytes.par_chunks(TASK_ELEMENTS * stored).zip(into);
        parts.for_each(|(bytes, into)| elements.change(bytes, into));
        tensor.into_tensor()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        fn bytes<T>(words: &mut [T]) -> &mut [u8] {
            // SAFETY: `T` is one of the integers below, which have no padding, and any bytes are valid.
            unsafe { words.align_to_mut::<u8>().1 }
        }
        match &mut self.words {
            Words::One(words) => bytes(words),
            Words::Two(words) => bytes(words),
            Words::Four(words) => bytes(words),
            Words::Eight(words) => bytes(words),
        }
    }

    fn into_tensor(self) -> Result<Tensor> {
        let Self { words, shape, count, elements, .. } = self;
        // The memory behind the elements was used if a cast has made them shorter.
        let was_used = elements.stored_bytes() > elements.held_bytes();
        let (words, cpu) = (words.shortened(count, was_used), &Device::Cpu);
        match (words, elements.held) {
            (Words::One(words), DType::U8) => Tensor::from_vec(words, shape, cpu),
            (Words::One(words), dtype) => Tensor::from_raw_buffer(&words, dtype, &shape, cpu),
            (Words::Two(words), DType::BF16) => {
                Tensor::from_vec(bits::<_, bf16>(words), shape, cpu)
            }
            (Words::Two(words), DType::F16) => Tensor::from_vec(bits::<_, f16>(words), shape, cpu),
            (Words::Two(words), DType::I16) => Tensor::from_vec(bits::<_, i16>(words), shape, cpu),
            (Words::Four(words), DType::F32) => Tensor::from_vec(bits::<_, f32>(words), shape, cpu),
            (Words::Four(words), DType::U32) => Tensor::from_vec(words, shape, cpu),
            (Words::Four(words), DType::I32) => Tensor::from_vec(bits::<_, i32>(words), shape, cpu),
            (Words::Eight(words), DType::F64) => {
                Tensor::from_vec(bits::<_, f64>(words), shape, cpu)
            }
            (Words::Eight(words), DType::I64) => {
                Tensor::from_vec(bits::<_, i64>(words), shape, cpu)
            }
            (_, dtype) => Err(Error::Msg(format!("{dtype:?} is not loaded on the CPU"))),
        }
    }
}

impl Words {
    /// The first `count` words. With `gives_back`, the allocator gets the memory of the others.
    fn shortened(self, count: usize, gives_back: bool) -> Self {
        fn first<T>(mut words: Vec<T>, count: usize, gives_back: bool) -> Vec<T> {
            words.truncate(count);
            if gives_back {
                words.shrink_to_fit();
            }
            words
        }
        match self {
            Self::One(words) => Self::One(first(words, count, gives_back)),
            Self::Two(words) => Self::Two(first(words, count, gives_back)),
            Self::Four(words) => Self::Four(first(words, count, gives_back)),
            Self::Eight(words) => Self::Eight(first(words, count, gives_back)),
        }
    }
}

/// Numbers of which all bits are valid.
///
/// # Safety
/// They are.
unsafe trait Number: Copy {}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        // SAFETY: a number of the language or of `half`, of which all bits are valid.
        unsafe impl Number for $number {}
    )*};
}

numbers! { u16 u32 u64 i16 i32 i64 f32 f64 bf16 f16 }

/// The same memory as numbers of another type.
fn bits<A: Number, B: Number>(words: Vec<A>) -> Vec<B> {
    assert!(size_of::<A>() == size_of::<B>() && align_of::<A>() == align_of::<B>());
    let mut words = ManuallyDrop::new(words);
    // SAFETY: the allocation is that of a vector with elements of the same size and alignment, whose
    // bits are valid for `B`.
    unsafe { Vec::from_raw_parts(words.as_mut_ptr().cast(), words.len(), words.capacity()) }
}

/// Changes `count` elements at `start` of `bytes`, and writes them to its beginning. No element of the
/// result ends behind the end of the element that it comes from.
fn change_within(elements: Elements, bytes: &mut [u8], start: usize, count: usize) {
    let (stored, held) = (elements.stored_bytes(), elements.held_bytes());
    let mut buffer = [0; 4 * OVERLAP_ELEMENTS];
    let mut done = 0;
    while done < count {
        let (source, target) = (start + done * stored, done * held);
        // How many elements fit before the source.
        let apart = ((source - target) / held).min(count - done);
        if apart >= OVERLAP_ELEMENTS || apart == count - done {
            let (into, from) = bytes.split_at_mut(source);
            elements.change(&from[..apart * stored], &mut into[target..][..apart * held]);
            done += apart;
        } else {
            let next = OVERLAP_ELEMENTS.min(count - done);
            let buffer = &mut buffer[..next * stored];
            buffer.copy_from_slice(&bytes[source..][..next * stored]);
            elements.change(buffer, &mut bytes[target..][..next * held]);
            done += next;
        }
    }
}

/// How many bytes to allocate for `bytes` of them. A large allocation that fills whole huge pages
/// begins at one (Linux 6.7, with the allocator of glibc). What is behind the bytes is never touched.
fn allocated_bytes(bytes: usize) -> usize {
    match bytes {
        HUGE_BYTES_MIN.. => {
            (bytes + ALLOCATOR_BYTES).next_multiple_of(HUGE_PAGE_BYTES) - ALLOCATOR_BYTES
        }
        _ => bytes,
    }
}

/// Advises huge pages where the memory has whole ones: they are faulted in several times as fast.
fn advise_huge_pages(bytes: &mut [u8]) {
    if bytes.len() < HUGE_BYTES_MIN {
        return;
    }
    let start = bytes.as_mut_ptr();
    // The page that the allocation begins in is hardly anyone else's.
    let first = (start as usize - ALLOCATOR_BYTES).next_multiple_of(HUGE_PAGE_BYTES);
    let end = (start as usize + bytes.len()) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    let Some(len) = end.checked_sub(first).filter(|&len| len > 0) else { return };
    let first = start.wrapping_offset(first as isize - start as isize);
    // SAFETY: the advice changes no contents, neither of this memory nor of what the allocator has
    // before it. If the system does not take it, the memory is as it was.
    unsafe { libc::madvise(first.cast(), len, libc::MADV_HUGEPAGE) };
}
