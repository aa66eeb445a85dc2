//! The properties of a GPU.

use crate::options::Device;

/// The properties of a GPU.
///
/// ```no_run
/// # fn main() -> ringload::Result<()> {
/// let (gpus, (major, minor)) = ringload::gpus()?;
/// println!("the driver is for CUDA {major}.{minor}");
/// for gpu in gpus {
///     println!("{}: {}, {} bytes", gpu.device, gpu.name, gpu.memory_bytes);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GpuInfo {
    /// The GPU.
    pub device: Device,
    /// The GPU's name, e.g. `NVIDIA H200`.
    pub name: String,
    /// The size of the GPU's memory in bytes.
    pub memory_bytes: u64,
    /// The GPU's PCI address as in /sys/bus/pci/devices.
    pub pci_address: String,
    /// Whether the GPU has no memory of its own and uses that of the host.
    pub is_integrated: bool,
}

impl GpuInfo {
    /// Creates a description, for tests of the command.
    #[doc(hidden)]
    pub fn new(device: Device, name: String, memory_bytes: u64, pci_address: String) -> Self {
        Self { device, name, memory_bytes, pci_address, is_integrated: false }
    }
}
