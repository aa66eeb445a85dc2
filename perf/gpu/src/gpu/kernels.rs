//! Launches the project's kernels as `kernels/README.md` describes.

use super::{Gpu, Memory, Stream, driver, timed};
use anyhow::{Context, Result};
use cudarc::driver::{result, sys};
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

/// A piece as kernels take it: the addresses of source and target, and the length.
type Given = [u64; 3];

impl Kernel {
    /// All casts.
    pub fn casts() -> impl Iterator<Item = Cast> {
        FROM.into_iter().flat_map(|from| TO.into_iter().filter_map(move |to| Cast::new(from, to)))
    }

    /// Its name in the module.
    fn function(self) -> String {
        let name = |dtype: Dtype| format!("{dtype:?}").to_lowercase();
        match self {
            Kernel::Scatter => "ringload_scatter".into(),
            Kernel::Crc64 => "ringload_crc64".into(),
            Kernel::Cast(cast) => {
                format!("ringload_cast_{}_{}", name(cast.from()), name(cast.to()))
            }
        }
    }

    /// The index of its module.
    fn module(self) -> usize {
        match self {
            Kernel::Scatter => 0,
            Kernel::Cast(_) => 1,
            Kernel::Crc64 => 2,
        }
    }

    fn block_threads(self) -> u32 {
        match self {
            Kernel::Crc64 => 64,
            _ => 256,
        }
    }

    fn grid_blocks(self, gpu: &Gpu, pieces: u32) -> u32 {
        match self {
            Kernel::Crc64 => pieces.min(8 * gpu.multiprocessors()),
            _ => pieces,
        }
    }

    /// The greatest length of a piece, in the kernel's unit.
    pub fn longest_piece(self) -> usize {
        match self {
            Kernel::Scatter => 64 << 10,
            Kernel::Crc64 => 1 << 20,
            Kernel::Cast(cast) => (64 << 10) / element_bytes(cast.from()),
        }
    }

    /// The bytes of a piece of this length in the source.
    pub fn source_bytes(self, length: usize) -> usize {
        match self {
            Kernel::Cast(cast) => length * element_bytes(cast.from()),
            _ => length,
        }
    }

    /// The bytes of the result of such a piece in the target.
    pub fn target_bytes(self, length: usize) -> usize {
        match self {
            Kernel::Scatter => length,
            Kernel::Crc64 => size_of::<u64>(),
            Kernel::Cast(cast) => length * element_bytes(cast.to()),
        }
    }

    /// The alignment of targets.
    pub fn target_alignment(self) -> usize {
        match self {
            Kernel::Scatter => 1,
            _ => self.target_bytes(1),
        }
    }
}

fn element_bytes(dtype: Dtype) -> usize {
    dtype.bitsize() / 8
}

/// The modules, compiled by the driver.
pub struct Kernels<'a> {
    gpu: &'a Gpu,
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

    pub fn gpu(&self) -> &'a Gpu {
        self.gpu
    }

    fn function(&self, kernel: Kernel) -> Result<sys::CUfunction> {
        let name = kernel.function();
        let text = CString::new(name.as_str()).context("a kernel's name holds a NUL")?;
        // SAFETY: the module is loaded as long as `self` lives.
        let answer = unsafe { result::module::get_function(self.modules[kernel.module()], text) };
        driver(&format!("find {name}"), answer)
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
        let mut given = Vec::with_capacity(pieces.len() * size_of::<Given>());
        for (index, piece) in pieces.iter().enumerate() {
            let source_end = piece.source + kernel.source_bytes(piece.length);
            let target_end = piece.target + kernel.target_bytes(piece.length);
            assert!(piece.target % kernel.target_alignment() == 0, "{piece:?} is not aligned");
            if let Kernel::Crc64 = kernel {
                assert!(piece.target == index * size_of::<u64>(), "{piece:?} at {index}");
            }
            let piece: Given = [
                source.address_of(&(piece.source..source_end)),
                target.address_of(&(piece.target..target_end)),
                piece.length as u64,
            ];
            given.extend(piece.iter().flat_map(|word| word.to_le_bytes()));
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
        let seconds =
            timed(self.kernels.gpu, |stream| (0..repeats).try_for_each(|_| self.launch(stream)))?;
        Ok(seconds / f64::from(repeats))
    }

    fn launch(&self, stream: &Stream<'_>) -> Result<()> {
        let (mut pieces, mut count) = (self.pieces.address(), self.count);
        let mut results = self.target.address();
        let mut all: [*mut c_void; 3] =
            [(&raw mut pieces).cast(), (&raw mut count).cast(), (&raw mut results).cast()];
        let taken = if let Kernel::Crc64 = self.kernel { 3 } else { 2 };
        let grid = self.kernel.grid_blocks(self.kernels.gpu, self.count).max(1);
        // SAFETY: the function takes these arguments (kernels/README.md), which are copied by the
        // call. All pieces lie within source and target, which are borrowed, and everyone who
        // launches waits for the stream.
        let answer = unsafe {
            result::launch_kernel(
                self.function,
                (grid, 1, 1),
                (self.kernel.block_threads(), 1, 1),
                0,
                stream.raw,
                &mut all[..taken],
            )
        };
        driver("launch a kernel", answer)
    }
}
