//! PTX modules. They are not compiled, but parsed for their kernels and the kernels' parameters.

use crate::call::{Call, answer, put};
use crate::result::{
    CUDA_ERROR_INVALID_IMAGE, CUDA_ERROR_INVALID_PTX, CUDA_ERROR_INVALID_VALUE,
    CUDA_ERROR_NO_BINARY_FOR_GPU, CUDA_ERROR_NOT_FOUND, CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
    CUresult,
};
use crate::state::{Kind, Owned};
use crate::stream;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};

/// The prefix of this project's kernels.
const PREFIX: &str = "ringload_";
/// The most shared memory of a block by default, and with the attribute below.
const SHARED_BYTES: u32 = 48 << 10;
const MOST_SHARED_BYTES: u32 = 227 << 10;

/// The attribute that raises the shared memory of a block.
pub const CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: u32 = 8;
/// Other attributes that may be set: the carveout.
const CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT: u32 = 9;

#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) owned: Owned,
    /// The sizes of each kernel's parameters.
    kernels: BTreeMap<String, Vec<usize>>,
}

/// A kernel of a module.
#[derive(Debug, Clone)]
pub(crate) struct Function {
    pub(crate) module: usize,
    pub(crate) name: String,
    pub(crate) parameters: Vec<usize>,
    pub(crate) shared_bytes: u32,
}

/// The newest version of PTX that a driver for CUDA 12.2 compiles, and the compute capability of the
/// devices.
const PTX_VERSION: (u32, u32) = (8, 2);
const CAPABILITY: u32 = 90;

/// The kernels that PTX defines.
///
/// # Errors
/// If the text is not PTX, or is for a newer driver or a newer GPU.
fn kernels(text: &str) -> Result<BTreeMap<String, Vec<usize>>, CUresult> {
    let word_after = |directive: &str| {
        let (_, rest) = text.split_once(directive)?;
        rest.split_whitespace().next().map(|word| word.trim_end_matches(','))
    };
    let version = || {
        let (major, minor) = word_after(".version")?.split_once('.')?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    };
    let target = || word_after(".target")?.strip_prefix("sm_")?.parse::<u32>().ok();
    let (Some(version), Some(target)) = (version(), target()) else {
        return Err(CUDA_ERROR_INVALID_IMAGE);
    };
    if version > PTX_VERSION {
        return Err(CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
    }
    if target > CAPABILITY {
        return Err(CUDA_ERROR_NO_BINARY_FOR_GPU);
    }
    let kernels: Option<_> = text.split(".entry").skip(1).map(kernel).collect();
    kernels.ok_or(CUDA_ERROR_INVALID_PTX)
}

/// The kernel at the beginning of the text after `.entry`.
fn kernel(text: &str) -> Option<(String, Vec<usize>)> {
    let end = text.find(['(', '{'])?;
    let name = text[..end].trim().to_owned();
    if text[end..].starts_with('{') {
        return Some((name, Vec::new()));
    }
    let list = text[end + 1..].split(')').next()?;
    let parameters = list.split(".param").skip(1).map(parameter_bytes).collect::<Option<_>>()?;
    Some((name, parameters))
}

/// The size of a parameter, such as ` .u64 .ptr .align 8 name` or ` .align 8 .b8 name[24]`.
fn parameter_bytes(text: &str) -> Option<usize> {
    let is_type = |word: &&str| {
        let rest = word.strip_prefix(['u', 's', 'b', 'f']).unwrap_or_default();
        matches!(rest, "8" | "16" | "32" | "64")
    };
    let words = text.split_whitespace().filter_map(|word| word.strip_prefix('.'));
    let bits: usize = words.clone().find(is_type)?[1..].parse().ok()?;
    let count = match text.split_once('[') {
        Some((_, rest)) => rest.split(']').next()?.trim().parse().ok()?,
        None => 1,
    };
    Some(bits / 8 * count)
}

/// Loads a module from PTX.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(module: *mut usize, image: *const c_void) -> CUresult {
    answer(|| {
        let mut call = Call::in_context("cuModuleLoadData", &[])?;
        if image.is_null() {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        // SAFETY: the driver's contract: text that ends with NUL.
        let text = unsafe { CStr::from_ptr(image.cast()) };
        let kernels = kernels(text.to_str().map_err(|_| CUDA_ERROR_INVALID_IMAGE)?)?;
        let handle = Kind::Module.new_handle();
        let owned = Owned::by(call.context);
        call.state.modules.insert(handle, Module { owned, kernels });
        // SAFETY: the driver's contract.
        unsafe { put(module, handle) }
    })
}

/// Raises the alarm unless the module belongs to the current context.
fn own(call: &mut Call, handle: usize) -> &mut Module {
    let function = call.function;
    if let Some(module) = call.state.modules.get(&handle) {
        call.same_context("module", module.owned.context);
    }
    match call.state.modules.get_mut(&handle) {
        Some(module) => module,
        None => Kind::Module.missing(function, handle),
    }
}

/// Unloads a module, and its kernels with it.
#[unsafe(no_mangle)]
pub extern "C" fn cuModuleUnload(module: usize) -> CUresult {
    answer(|| {
        let mut call = Call::of_context("cuModuleUnload", &[]);
        own(&mut call, module).owned.given_up = true;
        let mut call = call.unless_failing()?;
        stream::check_module_unused(&call.state, call.function, module);
        call.state.modules.remove(&module);
        call.state.functions.retain(|_, function| function.module != module);
        Ok(())
    })
}

/// Finds a kernel of a module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(
    function: *mut usize,
    module: usize,
    name: *const c_char,
) -> CUresult {
    answer(|| {
        let mut call = Call::in_context("cuModuleGetFunction", &[])?;
        // SAFETY: the driver's contract: text that ends with NUL.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
        let kernels = &own(&mut call, module).kernels;
        let parameters = kernels.get(&name).filter(|_| name.starts_with(PREFIX));
        let parameters = parameters.ok_or(CUDA_ERROR_NOT_FOUND)?.clone();
        let handle = Kind::Function.new_handle();
        let found = Function { module, name, parameters, shared_bytes: SHARED_BYTES };
        call.state.functions.insert(handle, found);
        // SAFETY: the driver's contract.
        unsafe { put(function, handle) }
    })
}

