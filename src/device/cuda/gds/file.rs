//! cuFile's driver, and files that are registered with it.

use super::library::{Answer, CuFile, Properties, check, cufile, meaning};
use crate::device::cuda::context::Entered;
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

/// `CU_FILE_DRIVER_ALREADY_OPEN`: somebody else in this process uses it too.
const ALREADY_OPEN: u32 = 5026;

/// cuFile's driver, open and able to read straight to GPUs. It stays open until the process ends,
/// when the library closes it by itself: other users of this process may be using it too.
pub(crate) struct Driver {
    cufile: &'static CuFile,
}

impl Driver {
    /// Opens it, if that was not tried yet.
    ///
    /// # Errors
    /// With the reason why it cannot be used, or would do nothing but read plainly and copy, which
    /// the ring does better.
    pub fn open() -> Result<&'static Self, String> {
        static DRIVER: OnceLock<Result<Driver, String>> = OnceLock::new();
        DRIVER.get_or_init(Self::try_open).as_ref().map_err(String::clone)
    }

    fn try_open() -> Result<Self, String> {
        let cufile = cufile()?;
        // SAFETY: takes nothing; may be called where the driver is open already.
        let answer = unsafe { (cufile.driver_open)() };
        if answer.cufile != ALREADY_OPEN {
            check(answer, "cuFileDriverOpen")?;
        }
        let mut properties = MaybeUninit::<Properties>::zeroed();
        // SAFETY: the pointer is valid for the answer, and for that of later versions.
        let answer = unsafe { (cufile.driver_properties)(properties.as_mut_ptr()) };
        check(answer, "cuFileDriverGetProperties")?;
        // SAFETY: plain numbers, zeroed and then written by the successful call.
        let served = unsafe { properties.assume_init() }.known.nvfs.dstatusflags;
        if served == 0 {
            return Err(
                "cuFile is in compatibility mode here: it would read plainly and copy; load \
                        the nvidia-fs module (see gdscheck -p)"
                    .to_owned(),
            );
        }
        tracing::debug!(served, "cuFile's driver is open");
        Ok(Self { cufile })
    }
}

/// A file that is registered with cuFile; deregistered on drop.
pub(crate) struct RegisteredFile {
    driver: &'static Driver,
    handle: CUfileHandle_t,
    /// Closed after it was deregistered.
    _file: Arc<File>,
}

// SAFETY: a handle that any thread may use (cuFile API reference: its functions are thread-safe).
unsafe impl Send for RegisteredFile {}
// SAFETY: as above.
unsafe impl Sync for RegisteredFile {}

/// Why a read did not bring anything.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// What the operating system answered.
    System(io::Error),
    /// What cuFile answered, in a sentence.
    CuFile(String),
}

impl RegisteredFile {
    /// Registers `file`, which is open for direct I/O and whose descriptor was not registered yet.
    ///
    /// # Errors
    /// With the reason why cuFile cannot read it.
    pub fn new(file: Arc<File>) -> Result<Self, String> {
        let driver = Driver::open()?;
        let mut description = CUfileDescr_t {
            type_: CUfileFileHandleType::CU_FILE_HANDLE_TYPE_OPAQUE_FD,
            handle: CUfileDescr_t__bindgen_ty_1 { handle: std::ptr::null_mut() },
            fs_ops: null(),
        };
        description.handle.fd = file.as_raw_fd();
        let mut handle = MaybeUninit::uninit();
        // SAFETY: both pointers are valid during the call; the descriptor stays open as long as the
        // registration, which is let go in `drop`, before the file.
        let answer: Answer =
            unsafe { (driver.cufile.register)(handle.as_mut_ptr(), &raw mut description) };
        check(answer, "cuFileHandleRegister")?;
        // SAFETY: written by the successful call.
        let handle = unsafe { handle.assume_init() };
        Ok(Self { driver, handle, _file: file })
    }

    /// Reads at most `len` bytes from `offset` to `address` on the GPU; waits for them. Gives how
    /// many came, 0 only at the end of the file.
    ///
    /// # Errors
    /// With what was answered. What the memory holds is then unspecified.
    ///
    /// # Safety
    /// The memory is of the current context, stays allocated during the call, and nobody else uses
    /// it meanwhile.
    pub(in crate::device::cuda) unsafe fn read(
        &self,
        _entered: &Entered<'_>,
        address: u64,
        len: u64,
        offset: u64,
    ) -> Result<u64, Refusal> {
        let target = address as *mut c_void;
        // SAFETY: the handle is registered; the rest is promised by the caller. The memory is not
        // registered with cuFile (see the module's head), so any address in it may be its base.
        let answer = unsafe {
            (self.driver.cufile.read)(self.handle, target, len as usize, offset as i64, 0)
        };
        let system = io::Error::last_os_error();
        match answer {
            read @ 0.. if read as u64 <= len => Ok(read as u64),
            0.. => Err(Refusal::CuFile(format!("cuFileRead says {answer} of {len} bytes came"))),
            -1 => Err(Refusal::System(system)),
            refusal => Err(Refusal::CuFile(meaning(refusal.unsigned_abs() as u32, "cuFileRead"))),
        }
    }
}

impl Drop for RegisteredFile {
    fn drop(&mut self) {
        // SAFETY: registered once, deregistered once; reads borrow it, so none is at work.
        unsafe { (self.driver.cufile.deregister)(self.handle) };
    }
}

impl Refusal {
    /// Whether the same read may be asked for again.
    pub fn is_passing(&self) -> bool {
        let Self::System(error) = self else { return false };
        use crate::error::errno::{ErrnoAction, action};
        action(error) == ErrnoAction::Retry
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::System(error) => write!(f, "cuFileRead: {error}"),
            Self::CuFile(sentence) => f.write_str(sentence),
        }
    }
}
