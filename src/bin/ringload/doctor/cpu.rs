//! The cores, NUMA nodes and open files that this process may use.

use super::cgroup;
use super::finding::Finding;
use crate::format;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::unistd::Pid;
use ringload::internals::numbers_in;
use ringload_measure::system::read_text;

/// The limit on open files that suffices for checkpoints of hundreds of shards, each of which is
/// opened once for each read path.
const OPEN_FILES_WANTED: u64 = 1024;

/// Examines cores, NUMA nodes and the limit on open files.
pub fn examine() -> Vec<Finding> {
    let mut findings = vec![cores(allowed_cores(), cgroup::cpu_cores())];
    findings.push(numa(read_text("/sys/devices/system/node/online").as_deref()));
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        findings.push(open_files(soft, hard));
    }
    findings
}

/// The number of cores in the CPU affinity of this process.
fn allowed_cores() -> Option<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).ok()?;
    Some((0..CpuSet::count()).filter(|&core| allowed.is_set(core).unwrap_or(false)).count())
}

fn cores(allowed: Option<usize>, quota: Option<f64>) -> Finding {
    const TOPIC: &str = "cores";
    let Some(allowed) = allowed else {
        return Finding::info(TOPIC, "the kernel does not report how many this process may use");
    };
    let fact = format!("{} for this process", format::count(allowed, "core"));
    match quota {
        Some(quota) if quota < allowed as f64 => Finding::warn(
            TOPIC,
            format!("{fact}, but the quota of the cgroup allows the time of {quota:.1}"),
            ["docker: raise --cpus; Kubernetes: raise resources.limits.cpu"],
        ),
        _ => Finding::ok(TOPIC, fact),
    }
}

fn numa(online: Option<&str>) -> Finding {
    const TOPIC: &str = "NUMA";
    match online.and_then(numbers_in) {
        Some(nodes) if !nodes.is_empty() => {
            Finding::info(TOPIC, format::count(nodes.len(), "node"))
        }
        _ => Finding::info(TOPIC, "the kernel does not list NUMA nodes"),
    }
}

fn open_files(soft: u64, hard: u64) -> Finding {
    const TOPIC: &str = "open files";
    if soft == RLIM_INFINITY {
        Finding::ok(TOPIC, "unlimited")
    } else if soft >= OPEN_FILES_WANTED {
        Finding::ok(TOPIC, format!("at most {soft}"))
    } else {
        let fact = format!("at most {soft}, too few for a checkpoint of many shards");
        let remedy = format!("ulimit -n {}", hard.min(65_536));
        Finding::warn(TOPIC, fact, [remedy.as_str()])
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn nodes_are_counted() {
        assert_eq!(numa(Some("0-3,8\n")).fact, "5 nodes");
        assert_eq!(numa(Some("0")).fact, "1 node");
        assert!(numa(Some("")).fact.contains("does not list"));
        assert!(numa(None).fact.contains("does not list"));
    }

    #[test]
    fn a_quota_below_the_cores_is_a_shortfall() {
        assert_eq!(cores(Some(8), None).fact, "8 cores for this process");
        assert_eq!(cores(Some(8), Some(8.0)).level, Level::Ok);
        assert_eq!(cores(Some(8), Some(1.5)).level, Level::Warn);
    }

    #[test]
    fn few_open_files_are_a_shortfall() {
        assert_eq!(open_files(RLIM_INFINITY, RLIM_INFINITY).fact, "unlimited");
        assert_eq!(open_files(1024, 1 << 20).level, Level::Ok);
        assert_eq!(open_files(256, 4096).remedies, ["ulimit -n 4096"]);
    }
}
