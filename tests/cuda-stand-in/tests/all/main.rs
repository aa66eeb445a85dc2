//! The stand-in's own tests, in one binary, which is linked once.

// SAFETY, for all blocks here: the pointers are to locals, or to memory that the scenario keeps.
#![allow(clippy::undocumented_unsafe_blocks)]
#![allow(clippy::unwrap_used)] // Clippy sees helpers of a test binary as no tests

mod common;

mod answers;
mod kernels;
mod memory_alarms;
mod object_alarms;
mod orders;
mod seeds;
