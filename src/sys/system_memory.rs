//! How much memory the system has for this process.
//!
//! `MemAvailable` counts what the kernel can give without swapping: free memory, and the page cache
//! that it can drop. A control group may leave less.

use super::cgroup::{cgroup_memory, meminfo_bytes};
use super::open::read_small_text;
use std::path::Path;

/// The memory of the system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemMemory {
    /// How much there is; that of the control group if it has a lower limit.
    pub total_bytes: u64,
    /// How much more this process may use.
    pub available_bytes: u64,
}

/// Returns the memory that this process may use; `None` if the kernel does not report it. The kernel's
/// /proc and /sys are read below `root`.
pub fn system_memory(root: &Path) -> Option<SystemMemory> {
    let text = read_small_text(&root.join("proc/meminfo"), "table").ok()?;
    let bytes = |name| meminfo_bytes(&text, name);
    let (total_bytes, available_bytes) = (bytes("MemTotal:")?, bytes("MemAvailable:")?);
    let (limit_bytes, left_bytes) = match cgroup_memory(root) {
        Some(group) => (group.limit_bytes, group.left_bytes),
        None => (u64::MAX, u64::MAX),
    };
    Some(SystemMemory {
        total_bytes: total_bytes.min(limit_bytes),
        available_bytes: available_bytes.min(left_bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_or_the_control_group_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(system_memory(root.path()), None);
        write("proc/meminfo", "MemTotal:  1000 kB\nMemFree:  10 kB\nMemAvailable:  900 kB\n");
        let memory = |total: u64, available: u64| {
            Some(SystemMemory { total_bytes: total << 10, available_bytes: available << 10 })
        };
        assert_eq!(system_memory(root.path()), memory(1000, 900));
        write("proc/self/cgroup", "0::/\n");
        write("sys/fs/cgroup/memory.max", "512000\n");
        write("sys/fs/cgroup/memory.current", "204800\n");
        assert_eq!(system_memory(root.path()), memory(500, 300));
    }
}
