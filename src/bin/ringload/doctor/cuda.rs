//! Whether NVIDIA's driver is here. Loads go to host memory in this version, with or without it.

use super::finding::Finding;
use super::read_text;
use std::path::{Path, PathBuf};

const LIBRARY: &str = "libcuda.so.1";
/// Where distributions, containers and WSL keep the driver's library.
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

/// Looks for the kernel module and the driver's library.
pub fn examine() -> Vec<Finding> {
    let module = read_text("/proc/driver/nvidia/version");
    let library = LIBRARY_DIRECTORIES.iter().map(|directory| Path::new(directory).join(LIBRARY));
    vec![judge(
        module.as_deref().and_then(module_version),
        library.into_iter().find(|p| p.exists()),
    )]
}

fn judge(module: Option<&str>, library: Option<PathBuf>) -> Finding {
    let driver = match (module, library) {
        (Some(version), Some(library)) => format!("driver {version}, {}", library.display()),
        (Some(version), None) => format!("driver {version}, but no {LIBRARY}"),
        (None, Some(library)) => format!("{}, but no kernel module", library.display()),
        (None, None) => "no driver".into(),
    };
    Finding::info("CUDA", format!("{driver}; loads go to host memory only in this version"))
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
        assert!(judge(None, None).fact.starts_with("no driver;"));
        assert!(judge(Some("550.1"), None).fact.contains("no libcuda.so.1"));
        let library = Some(PathBuf::from("/usr/lib/libcuda.so.1"));
        assert!(judge(None, library).fact.contains("no kernel module"));
    }
}