/// The kernel; raises the alarm unless it belongs to a module of the current context.
pub(crate) fn function(call: &mut Call, handle: usize) -> &mut Function {
    let name = call.function;
    let module = call.state.functions.get(&handle).map(|function| function.module);
    if let Some(module) = module {
        own(call, module);
    }
    match call.state.functions.get_mut(&handle) {
        Some(function) => function,
        None => Kind::Function.missing(name, handle),
    }
}

/// Sets the most shared memory that a kernel may be launched with.
#[unsafe(no_mangle)]
pub extern "C" fn cuFuncSetAttribute(handle: usize, attribute: u32, value: c_int) -> CUresult {
    answer(|| {
        let mut call = Call::in_context("cuFuncSetAttribute", &[attribute.into(), value as u64])?;
        let function = function(&mut call, handle);
        match (attribute, u32::try_from(value)) {
            (CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, Ok(bytes @ ..=MOST_SHARED_BYTES)) => {
                function.shared_bytes = bytes.max(SHARED_BYTES);
                Ok(())
            }
            (CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, _) => Ok(()),
            _ => Err(CUDA_ERROR_INVALID_VALUE),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_and_their_parameters_are_read_from_ptx() {
        let text = "
            .version 8.0
            .target sm_70
            .visible .entry ringload_crc64(
                .param .u64 ringload_crc64_param_0,
                .param .u32 ringload_crc64_param_1,
                .param .u64 .ptr .global .align 8 ringload_crc64_param_2
            )
            .maxntid 256, 1, 1
            { ret; }
            .visible .entry ringload_whole(.param .align 8 .b8 ringload_whole_param_0[24]) { ret; }
            .visible .entry ringload_none() { ret; }";
        let kernels = kernels(text).unwrap();
        assert_eq!(kernels["ringload_crc64"], [8, 4, 8]);
        assert_eq!(kernels["ringload_whole"], [24]);
        assert!(kernels["ringload_none"].is_empty());
    }

    #[test]
    fn what_is_no_ptx_is_refused() {
        assert_eq!(kernels("\u{7f}ELF"), Err(CUDA_ERROR_INVALID_IMAGE));
    }

    #[test]
    fn what_a_driver_or_gpu_is_too_old_for_is_refused() {
        let of = |version: &str, target: &str| {
            kernels(&format!(".version {version}\n.target {target}\n")).map(drop)
        };
        assert_eq!(of("8.2", "sm_70"), Ok(()));
        assert_eq!(of("8.2", "sm_90, debug"), Ok(()));
        assert_eq!(of("8.3", "sm_70"), Err(CUDA_ERROR_UNSUPPORTED_PTX_VERSION));
        assert_eq!(of("9.0", "sm_70"), Err(CUDA_ERROR_UNSUPPORTED_PTX_VERSION));
        assert_eq!(of("8.2", "sm_100"), Err(CUDA_ERROR_NO_BINARY_FOR_GPU));
    }
}
