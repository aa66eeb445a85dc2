//! Finds cuFile's library at run time.
//!
//! NVIDIA's runtime packages install only `libcufile.so.0`, the development packages also
//! `libcufile.so`. `cudarc` looks only for the latter, so this module looks for both names and uses
//! the library with `cudarc`'s types. Result codes are numbers here instead of `cudarc`'s enums,
//! because a newer library may return codes that the enums lack.

use cudarc::cufile::sys::{CUfileDescr_t, CUfileDrvProps_t, CUfileHandle_t};
use libloading::Library;
use std::ffi::c_void;
use std::sync::OnceLock;

const NAMES: [&str; 2] = ["libcufile.so.0", "libcufile.so"];

/// `CUfileError_t`, with numbers for its enums.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct CufileStatus {
    pub cufile: u32,
    pub cuda: u32,
}

/// The properties of the driver, with spare space for fields that later versions add.
#[repr(C)]
pub(super) struct DriverProperties {
    pub known: CUfileDrvProps_t,
    pub spare: [u64; 64],
}

/// The functions of cuFile that this crate calls; see its API reference.
pub(super) struct CufileLibrary {
    pub driver_open: unsafe extern "C" fn() -> CufileStatus,
    pub driver_properties: unsafe extern "C" fn(*mut DriverProperties) -> CufileStatus,
    pub register: unsafe extern "C" fn(*mut CUfileHandle_t, *mut CUfileDescr_t) -> CufileStatus,
    pub deregister: unsafe extern "C" fn(CUfileHandle_t),
    pub read: unsafe extern "C" fn(CUfileHandle_t, *mut c_void, usize, i64, i64) -> isize,
    /// The library stays loaded until the process ends.
    _library: Library,
}

/// Returns the library, which the first call loads.
///
/// # Errors
/// A sentence, if the library is missing or lacks a function.
pub(super) fn cufile() -> Result<&'static CufileLibrary, String> {
    static FOUND: OnceLock<Result<CufileLibrary, String>> = OnceLock::new();
    FOUND.get_or_init(find).as_ref().map_err(String::clone)
}

fn find() -> Result<CufileLibrary, String> {
    let open = |name: &'static str| {
        // SAFETY: loading NVIDIA's library runs its initialisers, as intended.
        unsafe { Library::new(name) }.ok()
    };
    let library = NAMES.into_iter().find_map(open).ok_or(
        "cuFile (libcufile.so.0) was not found; install NVIDIA's libcufile or \
         gds-tools package",
    )?;
    // SAFETY: all types are those of cuFile's API reference, with numbers for enums.
    unsafe {
        Ok(CufileLibrary {
            driver_open: function(&library, "cuFileDriverOpen")?,
            driver_properties: function(&library, "cuFileDriverGetProperties")?,
            register: function(&library, "cuFileHandleRegister")?,
            deregister: function(&library, "cuFileHandleDeregister")?,
            read: function(&library, "cuFileRead")?,
            _library: library,
        })
    }
}

/// Looks up a function.
///
/// # Safety
/// `F` is the type of the function called `name`, and is not used after the library is unloaded.
unsafe fn function<F: Copy>(library: &Library, name: &str) -> Result<F, String> {
    // SAFETY: the caller guarantees the type.
    let found = unsafe { library.get::<F>(name) };
    found.map(|function| *function).map_err(|_| {
        format!("the installed cuFile library lacks {name}; install that of CUDA 12.2 or later")
    })
}

/// The meanings of cuFile's own result codes, from its API reference, `CUfileOpError`.
const MEANINGS: &[(u32, &str)] = &[
    (5001, "its driver is not initialised; check that the nvidia-fs module is loaded"),
    (5004, "its library and the nvidia-fs module have different versions"),
    (5005, "it cannot read the version of the nvidia-fs module; check that the module is loaded"),
    (5007, "it does not support this platform"),
    (5008, "it does not support this file system or mount"),
    (5009, "it does not support this GPU"),
    (5010, "the nvidia-fs module failed"),
    (5011, "the CUDA driver failed"),
    (5018, "it does not support this kind of file"),
    (5020, "the file is not open for direct I/O"),
    (5025, "permission denied"),
    (5028, "the file is already registered"),
    (5030, "internal error"),
    (5033, "the nvidia-fs module is not set up"),
    (5034, "direct I/O to the GPU is disabled in cufile.json"),
];

/// Converts the answer to a call of cuFile.
///
/// # Errors
/// For every answer except success.
pub(super) fn check(answer: CufileStatus, function: &str) -> Result<(), String> {
    match answer {
        CufileStatus { cufile: 0, .. } => Ok(()),
        CufileStatus { cufile: 5011, cuda } => {
            Err(format!("{}, with CUDA's error {cuda}", meaning(5011, function)))
        }
        CufileStatus { cufile, .. } => Err(meaning(cufile, function)),
    }
}

/// The sentence for the failure `result` of `function`.
pub(super) fn meaning(result: u32, function: &str) -> String {
    let known = MEANINGS.iter().find(|&&(number, _)| number == result);
    let what = known.map_or("see cuFile's API reference", |&(_, what)| what);
    format!("{function} failed with {result}: {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_function_the_number_and_the_meaning() {
        assert_eq!(check(CufileStatus { cufile: 0, cuda: 7 }, "cuFileRead"), Ok(()));
        let error =
            check(CufileStatus { cufile: 5008, cuda: 0 }, "cuFileHandleRegister").unwrap_err();
        assert!(
            error.starts_with(
                "cuFileHandleRegister failed with 5008: it does not support this file"
            )
        );
        let error =
            check(CufileStatus { cufile: 5011, cuda: 201 }, "cuFileDriverOpen").unwrap_err();
        assert!(error.ends_with("with CUDA's error 201"), "{error}");
        assert!(meaning(5999, "cuFileRead").contains("5999"));
        for (number, (result, _)) in MEANINGS.iter().enumerate() {
            assert!(MEANINGS[..number].iter().all(|(other, _)| other < result), "{result}");
        }
    }
}
