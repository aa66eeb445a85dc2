//! Refuses a load that would exceed the memory that this process may use.
//!
//! A process that exceeds the limit of its control group is killed, with no word of the reason, and
//! one that exceeds its address space (`ulimit -v`) aborts wherever it allocates next. The size of
//! the rings and the number of engines are known before the load starts, so such a load is refused.
//! The error names what would fit: a memory limit, fewer engines, both, or the limit of the process
//! that is needed at least. Each is found by the rule that the refused load did not meet.

use crate::error::{Error, ErrorKind, Result, Size, option};
use crate::plan::LoadSizes;
use crate::sys;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use std::path::Path;

/// The address space that a load needs besides its rings and engines: queues, connections, buffers.
const BESIDE_BYTES: u64 = 32 << 20;
/// The address space of an engine: its stack, and the memory of its allocator.
const ENGINE_BYTES: u64 = 3 << 20;
/// How much more than the smallest rings has to fit with what is named: a number of engines, or the
/// limit of a process, whose next run may need some pages more.
const MARGIN_BYTES: u64 = 4 << 20;

/// A limit of the memory of this process.
struct ProcessLimit {
    limit_bytes: u64,
    /// How much more memory this process may use.
    left_bytes: u64,
    /// What a load needs of it besides the rings, and for each engine.
    beside_bytes: u64,
    engine_bytes: u64,
    /// The limit in words, such as `ulimit -v is 4 GiB`.
    text: String,
}

/// Checks that the rings of a load of these `sizes` by this many `engines` fit the limits of this
/// process. The kernel's files are read below `root`.
///
/// # Errors
/// [`OutOfMemory`](ErrorKind::OutOfMemory), with the limit and with what fits it.
pub(super) fn check(sizes: &LoadSizes, engines: usize, root: &Path) -> Result<()> {
    let limits = [ProcessLimit::of_control_groups(root), ProcessLimit::of_address_space(root)];
    limits.iter().flatten().try_for_each(|limit| limit.check(sizes, engines))
}

/// The size of the largest rings that fit the limits of this process beside this many engines; `None`
/// without a limit.
pub(super) fn left_bytes(engines: usize, root: &Path) -> Option<u64> {
    let limits = [ProcessLimit::of_control_groups(root), ProcessLimit::of_address_space(root)];
    limits.iter().flatten().map(|limit| limit.ring_bytes_max(engines)).min()
}

impl ProcessLimit {
    fn of_control_groups(root: &Path) -> Option<Self> {
        let memory = sys::cgroup_memory(root)?;
        let (file, limit) = (memory.file.display(), Size(memory.limit_bytes));
        Some(Self {
            limit_bytes: memory.limit_bytes,
            left_bytes: memory.left_bytes,
            beside_bytes: 0,
            engine_bytes: 0,
            text: format!("its control group or container may use {limit}, says {file}"),
        })
    }

    fn of_address_space(root: &Path) -> Option<Self> {
        let (limit_bytes, _) = getrlimit(Resource::RLIMIT_AS).ok()?;
        if limit_bytes == RLIM_INFINITY {
            return None;
        }
        let pages = sys::read_small_text(&root.join("proc/self/statm"), "table").ok()?;
        let pages: u64 = pages.split(' ').next()?.parse().ok()?;
        Some(Self {
            limit_bytes,
            left_bytes: limit_bytes.saturating_sub(pages * crate::ring::PAGE_BYTES as u64),
            beside_bytes: BESIDE_BYTES,
            engine_bytes: ENGINE_BYTES,
            text: format!("ulimit -v is {}", Size(limit_bytes)),
        })
    }

    fn check(&self, sizes: &LoadSizes, engines: usize) -> Result<()> {
        let (needed_bytes, left_bytes) = (sizes.ring_bytes(), self.ring_bytes_max(engines));
        if needed_bytes <= left_bytes {
            return Ok(());
        }
        let sentence = format!(
            "the load needs {} of memory, and {} are left to this process ({}): {}",
            Size(needed_bytes),
            Size(left_bytes),
            self.text,
            self.remedy(sizes, engines)
        );
        Err(Error::new(ErrorKind::OutOfMemory, sentence))
    }

    /// The largest rings that fit beside this many engines.
    fn ring_bytes_max(&self, engines: usize) -> u64 {
        self.left_bytes.saturating_sub(self.beside_bytes + engines as u64 * self.engine_bytes)
    }

    /// How much more memory rings of this size and one engine need than is left.
    fn missing_bytes(&self, ring_bytes: u64) -> u64 {
        (ring_bytes + self.beside_bytes + self.engine_bytes).saturating_sub(self.left_bytes)
    }

    fn remedy(&self, sizes: &LoadSizes, engines: usize) -> String {
        let least_bytes = sizes.least_ring_bytes();
        let fitting = |bytes| (1..engines).rev().find(|&fewer| self.ring_bytes_max(fewer) >= bytes);
        let with_all_memory = fitting(sizes.ring_bytes()).map(Engines);
        if self.ring_bytes_max(engines) >= least_bytes {
            let limit = memory_limit(sizes, self.ring_bytes_max(engines));
            let or_fewer = with_all_memory.map(|fewer| format!(", or {fewer}"));
            return format!("{limit}{}, or raise the limit", or_fewer.unwrap_or_default());
        }
        if let Some(fewer) = with_all_memory {
            return format!("{fewer}, or raise the limit");
        }
        match fitting(least_bytes + MARGIN_BYTES).or_else(|| fitting(least_bytes)) {
            Some(fewer) => {
                let limit = memory_limit(sizes, self.ring_bytes_max(fewer));
                format!("{} and {limit}, or raise the limit", Engines(fewer))
            }
            None => format!(
                "no memory limit would do, since one of at least {} is needed; raise the limit to at \
                 least {}",
                Size(sizes.least_bytes()),
                Size(self.limit_bytes + self.missing_bytes(least_bytes + MARGIN_BYTES))
            ),
        }
    }
}

/// Advises to set a memory limit that leaves room in `most_bytes`: half of them, as the caller needs
/// memory too.
fn memory_limit(sizes: &LoadSizes, most_bytes: u64) -> String {
    let whole_bytes = (most_bytes / 2) >> 20 << 20;
    let size = Size(whole_bytes.max(sizes.least_bytes()));
    let option = option("memory_limit");
    format!("set a memory limit of {size} with {option}, so that less is in memory at once")
}

/// Advises to set this many engines.
struct Engines(usize);

impl std::fmt::Display for Engines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let option = option("engines").set_to_number(self.0);
        match self.0 {
            1 => write!(f, "set 1 engine ({option})"),
            engines => write!(f, "set at most {engines} engines ({option})"),
        }
    }
}

#[cfg(test)]
#[path = "memory_check_tests.rs"]
mod tests;
