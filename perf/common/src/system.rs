//! Reads the text files of /proc and /sys.

use std::fs;
use std::path::Path;

/// The text of a file without trailing line breaks; `None` if it cannot be read.
pub fn read_text(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim_end().to_owned())
}

/// The bytes in the line `LABEL   1234 kB` of `text`; `label` includes the colon.
pub fn bytes_in(text: &str, label: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The memory of this machine.
pub fn memory_bytes() -> Option<u64> {
    bytes_in(&read_text("/proc/meminfo")?, "MemTotal:")
}

/// The memory that is available without swapping.
pub fn available_bytes() -> Option<u64> {
    bytes_in(&read_text("/proc/meminfo")?, "MemAvailable:")
}

/// How many cores this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The model of the CPU.
pub fn cpu_model() -> Option<String> {
    model_in(&read_text("/proc/cpuinfo")?)
}

fn model_in(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_tables_are_read() {
        let meminfo = "MemTotal:       24000 kB\nMemAvailable:    4194304 kB\n";
        assert_eq!(bytes_in(meminfo, "MemTotal:"), Some(24_000 << 10));
        assert_eq!(bytes_in(meminfo, "MemAvailable:"), Some(4 << 30));
        assert_eq!(bytes_in("", "MemTotal:"), None);
        let status = "Name:\tringload\nVmPeak:\t  999 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(bytes_in(status, "VmHWM:"), Some(2 << 20));
        assert_eq!(bytes_in("Name:\tringload\n", "VmHWM:"), None);
        assert_eq!(bytes_in("VmHWM:\t many kB\n", "VmHWM:"), None);
        let cpuinfo = "processor\t: 0\nmodel name\t: A CPU @ 2.0GHz\n";
        assert_eq!(model_in(cpuinfo).as_deref(), Some("A CPU @ 2.0GHz"));
        assert_eq!(model_in("processor\t: 0\n"), None);
    }
}
