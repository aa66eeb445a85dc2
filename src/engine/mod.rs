//! Engines: one thread, one runtime and many reads in flight each. This is the only place that joins
//! rings, sources and devices.
//!
//! ```text
//!   Work (shared)            engine thread 0..N                        CompletionQueue (shared)
//!   next(): a window   -->   read task: reader.read_at ... fill  -->  complete()  -->  pop()
//!   of a free slot           read task: ...  (depth tasks)            full? to the     the caller
//!        ^                                                            destination        |
//!        +---------------- the slot is freed when its last tensor is dropped ------------+
//! ```
//!
//! A *read task* is a local task of an engine: it takes a read, completes it and takes the next one.
//! For files an engine runs [`Job::depth`] read tasks, which is its queue depth; for objects as many as
//! the server has room for, which changes while the load runs. A range of an object is requested first,
//! and gets a window when its answer has come ([`Work::bind`](work::Work::bind)). The read tasks of all engines
//! take reads from one shared [`Work`], so the engines balance by themselves.
//!
//! Where a SHA-256 of a file is computed, the bytes of a read wait, in a task of their own, until all
//! bytes before them were hashed. The read task goes on, as far as the ring has memory, so the files
//! that follow are read and hashed meanwhile, each by one engine at a time.
//!
//! The full slots of a GPU's tensors go to its [`DeviceTransfer`](crate::device::DeviceTransfer),
//! which has threads of its own, so an engine never waits for a GPU.
//!
//! The read paths `mapped` and `gds` (GPUDirect Storage) have no read tasks: their threads block in
//! the system or library call that reads.
//!
//! Stopping: dropping a [`LoadHandle`], or the first error, sets a flag. Read tasks check the flag
//! between attempts, and it ends their waits for servers. A read task is never dropped while its read
//! is in flight. An engine joins its read tasks, then shuts its runtime down, then ends its thread;
//! `LoadHandle` joins the threads of the engines and of the device transfers, which first wait for
//! their copies. When `stop` returns, the kernel and the GPUs have no operation left and every window
//! was returned.

mod borrowed;
mod chain;
mod completion_sink;
mod destination;
mod fill;
mod gather;
mod gds;
mod handle;
mod job;
mod load_stats;
mod mapped;
mod queue;
mod read_task;
mod ring_work;
mod ring_work_state;
mod runtime;
mod shared;
mod waits;
mod work;

pub(crate) use borrowed::{BorrowedBuffer, BorrowedWork};
pub(crate) use chain::ChainedWork;
pub(crate) use destination::Destination;
pub(crate) use gather::GatherWork;
pub(crate) use gds::GdsWork;
pub(crate) use handle::{EngineWork, LoadHandle};
pub(crate) use job::Job;
pub(crate) use mapped::MappedWork;
pub(crate) use queue::Completion;
pub(crate) use ring_work::RingWork;

#[cfg(test)]
mod tests;
