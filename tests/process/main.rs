//! Tests that change or count what belongs to a process as a whole: its descriptors and threads, its
//! recorder of metrics, and its environment.
//!
//! Those that look at this process hold [`ONE_AT_A_TIME`]. The loads of the GPU campaign run in child
//! processes. This binary is small, because a second one like it is built with a planted bug.

#![allow(clippy::unwrap_used)] // Clippy sees helpers of a test binary as no tests

use std::sync::{Mutex, MutexGuard, PoisonError};

#[path = "../common/mod.rs"]
mod common;
mod cuda_campaign;
mod cuda_seeds;
mod drops;
mod metrics;
#[path = "../support/no_uring.rs"]
mod no_uring;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Waits until no other test that looks at this process runs.
fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}
