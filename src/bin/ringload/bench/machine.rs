//! What the figures were taken on.

use crate::doctor::{file_system, read_text};
use serde::Serialize;
use std::path::Path;

/// The machine, as far as figures depend on it.
#[derive(Debug, Serialize)]
pub struct Machine {
    pub kernel: Option<String>,
    pub cpu: Option<String>,
    pub cores: usize,
    pub memory_bytes: Option<u64>,
    pub file_system: Option<String>,
}

impl Machine {
    /// This machine, with the file system that `path` is on.
    pub fn of(path: &Path) -> Self {
        Self {
            kernel: read_text("/proc/sys/kernel/osrelease"),
            cpu: read_text("/proc/cpuinfo").and_then(|text| cpu_model(&text)),
            cores: cores(),
            memory_bytes: read_text("/proc/meminfo").and_then(|text| bytes_in(&text, "MemTotal:")),
            file_system: file_system(path).ok(),
        }
    }
}

/// How many cores this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What may still be taken without swapping.
pub fn available_bytes() -> Option<u64> {
    bytes_in(&read_text("/proc/meminfo")?, "MemAvailable:")
}

/// The line `MemTotal:   1234 kB` of /proc/meminfo.
fn bytes_in(meminfo: &str, label: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(label))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_tables_are_read() {
        let meminfo = "MemTotal:       24000 kB\nMemAvailable:    4 kB\n";
        assert_eq!(bytes_in(meminfo, "MemTotal:"), Some(24_000 << 10));
        assert_eq!(bytes_in(meminfo, "MemAvailable:"), Some(4096));
        assert_eq!(bytes_in("", "MemTotal:"), None);
        let cpuinfo = "processor\t: 0\nmodel name\t: A CPU @ 2.0GHz\n";
        assert_eq!(cpu_model(cpuinfo).as_deref(), Some("A CPU @ 2.0GHz"));
    }
}
