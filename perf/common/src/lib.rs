//! What the benchmarks of ringload share: `ringload bench`, `perf/` and `perf/gpu`.
//!
//! ```text
//! checkpoint   writes safetensors files of random bytes, and their index
//! page_cache   puts files into the page cache, or removes them from it, and checks that
//! process      runs a program to its end; its output, time, CPU time and peak memory
//! figures      the figures of one run, as a measured program prints them and its parent reads them
//! system       tables of the kernel: memory, cores, the model of the CPU
//! stats        medians, confidence intervals, and whether two clients differ
//! table        numbers and tables for Markdown documents
//! ```
//!
//! The `ringload` command uses this crate, so this crate cannot use `ringload`: a caller that has to
//! count the resident pages of a file passes `ringload::internals::resident_bytes`. The command's
//! feature `cli` alone depends on it, so programs that embed ringload do not build it. It has a
//! version and a licence because a published package may depend on published packages alone:
//! `cargo package -p ringload-measure -p ringload` packages both.

pub mod checkpoint;
pub mod figures;
pub mod page_cache;
pub mod process;
pub mod stats;
pub mod system;
pub mod table;
