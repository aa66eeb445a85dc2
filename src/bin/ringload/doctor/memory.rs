//! Memory: how much is available, how much may be locked, and whether huge pages are enabled.

use super::finding::Finding;
use crate::format;
use crate::locked_memory::{REMEDIES, limit_text, limits, may_lock_all};
use ringload::internals::cgroup_memory;
use ringload_measure::system::{bytes_in, read_text};
use std::path::Path;

/// The default size of a ring; to register it, the kernel locks its memory.
const DEFAULT_RING_BYTES: u64 = 256 << 20;

/// Examines the locked-memory limit, huge pages and available memory.
pub fn examine() -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some((soft, hard)) = limits() {
        findings.push(locked(soft, hard, may_lock_all()));
    }
    let huge = read_text("/sys/kernel/mm/transparent_hugepage/enabled");
    findings.push(huge_pages(huge.as_deref()));
    findings.push(available_below(Path::new("/")));
    findings
}

/// The memory that the machine and the control groups of this process leave, as the kernel's files
/// below `root` have it.
fn available_below(root: &Path) -> Finding {
    let machine = read_text(root.join("proc/meminfo"));
    let machine = machine.and_then(|text| bytes_in(&text, "MemAvailable:"));
    available(machine, cgroup_memory(root).map(|group| group.left_bytes))
}

fn locked(soft: u64, hard: u64, may_lock_all: bool) -> Finding {
    const TOPIC: &str = "locked memory";
    let limit = format!("{} (hard limit {})", limit_text(soft), limit_text(hard));
    if may_lock_all {
        Finding::ok(TOPIC, format!("unlimited through CAP_IPC_LOCK; limit {limit}"))
    } else if soft >= DEFAULT_RING_BYTES {
        Finding::ok(TOPIC, format!("limit {limit}"))
    } else {
        let ring = format::size(DEFAULT_RING_BYTES);
        let fact = format!("limit {limit}, less than the {ring} of a registered ring");
        Finding::warn(TOPIC, fact, REMEDIES)
    }
}

fn huge_pages(enabled: Option<&str>) -> Finding {
    const TOPIC: &str = "huge pages";
    match enabled.map(chosen) {
        Some(Some(mode @ ("always" | "madvise"))) => {
            Finding::ok(TOPIC, format!("transparent huge pages: {mode}"))
        }
        Some(Some("never")) => Finding::warn(
            TOPIC,
            "transparent huge pages are disabled, so a load has a page fault every 4 KiB",
            ["echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"],
        ),
        Some(_) => Finding::info(TOPIC, "transparent huge pages are in an unknown mode"),
        None => Finding::info(TOPIC, "the kernel does not report transparent huge pages"),
    }
}

/// The bracketed word of `always [madvise] never`.
fn chosen(choices: &str) -> Option<&str> {
    let (_, rest) = choices.split_once('[')?;
    Some(rest.split_once(']')?.0)
}

fn available(machine: Option<u64>, cgroup: Option<u64>) -> Finding {
    const TOPIC: &str = "memory";
    let machine_text = machine.map(format::size);
    let fact = match (machine_text, cgroup.filter(|&left| machine.is_none_or(|all| left < all))) {
        (Some(machine), None) => format!("{machine} available"),
        (machine, Some(cgroup)) => {
            let machine = machine.map(|machine| format!(", {machine} on the machine"));
            let (cgroup, machine) = (format::size(cgroup), machine.unwrap_or_default());
            format!("{cgroup} available under the cgroup limit{machine}")
        }
        (None, None) => "the kernel does not report how much is available".to_owned(),
    };
    Finding::info(TOPIC, fact)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use nix::sys::resource::RLIM_INFINITY;

    #[test]
    fn a_small_locked_memory_limit_is_a_shortfall() {
        assert_eq!(locked(8 << 20, 8 << 20, false).level, Level::Warn);
        assert_eq!(locked(8 << 20, 8 << 20, true).level, Level::Ok);
        assert_eq!(locked(DEFAULT_RING_BYTES, RLIM_INFINITY, false).level, Level::Ok);
        let unlimited = locked(RLIM_INFINITY, RLIM_INFINITY, false);
        assert_eq!(unlimited.fact, "limit unlimited (hard limit unlimited)");
    }

    #[test]
    fn the_bracketed_mode_counts() {
        assert_eq!(huge_pages(Some("always [madvise] never")).level, Level::Ok);
        assert_eq!(huge_pages(Some("[always] madvise never")).level, Level::Ok);
        assert_eq!(huge_pages(Some("always madvise [never]")).level, Level::Warn);
        assert_eq!(huge_pages(Some("")).level, Level::Info);
        assert_eq!(huge_pages(None).level, Level::Info);
    }

    #[test]
    fn the_smaller_of_machine_and_cgroup_is_reported() {
        assert_eq!(available(Some(4 << 30), Some(8 << 30)).fact, "4.00 GiB available");
        assert_eq!(
            available(Some(4 << 30), Some(1 << 30)).fact,
            "1.00 GiB available under the cgroup limit, 4.00 GiB on the machine"
        );
    }

    /// In a container, doctor reported the memory of the machine, of which the container could use a
    /// part; with control groups of version 1 it always did.
    #[test]
    fn the_memory_of_a_container_is_that_of_its_control_group() {
        let v1 = [
            ("proc/self/cgroup", "4:memory:/docker/abc\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "536870912\n"),
        ];
        let v2 = [
            ("proc/self/cgroup", "0::/pod\n"),
            ("sys/fs/cgroup/pod/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/pod/memory.current", "536870912\n"),
        ];
        for files in [v1, v2] {
            let root = tempfile::tempdir().unwrap();
            let machine = ("proc/meminfo", "MemAvailable: 67108864 kB\nSwapFree: 0 kB\n");
            for (path, text) in files.into_iter().chain([machine]) {
                let path = root.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            assert_eq!(
                available_below(root.path()).fact,
                "512.00 MiB available under the cgroup limit, 64.00 GiB on the machine"
            );
        }
    }
}
