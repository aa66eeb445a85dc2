//! The machine on which the figures were measured, as far as the system reports it.

use crate::places;
use ringload::gpus;
use ringload::{Error, ErrorKind, Result};
use serde::Serialize;
use std::fmt::Write as _;
use std::fs;

/// The machine.
#[derive(Debug, Default, Serialize)]
pub struct Machine {
    /// The name that the user gives it.
    description: Option<String>,
    gpu: String,
    device_bytes: u64,
    /// The CUDA version of the driver.
    cuda: String,
    driver: Option<String>,
    /// E.g. `32.0 GT/s PCIe x16, of 32.0 GT/s PCIe x16`.
    pcie: Option<String>,
    numa_node: Option<String>,
    numa_nodes: usize,
    kernel: Option<String>,
    cpu: Option<String>,
    cores: usize,
    memory_bytes: Option<u64>,
}

impl Machine {
    /// Describes this machine and the measured GPU.
    ///
    /// # Errors
    /// If there is no such GPU.
    pub fn of(args: &places::PlacesArgs, description: Option<String>) -> Result<Self> {
        let (gpus, (major, minor)) = gpus()?;
        let Some(gpu) = gpus.into_iter().nth(args.device as usize) else {
            let sentence = format!("there is no cuda:{}; name another GPU (--device)", args.device);
            return Err(Error::new(ErrorKind::Device, sentence));
        };
        let address = gpu.pci_address.to_lowercase();
        let of_gpu = |file: &str| text(&format!("/sys/bus/pci/devices/{address}/{file}"));
        let link = |which: &str| {
            let speed = of_gpu(&format!("{which}_link_speed"))?;
            Some(format!("{speed} x{}", of_gpu(&format!("{which}_link_width"))?))
        };
        Ok(Self {
            description,
            gpu: gpu.name,
            device_bytes: gpu.memory_bytes,
            cuda: format!("{major}.{minor}"),
            driver: text("/sys/module/nvidia/version").or_else(driver_of_proc),
            pcie: link("current").zip(link("max")).map(|(now, most)| format!("{now}, of {most}")),
            numa_node: of_gpu("numa_node"),
            numa_nodes: numa_nodes(),
            kernel: text("/proc/sys/kernel/osrelease"),
            cpu: text("/proc/cpuinfo").and_then(|text| cpu_model(&text)),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: text("/proc/meminfo").and_then(|text| bytes_in(&text, "MemTotal:")),
        })
    }

    pub fn markdown(&self) -> String {
        let or_unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".into());
        let gibibytes = |bytes: u64| format!("{:.0} GiB", bytes as f64 / (1 << 30) as f64);
        let memory = self.memory_bytes.map_or("unknown".into(), gibibytes);
        let nodes = self.numa_nodes;
        let rows = [
            ("machine", or_unknown(&self.description)),
            ("gpu", format!("{}, {}", self.gpu, gibibytes(self.device_bytes))),
            ("driver", format!("{}, CUDA {}", or_unknown(&self.driver), self.cuda)),
            ("PCIe", or_unknown(&self.pcie)),
            ("NUMA node", format!("{} of {nodes}", or_unknown(&self.numa_node))),
            ("kernel", or_unknown(&self.kernel)),
            ("CPU", format!("{}, {} cores", or_unknown(&self.cpu), self.cores)),
            ("memory", memory),
        ];
        let mut table = "| | |\n| --- | --- |\n".to_owned();
        for (name, value) in rows {
            // Writing to a string does not fail.
            let _ = writeln!(table, "| {name} | {value} |");
        }
        table
    }
}

/// The content of a file of the kernel.
fn text(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug ...`
fn driver_of_proc() -> Option<String> {
    let text = text("/proc/driver/nvidia/version")?;
    version_in(text.lines().next()?)
}

fn version_in(line: &str) -> Option<String> {
    let is_version =
        |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    line.split_whitespace().find(is_version).map(str::to_owned)
}

fn numa_nodes() -> usize {
    let Ok(entries) = fs::read_dir("/sys/devices/system/node") else { return 0 };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_node = |name: &String| {
        name.strip_prefix("node").is_some_and(|number| number.parse::<u32>().is_ok())
    };
    names.filter(is_node).count()
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The line `MemTotal:   1234 kB` of /proc/meminfo, or one like it.
pub fn bytes_in(meminfo: &str, label: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(label))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_tables_are_read() {
        let line = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 2023";
        assert_eq!(version_in(line).as_deref(), Some("535.104.05"));
        assert_eq!(bytes_in("MemTotal:  24 kB\nMemFree: 1 kB\n", "MemTotal:"), Some(24 << 10));
        assert_eq!(cpu_model("processor\t: 0\nmodel name\t: A CPU\n").as_deref(), Some("A CPU"));
    }
}
