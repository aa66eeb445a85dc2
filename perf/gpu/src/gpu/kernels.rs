//! Launches the project's kernels as `kernels/README.md` describes.

use super::{Gpu, Memory, driver};
use anyhow::{Context, Result};
use cudarc::driver::{CudaStream, result, sys};
use ringload::Dtype;
use ringload::cast::Cast;
use std::ffi::{CString, c_void};

/// The PTX, one module each.
const MODULES: [&str; 3] = [
    include_str!("../../../../kernels/scatter.ptx"),
    include_str!("../../../../kernels/cast.ptx"),
    include_str!("../../../../kernels/crc64.ptx"),
];

/// The types that are cast from and to.
const FROM: [Dtype; 5] = [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F8_E4M3, Dtype::F8_E5M2];
const TO: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];

/// The kernels.
#[derive(Debug, Clone, Copy)]
pub enum Kernel {
    Scatter,
    Crc64,
    Cast(Cast),
}

/// One piece: offsets in bytes into source and target, and a length in the kernel's unit.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    pub source: usize,
    pub target: usize,
    pub length: usize,
}

impl Kernel {
    /// All kernels.
    pub fn all() -> impl Iterator<Item = Self> {
        let cast = |from| TO.into_iter().filter_map(move |to| Cast::new(from, to));
        let casts = FROM.into_iter().flat_map(cast).map(Kernel::Cast);
        [Kernel::Crc64, Kernel::Scatter].into_iter().chain(casts)
    }

    /// The name without the prefix of the project.
    pub fn name(self) -> String {
        match self {
            Kernel::Scatter => "scatter".into(),
            Kernel::Crc64 => "crc64".into(),
            Kernel::Cast(cast) => format!("cast {:?} to {:?}", cast.from(), cast.to()),
        }
    }

    /// The greatest length of a piece, in the kernel's unit.
    pub fn longest_piece(self) -> usize {
        match self {
            Kernel::Crc64 => 1 << 20,
            _ => (64 << 10) / self.source_bytes(1),
        }
    }

    /// The bytes of a piece of this length in the source.
    pub fn source_bytes(self, length: usize) -> usize {
        match self {
            Kernel::Cast(cast) => length * cast.from().bitsize() / 8,
            Kernel::Scatter | Kernel::Crc64 => length,
        }
    }

    /// The bytes of the result of such a piece in the target. Targets are aligned for one unit.
    pub fn target_bytes(self, length: usize) -> usize {
        match self {
            Kernel::Crc64 => size_of::<u64>(),
            Kernel::Scatter => length,
            Kernel::Cast(cast) => length * cast.to().bitsize() / 8,
        }
    }

    /// Pieces of the greatest length, over all of a source of `bytes`, with their results side by
    /// side.
    pub fn pieces(self, bytes: usize) -> Vec<Piece> {
        let elements = bytes / self.source_bytes(1);
        let longest = self.longest_piece();
        let piece = |(index, first): (usize, usize)| Piece {
            source: self.source_bytes(first),
            target: match self {
                Kernel::Crc64 => index * self.target_bytes(1),
                _ => self.target_bytes(first),
            },
            length: longest.min(elements - first),
        };
        (0..elements).step_by(longest).enumerate().map(piece).collect()
    }
}

/// The modules, compiled by the driver.
pub struct Kernels<'a> {
    pub gpu: &'a Gpu,
    modules: Vec<sys::CUmodule>,
}

impl<'a> Kernels<'a> {
    /// Loads all of them.
    ///
    /// # Errors
    /// If the driver does not accept the PTX.
    pub fn load(gpu: &'a Gpu) -> Result<Self> {
        let mut kernels = Self { gpu, modules: Vec::new() };
        for text in MODULES {
            let text = CString::new(text).context("the PTX holds a NUL")?;
            // SAFETY: text that ends with NUL; unloaded once, on drop.
            let answer = unsafe { result::module::load_data(text.as_ptr().cast()) };
            kernels.modules.push(driver("load the kernels", answer)?);
        }
        Ok(kernels)
    }

