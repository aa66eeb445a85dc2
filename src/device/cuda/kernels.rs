//! The kernels: loaded when a load needs them, launched with lists of pieces.
//!
//! Their sources, what they promise and how they are built is in `kernels/`. The driver compiles the
//! PTX when a module is loaded, which takes its time, so each file is a module by itself.

use super::context::{Context, Entered, log};
use super::stream::Stream;
use crate::error::{Error, ErrorKind, Result};
use cudarc::driver::sys;
use safetensors::Dtype;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, c_void};
use std::mem::MaybeUninit;
use std::sync::Arc;

/// So many blocks keep any GPU busy; they take pieces in turn.
const BLOCKS_MAX: u32 = 4096;
/// Each block of `crc64` fills tables first, so there are no more than run at once.
const CRC64_BLOCKS_PER_MULTIPROCESSOR: u32 = 8;

/// One range for a kernel to work on; as `Piece` in `kernels/pieces.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Piece {
    /// The address of its first byte on the GPU.
    pub source: u64,
    /// Where its result goes; unused where results are numbers.
    pub target: u64,
    /// In bytes of the source; in elements for casts.
    pub length: u64,
}

/// What can be done with pieces; in the order in which a slot needs it, as what is summed up has to
/// be in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kernel {
    /// Copy them.
    Scatter,
    /// Cast them from a type to another.
    Cast(Dtype, Dtype),
    /// Sum them up.
    Crc64,
}

impl Kernel {
    /// The longest piece, in bytes of the source, that keeps all blocks evenly busy.
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
            Self::Cast(from, to) => format!("ringload_cast_{}_{}", word(from), word(to)),
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

/// A type as the kernels' names spell it.
fn word(dtype: Dtype) -> String {
    format!("{dtype:?}").to_ascii_lowercase()
}

/// Kernels that were loaded into a GPU's context.
pub(super) struct Kernels {
    functions: BTreeMap<Kernel, sys::CUfunction>,
    multiprocessors: u32,
    /// After what points into them.
    _modules: Vec<Module>,
}

// SAFETY: a function is a handle; the driver allows its use from any thread with the context current.
unsafe impl Send for Kernels {}
// SAFETY: as above; nothing is changed after loading.
unsafe impl Sync for Kernels {}

impl Kernels {
    /// Loads what `wanted` names.
    ///
    /// # Errors
    /// When the driver cannot compile them.
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

    /// Queues `kernel` for the `count` pieces that lie at `pieces` on the GPU. `results` is for
    /// [`Kernel::Crc64`]: where a number for each piece goes.
    ///
    /// # Errors
    /// What the driver answers.
    ///
    /// # Safety
    /// The list, all that its pieces name and the results lie in memory of the current context that
    /// stays allocated until the work is done; nothing else writes to the sources or uses the targets
    /// until then, other than work that was queued in the same stream before.
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
            (&raw mut results).cast(), // which the kernels of two arguments do not look at
        ];
        // SAFETY: the function is of a module that `self` keeps; the arguments are of the types of
        // its parameters and are copied by the call; the rest is promised by the caller.
        let answer = unsafe {
            sys::cuLaunchKernel(
                function,
                grid,
                1,
                1,
                kernel.block_threads(),
                1,
                1,
                0,
                stream.raw(),
                arguments.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        entered.check(answer, format_args!("launch {}", kernel.name()))
    }
}

/// A module that was loaded; unloaded on drop.
struct Module {
    context: Arc<Context>,
    raw: sys::CUmodule,
}

impl Module {
    fn load(entered: &Entered<'_>, ptx: &str) -> Result<Self> {
        let text = CString::new(ptx)
            .map_err(|_| Error::new(ErrorKind::Device, "the kernels hold a zero byte"))?;
        let mut raw = MaybeUninit::uninit();
        // SAFETY: the pointer is valid for the answer; the text ends with a zero and is copied.
        let answer = unsafe { sys::cuModuleLoadData(raw.as_mut_ptr(), text.as_ptr().cast()) };
        entered.check(answer, "load the kernels")?;
        // SAFETY: written by the successful call.
        let raw = unsafe { raw.assume_init() };
        Ok(Self { context: Arc::clone(entered.context()), raw })
    }

    fn function(&self, entered: &Entered<'_>, name: &str) -> Result<sys::CUfunction> {
        let spelled = CString::new(name)
            .map_err(|_| Error::new(ErrorKind::Device, "a kernel's name holds a zero byte"))?;
        let mut raw = MaybeUninit::uninit();
        // SAFETY: the pointer is valid for the answer, the module is loaded, the name ends with a
        // zero.
        let answer =
            unsafe { sys::cuModuleGetFunction(raw.as_mut_ptr(), self.raw, spelled.as_ptr()) };
        entered.check(answer, format_args!("find the kernel {name}"))?;
        // SAFETY: written by the successful call.
        Ok(unsafe { raw.assume_init() })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let unload = |entered: Entered<'_>| {
            // SAFETY: loaded once, unloaded once; whoever launched something waited for it.
            entered.check(unsafe { sys::cuModuleUnload(self.raw) }, "unload the kernels")
        };
        log(self.context.enter().and_then(unload));
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
