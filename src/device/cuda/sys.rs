//! The functions of the CUDA driver that this crate calls, and their types.
//!
//! All are in every driver since CUDA 12.2 and have kept their signatures, as NVIDIA's names with
//! versions (`_v2`) promise. They are declared here and not taken from `cudarc`, because a build has
//! exactly one version of `cudarc`'s bindings: a dependency of this crate would choose that of the
//! whole program. A test compares the declarations with `cudarc`'s.
//!
//! [`load`] looks up all functions at once. A function that is called before answers like a driver
//! that is not initialised.
#![allow(non_snake_case, clippy::too_many_arguments)] // as the driver has them

pub(super) use super::result_codes::*;
use super::shared_library::SharedLibrary;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

/// A GPU.
pub(super) type CUdevice = c_int;
/// An address in the memory of a GPU.
pub(super) type CUdeviceptr = u64;
/// A context.
pub(super) type CUcontext = *mut Context;
/// An event.
pub(super) type CUevent = *mut Event;
/// A kernel of a module.
pub(super) type CUfunction = *mut Function;
/// A module of kernels.
pub(super) type CUmodule = *mut Module;
/// A stream.
pub(super) type CUstream = *mut Stream;

/// What the driver's handles point to; only the driver knows what these types hold.
macro_rules! opaque {
    ($($name:ident)*) => {
        $(#[repr(C)]
        pub(super) struct $name([u8; 0]);)*
    };
}

opaque! { Context Event Function Module Stream }

pub(super) const CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: c_uint = 16;
pub(super) const CU_DEVICE_ATTRIBUTE_INTEGRATED: c_uint = 18;
pub(super) const CU_MEMORYTYPE_DEVICE: c_uint = 2;
pub(super) const CU_POINTER_ATTRIBUTE_MEMORY_TYPE: c_uint = 2;
pub(super) const CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: c_uint = 9;

const NAMES: [&str; 2] = ["libcuda.so", "libcuda.so.1"];
const MISSING: &str =
    "no CUDA driver (libcuda.so.1) was found; install NVIDIA's driver, or load to cpu";

static FUNCTIONS: OnceLock<Result<(Functions, SharedLibrary), String>> = OnceLock::new();

/// Loads the driver's library, unless an earlier call did or failed to.
///
/// # Errors
/// A sentence, if the library is missing or lacks a function.
pub(super) fn load() -> Result<(), &'static str> {
    let found = FUNCTIONS.get_or_init(|| {
        let library = SharedLibrary::open(&NAMES, MISSING)?;
        let functions = Functions::find(&library).map_err(|name| {
            format!("the CUDA driver lacks {name}; install a driver of CUDA 12.2 or later")
        })?;
        Ok((functions, library)) // never unloaded
    });
    found.as_ref().map(drop).map_err(String::as_str)
}

macro_rules! driver {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {
        struct Functions {
            $($name: unsafe extern "C" fn($($type),*) -> CUresult,)*
        }

        impl Functions {
            /// Looks up all functions. Fails with the name of one that is missing.
            fn find(library: &SharedLibrary) -> Result<Self, &'static str> {
                // SAFETY: the types are those of the driver's API reference, and the library is kept.
                Ok(Self { $($name: unsafe {
                    library.function(stringify!($name)).ok_or(stringify!($name))?
                },)* })
            }
        }

        $(
            /// The driver's function of this name.
            ///
            /// # Safety
            /// As the driver's API reference says.
            pub(super) unsafe fn $name($($argument: $type),*) -> CUresult {
                match FUNCTIONS.get() {
                    // SAFETY: the caller guarantees it.
                    Some(Ok((functions, _))) => unsafe { (functions.$name)($($argument),*) },
                    _ => CUDA_ERROR_NOT_INITIALIZED,
                }
            }
        )*

        /// Every function, with the kinds of its arguments.
        #[cfg(test)]
        fn declared() -> Vec<(&'static str, Vec<tests::Kind>)> {
            vec![$((stringify!($name), vec![$(tests::kind::<$type>()),*]),)*]
        }

        /// The same, as cudarc declares it.
        #[cfg(test)]
        fn declared_by_cudarc() -> Vec<(&'static str, Vec<tests::Kind>)> {
            use cudarc::driver::sys;
            vec![$((stringify!($name), tests::arguments(sys::$name as unsafe fn($(tests::any!($type)),*) -> _)),)*]
        }
    };
}

