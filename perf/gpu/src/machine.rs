//! The machine on which the figures were measured, as far as the system reports it.

use crate::places;
use anyhow::{Context, Result};
use ringload::gpus;
use ringload_measure::process::Invocation;
use ringload_measure::system::{cores, cpu_model, memory_bytes, read_text};
use ringload_measure::table::markdown;
use serde::{Deserialize, Serialize};
use std::fs;

/// The machine.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
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
        let gpu = gpus.into_iter().nth(args.device as usize).with_context(|| {
            format!("there is no cuda:{}; name another GPU (--device)", args.device)
        })?;
        let address = gpu.pci_address.to_lowercase();
        let of_gpu = |file: &str| read_text(format!("/sys/bus/pci/devices/{address}/{file}"));
        let link = |which: &str| {
            let speed = of_gpu(&format!("{which}_link_speed"))?;
            Some(format!("{speed} x{}", of_gpu(&format!("{which}_link_width"))?))
        };
        Ok(Self {
            description,
            gpu: gpu.name,
            device_bytes: gpu.memory_bytes,
            cuda: format!("{major}.{minor}"),
            driver: read_text("/sys/module/nvidia/version").or_else(driver_of_proc),
            pcie: link("current").zip(link("max")).map(|(now, most)| format!("{now}, of {most}")),
            numa_node: of_gpu("numa_node"),
            numa_nodes: numa_nodes(),
            kernel: read_text("/proc/sys/kernel/osrelease"),
            cpu: cpu_model(),
            cores: cores(),
            memory_bytes: memory_bytes(),
        })
    }

    pub fn table(&self) -> String {
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
        markdown(&["", ""], &rows.map(|(name, value)| vec![name.to_owned(), value]))
    }
}

/// What else explains figures: what `ringload doctor` and `nvidia-smi` print, and the file systems.
pub fn notes(places: &places::Places) -> Vec<String> {
    let commands = [
        Invocation::new(&places.ringload).arg("doctor").arg(places.disk()),
        Invocation::new("nvidia-smi").words(
            "--query-gpu=name,driver_version,vbios_version,memory.total,memory.used,clocks.sm,\
             clocks.mem,pcie.link.gen.current,pcie.link.width.current,power.limit,ecc.mode.current \
             --format=csv",
        ),
        Invocation::new("df").args(["--human-readable", "--print-type"]).args(places.both()),
        Invocation::new("python3").args([
            "-c",
            "import torch, safetensors; print('torch', torch.__version__, torch.version.cuda, \
             'safetensors', safetensors.__version__)",
        ]),
    ];
    let said = commands.iter().map(|command| match command.run() {
        Ok(ended) => String::from_utf8_lossy(&ended.output).trim().to_owned(),
        Err(error) => error.to_string(),
    });
    let lines: Vec<String> =
        said.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let runtime = read_text("/proc/version").map(|version| format!("kernel: {version}"));
    lines.into_iter().chain(runtime).collect()
}

/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug ...`
fn driver_of_proc() -> Option<String> {
    version_in(read_text("/proc/driver/nvidia/version")?.lines().next()?)
}

fn version_in(line: &str) -> Option<String> {
    let is_version =
        |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    line.split_whitespace().find(is_version).map(str::to_owned)
}

fn numa_nodes() -> usize {
    let Ok(entries) = fs::read_dir("/sys/devices/system/node") else { return 0 };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter_map(|name| name.strip_prefix("node")?.parse::<u32>().ok()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_the_driver_is_found() {
        let line = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 2023";
        assert_eq!(version_in(line).as_deref(), Some("535.104.05"));
    }
}
