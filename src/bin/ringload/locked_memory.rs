//! How much memory this process may lock: by its limit, unless it has the capability to lock all.

use crate::format;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use ringload_measure::system::read_text;

const CAP_IPC_LOCK_BIT: u32 = 14;

/// How to raise the limit.
pub const REMEDIES: [&str; 3] = [
    "shell: ulimit -l unlimited (up to the hard limit; raise that in limits.conf)",
    "docker: --ulimit memlock=-1",
    "systemd: LimitMEMLOCK=infinity",
];

/// How many bytes this process may lock; `None` for any number.
pub fn lockable_bytes() -> Option<u64> {
    let (soft, _) = limits()?;
    (soft != RLIM_INFINITY && !may_lock_all()).then_some(soft)
}

/// The soft and the hard limit of locked memory in bytes.
pub fn limits() -> Option<(u64, u64)> {
    getrlimit(Resource::RLIMIT_MEMLOCK).ok()
}

/// A limit as text.
pub fn limit_text(bytes: u64) -> String {
    if bytes == RLIM_INFINITY { "unlimited".into() } else { format::size(bytes) }
}

/// Whether this process has CAP_IPC_LOCK, with which no limit counts.
pub fn may_lock_all() -> bool {
    read_text("/proc/self/status").is_some_and(|status| has_capability(&status))
}

/// Whether the `CapEff` line of /proc/self/status has CAP_IPC_LOCK.
fn has_capability(status: &str) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> CAP_IPC_LOCK_BIT & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capability_is_bit_14() {
        assert!(has_capability("Name:\tx\nCapEff:\t0000000000004000\n"));
        assert!(!has_capability("CapEff:\t0000000000003fff\n"));
        assert!(!has_capability("CapPrm:\t0000000000004000\n"));
    }
}
