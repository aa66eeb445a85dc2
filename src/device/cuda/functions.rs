//! The functions of the driver: finds its library at run time, and calls them.
//!
//! `cudarc` declares the functions and their types, for the version of CUDA that the program selected.
//! [`call!`] takes the types of a function's arguments from there, so that a call compiles with every
//! version whose declaration it fits. It differs from calling `cudarc`'s function in two ways:
//!
//! - The result is a number, an [`Answer`]. `cudarc` declares an enum, and a driver that is newer than
//!   the selected version answers with codes that the enum lacks. Such an enum is undefined behaviour.
//! - All functions are looked up before the first call. `cudarc` panics at the call of a missing one.
//!
//! The library is found by the names by which `cudarc` finds it. If another crate of the build links
//! it, it is loaded when the process starts, and that copy is found.

use super::answer::Answer;
use cudarc::driver::sys::CUresult;
use libloading::Library;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::OnceLock;

const NAMES: [&str; 2] = ["libcuda.so", "libcuda.so.1"];

/// The functions of the driver that this crate calls.
const FUNCTIONS: &[&str] = &[
    "cuInit",
    "cuDriverGetVersion",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDeviceTotalMem_v2",
    "cuDeviceGetPCIBusId",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxPushCurrent_v2",
    "cuCtxPopCurrent_v2",
    "cuMemGetInfo_v2",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemHostRegister_v2",
    "cuMemHostUnregister",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyHtoD_v2",
    "cuMemcpyDtoH_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamSynchronize",
    "cuEventCreate",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuEventDestroy_v2",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuModuleGetFunction",
    "cuLaunchKernel",
    "cuPointerGetAttribute",
];

/// The library, which is never unloaded, and the addresses of the functions.
struct Driver {
    addresses: BTreeMap<&'static str, *const ()>,
    _library: Library,
}

// SAFETY: the addresses are those of functions, which any thread may call.
unsafe impl Send for Driver {}
// SAFETY: as above.
unsafe impl Sync for Driver {}

static DRIVER: OnceLock<Result<Driver, String>> = OnceLock::new();

/// Loads the library, unless an earlier call did.
///
/// # Errors
/// A sentence, if there is no library or it lacks a function.
pub(super) fn load() -> Result<(), String> {
    DRIVER.get_or_init(find).as_ref().map(drop).map_err(String::clone)
}

fn find() -> Result<Driver, String> {
    let open = |name: &'static str| {
        // SAFETY: loading NVIDIA's library runs its initialisers, as intended.
        unsafe { Library::new(name) }.ok()
    };
    let library = NAMES.into_iter().find_map(open).ok_or(
        "no CUDA driver (libcuda.so.1) was found; install NVIDIA's driver, or load to cpu",
    )?;
    let address = |&name: &&'static str| {
        // SAFETY: the symbol is that of a function, and a pointer to it is what is looked up.
        let found = unsafe { library.get::<*const ()>(name.as_bytes()) };
        found.map(|address| (name, *address)).map_err(|_| {
            format!("the CUDA driver lacks {name}; install a driver of CUDA 12.2 or later")
        })
    };
    let addresses = FUNCTIONS.iter().map(address).collect::<Result<_, _>>()?;
    Ok(Driver { addresses, _library: library })
}

/// Calls a function of the driver: `call!(cuInit(0))`. The result is an [`Answer`].
///
/// # Safety
/// As the reference of the CUDA driver API says for the function.
macro_rules! call {
    ($function:ident($($argument:expr),* $(,)?)) => {
        $crate::device::cuda::functions::call!(
            @with $function [$($argument,)*] [a b c d e f g h i j k] [] [$($argument,)*]
        )
    };
    // Takes a name for each argument.
    (@with $function:ident [$first:expr, $($rest:expr,)*] [$name:ident $($names:ident)*]
        [$($taken:ident)*] $all:tt) => {
        $crate::device::cuda::functions::call!(
            @with $function [$($rest,)*] [$($names)*] [$($taken)* $name] $all
        )
    };
    (@with $function:ident [] $names:tt [$($taken:ident)*] [$($argument:expr,)*]) => {{
        // The closure only has the types of the declaration, and is never called.
        let declared = |($($taken,)*)| cudarc::driver::sys::$function($($taken),*);
        let function = $crate::device::cuda::functions::Function::declared_by(declared);
        function.call(stringify!($function), ($($argument,)*))
    }};
}
pub(super) use call;

/// The declaration of a function that takes `Arguments`, a tuple.
pub(super) struct Function<Arguments>(PhantomData<fn(Arguments)>);

impl<Arguments: CallWith> Function<Arguments> {
    /// The declaration of the function that `_declared` calls.
    pub fn declared_by(_declared: impl Fn(Arguments) -> CUresult) -> Self {
        Self(PhantomData)
    }

    /// Calls the function `name`, which is one of [`FUNCTIONS`], after [`load`].
    ///
    /// # Safety
    /// The function is declared with these arguments, and the call is allowed by the driver.
    pub unsafe fn call(self, name: &str, arguments: Arguments) -> Answer {
        let Some(Ok(driver)) = DRIVER.get() else { return Answer::NOT_INITIALIZED };
        let Some(&address) = driver.addresses.get(name) else { return Answer::NOT_FOUND };
        // SAFETY: the address is that of the function, and the caller guarantees the rest.
        unsafe { arguments.call(address) }
    }
}

/// The arguments of a function, as a tuple.
pub(super) trait CallWith {
    /// Calls the function at `address` with them.
    ///
    /// # Safety
    /// The function takes these arguments and returns a result code, and the call is allowed.
    unsafe fn call(self, address: *const ()) -> Answer;
}

macro_rules! call_with {
    ($($argument:ident)*) => {
        #[allow(non_snake_case)]
        impl<$($argument),*> CallWith for ($($argument,)*) {
            unsafe fn call(self, address: *const ()) -> Answer {
                let ($($argument,)*) = self;
                // SAFETY: the caller guarantees the type: `Answer` is a number of the size of C's
                // enums, which a result code is.
                let function = unsafe {
                    std::mem::transmute::<*const (), unsafe extern "C" fn($($argument),*) -> Answer>(address)
                };
                // SAFETY: the caller guarantees it.
                unsafe { function($($argument),*) }
            }
        }
    };
}

call_with!(A);
call_with!(A B);
call_with!(A B C);
call_with!(A B C D);
call_with!(A B C D E F G H I J K);
