//! How much memory the control groups of this process leave it.
//!
//! A container has a limit of its own, and the kernel kills a process that exceeds it. The group of
//! the process and each group above it may have a limit, in version 1 (`memory.limit_in_bytes`) or 2
//! (`memory.max`); the one that leaves least counts. In a container the path of the group may be that
//! of the host, of which only the upper end is mounted, so groups that are not there are passed over.
//! Clean pages of the page cache count as used, but the kernel takes them back before it kills, and
//! it swaps if it may.

use super::open::read_small_text;
use std::path::{Path, PathBuf};

/// The memory that a control group leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupMemory {
    /// The limit of the group in bytes.
    pub limit_bytes: u64,
    /// How many more bytes its processes may use.
    pub left_bytes: u64,
    /// The file that holds the limit.
    pub file: PathBuf,
}

/// The names of a version's files, and of the statistics that count reclaimable pages.
struct Version {
    limit: &'static str,
    usage: &'static str,
    swap_limit: &'static str,
    swap_usage: &'static str,
    reclaimable: &'static [&'static str],
}

const V1: Version = Version {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    // These two count memory and swap together.
    swap_limit: "memory.memsw.limit_in_bytes",
    swap_usage: "memory.memsw.usage_in_bytes",
    reclaimable: &["total_inactive_file", "total_active_file"],
};
const V2: Version = Version {
    limit: "memory.max",
    usage: "memory.current",
    swap_limit: "memory.swap.max",
    swap_usage: "memory.swap.current",
    reclaimable: &["inactive_file", "active_file", "slab_reclaimable"],
};

/// Returns the memory of the control group that leaves least to this process; `None` without a limit.
/// The kernel's /proc and /sys are read below `root`.
pub fn cgroup_memory(root: &Path) -> Option<CgroupMemory> {
    let swap_bytes =
        text(&root.join("proc/meminfo")).and_then(|text| meminfo_bytes(&text, "SwapFree:"));
    let membership = text(&root.join("proc/self/cgroup"))?;
    let groups = membership.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        match controllers {
            "" => Some((&V2, ["sys/fs/cgroup", "sys/fs/cgroup/unified"].as_slice(), path)),
            _ if controllers.split(',').any(|name| name == "memory") => {
                Some((&V1, ["sys/fs/cgroup/memory"].as_slice(), path))
            }
            _ => None,
        }
    });
    let memories = groups.flat_map(|(version, mounts, path)| {
        let ancestors = Path::new(path.trim_start_matches('/')).ancestors();
        let folders = mounts.iter().flat_map(move |mount| {
            let mount = root.join(mount);
            ancestors.map(move |group| mount.join(group))
        });
        folders.filter_map(move |folder| version.memory(&folder, swap_bytes.unwrap_or(0)))
    });
    memories.min_by_key(|memory| memory.left_bytes)
}

impl Version {
    /// The memory of the group in `folder`; `None` if it has no limit or is not there.
    fn memory(&self, folder: &Path, swap_bytes: u64) -> Option<CgroupMemory> {
        let number = |name: &str| text(&folder.join(name))?.trim().parse::<u64>().ok();
        let file = folder.join(self.limit);
        // `max` in version 2 and nearly 2^63 in version 1 stand for no limit.
        let limit_bytes = number(self.limit).filter(|&limit| limit < 1 << 62)?;
        let statistics = text(&folder.join("memory.stat")).unwrap_or_default();
        let reclaimable = statistics.lines().filter_map(|line| {
            let (name, pages) = line.split_once(' ')?;
            self.reclaimable.contains(&name).then(|| pages.trim().parse::<u64>().ok())?
        });
        let used = number(self.usage)?.saturating_sub(reclaimable.sum());
        let swap_limit = number(self.swap_limit).unwrap_or(u64::MAX);
        let swap_left = swap_limit.saturating_sub(number(self.swap_usage).unwrap_or(0));
        let left_bytes = limit_bytes.saturating_sub(used) + swap_bytes.min(swap_left);
        Some(CgroupMemory { limit_bytes, left_bytes, file })
    }
}

/// The bytes in the line of /proc/meminfo that begins with `name`, such as `SwapFree:`.
pub(super) fn meminfo_bytes(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn text(path: &Path) -> Option<String> {
    read_small_text(path, "control group").ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn machine(files: &[(&str, &str)]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_group_that_leaves_least_counts_in_both_versions() {
        let v2 = machine(&[
            ("proc/self/cgroup", "0::/pod/container\n"),
            ("sys/fs/cgroup/pod/memory.max", "1000\n"),
            ("sys/fs/cgroup/pod/memory.current", "900\n"),
            ("sys/fs/cgroup/pod/memory.stat", "anon 100\ninactive_file 300\nactive_file 50\n"),
            ("sys/fs/cgroup/pod/container/memory.max", "max\n"),
            ("sys/fs/cgroup/pod/container/memory.current", "900\n"),
        ]);
        let memory = cgroup_memory(v2.path()).unwrap();
        assert_eq!((memory.limit_bytes, memory.left_bytes), (1000, 450));
        assert!(memory.file.ends_with("pod/memory.max"));
        // The path of the host, of which only the container's own group is mounted.
        let v1 = machine(&[
            ("proc/self/cgroup", "5:cpu:/x\n4:memory,x:/docker/abc\n0::/\n"),
            ("proc/meminfo", "SwapFree:  1 kB\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "500\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "400\n"),
            ("sys/fs/cgroup/memory/memory.memsw.limit_in_bytes", "600\n"),
            ("sys/fs/cgroup/memory/memory.memsw.usage_in_bytes", "590\n"),
            ("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 100\n"),
        ]);
        let memory = cgroup_memory(v1.path()).unwrap();
        assert_eq!((memory.limit_bytes, memory.left_bytes), (500, 210));
        let none = machine(&[
            ("proc/self/cgroup", "4:memory:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "400\n"),
        ]);
        assert_eq!(cgroup_memory(none.path()), None);
        assert_eq!(cgroup_memory(Path::new("/nowhere")), None);
    }
}
