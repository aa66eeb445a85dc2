//! Decides whether a load uses GPUDirect Storage.
//!
//! Either all of a load uses it or none: if any part cannot, everything passes through the ring,
//! which can load anything. A caller that requested GPUDirect Storage gets the reason. `auto` has
//! more conditions and checks the cheapest first:
//!
//! ```text
//! both:    all tensors go to GPUs, from local files with direct reads; none is cast; nothing is
//!          verified; the parts are long enough to be worth a call each
//! auto:    the load is large enough; the nvidia-fs module is loaded; cuFile supports the file system;
//!          the files are not in the page cache, which is faster
//! both:    cuFile's driver opens, and reads a first block correctly to each GPU
//! ```

use super::loader::Loader;
use super::rings::layout_of;
use crate::device::cuda::{CufileDriver, GdsGpu, Layout, PROBE_BYTES, ProbeSample};
use crate::error::{Result, Size, option};
use crate::options::{Device, ReadPath};
use crate::plan::Plan;
use crate::ring::Mapping;
use crate::source::{Cancellation, DirectFile, Downgrade, Source};
use nix::sys::statfs::{self, FsType, fstatfs};
use std::path::Path;
use std::sync::Arc;

/// A call of cuFile takes some tens of microseconds besides the reading. Parts that are shorter than
/// this on average are better read in large pieces and taken apart on the GPU.
const PART_BYTES_MIN: u64 = 64 << 10;

/// `auto` takes about as long to decide as reading this many bytes.
const AUTO_BYTES_MIN: u64 = 256 << 20;

/// `auto` does not use GPUDirect Storage if the page cache holds more than one part in this many.
const RESIDENT_SHARE_MAX: u64 = 8;

/// The path that exists while the nvidia-fs module is loaded.
const NVIDIA_FS: &str = "proc/driver/nvidia-fs";

/// File systems that cuFile supports, given storage and drivers that do; from its release notes.
const FILE_SYSTEMS: [FsType; 4] = [
    statfs::EXT4_SUPER_MAGIC,
    statfs::XFS_SUPER_MAGIC,
    statfs::NFS_SUPER_MAGIC,
    FsType(0x0BD0_0BD0), // Lustre
];

/// The path by which the bytes of a load are read.
pub(super) enum LoadPath {
    /// The files are mapped.
    Mapped,
    /// The files are mapped in this way, so that the caller may write to the tensors.
    Private(Vec<Arc<Mapping>>),
    /// The GPUs read the files.
    Gds(Vec<GdsGpu>),
    /// Engines read into rings. The downgrade is reported if the caller requested another path.
    Ring(Option<Downgrade>),
}

impl Loader {
    /// Decides whether the load of `plan` uses GPUDirect Storage.
    ///
    /// # Errors
    /// When a GPU has too little memory for the tensors.
    pub(super) fn gds_or_ring(&self, plan: &Plan, sources: &[Arc<dyn Source>]) -> Result<LoadPath> {
        let requested = match self.options.read_path {
            ReadPath::Gds => true,
            ReadPath::Auto => false,
            _ => return Ok(LoadPath::Ring(None)),
        };
        match self.gds_gpus(plan, sources, requested) {
            Ok(gpus) => {
                let root = &self.options.system_root;
                gpus.iter().try_for_each(|gpu| gpu.check_memory(root))?;
                Ok(LoadPath::Gds(gpus))
            }
            Err(why) if requested => {
                Ok(LoadPath::Ring(Some(Downgrade { from: "gds", to: "ring", why })))
            }
            Err(why) => {
                tracing::debug!(why, "no GPUDirect Storage");
                Ok(LoadPath::Ring(None))
            }
        }
    }

    /// The GPUs of a load that can use GPUDirect Storage, or the reason why it cannot.
    fn gds_gpus(
        &self,
        plan: &Plan,
        sources: &[Arc<dyn Source>],
        requested: bool,
    ) -> Result<Vec<GdsGpu>, String> {
        let ordinals = ordinals(plan.devices())?;
        if self.checks_bytes() {
            return Err(format!(
                "{} compares with checksums of host memory, and {} and {} look at bytes in host \
                 memory",
                option("verify").on(),
                option("manifest"),
                option("check_finite").on()
            ));
        }
        if !requested {
            check_worth_probing(plan.total_bytes(), &self.options.system_root)?;
        }
        let layout = |index| layout_of(plan, index, self.options.allocation);
        let layouts: Vec<Layout> = (0..ordinals.len()).map(layout).collect();
        check_layouts(plan, &layouts)?;
        let samples = sample_files(sources, requested, self.opener.cancellation())?;
        CufileDriver::open()?;
        let new = |(&ordinal, layout)| {
            let gpu = GdsGpu::new(ordinal, layout).map_err(|e| e.to_string())?;
            samples.iter().try_for_each(|sample| gpu.probe(sample))?;
            Ok(gpu)
        };
        ordinals.iter().zip(layouts).map(new).collect()
    }
}

