//! The backends for reading files, a fallback chain: `uring+registered -> uring -> pread`.
//!
//! The backend is chosen when the engine starts (see [`Backend::probe`]) and falls back to `pread`
//! in mid-load if the kernel refuses a read opcode. With every backend a read owns its [`Window`]
//! and its file until the kernel has finished. With io_uring they belong to the operation, which
//! the runtime keeps even if the future is dropped; with `pread` they move to the blocking thread.

use super::read_threads::{ReadThreads, THREADS_MAX};
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

/// The longest registered buffer that the kernel accepts (io_uring_register(2)).
const REGISTERED_BYTES_MAX: usize = 1 << 30;

/// How an engine reads files. Lives on the engine's thread; cheap to clone.
#[derive(Clone)]
pub struct Backend {
    inner: Rc<Inner>,
}

struct Inner {
    kind: Cell<BackendKind>,
    registered: Option<Registered>,
    /// The threads of `pread` and of other blocking work.
    threads: ReadThreads,
}

/// The system calls that read files, the last fallback first.
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
    /// The label used in summaries.
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
    /// Checks that io_uring can be set up and entered. A seccomp profile may permit only one of the
    /// two system calls, and the runtime would then wait forever for reads that it cannot submit.
    /// Also, tokio-uring 0.5 leaks its tokio runtime and three descriptors when the kernel refuses.
    ///
    /// # Errors
    /// The errors of the kernel.
    pub fn probe() -> io::Result<()> {
        io_uring::IoUring::new(2)?.submit_and_wait(0).map(drop)
    }

    /// A backend of blocking reads.
    pub fn pread() -> Self {
        Self::on(BackendKind::Pread, None)
    }

    /// A backend on the io_uring runtime that the caller runs in. Registers the memory of `ring`,
    /// if given; the second value is the error if the kernel refuses the registration.
    pub fn uring(ring: Option<&Ring>) -> (Self, Option<io::Error>) {
        match ring.map(Registered::new).transpose() {
            Ok(Some(registered)) => {
                (Self::on(BackendKind::UringRegistered, Some(registered)), None)
            }
            Ok(None) => (Self::on(BackendKind::Uring, None), None),
            Err(refusal) => (Self::on(BackendKind::Uring, None), Some(refusal)),
        }
    }

    fn on(kind: BackendKind, registered: Option<Registered>) -> Self {
        Self {
            inner: Rc::new(Inner {
                kind: Cell::new(kind),
                registered,
                threads: ReadThreads::default(),
            }),
        }
    }

    /// The backend in use.
    pub fn kind(&self) -> BackendKind {
        self.inner.kind.get()
    }

    /// Falls back to `pread`. Returns false if `pread` is in use already.
    pub fn downgrade(&self) -> bool {
        self.inner.kind.replace(BackendKind::Pread) != BackendKind::Pread
    }

    /// Runs `work`, which may take long, on a thread other than the engine's, if one can be started.
    pub(crate) async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        self.inner.threads.run(THREADS_MAX, work).await
    }

    /// Reads once from `file` at `offset` into `window`'s unfilled part. Returns the number of bytes.
    pub async fn read(
        &self,
        file: &Arc<File>,
        window: Window,
        offset: u64,
    ) -> (io::Result<usize>, Window) {
        self.read_at_most(file, window, offset, usize::MAX).await
    }

    /// As [`read`](Self::read), of at most `len_max` bytes. With io_uring `file` may be a socket, which
    /// ignores the offset.
    pub(crate) async fn read_at_most(
        &self,
        file: &Arc<File>,
        mut window: Window,
        offset: u64,
        len_max: usize,
    ) -> (io::Result<usize>, Window) {
        if self.kind() == BackendKind::Pread {
            let file = Arc::clone(file);
            let read = move || pread(&file, window, offset, len_max);
            return self.inner.threads.run(THREADS_MAX, read).await;
        }
        let fd = file.as_raw_fd();
        let entry = self.entry(fd, &mut window, offset, len_max);
        let data = InFlight { window, _file: Arc::clone(file) };
        UnsubmittedOneshot::new(data, Complete, entry).submit().await
    }

    /// As [`read`](Self::read), on one of at most `threads_max` threads, after `before` has run there.
    pub(super) async fn read_after(
        &self,
        before: impl FnOnce() + Send + 'static,
        file: &Arc<File>,
        window: Window,
        offset: u64,
        threads_max: usize,
    ) -> (io::Result<usize>, Window) {
        let file = Arc::clone(file);
        let read = move || {
            before();
            pread(&file, window, offset, usize::MAX)
        };
        self.inner.threads.run(threads_max.max(THREADS_MAX), read).await
    }

    fn entry(&self, fd: RawFd, window: &mut Window, offset: u64, len_max: usize) -> squeue::Entry {
        let ptr = window.unfilled_ptr();
        // A read is at most 2 GiB; windows are far smaller.
        let len = window.unfilled_len().min(len_max).min(i32::MAX as usize) as u32;
        let fd = types::Fd(fd);
        match self.inner.registered.as_ref().and_then(|r| r.index(ptr as usize, len as usize)) {
            Some(index) => opcode::ReadFixed::new(fd, ptr, len, index).offset(offset).build(),
            None => opcode::Read::new(fd, ptr, len).offset(offset).build(),
        }
    }
}

fn pread(
    file: &File,
    mut window: Window,
    offset: u64,
    len_max: usize,
) -> (io::Result<usize>, Window) {
    let len = window.unfilled_len().min(len_max);
    let into = &mut window.unfilled_mut()[..len];
    let outcome = nix::sys::uio::pread(file, into, offset as i64);
    (outcome.map_err(io::Error::from), window)
}

/// The window and the file of a read, which the kernel may access until the read completes.
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

    /// The index of the registered buffer that contains all `len` bytes from `address`.
    fn index(&self, address: usize, len: usize) -> Option<u16> {
        let offset = address.checked_sub(self.start)?;
        let last = offset + len.max(1) - 1;
        let index = offset / REGISTERED_BYTES_MAX;
        (last < self.len && last / REGISTERED_BYTES_MAX == index).then_some(index as u16)
    }
}

/// A part of the ring's memory, for tokio-uring's registry.
///
/// The registry only passes address and length to the kernel: no buffer is ever checked out of it, and
/// reads name sub-ranges in their own submission entries.
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
