//! What `perf/gpu.sh` packs and runs, on the stand-in for the CUDA driver and with tiny sizes: every
//! step ends, the checks pass, the figures are figures, and a fault that is planted in a step is
//! found. How fast anything is, only a GPU can say.

#![allow(clippy::unwrap_used)]

#[path = "../../../../tests/common/shared_library.rs"]
mod shared_library;
#[path = "../../../../tests/common/stand_in.rs"]
mod stand_in;

mod faults;
mod pack;
mod python;
mod runs;
mod whole;
