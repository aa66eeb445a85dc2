//! cuFile's driver, and the files that are registered with it.

use super::library::{CufileLibrary, DriverProperties, check, cufile, meaning};
use crate::device::cuda::context::Entered;
use crate::error::errno::{ErrnoAction, action};
use cudarc::cufile::sys::{
    CUfileDescr_t, CUfileDescr_t__bindgen_ty_1, CUfileFileHandleType, CUfileHandle_t,
};
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::ptr::null;
use std::sync::{Arc, OnceLock};

/// `CU_FILE_DRIVER_ALREADY_OPEN`: another user in this process has opened the driver.
const ALREADY_OPEN: u32 = 5026;

/// cuFile's driver, open and able to read directly to GPUs. It stays open until the library closes it
/// at the end of the process, because the process may have other users of it.
pub(crate) struct CufileDriver {
    cufile: &'static CufileLibrary,
}

impl CufileDriver {
    /// Opens the driver, unless an earlier call did or failed to.
    ///
    /// # Errors
    /// The reason why the driver cannot be used. One reason is that it would only read and copy,
    /// which is slower than the ring.
    pub fn open() -> Result<&'static Self, String> {
        static DRIVER: OnceLock<Result<CufileDriver, String>> = OnceLock::new();
        DRIVER.get_or_init(Self::try_open).as_ref().map_err(String::clone)
    }

    fn try_open() -> Result<Self, String> {
        let cufile = cufile()?;
        // SAFETY: the call takes no arguments and is allowed if the driver is already open.
        let answer = unsafe { (cufile.driver_open)() };
        if answer.cufile != ALREADY_OPEN {
            check(answer, "cuFileDriverOpen")?;
        }
        let mut properties = MaybeUninit::<DriverProperties>::zeroed();
        // SAFETY: the pointer is valid for the answer, also for that of later versions.
        let answer = unsafe { (cufile.driver_properties)(properties.as_mut_ptr()) };
        check(answer, "cuFileDriverGetProperties")?;
        // SAFETY: plain numbers, zeroed above and written by the successful call.
        let served = unsafe { properties.assume_init() }.known.nvfs.dstatusflags;
        if served == 0 {
            return Err("cuFile is in compatibility mode, in which it reads to host memory and \
                        copies; load the nvidia-fs module (see gdscheck -p)"
                .to_owned());
        }
        tracing::debug!(served, "opened cuFile's driver");
        Ok(Self { cufile })
    }
}

/// A file that is registered with cuFile; deregistered on drop.
pub(crate) struct RegisteredFile {
    driver: &'static CufileDriver,
    handle: CUfileHandle_t,
    /// Closed after it was deregistered.
    _file: Arc<File>,
}

// SAFETY: any thread may use the handle (cuFile API reference: its functions are thread-safe).
unsafe impl Send for RegisteredFile {}
// SAFETY: as above.
unsafe impl Sync for RegisteredFile {}

/// The error of a read by cuFile.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CufileReadError {
    /// The operating system failed.
    #[error("cuFileRead: {0}")]
    System(io::Error),
    /// cuFile failed; a sentence says why.
    #[error("{0}")]
    Cufile(String),
}

impl RegisteredFile {
    /// Registers `file`, which is open for direct I/O and whose descriptor is not registered yet.
    ///
    /// # Errors
    /// The reason why cuFile cannot read the file.
    pub fn new(file: Arc<File>) -> Result<Self, String> {
        let driver = CufileDriver::open()?;
        let mut description = CUfileDescr_t {
            type_: CUfileFileHandleType::CU_FILE_HANDLE_TYPE_OPAQUE_FD,
            handle: CUfileDescr_t__bindgen_ty_1 { handle: std::ptr::null_mut() },
            fs_ops: null(),
        };
        description.handle.fd = file.as_raw_fd();
        let mut handle = MaybeUninit::uninit();
        // SAFETY: both pointers are valid during the call; the descriptor stays open as long as the
        // registration, which ends in `drop`, before the file is closed.
        let answer = unsafe { (driver.cufile.register)(handle.as_mut_ptr(), &raw mut description) };
        check(answer, "cuFileHandleRegister")?;
        // SAFETY: written by the successful call.
        let handle = unsafe { handle.assume_init() };
        Ok(Self { driver, handle, _file: file })
    }

    /// Reads at most `len` bytes from `offset` to `address` on the GPU and waits for them. Returns the
    /// number of bytes, which is 0 only at the end of the file.
    ///
    /// # Errors
    /// If cuFile or the operating system fails. The content of the memory is then unspecified.
    ///
    /// # Safety
    /// The memory belongs to the current context, stays allocated during the call, and nobody else
    /// uses it meanwhile.
    pub(in crate::device::cuda) unsafe fn read(
        &self,
        _entered: &Entered<'_>,
        address: u64,
        len: u64,
        offset: u64,
    ) -> Result<u64, CufileReadError> {
        let target = address as *mut c_void;
        // SAFETY: the handle is registered; the caller guarantees the rest. The memory is not
        // registered with cuFile (see the module documentation), so any address may be the base.
        let answer = unsafe {
            (self.driver.cufile.read)(self.handle, target, len as usize, offset as i64, 0)
        };
        let system = io::Error::last_os_error();
        match answer {
            read @ 0.. if read as u64 <= len => Ok(read as u64),
            0.. => Err(CufileReadError::Cufile(format!(
                "cuFileRead returned {answer} for a read of {len} bytes"
            ))),
            -1 => Err(CufileReadError::System(system)),
            code => Err(CufileReadError::Cufile(meaning(code.unsigned_abs() as u32, "cuFileRead"))),
        }
    }
}

impl Drop for RegisteredFile {
    fn drop(&mut self) {
        // SAFETY: registered once, deregistered once; reads borrow `self`, so none is running.
        unsafe { (self.driver.cufile.deregister)(self.handle) };
    }
}

impl CufileReadError {
    /// Whether the failure is transient, so that the read can be repeated.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::System(error) if action(error) == ErrnoAction::Retry)
    }
}
