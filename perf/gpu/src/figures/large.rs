//! The large checkpoint: the same files on the disk and on tmpfs. A step of its own writes it, and the
//! steps that load it find it there.

use super::Part;
use crate::checkpoints::{Written, llama};
use crate::gpu::Gpu;
use crate::places::check_room;
use crate::steps::StepArgs;
use anyhow::{Result, ensure};
use ringload_measure::checkpoint::{Tensor, data_bytes};
use std::path::{Path, PathBuf};

/// The number of files, which are written in parallel; some parts use only the first few.
const SHARDS: usize = 8;
const NAME: &str = "large";

/// The tensors of the large checkpoint.
pub struct LargeSpec(Vec<Vec<Tensor>>);

/// The large checkpoint, written.
pub struct Large {
    pub disk: Written,
    pub tmpfs: Written,
}

impl LargeSpec {
    /// Of `bytes`, and at most one more layer.
    pub fn new(bytes: u64) -> Self {
        Self(llama(bytes, SHARDS))
    }

    /// The paths of its files in `directory`.
    pub fn files_in(&self, directory: &Path) -> Vec<PathBuf> {
        Written::paths(directory, NAME, self.0.len())
    }

    fn bytes(&self) -> u64 {
        self.0.iter().map(|tensors| data_bytes(tensors)).sum()
    }
}

impl Large {
    /// The files that [`write`](fn@write) wrote.
    ///
    /// # Errors
    /// If one is missing.
    pub fn open(part: &Part<'_>) -> Result<Self> {
        let open = |directory: Option<&Path>| {
            let spec = part.args.large();
            let directory = directory.unwrap_or(Path::new("."));
            let files = spec.files_in(directory);
            let missing = files.iter().find(|file| !file.exists());
            ensure!(missing.is_none(), "{missing:?} does not exist");
            Ok(Written::of(files, spec.0))
        };
        let [disk, tmpfs] = part.places.both().map(Path::parent);
        Ok(Self { disk: open(disk)?, tmpfs: open(tmpfs)? })
    }
}

/// Writes the files, unless they are there.
///
/// # Errors
/// If there is too little room for them, also on the GPU.
pub fn write(args: &StepArgs) -> Result<()> {
    let (spec, places) = (args.figures.large(), &args.places);
    let [disk, tmpfs] = [&places.dir, &places.tmpfs].map(|directory| spec.files_in(directory));
    if disk.iter().chain(&tmpfs).all(|file| file.exists()) {
        return Ok(());
    }
    let bytes = spec.bytes();
    let needed = bytes + bytes / 16 + (1 << 20);
    check_room(&places.dir, needed)?;
    check_room(&places.tmpfs, needed)?;
    let free = Gpu::open(places.device)?.free_bytes()?;
    ensure!(
        free >= needed,
        "the GPU has {} MiB free and {} are needed; measure less (--size)",
        free >> 20,
        needed >> 20
    );
    let unfinished = places.dir.join("unfinished");
    std::fs::create_dir_all(&unfinished)?;
    let written = Written::new(&unfinished, NAME, spec.0)?;
    written.copied(&places.tmpfs)?;
    // The files on the disk get their names last: where they are, all are.
    for (from, to) in std::iter::zip(&written.files, &disk) {
        std::fs::rename(from, to)?;
    }
    Ok(())
}
