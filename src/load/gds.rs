//! Whether a load goes by GPUDirect Storage, and the start of one that does.
//!
//! All of a load does or none of it: where any part cannot, everything takes the ring, which serves
//! all. Whoever asked for it is told why; `auto` asks more, and of what costs least first:
//!
//! ```text
//! both:    all tensors to GPUs, from local files with direct reads, none cast, nothing to verify,
//!          parts long enough to be worth a call each
//! auto:    a load large enough, the nvidia-fs module, a file system that cuFile can serve, and
//!          files that are not in the page cache, which is faster
//! both:    cuFile's driver, and a first block that it reads rightly to each gpu
//! ```

use super::{Loader, Started, rings};
use crate::device::cuda::{CufileDriver, GdsGpu, Layout, PROBE_BYTES, ProbeSample};
use crate::engine::{EngineWork, GdsWork, Job, LoadHandle};
use crate::error::Result;
use crate::options::{Device, ReadPath};
use crate::plan::Plan;
use crate::source::{DirectFile, Downgrade, Source};
use crate::timeline::Recorder;
use nix::sys::statfs::{self, FsType, fstatfs};
use std::path::Path;
use std::sync::Arc;

/// cuFile's calls wait for what they read, so many are in flight: more than cores, as those sleep.
const THREADS: usize = 8;

/// A call of cuFile takes some tens of microseconds besides the reading. What comes in parts that are
/// shorter than this on average is better read in large pieces and taken apart on the GPU.
const PART_BYTES_MIN: u64 = 64 << 10;

/// Finding out takes `auto` about as long as reading this much.
const AUTO_BYTES_MIN: u64 = 256 << 20;

/// How much of a load may be in the page cache for `auto`, as a share.
const RESIDENT_SHARE_MAX: u64 = 8;

/// Each thread reads plainly through so much, where cuFile refuses.
const BOUNCE_BYTES: u64 = 1 << 20;

/// Where the nvidia-fs module shows itself.
const NVIDIA_FS: &str = "proc/driver/nvidia-fs";

/// File systems that cuFile serves where storage and drivers do; from its release notes.
const FILE_SYSTEMS: [FsType; 4] = [
    statfs::EXT4_SUPER_MAGIC,
    statfs::XFS_SUPER_MAGIC,
    statfs::NFS_SUPER_MAGIC,
    FsType(0x0BD0_0BD0), // Lustre
];

/// How a load goes.
pub(super) enum LoadPath {
    Gds(Vec<GdsGpu>),
    /// By the ring; with a reason that the caller is to be told.
    Ring(Option<Downgrade>),
}

impl Loader {
    /// How the load of `plan` goes.
    ///
    /// # Errors
    /// When a GPU is not there, or has no room for the tensors.
    pub(super) fn way(&self, plan: &Plan, sources: &[Arc<dyn Source>]) -> Result<LoadPath> {
        let asked = match self.read_path {
            ReadPath::Gds => true,
            ReadPath::Auto => false,
            _ => return Ok(LoadPath::Ring(None)),
        };
        match self.gds_gpus(plan, sources, asked) {
            Ok(gpus) => {
                gpus.iter().try_for_each(GdsGpu::check_memory)?;
                Ok(LoadPath::Gds(gpus))
            }
            Err(why) if asked => {
                Ok(LoadPath::Ring(Some(Downgrade { from: "gds", to: "ring", why })))
            }
            Err(why) => {
                tracing::debug!(why, "no GPUDirect Storage");
                Ok(LoadPath::Ring(None))
            }
        }
    }

    /// The GPUs of a load that can go this way, or why it cannot.
    fn gds_gpus(
        &self,
        plan: &Plan,
        sources: &[Arc<dyn Source>],
        asked: bool,
    ) -> Result<Vec<GdsGpu>, String> {
        let ordinals = ordinals(plan.devices())?;
        if self.verifies() {
            return Err("--verify compares with sums of host memory".to_owned());
        }
        if !asked {
            worth_asking(plan.total_bytes(), &self.system_root)?;
        }
        let layouts: Vec<Layout> = (0..ordinals.len())
            .map(|place| rings::layout_of(plan, place, self.allocation))
            .collect();
        check_layouts(plan, &layouts)?;
        let samples = look_at(sources, asked)?;
        CufileDriver::open()?;
        let new = |(&ordinal, layout)| {
            let gpu = GdsGpu::new(ordinal, layout).map_err(|e| e.to_string())?;
            samples.iter().try_for_each(|sample| gpu.probe(sample))?;
            Ok(gpu)
        };
        ordinals.iter().zip(layouts).map(new).collect()
    }

