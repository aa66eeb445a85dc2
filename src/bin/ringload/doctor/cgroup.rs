//! The CPU quota of the control group (version 2) of this process, for example of a container.
//!
//! The group and each of its ancestors may have a quota, and the lowest counts. The library examines
//! the memory of control groups.

use ringload_measure::system::read_text;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// The CPU time of the lowest `cpu.max`, in cores.
pub fn cpu_cores() -> Option<f64> {
    let quotas = groups().into_iter();
    quotas.filter_map(|group| quota_cores(&read_text(group.join("cpu.max"))?)).reduce(f64::min)
}

/// The directories of the group of this process and of its ancestors.
fn groups() -> Vec<PathBuf> {
    let membership = read_text("/proc/self/cgroup").unwrap_or_default();
    let Some(group) = group_of(&membership) else {
        return Vec::new();
    };
    let group = Path::new(group.trim_start_matches('/'));
    group.ancestors().map(|ancestor| Path::new(ROOT).join(ancestor)).collect()
}

/// The path in the line `0::/path` of /proc/self/cgroup, which belongs to version 2.
fn group_of(membership: &str) -> Option<&str> {
    membership.lines().find_map(|line| line.strip_prefix("0::"))
}

/// `200000 100000` is two cores; `max 100000` is no quota.
fn quota_cores(cpu_max: &str) -> Option<f64> {
    let (quota, period) = cpu_max.split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.trim().parse().ok()?);
    (period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_that_of_version_2() {
        assert_eq!(group_of("0::/system.slice/a.service\n"), Some("/system.slice/a.service"));
        assert_eq!(group_of("12:cpu:/x\n0::/y"), Some("/y"));
        assert_eq!(group_of("12:cpu:/x\n"), None);
    }

    #[test]
    fn a_quota_is_converted_to_cores() {
        assert_eq!(quota_cores("200000 100000"), Some(2.0));
        assert_eq!(quota_cores("50000 100000"), Some(0.5));
        assert_eq!(quota_cores("max 100000"), None);
        assert_eq!(quota_cores("1 0"), None);
        assert_eq!(quota_cores(""), None);
    }
}
