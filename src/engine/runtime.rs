//! An engine's thread: probes the backends, runs the read tasks, and ends when all of them have.

use super::read_task::Engine;
use super::shared::Shared;
use super::work::Work;
use crate::error::Error;
use crate::source::{Backend, Downgrade};
use std::io;
use std::sync::Arc;
use tokio::runtime::Builder;
use tokio::task::LocalSet;

/// The number of entries of an engine's submission queue. When the queue is full, the runtime submits
/// its entries first.
const ENTRIES: u32 = 256;

/// Runs the engine with this number until all of its read tasks have ended.
pub(super) fn run(shared: &Arc<Shared>, work: &Arc<dyn Work>, number: usize) {
    match uring() {
        Ok(runtime) => {
            runtime.block_on(drive(shared, work, number, on_uring(shared)));
        }
        Err(refusal) => {
            let why = why_no_uring(&refusal);
            shared.stats.downgrade(Downgrade { from: "uring", to: "pread", why });
            match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    let backend = async { Backend::pread() };
                    LocalSet::new().block_on(&runtime, drive(shared, work, number, backend));
                }
                Err(e) => shared.fail(Error::from_io("start an engine", e)),
            }
        }
    }
}

async fn drive(
    shared: &Arc<Shared>,
    work: &Arc<dyn Work>,
    number: usize,
    backend: impl Future<Output = Backend>,
) {
    Engine::new(Arc::clone(shared), Arc::clone(work), backend.await, number).drive().await;
}

/// Returns the io_uring backend. Must run inside the runtime, which registers the memory.
async fn on_uring(shared: &Shared) -> Backend {
    let ring = shared.job.register.as_deref();
    let (backend, refusal) = Backend::uring(ring);
    if let Some(refusal) = refusal {
        let remedy = match refusal.raw_os_error() {
            Some(libc::ENOMEM) => "; raise ulimit -l",
            _ => "",
        };
        let why = format!("registering the ring's memory: {refusal}{remedy}");
        shared.stats.downgrade(Downgrade { from: "uring+registered", to: "uring", why });
    }
    backend
}

fn uring() -> io::Result<tokio_uring::Runtime> {
    Backend::probe()?;
    let mut builder = tokio_uring::builder();
    tokio_uring::Runtime::new(builder.entries(ENTRIES))
}

fn why_no_uring(refusal: &io::Error) -> String {
    let hint = match refusal.raw_os_error() {
        Some(libc::EPERM) => "forbidden here (seccomp or kernel.io_uring_disabled)",
        Some(libc::ENOSYS) => "this kernel does not support it",
        Some(libc::ENOMEM) => "the locked-memory limit is too low (ulimit -l)",
        _ => "the kernel refused",
    };
    format!("io_uring: {hint}: {refusal}")
}
