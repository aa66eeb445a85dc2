//! Finds cuFile's library at run time.
//!
//! NVIDIA's runtime packages install only `libcufile.so.0`, the development packages also
//! `libcufile.so`; this module looks for both. Result codes are numbers and not enums, because a
//! newer library may return codes that enums lack.

use crate::device::cuda::shared_library::SharedLibrary;
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

const NAMES: [&str; 2] = ["libcufile.so.0", "libcufile.so"];

/// `CUfileError_t`, with numbers for its enums.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct CufileStatus {
    pub cufile: u32,
    pub cuda: u32,
}

/// `CU_FILE_HANDLE_TYPE_OPAQUE_FD`: a descriptor of Linux.
pub(super) const OPAQUE_FD: u32 = 1;

/// `CUfileHandle_t`: a file that is registered.
pub(super) type CufileHandle = *mut c_void;

/// `CUfileDescr_t`: the file to register.
#[repr(C)]
pub(super) struct CufileDescription {
    /// `CUfileFileHandleType`.
    pub kind: u32,
    pub file: CufileDescriptor,
    /// Functions of a file system in user space.
    pub functions: *const c_void,
}

/// The descriptor of a file, in the space of a pointer.
#[repr(C)]
pub(super) union CufileDescriptor {
    pub descriptor: c_int,
    pub pointer: *mut c_void,
}

/// The first properties in `CUfileDrvProps_t`, those of the nvidia-fs module.
#[repr(C)]
pub(super) struct NvfsProperties {
    pub major_version: u32,
    pub minor_version: u32,
    pub poll_threshold: usize,
    pub direct_io_max: usize,
    /// What direct reads are served from; 0 if there are none.
    pub status_flags: u32,
    pub control_flags: u32,
}

/// `CUfileDrvProps_t`: the first properties of the driver, and space for the others, to which later
/// versions add.
#[repr(C)]
pub(super) struct DriverProperties {
    pub nvfs: NvfsProperties,
    pub spare: [u64; 64],
}

/// The functions of cuFile that this crate calls; see its API reference.
pub(super) struct CufileLibrary {
    pub driver_open: unsafe extern "C" fn() -> CufileStatus,
    pub driver_properties: unsafe extern "C" fn(*mut DriverProperties) -> CufileStatus,
    pub register: unsafe extern "C" fn(*mut CufileHandle, *mut CufileDescription) -> CufileStatus,
    pub deregister: unsafe extern "C" fn(CufileHandle),
    pub read: unsafe extern "C" fn(CufileHandle, *mut c_void, usize, i64, i64) -> isize,
    /// The library stays loaded until the process ends.
    _library: SharedLibrary,
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
    let missing = "cuFile (libcufile.so.0) was not found; install NVIDIA's libcufile or \
                   gds-tools package";
    let library = SharedLibrary::open(&NAMES, missing)?;
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
unsafe fn function<F: Copy>(library: &SharedLibrary, name: &str) -> Result<F, String> {
    // SAFETY: the caller guarantees the type.
    let found = unsafe { library.function::<F>(name) };
    found.ok_or_else(|| {
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
    use std::mem::offset_of;

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

    #[test]
    fn the_types_are_laid_out_as_in_cudarc() {
        use cudarc::cufile::sys::{CUfileDescr_t, CUfileDrvProps_t, CUfileFileHandleType};
        assert_eq!(
            [
                size_of::<CufileDescription>(),
                offset_of!(CufileDescription, kind),
                offset_of!(CufileDescription, file),
                offset_of!(CufileDescription, functions),
            ],
            [
                size_of::<CUfileDescr_t>(),
                offset_of!(CUfileDescr_t, type_),
                offset_of!(CUfileDescr_t, handle),
                offset_of!(CUfileDescr_t, fs_ops),
            ]
        );
        assert_eq!(
            [
                offset_of!(DriverProperties, nvfs.direct_io_max),
                offset_of!(DriverProperties, nvfs.status_flags),
                offset_of!(DriverProperties, nvfs.control_flags),
            ],
            [
                offset_of!(CUfileDrvProps_t, nvfs.max_direct_io_size),
                offset_of!(CUfileDrvProps_t, nvfs.dstatusflags),
                offset_of!(CUfileDrvProps_t, nvfs.dcontrolflags),
            ]
        );
        assert!(size_of::<DriverProperties>() >= size_of::<CUfileDrvProps_t>() + 256);
        assert_eq!(CUfileFileHandleType::CU_FILE_HANDLE_TYPE_OPAQUE_FD as u32, OPAQUE_FD);
    }
}
