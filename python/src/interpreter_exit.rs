//! Stopping all loads when the interpreter exits, which may be in the middle of a load.
//!
//! At exit, a stream may never be dropped: a waiting thread, a reference cycle or another module
//! may still refer to it. [`stop_loads`] is therefore registered with `atexit` and stops all loads,
//! so that none of their threads reads, or calls a GPU's driver, while the process is torn down.
//! (PyO3 stops Python threads that need the GIL after the exit.)

use crate::shared_load::SharedLoad;
use pyo3::prelude::*;
use ringload::internals::{ForkGuard, Mutex, unpin_shared_ring};
use std::sync::Weak;

/// All loads. Only threads that hold the GIL lock this, so that it is never locked while another
/// thread forks.
static LOADS: Mutex<Vec<ForkGuard<Weak<SharedLoad>>>> = Mutex::new(Vec::new());

/// Registers a load, which [`stop_loads`] then stops.
pub(crate) fn register(load: Weak<SharedLoad>) {
    let mut loads = LOADS.lock();
    // Stopping a load of the parent process would wait for threads that do not exist here.
    loads.retain(|load| load.get().is_some_and(|load| load.strong_count() > 0));
    loads.push(ForkGuard::new(load));
}

/// Stops all loads, and unpins the ring that they shared. Registered with `atexit`.
#[pyfunction]
pub(crate) fn stop_loads(py: Python<'_>) {
    let loads = std::mem::take(&mut *LOADS.lock());
    py.detach(|| {
        for load in loads.iter().filter_map(|load| load.get()?.upgrade()) {
            load.close();
        }
        unpin_shared_ring();
    });
}
