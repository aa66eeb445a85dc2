//! The results of the driver's functions, with their names and texts.
//!
//! Only results of CUDA 12.2 are listed, because callers convert them to an enum.

use std::ffi::c_char;

/// The result of a function of the driver; 0 is success.
pub type CUresult = u32;

/// A result, its name and its text, both with the NUL that C wants.
struct Entry(CUresult, &'static str, &'static str);

macro_rules! results {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        $(#[doc = $text] pub const $name: CUresult = $value;)*
        static RESULTS: &[Entry] =
            &[$(Entry($value, concat!(stringify!($name), "\0"), concat!($text, "\0"))),*];
    };
}

results! {
    CUDA_SUCCESS = 0, "no error";
    CUDA_ERROR_INVALID_VALUE = 1, "invalid argument";
    CUDA_ERROR_OUT_OF_MEMORY = 2, "out of memory";
    CUDA_ERROR_NOT_INITIALIZED = 3, "initialization error";
    CUDA_ERROR_DEINITIALIZED = 4, "driver shutting down";
    CUDA_ERROR_STUB_LIBRARY = 34, "CUDA driver is a stub library";
    CUDA_ERROR_DEVICE_UNAVAILABLE = 46, "CUDA-capable device(s) is/are busy or unavailable";
    CUDA_ERROR_NO_DEVICE = 100, "no CUDA-capable device is detected";
    CUDA_ERROR_INVALID_DEVICE = 101, "invalid device ordinal";
    CUDA_ERROR_INVALID_IMAGE = 200, "device kernel image is invalid";
    CUDA_ERROR_INVALID_CONTEXT = 201, "invalid device context";
    CUDA_ERROR_NO_BINARY_FOR_GPU = 209, "no kernel image is available for execution on the device";
    CUDA_ERROR_ECC_UNCORRECTABLE = 214, "uncorrectable ECC error encountered";
    CUDA_ERROR_INVALID_PTX = 218, "a PTX JIT compilation failed";
    CUDA_ERROR_JIT_COMPILER_NOT_FOUND = 221, "PTX JIT compiler library not found";
    CUDA_ERROR_UNSUPPORTED_PTX_VERSION = 222,
        "the provided PTX was compiled with an unsupported toolchain.";
    CUDA_ERROR_OPERATING_SYSTEM = 304, "OS call failed or operation not supported on this OS";
    CUDA_ERROR_INVALID_HANDLE = 400, "invalid resource handle";
    CUDA_ERROR_ILLEGAL_STATE = 401, "the operation cannot be performed in the present state";
    CUDA_ERROR_NOT_FOUND = 500, "named symbol not found";
    CUDA_ERROR_NOT_READY = 600, "device not ready";
    CUDA_ERROR_ILLEGAL_ADDRESS = 700, "an illegal memory access was encountered";
    CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES = 701, "too many resources requested for launch";
    CUDA_ERROR_LAUNCH_TIMEOUT = 702, "the launch timed out and was terminated";
    CUDA_ERROR_CONTEXT_IS_DESTROYED = 709, "context is destroyed";
    CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED = 712,
        "part or all of the requested memory range is already mapped";
    CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED = 713,
        "pointer does not correspond to a registered memory region";
    CUDA_ERROR_HARDWARE_STACK_ERROR = 714, "hardware stack error";
    CUDA_ERROR_MISALIGNED_ADDRESS = 716, "misaligned address";
    CUDA_ERROR_LAUNCH_FAILED = 719, "unspecified launch failure";
    CUDA_ERROR_NOT_PERMITTED = 800, "operation not permitted";
    CUDA_ERROR_NOT_SUPPORTED = 801, "operation not supported";
    CUDA_ERROR_SYSTEM_NOT_READY = 802, "system not yet initialized";
    CUDA_ERROR_SYSTEM_DRIVER_MISMATCH = 803,
        "system has unsupported display driver / cuda driver combination";
    CUDA_ERROR_UNKNOWN = 999, "unknown error";
}

/// The result of a function of cuFile; 0 is success.
pub type CUfileOpError = u32;

macro_rules! file_results {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        $(#[doc = $text] pub const $name: CUfileOpError = $value;)*
        static FILE_RESULTS: &[(CUfileOpError, &str)] = &[$(($value, stringify!($name))),*];
    };
}

file_results! {
    CU_FILE_SUCCESS = 0, "success";
    CU_FILE_DRIVER_NOT_INITIALIZED = 5001, "the driver is not open";
    CU_FILE_DRIVER_VERSION_MISMATCH = 5004, "the versions of the parts do not match";
    CU_FILE_PLATFORM_NOT_SUPPORTED = 5007, "the platform is not supported";
    CU_FILE_IO_NOT_SUPPORTED = 5008, "the file system is not supported";
    CU_FILE_DEVICE_NOT_SUPPORTED = 5009, "the device is not supported";
    CU_FILE_NVFS_DRIVER_ERROR = 5010, "the kernel module failed";
    CU_FILE_CUDA_DRIVER_ERROR = 5011, "the CUDA driver failed";
    CU_FILE_CUDA_POINTER_INVALID = 5012, "not a pointer to device memory";
    CU_FILE_INVALID_FILE_TYPE = 5018, "not a kind of file that is supported";
    CU_FILE_INVALID_VALUE = 5022, "an argument is not valid";
    CU_FILE_MEMORY_ALREADY_REGISTERED = 5023, "the memory is registered already";
    CU_FILE_MEMORY_NOT_REGISTERED = 5024, "the memory is not registered";
    CU_FILE_PERMISSION_DENIED = 5025, "permission denied";
    CU_FILE_DRIVER_ALREADY_OPEN = 5026, "the driver is open already";
    CU_FILE_HANDLE_NOT_REGISTERED = 5027, "the handle is not registered";
    CU_FILE_HANDLE_ALREADY_REGISTERED = 5028, "the handle is registered already";
    CU_FILE_INTERNAL_ERROR = 5030, "an internal error";
    CU_FILE_GPU_MEMORY_PINNING_FAILED = 5036, "device memory could not be pinned";
}

/// The result, of the driver or of cuFile, that is called `name`.
pub(crate) fn by_name(name: &str) -> Option<u32> {
    let driver = RESULTS.iter().map(|entry| (entry.0, entry.1.trim_end_matches('\0')));
    let mut all = driver.chain(FILE_RESULTS.iter().copied());
    all.find(|(value, known)| *known == name && *value != 0).map(|(value, _)| value)
}

fn entry(result: CUresult) -> Option<&'static Entry> {
    RESULTS.iter().find(|entry| entry.0 == result)
}

/// Returns a text as a C string; an unknown result has none.
///
/// # Safety
/// `place` may be written to.
unsafe fn put_text(place: *mut *const c_char, text: Option<&'static str>) -> CUresult {
    let known = text.is_some();
    let text = text.map_or(std::ptr::null(), |text| text.as_ptr().cast());
    // SAFETY: the caller guarantees it.
    unsafe { place.write(text) };
    if known { CUDA_SUCCESS } else { CUDA_ERROR_INVALID_VALUE }
}

/// Returns the name of a result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(error: CUresult, text: *mut *const c_char) -> CUresult {
    // SAFETY: the driver's contract.
    unsafe { put_text(text, entry(error).map(|entry| entry.1)) }
}

/// Returns the text of a result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(error: CUresult, text: *mut *const c_char) -> CUresult {
    // SAFETY: the driver's contract.
    unsafe { put_text(text, entry(error).map(|entry| entry.2)) }
}
