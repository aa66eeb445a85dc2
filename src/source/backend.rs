//! The lower half of the ladder: how an engine asks the kernel for bytes.
//!
//! `uring+registered -> uring -> pread`. The rung is found when the engine starts (see
//! [`Backend::probe`]) and can drop to `pread` in mid-load when the kernel refuses a read opcode.
//! On every rung a read owns its [`Window`] and its file until the kernel is done with them: on
//! io_uring they are the operation's stable data, kept by the driver even if the future is
//! dropped; on `pread` they move to the blocking thread.

use crate::ring::{Ring, Window};
use io_uring::{cqueue, opcode, squeue, types};
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use tokio_uring::buf::fixed::FixedBufRegistry;
use tokio_uring::buf::{IoBuf, IoBufMut};
use tokio_uring::{OneshotOutputTransform, UnsubmittedOneshot};

/// One registered buffer may be this long (io_uring_register(2)).
const REGISTERED_BYTES_MAX: usize = 1 << 30;

/// How an engine reads files. Lives on the engine's thread; cheap to clone.
#[derive(Clone)]
pub struct Backend {
    inner: Rc<Inner>,
}

struct Inner {
    rung: Cell<BackendKind>,
    registered: Option<Registered>,
}

/// A rung of the ladder of read calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackendKind {
    /// `pread(2)` on a pool of threads.
    Pread,
    /// io_uring.
    Uring,
    /// io_uring into buffers registered with the kernel.
    UringRegistered,
}

impl BackendKind {
    /// The word used in summaries.
    pub fn as_str(self) -> &'static str {
        match self {
            BackendKind::Pread => "pread",
            BackendKind::Uring => "uring",
            BackendKind::UringRegistered => "uring+registered",
        }
    }
}

/// The ring's memory, registered with this engine's io_uring.
struct Registered {
    start: usize,
    len: usize,
    /// Unregistered when the runtime ends, with the driver.
    _registry: FixedBufRegistry<Region>,
}

impl Backend {
    /// Whether io_uring may be set up and entered here: a seccomp profile can allow the one call
    /// and not the other, and the runtime would wait for ever for reads that it cannot submit.
    /// Also, tokio-uring 0.5 leaks its tokio runtime and three descriptors when the kernel refuses.
    ///
    /// # Errors
    /// With the kernel's answer.
    pub fn probe() -> io::Result<()> {
        io_uring::IoUring::new(2)?.submit_and_wait(0).map(drop)
    }

    /// A backend of blocking reads.
    pub fn pread() -> Self {
        Self::on(BackendKind::Pread, None)
    }

    /// A backend on the io_uring runtime this is called in; registers `ring`'s memory if given.
    ///
    /// The second value says why registration was refused, where it was.
    pub fn uring(ring: Option<&Ring>) -> (Self, Option<io::Error>) {
        match ring.map(Registered::new).transpose() {
            Ok(Some(registered)) => {
                (Self::on(BackendKind::UringRegistered, Some(registered)), None)
            }
            Ok(None) => (Self::on(BackendKind::Uring, None), None),
            Err(refusal) => (Self::on(BackendKind::Uring, None), Some(refusal)),
        }
    }

    fn on(rung: BackendKind, registered: Option<Registered>) -> Self {
        Self { inner: Rc::new(Inner { rung: Cell::new(rung), registered }) }
    }

    /// The rung in use.
    pub fn rung(&self) -> BackendKind {
        self.inner.rung.get()
    }

    /// Goes down to `pread`; false when that is the rung already.
    pub fn downgrade(&self) -> bool {
        self.inner.rung.replace(BackendKind::Pread) != BackendKind::Pread
    }

    /// One read of `window`'s unfilled part from `file` at `offset`.
    pub async fn read(
        &self,
        file: &Arc<File>,
        window: Window,
        offset: u64,
    ) -> (io::Result<usize>, Window) {
        let all = window.unfilled_len();
        self.read_most(file, window, offset, all).await
    }

