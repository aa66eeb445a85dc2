//! The kernels, which a load loads if it needs them and launches with lists of pieces.
//!
//! `kernels/` has their sources and describes what they guarantee and how they are built. The driver
//! compiles the PTX when it loads a module, which takes a while. Therefore each file is a module of
//! its own, and only the needed ones are loaded.

use super::context::{Context, Entered};
use super::functions::call;
use super::stream::Stream;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use cudarc::driver::sys;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, c_void};
use std::ptr::null_mut;
use std::sync::Arc;

/// Enough blocks to keep any GPU busy; each block processes several pieces in turn.
const BLOCKS_MAX: u32 = 4096;
/// Each block of `crc64` fills tables first, so no more blocks are launched than run at once.
const CRC64_BLOCKS_PER_MULTIPROCESSOR: u32 = 8;

/// A range of bytes that a kernel processes. The layout is that of `Piece` in `kernels/pieces.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Piece {
    /// The address of its first byte on the GPU.
    pub source: u64,
    /// The address that the result is written to; unused by kernels whose results are numbers.
    pub target: u64,
    /// The length in bytes, or in elements for casts.
    pub length: u64,
}

/// The operations on pieces, in the order in which a slot needs them: checksums are computed after
/// the bytes are in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kernel {
    /// Copies the pieces.
    Scatter,
    /// Casts the elements from the first type to the second.
    Cast(Dtype, Dtype),
    /// Computes the CRC-64/NVME of each piece.
    Crc64,
}

impl Kernel {
    /// The maximum length of a piece in bytes of the source, chosen to keep all blocks evenly busy.
    pub fn piece_bytes_max(self) -> u64 {
        match self {
            Self::Scatter | Self::Cast(..) => 64 << 10,
            Self::Crc64 => 1 << 20,
        }
    }

    fn block_threads(self) -> u32 {
        match self {
            Self::Scatter | Self::Cast(..) => 256,
            Self::Crc64 => 64,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Scatter => "ringload_scatter".to_owned(),
            Self::Cast(from, to) => format!("ringload_cast_{from:?}_{to:?}").to_ascii_lowercase(),
            Self::Crc64 => "ringload_crc64".to_owned(),
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::Scatter => include_str!("../../../kernels/scatter.ptx"),
            Self::Cast(..) => include_str!("../../../kernels/cast.ptx"),
            Self::Crc64 => include_str!("../../../kernels/crc64.ptx"),
        }
    }
}

/// Kernels loaded into a GPU's context.
pub(super) struct Kernels {
    functions: BTreeMap<Kernel, sys::CUfunction>,
    multiprocessors: u32,
    /// Declared after the functions, which belong to the modules.
    _modules: Vec<Module>,
}

// SAFETY: a function is a handle that the driver accepts from any thread with the context current.
unsafe impl Send for Kernels {}
// SAFETY: as above; nothing is changed after loading.
unsafe impl Sync for Kernels {}

impl Kernels {
    /// Loads the `wanted` kernels.
    ///
    /// # Errors
    /// If the driver cannot compile them.
    pub fn load(entered: &Entered<'_>, wanted: impl IntoIterator<Item = Kernel>) -> Result<Self> {
        let mut modules: HashMap<&'static str, Module> = HashMap::new();
        let mut functions = BTreeMap::new();
        for kernel in wanted {
            let file = kernel.file();
            if !modules.contains_key(file) {
                modules.insert(file, Module::load(entered, file)?);
            }
            functions.insert(kernel, modules[file].function(entered, &kernel.name())?);
        }
        let multiprocessors = entered.context().multiprocessors()?;
        Ok(Self { functions, multiprocessors, _modules: modules.into_values().collect() })
    }