/// The ordinals of the GPUs that tensors go to. Fails if any tensor stays in host memory.
fn ordinals(devices: &[Device]) -> Result<Vec<u32>, String> {
    let ordinals: Vec<u32> = devices.iter().filter_map(|device| device.ordinal()).collect();
    match ordinals.len() {
        0 => {
            let option = option("device").set_to("cuda");
            Err(format!("no tensor goes to a GPU; load with {option}"))
        }
        gpus if gpus < devices.len() => Err("some tensors stay in host memory".to_owned()),
        _ => Ok(ordinals),
    }
}

/// The checks that `auto` makes before it looks at the checkpoint.
fn check_worth_probing(total_bytes: u64, system_root: &Path) -> Result<(), String> {
    if total_bytes < AUTO_BYTES_MIN {
        return Err(format!("{} are too few to probe for it", Size(total_bytes)));
    }
    if !system_root.join(NVIDIA_FS).exists() {
        return Err("the nvidia-fs module is not loaded".to_owned());
    }
    Ok(())
}

fn check_layouts(plan: &Plan, layouts: &[Layout]) -> Result<(), String> {
    if layouts.iter().any(Layout::has_casts) {
        return Err("tensors are cast".to_owned());
    }
    let count = |(index, layout): (usize, &Layout)| layout.count_copies(plan.extents(), index);
    let parts: usize = layouts.iter().enumerate().map(count).sum();
    if parts as u64 * PART_BYTES_MIN > plan.total_bytes().max(PART_BYTES_MIN) {
        return Err(format!(
            "the tensors would come in {parts} parts of {} on average, too small for a read each",
            Size(plan.total_bytes() / parts as u64)
        ));
    }
    Ok(())
}

fn check_file_system(file: &DirectFile) -> Result<(), String> {
    let found = fstatfs(file.descriptor()).map_err(|e| e.to_string())?.filesystem_type();
    match FILE_SYSTEMS.contains(&found) {
        true => Ok(()),
        false => Err(format!("cuFile supports no file system of type {:#x}", found.0)),
    }
}

/// Opens the files one after the other and checks that direct reads work and, unless GPUDirect
/// Storage was requested, that it is faster than reading from the page cache. Returns the first
/// block of one file of each file system.
fn sample_files(
    sources: &[Arc<dyn Source>],
    requested: bool,
    cancellation: &Cancellation,
) -> Result<Vec<ProbeSample>, String> {
    let mut samples: Vec<ProbeSample> = Vec::new();
    let (mut resident, mut total) = (0, 0);
    for source in sources {
        let file = source.direct_file().map_err(|e| e.to_string())?;
        if !requested {
            check_file_system(&file)?;
            resident += file.resident_bytes().unwrap_or(0);
            total += source.len_bytes();
        }
        if samples.iter().all(|sample| sample.file_system != file.file_system()) {
            let mut bytes = vec![0; source.len_bytes().min(PROBE_BYTES) as usize];
            source.read_exact_at(&mut bytes, 0, cancellation).map_err(|e| e.to_string())?;
            let (file_system, file) = (file.file_system(), Arc::clone(file.descriptor()));
            samples.push(ProbeSample { file, file_system, bytes });
        }
    }
    if resident * RESIDENT_SHARE_MAX > total {
        return Err(format!("the page cache holds {} of the files", Size(resident)));
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_tensors_have_to_go_to_gpus() {
        assert_eq!(ordinals(&[Device::cuda(3), Device::cuda(0)]), Ok(vec![3, 0]));
        assert!(ordinals(&[Device::Host]).unwrap_err().contains("the option device=cuda"));
        assert!(ordinals(&[Device::cuda(0), Device::Host]).unwrap_err().contains("host memory"));
    }

    #[test]
    fn auto_probes_only_for_large_loads_where_the_module_is_loaded() {
        let root = tempfile::tempdir().unwrap();
        let check = |bytes| check_worth_probing(bytes, root.path());
        assert!(check(AUTO_BYTES_MIN).unwrap_err().contains("nvidia-fs"));
        std::fs::create_dir_all(root.path().join(NVIDIA_FS)).unwrap();
        assert_eq!(check(AUTO_BYTES_MIN), Ok(()));
        assert!(check(AUTO_BYTES_MIN - 1).unwrap_err().contains("too few"));
    }
}
