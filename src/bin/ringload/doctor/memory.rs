//! Memory: how much is left, how much may be locked, and whether huge pages may back it.

use super::finding::Finding;
use super::{cgroup, read_text};
use crate::format;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

/// The ring a load uses unless told otherwise, which the kernel wants locked to register it.
const DEFAULT_RING_BYTES: u64 = 256 << 20;
const CAP_IPC_LOCK_BIT: u32 = 14;

/// Looks at the locked-memory limit, huge pages and free memory.
pub fn examine() -> Vec<Finding> {
    let may_lock_all = read_text("/proc/self/status").is_some_and(|status| may_lock_all(&status));
    let mut findings = Vec::new();
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK) {
        findings.push(locked(soft, hard, may_lock_all));
    }
    let huge = read_text("/sys/kernel/mm/transparent_hugepage/enabled");
    findings.push(huge_pages(huge.as_deref()));
    let machine = read_text("/proc/meminfo").and_then(|text| available_bytes(&text));
    findings.push(available(machine, cgroup::memory_left_bytes()));
    findings
}

fn locked(soft: u64, hard: u64, may_lock_all: bool) -> Finding {
    const TOPIC: &str = "locked memory";
    let limit = format!("{} (hard limit {})", limit_text(soft), limit_text(hard));
    if may_lock_all {
        Finding::ok(TOPIC, format!("any amount, by CAP_IPC_LOCK; limit {limit}"))
    } else if soft >= DEFAULT_RING_BYTES {
        Finding::ok(TOPIC, format!("limit {limit}"))
    } else {
        let ring = format::size(DEFAULT_RING_BYTES);
        let fact = format!("limit {limit}, less than the {ring} that a load registers");
        let remedies = [
            "shell: ulimit -l unlimited (up to the hard limit; raise that in limits.conf)",
            "docker: --ulimit memlock=-1",
            "systemd: LimitMEMLOCK=infinity",
        ];
        Finding::warn(TOPIC, fact, remedies)
    }
}

fn limit_text(bytes: u64) -> String {
    if bytes == RLIM_INFINITY { "unlimited".into() } else { format::size(bytes) }
}

/// Whether the `CapEff` line of /proc/self/status has CAP_IPC_LOCK.
fn may_lock_all(status: &str) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> CAP_IPC_LOCK_BIT & 1 == 1)
}

fn huge_pages(enabled: Option<&str>) -> Finding {
    const TOPIC: &str = "huge pages";
    match enabled.map(chosen) {
        Some(Some(mode @ ("always" | "madvise"))) => {
            Finding::ok(TOPIC, format!("transparent huge pages: {mode}"))
        }
        Some(Some("never")) => Finding::warn(
            TOPIC,
            "transparent huge pages are off: every 4 KiB of a load costs a page fault",
            ["echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"],
        ),
        Some(_) => Finding::info(TOPIC, "transparent huge pages in an unknown mode"),
        None => Finding::info(TOPIC, "this kernel does not say whether it has them"),
    }
}

/// The bracketed word of `always [madvise] never`.
fn chosen(choices: &str) -> Option<&str> {
    let (_, rest) = choices.split_once('[')?;
    Some(rest.split_once(']')?.0)
}

/// The line `MemAvailable:   1234 kB` of /proc/meminfo.
fn available_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn available(machine: Option<u64>, cgroup: Option<u64>) -> Finding {
    const TOPIC: &str = "memory";
    match (machine, cgroup) {
        (Some(machine), Some(cgroup)) if cgroup < machine => {
            let (left, of) = (format::size(cgroup), format::size(machine));
            Finding::info(TOPIC, format!("{left} left by the cgroup's limit, of {of} available"))
        }
        (Some(machine), _) => Finding::info(TOPIC, format!("{} available", format::size(machine))),
        (None, Some(cgroup)) => {
            Finding::info(TOPIC, format!("{} left by the cgroup's limit", format::size(cgroup)))
        }
        (None, None) => Finding::info(TOPIC, "the kernel does not say how much is available"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_small_locked_memory_limit_is_a_shortfall() {
        assert_eq!(locked(8 << 20, 8 << 20, false).level, Level::Warn);
        assert_eq!(locked(8 << 20, 8 << 20, true).level, Level::Ok);
        assert_eq!(locked(DEFAULT_RING_BYTES, RLIM_INFINITY, false).level, Level::Ok);
        let unlimited = locked(RLIM_INFINITY, RLIM_INFINITY, false);
        assert_eq!(unlimited.fact, "limit unlimited (hard limit unlimited)");
    }

    #[test]
    fn the_capability_is_bit_14() {
        assert!(may_lock_all("Name:\tx\nCapEff:\t0000000000004000\n"));
        assert!(!may_lock_all("CapEff:\t0000000000003fff\n"));
        assert!(!may_lock_all("CapPrm:\t0000000000004000\n"));
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
    fn the_smaller_of_machine_and_cgroup_is_told() {
        let meminfo = "MemTotal:  9 kB\nMemAvailable:    4194304 kB\n";
        assert_eq!(available_bytes(meminfo), Some(4 << 30));
        assert_eq!(available(Some(4 << 30), Some(8 << 30)).fact, "4.00 GiB available");
        assert_eq!(
            available(Some(4 << 30), Some(1 << 30)).fact,
            "1.00 GiB left by the cgroup's limit, of 4.00 GiB available"
        );
    }
}