    fn function(&self, kernel: Kernel) -> Result<sys::CUfunction> {
        let name = kernel.name().to_lowercase().replace(" to ", "_").replace(' ', "_");
        let text = CString::new(format!("ringload_{name}")).context("the name holds a NUL")?;
        let module = self.modules[match kernel {
            Kernel::Scatter => 0,
            Kernel::Cast(_) => 1,
            Kernel::Crc64 => 2,
        }];
        // SAFETY: the module is loaded as long as `self` lives.
        let answer = unsafe { result::module::get_function(module, text) };
        driver(&format!("find the kernel {name}"), answer)
    }
}

impl Drop for Kernels<'_> {
    fn drop(&mut self) {
        for &module in &self.modules {
            // SAFETY: loaded once, unloaded once; all launches were waited for.
            super::warn("unload kernels", unsafe { result::module::unload(module) });
        }
    }
}

/// A kernel with its list of pieces on the GPU.
pub struct Batch<'a> {
    kernels: &'a Kernels<'a>,
    kernel: Kernel,
    function: sys::CUfunction,
    pieces: Memory<'a>,
    count: u32,
    /// Borrowed as long as the pieces refer to them. The target of `crc64` holds its results.
    _source: &'a Memory<'a>,
    target: &'a Memory<'a>,
}

impl<'a> Batch<'a> {
    /// For `crc64`, the target of a piece must be 8 times its index.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn new(
        kernels: &'a Kernels<'a>,
        kernel: Kernel,
        source: &'a Memory<'a>,
        target: &'a Memory<'a>,
        pieces: &[Piece],
    ) -> Result<Self> {
        let mut given = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            let source_end = piece.source + kernel.source_bytes(piece.length);
            let target_end = piece.target + kernel.target_bytes(piece.length);
            assert!(piece.target % kernel.target_bytes(1) == 0, "{piece:?} is not aligned");
            if let Kernel::Crc64 = kernel {
                assert!(piece.target == index * size_of::<u64>(), "{piece:?} at {index}");
            }
            let source = source.address_of(&(piece.source..source_end));
            let target = target.address_of(&(piece.target..target_end));
            let words = [source, target, piece.length as u64];
            given.extend(words.into_iter().flat_map(u64::to_le_bytes));
        }
        let on_device = Memory::new(kernels.gpu, given.len())?;
        on_device.write(0, &given)?;
        let function = kernels.function(kernel)?;
        let count = pieces.len() as u32;
        Ok(Self { kernels, kernel, function, pieces: on_device, count, _source: source, target })
    }

    /// The time of each of `repeats` launches, one after the other.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn seconds(&self, repeats: u32) -> Result<f64> {
        let launch = |stream: &CudaStream| (0..repeats).try_for_each(|_| self.launch(stream));
        let seconds = self.kernels.gpu.timed(launch)?;
        Ok(seconds / f64::from(repeats))
    }

    /// Queues a launch, which the caller waits for.
    pub(super) fn launch(&self, stream: &CudaStream) -> Result<()> {
        let (mut pieces, mut count) = (self.pieces.address(), self.count);
        let mut results = self.target.address();
        let mut all: [*mut c_void; 3] =
            [(&raw mut pieces).cast(), (&raw mut count).cast(), (&raw mut results).cast()];
        let (taken, blocks_max, block) = match self.kernel {
            Kernel::Crc64 => (3, 8 * self.kernels.gpu.multiprocessors, 64),
            Kernel::Scatter | Kernel::Cast(_) => (2, u32::MAX, 256),
        };
        let grid = count.clamp(1, blocks_max);
        // SAFETY: the function takes these arguments (kernels/README.md), which are copied by the
        // call. All pieces lie within source and target, which are borrowed, and everyone who
        // launches waits for the stream.
        let answer = unsafe {
            result::launch_kernel(
                self.function,
                (grid, 1, 1),
                (block, 1, 1),
                0,
                stream.cu_stream(),
                &mut all[..taken],
            )
        };
        driver("launch a kernel", answer)
    }
}