    /// As [`read`](Self::read), of at most `most` bytes. On io_uring `file` may be a socket, which
    /// has no offset.
    pub(crate) async fn read_most(
        &self,
        file: &Arc<File>,
        mut window: Window,
        offset: u64,
        most: usize,
    ) -> (io::Result<usize>, Window) {
        if self.rung() == BackendKind::Pread {
            return pread(Arc::clone(file), window, offset, most).await;
        }
        let fd = file.as_raw_fd();
        let entry = self.entry(fd, &mut window, offset, most);
        let data = InFlight { window, _file: Arc::clone(file) };
        UnsubmittedOneshot::new(data, Complete, entry).submit().await
    }

    fn entry(&self, fd: RawFd, window: &mut Window, offset: u64, most: usize) -> squeue::Entry {
        let ptr = window.unfilled_ptr();
        // A read is at most 2 GiB; windows are far smaller.
        let len = window.unfilled_len().min(most).min(i32::MAX as usize) as u32;
        let fd = types::Fd(fd);
        match self.inner.registered.as_ref().and_then(|r| r.index(ptr as usize, len as usize)) {
            Some(index) => opcode::ReadFixed::new(fd, ptr, len, index).offset(offset).build(),
            None => opcode::Read::new(fd, ptr, len).offset(offset).build(),
        }
    }
}

async fn pread(
    file: Arc<File>,
    mut window: Window,
    offset: u64,
    most: usize,
) -> (io::Result<usize>, Window) {
    let read = move || {
        let len = window.unfilled_len().min(most);
        let into = &mut window.unfilled_mut()[..len];
        let outcome = nix::sys::uio::pread(&file, into, offset as i64);
        (outcome.map_err(io::Error::from), window)
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(done) => done,
        // The closure does not panic and the runtime outlives its lanes.
        Err(lost) => std::panic::resume_unwind(lost.into_panic()),
    }
}

/// What the kernel may use until the operation completes.
struct InFlight {
    window: Window,
    _file: Arc<File>,
}

struct Complete;

impl OneshotOutputTransform for Complete {
    type Output = (io::Result<usize>, Window);
    type StoredData = InFlight;

    fn transform_oneshot_output(self, data: InFlight, entry: cqueue::Entry) -> Self::Output {
        let outcome = match entry.result() {
            negative @ ..0 => Err(io::Error::from_raw_os_error(-negative)),
            bytes => Ok(bytes as usize),
        };
        (outcome, data.window)
    }
}

impl Registered {
    fn new(ring: &Ring) -> io::Result<Self> {
        let (start, len) = ring.region();
        let regions = (0..len).step_by(REGISTERED_BYTES_MAX).map(|offset| Region {
            start: start + offset,
            len: REGISTERED_BYTES_MAX.min(len - offset),
        });
        let registry = FixedBufRegistry::new(regions);
        registry.register()?;
        Ok(Self { start, len, _registry: registry })
    }

    /// The index of the registered buffer that holds all `len` bytes from `address`.
    fn index(&self, address: usize, len: usize) -> Option<u16> {
        let offset = address.checked_sub(self.start)?;
        let last = offset + len.max(1) - 1;
        let index = offset / REGISTERED_BYTES_MAX;
        (last < self.len && last / REGISTERED_BYTES_MAX == index).then_some(index as u16)
    }
}

/// A part of the ring's memory as tokio-uring's registry wants to see it.
///
/// The registry only passes address and length on to the kernel: no buffer is ever checked out of
/// it, and reads name sub-ranges by their own submission entries.
struct Region {
    start: usize,
    len: usize,
}

// SAFETY: the ring's mapping is stable and outlives the runtime (the engine's thread holds it).
// Nothing is declared initialised, so no slice of it is ever made through this.
unsafe impl IoBuf for Region {
    fn stable_ptr(&self) -> *const u8 {
        self.start as *const u8
    }

    fn bytes_init(&self) -> usize {
        0
    }

    fn bytes_total(&self) -> usize {
        self.len
    }
}

// SAFETY: as above.
unsafe impl IoBufMut for Region {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.start as *mut u8
    }

    unsafe fn set_init(&mut self, _pos: usize) {}
}
