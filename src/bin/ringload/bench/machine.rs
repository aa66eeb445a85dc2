//! The machine that the figures were measured on.

use crate::doctor::file_system;
use crate::system::{bytes_in, read_text};
use serde::Serialize;
use std::path::Path;

/// The properties of the machine that figures depend on.
#[derive(Debug, Serialize)]
pub struct Machine {
    pub kernel: Option<String>,
    pub cpu: Option<String>,
    pub cores: usize,
    pub memory_bytes: Option<u64>,
    pub file_system: Option<String>,
}

impl Machine {
    /// Describes this machine and the file system of `path`.
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

/// The memory that is available without swapping.
pub fn available_bytes() -> Option<u64> {
    bytes_in(&read_text("/proc/meminfo")?, "MemAvailable:")
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_of_the_cpu_is_read() {
        let cpuinfo = "processor\t: 0\nmodel name\t: A CPU @ 2.0GHz\n";
        assert_eq!(cpu_model(cpuinfo).as_deref(), Some("A CPU @ 2.0GHz"));
    }
}
