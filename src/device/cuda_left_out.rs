//! Has the place of `cuda` in a build without that feature: there are no GPUs, and what asks for one is
//! told which feature it needs.
//!
//! The layout of tensors is planned before a GPU is asked for, so that module is the same.

#[path = "cuda/layout.rs"]
mod layout;

pub(crate) use layout::{Addresses, Layout, LayoutItem};

use super::gpu_info::GpuInfo;
use super::transfer::{CompletionSink, DeviceTransfer};
use crate::error::{Error, Result};
use crate::location::Location;
use crate::options::Device;
use crate::plan::Extent;
use crate::ring::{FullSlot, Ring};
use crate::tensor::LoadedTensors;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) const PROBE_BYTES: u64 = 4096;

fn left_out(device: Device) -> Error {
    Error::needs_feature(device, "cuda")
}

/// Returns the GPUs that this process can use.
///
/// # Errors
/// [`Unsupported`](crate::ErrorKind::Unsupported), as the build is without the feature `cuda`.
pub fn gpus() -> Result<(Vec<GpuInfo>, (u32, u32))> {
    Err(left_out(Device::cuda(0)))
}

pub(crate) fn gpu_info(ordinal: u32) -> Result<GpuInfo> {
    Err(left_out(Device::cuda(ordinal)))
}

/// A ring that nothing pins.
pub(crate) struct PinnedRing(Arc<Ring>);

impl PinnedRing {
    pub fn new(ring: Arc<Ring>) -> Self {
        Self(ring)
    }

    pub fn ring(&self) -> &Arc<Ring> {
        &self.0
    }
}

pub(crate) struct TransferSpec {
    pub ordinal: u32,
    pub extents: Arc<[Extent]>,
    pub destination: usize,
    pub sources: Vec<ExtentSource>,
    pub layout: Layout,
    pub ring: Arc<PinnedRing>,
    pub verify: bool,
    pub system_root: PathBuf,
}

pub(crate) struct ExtentSource {
    pub location: Location,
    pub block_bytes: usize,
}

/// A transfer that fails when it is run.
pub(crate) struct CudaTransfer(Device);

impl CudaTransfer {
    pub fn new(spec: TransferSpec) -> Self {
        Self(Device::cuda(spec.ordinal))
    }
}

impl DeviceTransfer for CudaTransfer {
    fn device(&self) -> Device {
        self.0
    }

    fn submit(&self, _: usize, _: FullSlot) {}

    fn in_flight(&self) -> usize {
        0
    }

    fn close(&self) {}

    fn run(&self, _: &dyn CompletionSink) -> Result<()> {
        Err(left_out(self.0))
    }
}

/// cuFile's driver, which is never open. The types below are of what it would read to.
pub(crate) enum CufileDriver {}

impl CufileDriver {
    pub fn open() -> Result<&'static Self, String> {
        Err(Error::needs_feature("GPUDirect Storage", "cuda").to_string())
    }
}

pub(crate) struct RegisteredFile(CufileDriver);

impl RegisteredFile {
    pub fn new(_: Arc<File>) -> Result<Self, String> {
        CufileDriver::open().map(|never| match *never {})
    }
}

pub(crate) struct ProbeSample {
    pub file: Arc<File>,
    pub file_system: u64,
    pub bytes: Vec<u8>,
}

pub(crate) struct GdsGpu(CufileDriver);

impl GdsGpu {
    pub fn new(ordinal: u32, _: Layout) -> Result<Self> {
        Err(left_out(Device::cuda(ordinal)))
    }

    pub fn device(&self) -> Device {
        match self.0 {}
    }

    pub fn check_memory(&self, _: &Path) -> Result<()> {
        match self.0 {}
    }

    pub fn probe(&self, _: &ProbeSample) -> Result<(), String> {
        match self.0 {}
    }

    pub fn load_extent(
        &self,
        _: &Extent,
        _: impl FnMut(&GdsTarget<'_>) -> Result<()>,
    ) -> Result<Vec<LoadedTensors>> {
        match self.0 {}
    }
}

pub(crate) struct GdsTarget<'a>(&'a CufileDriver);

impl GdsTarget<'_> {
    pub fn offset_bytes(&self) -> u64 {
        match *self.0 {}
    }

    pub fn len_bytes(&self) -> u64 {
        match *self.0 {}
    }

    pub fn read(&self, _: &RegisteredFile, _: u64) -> Result<u64, CufileReadError> {
        match *self.0 {}
    }

    pub fn write(&self, _: u64, _: &[u8]) -> Result<()> {
        match *self.0 {}
    }
}

pub(crate) enum CufileReadError {}

impl CufileReadError {
    pub fn is_transient(&self) -> bool {
        match *self {}
    }
}

impl std::fmt::Display for CufileReadError {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {}
    }
}
