//! cuFile's library: found at run time, or said to be missing.
//!
//! NVIDIA's packages for running programs install `libcufile.so.0` alone, those for building them
//! `libcufile.so` too; `cudarc` looks for the second one only. So the library is looked for here, by
//! both names, and used with `cudarc`'s types. What it answers is taken as numbers, not as `cudarc`'s
//! enums: a newer library may answer what those do not know.

use cudarc::cufile::sys::{CUfileDescr_t, CUfileDrvProps_t, CUfileHandle_t};
use libloading::Library;
use std::ffi::c_void;
use std::sync::OnceLock;

const NAMES: [&str; 2] = ["libcufile.so.0", "libcufile.so"];

/// `CUfileError_t`, by its numbers.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Answer {
    pub cufile: u32,
    pub cuda: u32,
}

/// What the driver says of itself, with room for what later versions add to it.
#[repr(C)]
pub(super) struct Properties {
    pub known: CUfileDrvProps_t,
    pub spare: [u64; 64],
}

/// The functions that this crate calls; see cuFile's API reference.
pub(super) struct CuFile {
    pub driver_open: unsafe extern "C" fn() -> Answer,
    pub driver_properties: unsafe extern "C" fn(*mut Properties) -> Answer,
    pub register: unsafe extern "C" fn(*mut CUfileHandle_t, *mut CUfileDescr_t) -> Answer,
    pub deregister: unsafe extern "C" fn(CUfileHandle_t),
    pub read: unsafe extern "C" fn(CUfileHandle_t, *mut c_void, usize, i64, i64) -> isize,
    /// Last, and in fact never: the library stays loaded until the process ends.
    _library: Library,
}

/// The library, loaded when it is first asked for.
///
/// # Errors
/// With a sentence where it is not there, or lacks a function.
pub(super) fn cufile() -> Result<&'static CuFile, String> {
    static FOUND: OnceLock<Result<CuFile, String>> = OnceLock::new();
    FOUND.get_or_init(find).as_ref().map_err(String::clone)
}

fn find() -> Result<CuFile, String> {
    let open = |name: &'static str| {
        // SAFETY: loading NVIDIA's library runs its initialisers, which is what is asked for.
        unsafe { Library::new(name) }.ok()
    };
    let library = NAMES.into_iter().find_map(open).ok_or(
        "cuFile (libcufile.so.0) is not on this machine; install NVIDIA's libcufile or \
         gds-tools package",
    )?;
    // SAFETY: for all of them, the types are those of cuFile's API reference, with numbers for enums.
    unsafe {
        Ok(CuFile {
            driver_open: function(&library, "cuFileDriverOpen")?,
            driver_properties: function(&library, "cuFileDriverGetProperties")?,
            register: function(&library, "cuFileHandleRegister")?,
            deregister: function(&library, "cuFileHandleDeregister")?,
            read: function(&library, "cuFileRead")?,
            _library: library,
        })
    }
}

/// # Safety
/// `F` is the type of the function called `name`, and is not used after the library is unloaded.
unsafe fn function<F: Copy>(library: &Library, name: &str) -> Result<F, String> {
    // SAFETY: as promised by the caller.
    let found = unsafe { library.get::<F>(name) };
    found.map(|function| *function).map_err(|_| {
        format!("the cuFile library here lacks {name}; install that of CUDA 12.2 or later")
    })
}

/// What cuFile's own results mean; from its API reference, `CUfileOpError`.
const MEANINGS: &[(u32, &str)] = &[
    (5001, "its driver is not initialised; is the nvidia-fs module loaded?"),
    (5004, "its library and the nvidia-fs module are of different versions"),
    (5005, "it cannot read the nvidia-fs module's version; is it loaded?"),
    (5007, "it does not support this platform"),
    (5008, "it does not support this file system or mount"),
    (5009, "it does not support this GPU"),
    (5010, "the nvidia-fs module failed"),
    (5011, "the CUDA driver failed"),
    (5018, "it does not support this kind of file"),
    (5020, "the file is not open for direct I/O"),
    (5025, "it has no permission"),
    (5028, "the file is registered already"),
    (5030, "an error inside of it"),
    (5033, "the nvidia-fs module is not set up"),
    (5034, "direct I/O to the GPU is disabled in cufile.json"),
];

/// `Ok` for success, else what the answer to a call of cuFile means.
pub(super) fn check(answer: Answer, function: &str) -> Result<(), String> {
    match answer {
        Answer { cufile: 0, .. } => Ok(()),
        Answer { cufile: 5011, cuda } => {
            Err(format!("{}, with CUDA's error {cuda}", meaning(5011, function)))
        }
        Answer { cufile, .. } => Err(meaning(cufile, function)),
    }
}

/// The sentence for a result of `function` that is an error.
pub(super) fn meaning(result: u32, function: &str) -> String {
    let known = MEANINGS.iter().find(|&&(number, _)| number == result);
    let what = known.map_or("see cuFile's API reference", |&(_, what)| what);
    format!("{function} answers {result}: {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_by_number_and_meaning() {
        assert_eq!(check(Answer { cufile: 0, cuda: 7 }, "cuFileRead"), Ok(()));
        let told = check(Answer { cufile: 5008, cuda: 0 }, "cuFileHandleRegister").unwrap_err();
        assert!(
            told.starts_with("cuFileHandleRegister answers 5008: it does not support this file")
        );
        let told = check(Answer { cufile: 5011, cuda: 201 }, "cuFileDriverOpen").unwrap_err();
        assert!(told.ends_with("with CUDA's error 201"), "{told}");
        assert!(meaning(5999, "cuFileRead").contains("5999"));
        for (number, (result, _)) in MEANINGS.iter().enumerate() {
            assert!(MEANINGS[..number].iter().all(|(other, _)| other < result), "{result}");
        }
    }
}