    /// Starts a load that goes this way.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub(super) fn start_gds(
        &self,
        plan: &Plan,
        sources: Vec<Arc<dyn Source>>,
        gpus: Vec<GdsGpu>,
        recorder: Option<Arc<Recorder>>,
    ) -> Result<Started> {
        let tuning = self.tuning(0, plan.total_bytes(), &[])?;
        let extents = Arc::clone(plan.extents_shared());
        let engines = self.engine_count()?.unwrap_or(THREADS).min(extents.len().max(1));
        // Together no more than the ring that this does without.
        let bounce = BOUNCE_BYTES.min(plan.gpu_ring_bytes_max() / engines as u64);
        let work = GdsWork::new(extents, sources.clone(), gpus, bounce as usize);
        let near = self.near(plan.devices());
        let job = Job { engines, affinity: near, recorder, ..self.job(sources, &tuning) };
        let running = LoadHandle::start(job, EngineWork::Gds(work))?;
        Ok(Started { running, ring_bytes: 0, _lease: None })
    }
}

/// The GPUs that tensors go to, or that some stay in host memory.
fn ordinals(devices: &[Device]) -> Result<Vec<u32>, String> {
    let ordinals: Vec<u32> = devices.iter().filter_map(|device| device.ordinal()).collect();
    match ordinals.len() {
        0 => Err("no tensor goes to a GPU; load with --device cuda".to_owned()),
        gpus if gpus < devices.len() => Err("some tensors stay in host memory".to_owned()),
        _ => Ok(ordinals),
    }
}

/// What `auto` looks at before anything of the checkpoint.
fn worth_asking(total_bytes: u64, system_root: &Path) -> Result<(), String> {
    if total_bytes < AUTO_BYTES_MIN {
        return Err(format!("{total_bytes} bytes are too few to look for it"));
    }
    if !system_root.join(NVIDIA_FS).exists() {
        return Err("the nvidia-fs module is not loaded".to_owned());
    }
    Ok(())
}

fn check_layouts(plan: &Plan, layouts: &[Layout]) -> Result<(), String> {
    if layouts.iter().any(Layout::has_casts) {
        return Err("tensors are cast on their way".to_owned());
    }
    let count = |(place, layout): (usize, &Layout)| layout.count_copies(plan.extents(), place);
    let parts: usize = layouts.iter().enumerate().map(count).sum();
    if parts as u64 * PART_BYTES_MIN > plan.total_bytes().max(PART_BYTES_MIN) {
        return Err(format!(
            "the tensors would come in {parts} parts of {} bytes on average, too small for a read \
             each",
            plan.total_bytes() / parts as u64
        ));
    }
    Ok(())
}

fn check_file_system(file: &DirectFile) -> Result<(), String> {
    let found = fstatfs(file.descriptor()).map_err(|e| e.to_string())?.filesystem_type();
    match FILE_SYSTEMS.contains(&found) {
        true => Ok(()),
        false => Err(format!("cuFile serves no file system of type {:#x}", found.0)),
    }
}

/// Opens the files one after the other, to see whether they can be read this way (and are worth it,
/// unless it was asked for); gives the first block of a file of each file system.
fn look_at(sources: &[Arc<dyn Source>], asked: bool) -> Result<Vec<ProbeSample>, String> {
    let mut samples: Vec<ProbeSample> = Vec::new();
    let (mut resident, mut total) = (0, 0);
    for source in sources {
        let file = source.direct_file().map_err(|e| e.to_string())?;
        if !asked {
            check_file_system(&file)?;
            resident += file.resident_bytes().unwrap_or(0);
            total += source.len_bytes();
        }
        if samples.iter().all(|sample| sample.file_system != file.file_system()) {
            let mut bytes = vec![0; source.len_bytes().min(PROBE_BYTES) as usize];
            source.read_exact_at(&mut bytes, 0).map_err(|e| e.to_string())?;
            let (file_system, file) = (file.file_system(), Arc::clone(file.descriptor()));
            samples.push(ProbeSample { file, file_system, bytes });
        }
    }
    if resident * RESIDENT_SHARE_MAX > total {
        return Err(format!("the page cache holds {resident} bytes of the files"));
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_tensors_have_to_go_to_gpus() {
        assert_eq!(ordinals(&[Device::cuda(3), Device::cuda(0)]), Ok(vec![3, 0]));
        assert!(ordinals(&[Device::Host]).unwrap_err().contains("--device cuda"));
        assert!(ordinals(&[Device::cuda(0), Device::Host]).unwrap_err().contains("host memory"));
    }

    #[test]
    fn auto_asks_only_for_large_loads_where_the_module_is() {
        let root = tempfile::tempdir().unwrap();
        let ask = |bytes| worth_asking(bytes, root.path());
        assert!(ask(AUTO_BYTES_MIN).unwrap_err().contains("nvidia-fs"));
        std::fs::create_dir_all(root.path().join(NVIDIA_FS)).unwrap();
        assert_eq!(ask(AUTO_BYTES_MIN), Ok(()));
        assert!(ask(AUTO_BYTES_MIN - 1).unwrap_err().contains("too few"));
    }
}