    /// Queues `kernel` for the `count` pieces of the list at address `pieces` on the GPU.
    /// [`Kernel::Crc64`] writes one number for each piece to `results`.
    ///
    /// # Errors
    /// If the driver fails.
    ///
    /// # Safety
    /// The list, the ranges that its pieces refer to, and the results lie in memory of the current
    /// context that stays allocated until the work has finished. Until then nothing else writes to the
    /// sources or uses the targets, except work that was queued in the same stream before.
    pub unsafe fn launch(
        &self,
        entered: &Entered<'_>,
        stream: &Stream,
        kernel: Kernel,
        pieces: u64,
        count: u32,
        results: u64,
    ) -> Result<()> {
        let missing = || Error::new(ErrorKind::Device, format!("{kernel:?} was not loaded"));
        let function = *self.functions.get(&kernel).ok_or_else(missing)?;
        if count == 0 {
            return Ok(());
        }
        let (mut pieces, mut count, mut results) = (pieces, count, results);
        let grid = count.min(match kernel {
            Kernel::Crc64 => self.multiprocessors * CRC64_BLOCKS_PER_MULTIPROCESSOR,
            _ => BLOCKS_MAX,
        });
        let mut arguments: [*mut c_void; 3] = [
            (&raw mut pieces).cast(),
            (&raw mut count).cast(),
            (&raw mut results).cast(), // ignored by the kernels with two parameters
        ];
        // SAFETY: the function belongs to a module that `self` keeps loaded; the arguments have the
        // types of its parameters and are copied by the call; the caller guarantees the rest.
        let answer = unsafe {
            call!(cuLaunchKernel(
                function,
                grid,
                1,
                1,
                kernel.block_threads(),
                1,
                1,
                0,
                stream.handle(),
                arguments.as_mut_ptr(),
                null_mut(),
            ))
        };
        entered.check(answer, format_args!("launch {}", kernel.name()))
    }
}

/// A loaded module; unloaded on drop.
struct Module {
    context: Arc<Context>,
    handle: sys::CUmodule,
}

impl Module {
    fn load(entered: &Entered<'_>, ptx: &str) -> Result<Self> {
        let (text, mut handle) = (zero_terminated(ptx)?, null_mut());
        // SAFETY: the pointer is valid for the answer; the text ends with a zero and is copied.
        let answer = unsafe { call!(cuModuleLoadData(&raw mut handle, text.as_ptr().cast())) };
        entered.check(answer, "load the kernels")?;
        Ok(Self { context: Arc::clone(entered.context()), handle })
    }

    fn function(&self, entered: &Entered<'_>, name: &str) -> Result<sys::CUfunction> {
        let (text, mut function) = (zero_terminated(name)?, null_mut());
        // SAFETY: the pointer is valid for the answer, the module is loaded, and the name ends with a
        // zero.
        let answer =
            unsafe { call!(cuModuleGetFunction(&raw mut function, self.handle, text.as_ptr())) };
        entered.check(answer, format_args!("find the kernel {name}"))?;
        Ok(function)
    }
}

fn zero_terminated(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::new(ErrorKind::Device, "the kernels hold a zero byte"))
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: loaded once, unloaded once, after a wait for every launch.
        self.context
            .release("unload the kernels", || unsafe { call!(cuModuleUnload(self.handle)) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cast::Cast;

    const SOURCES: [(Kernel, &str); 3] = [
        (Kernel::Scatter, include_str!("../../../kernels/scatter.cu")),
        (Kernel::Cast(Dtype::F32, Dtype::BF16), include_str!("../../../kernels/cast.cu")),
        (Kernel::Crc64, include_str!("../../../kernels/crc64.cu")),
    ];

    #[test]
    fn kernels_are_launched_with_the_blocks_they_are_written_for() {
        for (kernel, source) in SOURCES {
            let threads = format!("BLOCK_THREADS = {};", kernel.block_threads());
            assert!(source.contains(&threads), "{kernel:?}: {threads}");
        }
        assert_eq!(size_of::<Piece>(), 24);
    }

    #[test]
    fn every_cast_has_its_kernel() {
        let types =
            [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F8_E4M3, Dtype::F8_E5M2, Dtype::F64];
        for from in types {
            for to in types {
                let kernel = Kernel::Cast(from, to);
                let entry = format!(".entry {}(", kernel.name());
                let there = kernel.file().contains(&entry);
                assert_eq!(there, Cast::new(from, to).is_some(), "{entry}");
            }
        }
        assert!(Kernel::Scatter.file().contains(".entry ringload_scatter("));
        assert!(Kernel::Crc64.file().contains(".entry ringload_crc64("));
    }
}
