//! The NVIDIA driver and its GPUs.

use super::finding::Finding;
use crate::format;
#[cfg(test)]
use ringload::Device;
use ringload::internals::{has_several_nodes, node_of, probe_gds, system_memory};
use ringload::{GpuInfo, gpus};
use ringload_measure::system::read_text;
use std::path::{Path, PathBuf};

const LIBRARY: &str = "libcuda.so.1";
/// The directories where distributions, containers and WSL install the driver library.
const LIBRARY_DIRECTORIES: [&str; 9] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/lib64",
    "/usr/local/nvidia/lib64",
    "/usr/local/nvidia/lib",
    "/usr/local/cuda/compat",
    "/usr/lib/wsl/lib",
];

/// Looks for the kernel module and the driver library, and lists the GPUs.
pub fn examine() -> Vec<Finding> {
    let module = read_text("/proc/driver/nvidia/version");
    let module = module.as_deref().and_then(module_version);
    match gpus() {
        Ok((gpus, version)) => {
            let mut findings = gpu_findings(module, &gpus, version, Path::new("/"));
            if !gpus.is_empty() {
                let module = read_text("/proc/driver/nvidia-fs/version");
                findings.push(gds(module.as_deref(), probe_gds()));
            }
            findings
        }
        Err(error) => vec![no_driver(module, library(), &error.to_string())],
    }
}

/// The driver library, if it is in one of the usual directories.
fn library() -> Option<PathBuf> {
    let library = LIBRARY_DIRECTORIES.iter().map(|directory| Path::new(directory).join(LIBRARY));
    library.into_iter().find(|path| path.exists())
}

/// A finding for the driver, and one for each GPU.
fn gpu_findings(
    module: Option<&str>,
    gpus: &[GpuInfo],
    (major, minor): (u32, u32),
    root: &Path,
) -> Vec<Finding> {
    let driver = module.map_or_else(String::new, |module| format!("driver {module}, "));
    let gpus_found = format::count(gpus.len(), "GPU");
    let fact = format!("{driver}CUDA {major}.{minor}, {gpus_found}");
    let mut findings = vec![Finding::ok("CUDA", fact)];
    for GpuInfo { device, name, memory_bytes, pci_address, is_integrated, .. } in gpus {
        let mut memory = format::size(*memory_bytes);
        if *is_integrated {
            memory += " shared with the system";
            if let Some(system) = system_memory(root) {
                memory += &format!(" ({} available)", format::size(system.available_bytes));
            }
        }
        let node = node_of(root, pci_address).filter(|_| has_several_nodes(root));
        let node = node.map_or_else(String::new, |node| format!(", NUMA node {node}"));
        let fact = format!("{device}: {name}, {memory}, at {pci_address}{node}");
        findings.push(Finding::ok("CUDA", fact));
    }
    findings
}

/// Reports on GPUDirect Storage. Whether it works for a file shows only when the file is read.
fn gds(module: Option<&str>, probed: ringload::Result<()>) -> Finding {
    const TOPIC: &str = "GPUDirect Storage";
    let module = match module {
        Some(version) => format!("nvidia-fs {}", version.trim_start_matches("version: ")),
        None => "no nvidia-fs module".to_owned(),
    };
    match probed {
        Ok(()) => Finding::ok(TOPIC, format!("cuFile is ready, {module}")),
        Err(why) => {
            Finding::info(TOPIC, format!("{module}; loads to GPUs go through host memory: {why}"))
        }
    }
}

fn no_driver(module: Option<&str>, library: Option<PathBuf>, error: &str) -> Finding {
    let driver = match (module, library) {
        (Some(version), Some(library)) => format!("driver {version}, {}", library.display()),
        (Some(version), None) => format!("driver {version}, but no {LIBRARY}"),
        (None, Some(library)) => format!("{}, but no kernel module", library.display()),
        (None, None) => return Finding::info("CUDA", "no driver; loads go to host memory only"),
    };
    let fact = format!("{driver}; loads go to host memory only: {error}");
    Finding::warn(
        "CUDA",
        fact,
        ["install the kernel module and the libraries of the driver in the same version"],
    )
}

/// The version in the line `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue ...`.
fn module_version(text: &str) -> Option<&str> {
    let line = text.lines().find(|line| line.starts_with("NVRM version:"))?;
    line.split_whitespace()
        .find(|word| word.contains('.') && word.split('.').all(|part| part.parse::<u32>().is_ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_both_flavours_of_the_line() {
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\nGCC version: 12.3.0";
        let open =
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build";
        assert_eq!(module_version(closed), Some("550.54.15"));
        assert_eq!(module_version(open), Some("580.65.06"));
        assert_eq!(module_version("GCC version: 12.3.0"), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(no_driver(None, None, "why").fact.starts_with("no driver;"));
        assert!(no_driver(Some("550.1"), None, "why").fact.contains("no libcuda.so.1"));
        let library = Some(PathBuf::from("/usr/lib/libcuda.so.1"));
        let finding = no_driver(None, library, "cuInit failed");
        assert!(finding.fact.contains("no kernel module") && finding.fact.contains("cuInit"));
    }

    #[test]
    fn the_state_of_gpudirect_storage_is_reported() {
        assert_eq!(gds(Some("version: 2.17.5"), Ok(())).fact, "cuFile is ready, nvidia-fs 2.17.5");
        let why = ringload::Error::new(ringload::ErrorKind::Unsupported, "no cuFile");
        let fact = gds(None, Err(why)).fact;
        assert_eq!(fact, "no nvidia-fs module; loads to GPUs go through host memory: no cuFile");
    }

    #[test]
    fn gpus_have_a_line_each() {
        let (name, address) = ("NVIDIA H200".into(), "0000:1b:00.0".into());
        let gpu = GpuInfo::new(Device::cuda(0), name, 141 << 30, address);
        let facts: Vec<_> = gpu_findings(Some("580.1"), &[gpu], (13, 0), Path::new("/nowhere"))
            .into_iter()
            .map(|finding| finding.fact)
            .collect();
        assert_eq!(facts[0], "driver 580.1, CUDA 13.0, 1 GPU");
        assert_eq!(facts[1], "cuda:0: NVIDIA H200, 141.00 GiB, at 0000:1b:00.0");
    }

    #[test]
    fn an_integrated_gpu_has_the_memory_of_the_system() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("proc")).unwrap();
        let table = "MemTotal: 125829120 kB\nMemAvailable: 104857600 kB\n";
        std::fs::write(root.path().join("proc/meminfo"), table).unwrap();
        let (name, address) = ("NVIDIA GB10".into(), "000f:01:00.0".into());
        let mut gpu = GpuInfo::new(Device::cuda(0), name, 120 << 30, address);
        gpu.is_integrated = true;
        let fact = &gpu_findings(None, &[gpu], (13, 0), root.path())[1].fact;
        let expected = "cuda:0: NVIDIA GB10, 120.00 GiB shared with the system (100.00 GiB \
                        available), at 000f:01:00.0";
        assert_eq!(fact, expected);
    }
}
