//! Refuses a load that would exceed the memory that this process may use.
//!
//! A process that exceeds the limit of its control group is killed, with no word of the reason, and
//! one that exceeds its address space (`ulimit -v`) aborts wherever it allocates next. The size of
//! the rings is known before the load starts, so such a load is refused, with a memory limit that
//! would do.

use crate::error::{Error, ErrorKind, Result, Size};
use crate::plan::LoadSizes;
use crate::sys;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use std::path::Path;

/// What a load needs besides its rings: queues, connections, buffers.
const BESIDE_BYTES: u64 = 32 << 20;
/// The address space of a thread: its stack, and the memory of its allocator.
const THREAD_BYTES: u64 = 3 << 20;

/// The memory that is left to this process, and its limit.
struct MemoryLeft {
    left_bytes: u64,
    /// The limit in words, such as `the control group (memory.max) allows 4 GiB`.
    limit: String,
}

/// Checks that the rings of a load of these `sizes` by `threads` threads fit the limits of this
/// process. The kernel's files are read below `root`.
///
/// # Errors
/// [`OutOfMemory`](ErrorKind::OutOfMemory), with the limit and with a memory limit that fits it.
pub(super) fn check(sizes: &LoadSizes, threads: usize, root: &Path) -> Result<()> {
    let needed_bytes = sizes.ring_bytes();
    let threads_bytes = BESIDE_BYTES + threads as u64 * THREAD_BYTES;
    let group = of_control_groups(root).map(|left| (left, 0));
    let space = of_address_space(root).map(|left| (left, threads_bytes));
    for (MemoryLeft { left_bytes, limit }, beside_bytes) in group.into_iter().chain(space) {
        let left_bytes = left_bytes.saturating_sub(beside_bytes);
        if needed_bytes <= left_bytes {
            continue;
        }
        let least_bytes = sizes.least_bytes();
        let most_bytes = left_bytes.saturating_sub(BESIDE_BYTES);
        let remedy = match most_bytes >= least_bytes {
            true => {
                // Half of what is left, as the caller needs memory too.
                let fits = (left_bytes / 2).clamp(least_bytes, most_bytes);
                let whole = (fits >> 20 << 20).max(least_bytes);
                format!(
                    "set a memory limit of {} and drop tensors as they come, or raise the limit",
                    Size(whole)
                )
            }
            false => format!(
                "no memory limit would do, since the largest tensor needs {}; raise the limit",
                Size(least_bytes)
            ),
        };
        let sentence = format!(
            "the load needs {} of memory, and {} are left to this process ({limit}): {remedy}",
            Size(needed_bytes),
            Size(left_bytes)
        );
        return Err(Error::new(ErrorKind::OutOfMemory, sentence));
    }
    Ok(())
}

fn of_control_groups(root: &Path) -> Option<MemoryLeft> {
    let memory = sys::cgroup_memory(root)?;
    let (file, limit) = (memory.file.display(), Size(memory.limit_bytes));
    let limit = format!("its control group or container may use {limit}, says {file}");
    Some(MemoryLeft { left_bytes: memory.left_bytes, limit })
}

fn of_address_space(root: &Path) -> Option<MemoryLeft> {
    let (limit_bytes, _) = getrlimit(Resource::RLIMIT_AS).ok()?;
    if limit_bytes == RLIM_INFINITY {
        return None;
    }
    let pages = sys::read_small_text(&root.join("proc/self/statm"), "table").ok()?;
    let pages: u64 = pages.split(' ').next()?.parse().ok()?;
    let left_bytes = limit_bytes.saturating_sub(pages * crate::ring::PAGE_BYTES as u64);
    Some(MemoryLeft { left_bytes, limit: format!("ulimit -v is {}", Size(limit_bytes)) })
}