driver! {
    cuInit(flags: c_uint);
    cuDriverGetVersion(version: *mut c_int);
    cuDeviceGetCount(count: *mut c_int);
    cuDeviceGet(device: *mut CUdevice, ordinal: c_int);
    cuDeviceGetName(name: *mut c_char, len: c_int, device: CUdevice);
    cuDeviceGetAttribute(value: *mut c_int, attribute: c_uint, device: CUdevice);
    cuDeviceTotalMem_v2(bytes: *mut usize, device: CUdevice);
    cuDeviceGetPCIBusId(text: *mut c_char, len: c_int, device: CUdevice);
    cuDevicePrimaryCtxRetain(context: *mut CUcontext, device: CUdevice);
    cuDevicePrimaryCtxRelease_v2(device: CUdevice);
    cuCtxPushCurrent_v2(context: CUcontext);
    cuCtxPopCurrent_v2(context: *mut CUcontext);
    cuMemGetInfo_v2(free: *mut usize, total: *mut usize);
    cuMemAlloc_v2(address: *mut CUdeviceptr, bytes: usize);
    cuMemFree_v2(address: CUdeviceptr);
    cuMemHostRegister_v2(start: *mut c_void, bytes: usize, flags: c_uint);
    cuMemHostUnregister(start: *mut c_void);
    cuMemcpyHtoDAsync_v2(to: CUdeviceptr, from: *const c_void, bytes: usize, stream: CUstream);
    cuMemcpyHtoD_v2(to: CUdeviceptr, from: *const c_void, bytes: usize);
    cuMemcpyDtoH_v2(to: *mut c_void, from: CUdeviceptr, bytes: usize);
    cuMemcpyDtoHAsync_v2(to: *mut c_void, from: CUdeviceptr, bytes: usize, stream: CUstream);
    cuStreamCreate(stream: *mut CUstream, flags: c_uint);
    cuStreamDestroy_v2(stream: CUstream);
    cuStreamSynchronize(stream: CUstream);
    cuEventCreate(event: *mut CUevent, flags: c_uint);
    cuEventRecord(event: CUevent, stream: CUstream);
    cuEventSynchronize(event: CUevent);
    cuEventDestroy_v2(event: CUevent);
    cuModuleLoadData(module: *mut CUmodule, image: *const c_void);
    cuModuleUnload(module: CUmodule);
    cuModuleGetFunction(function: *mut CUfunction, module: CUmodule, name: *const c_char);
    cuLaunchKernel(
        function: CUfunction,
        grid_x: c_uint,
        grid_y: c_uint,
        grid_z: c_uint,
        block_x: c_uint,
        block_y: c_uint,
        block_z: c_uint,
        shared_bytes: c_uint,
        stream: CUstream,
        parameters: *mut *mut c_void,
        extra: *mut *mut c_void
    );
    cuPointerGetAttribute(value: *mut c_void, attribute: c_uint, address: CUdeviceptr);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::any::type_name;

    /// What a calling convention sees of an argument: a signed or unsigned number, or a pointer, of a
    /// size; for a pointer also what it points to.
    #[derive(Debug, PartialEq, Eq)]
    pub(super) struct Kind(String);

    pub(super) fn kind<T>() -> Kind {
        let name = type_name::<T>();
        let what = match name.rsplit("::").next().unwrap_or(name) {
            "CUdevice_attribute_enum" | "CUpointer_attribute_enum" => "u32",
            _ if name.starts_with('*') => name,
            last => last,
        };
        // Handles are pointers to types that are opaque in both declarations.
        let (pointers, target) = what.rsplit_once(' ').unwrap_or(("", what));
        let target = match target.rsplit("::").next().unwrap_or(target) {
            "CUctx_st" => "Context",
            "CUevent_st" => "Event",
            "CUfunc_st" => "Function",
            "CUmod_st" => "Module",
            "CUstream_st" => "Stream",
            last => last,
        };
        Kind(format!("{pointers} {target}, {} bytes", size_of::<T>()))
    }

    /// The kinds of the arguments of a function.
    pub(super) trait Arguments {
        fn kinds() -> Vec<Kind>;
    }

    pub(super) fn arguments<F: Arguments>(_: F) -> Vec<Kind> {
        F::kinds()
    }

    macro_rules! any {
        ($type:ty) => {
            _
        };
    }
    pub(super) use any;

    macro_rules! functions {
        ($(($($argument:ident)*))*) => {
            $(impl<R, $($argument),*> Arguments for unsafe fn($($argument),*) -> R {
                fn kinds() -> Vec<Kind> {
                    assert_eq!(size_of::<R>(), size_of::<CUresult>());
                    vec![$(kind::<$argument>()),*]
                }
            })*
        };
    }

    functions! { (A) (A B) (A B C) (A B C D) (A B C D E F G H I J K) }

    // A wrong type here would corrupt the stack or memory on a machine with a GPU only.
    #[test]
    fn the_functions_are_declared_as_in_cudarc() {
        for (own, other) in declared().into_iter().zip(declared_by_cudarc()) {
            assert_eq!(own, other);
        }
    }

    #[test]
    fn the_numbers_are_those_of_cudarc() {
        use cudarc::driver::sys;
        use sys::CUdevice_attribute::{self as gpu};
        use sys::CUpointer_attribute::{self as pointer};
        assert_eq!(
            [
                CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
                CU_DEVICE_ATTRIBUTE_INTEGRATED,
                CU_MEMORYTYPE_DEVICE,
                CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
            ],
            [
                gpu::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT as u32,
                gpu::CU_DEVICE_ATTRIBUTE_INTEGRATED as u32,
                sys::CUmemorytype::CU_MEMORYTYPE_DEVICE as u32,
                pointer::CU_POINTER_ATTRIBUTE_MEMORY_TYPE as u32,
                pointer::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL as u32,
            ]
        );
        assert_eq!(sys::CUresult::CUDA_SUCCESS as u32, CUDA_SUCCESS.0);
        assert_eq!(sys::CUresult::CUDA_ERROR_UNKNOWN as u32, CUDA_ERROR_UNKNOWN.0);
    }
}
