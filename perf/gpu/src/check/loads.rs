//! Compares loads byte for byte with their files: every read path, limit and kind of destination.

use super::CheckArgs;
use crate::checkpoints::{Written, check_equal};
use crate::gpu::{Gpu, Memory};
use crate::places::Places;
use crate::record::Recorder;
use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use ringload::cast::Cast;
use ringload::{Allocation, Device, DeviceMap, Dtype, Loader, MemoryLimit, ReadPath, ReadRequest};
use ringload_measure::checkpoint::Tensor;
use std::ops::ControlFlow;
use std::path::Path;
use std::thread;

/// The checkpoints to load.
struct Subject<'a> {
    /// Tensors of all kinds and sizes, on the disk and on tmpfs.
    disk: Written,
    tmpfs: Written,
    /// Many small tensors, whose sizes are not multiples of the tensors' alignment.
    small: Written,
    device: Device,
    gpu: &'a Gpu,
}

pub fn all(gpu: &Gpu, places: &Places, args: &CheckArgs, recorder: &mut Recorder) {
    let mut rng = Rng::with_seed(args.seed);
    let subject = match Subject::write(gpu, places, args.check_bytes, &mut rng) {
        Ok(subject) => subject,
        Err(error) => return recorder.check("checkpoints to load", || Err(error)),
    };
    let Subject { disk, tmpfs, small, .. } = &subject;
    let loader = || subject.loader();
    recorder.check("load, every read path", || {
        let paths = ReadPath::ALL.into_iter().filter(|path| *path != ReadPath::Mapped);
        compare(&[disk, tmpfs], paths.map(|path| loader().read_path(path)))
    });
    recorder.check("load, every memory limit", || {
        let sizes = [144 << 10, 1 << 20, 3 << 20, 16 << 20, 256 << 20, 512 << 20];
        let bytes = sizes.map(MemoryLimit::Bytes);
        let limits = [MemoryLimit::Unlimited, MemoryLimit::Min].into_iter().chain(bytes);
        let limited = limits.map(|limit| loader().memory_limit(limit));
        let paths = [ReadPath::Auto, ReadPath::Direct];
        compare(
            &[disk],
            limited.flat_map(|loader| paths.map(|path| loader.clone().read_path(path))),
        )
    });
    recorder.check("load, an allocation for each tensor", || {
        compare(&[disk], [loader().allocation(Allocation::PerTensor)])
    });
    recorder.check("load, verified", || {
        let verified = loader().verify(true);
        compare(&[disk], [verified.clone(), verified.memory_limit(MemoryLimit::Bytes(3 << 20))])
    });
    for dtype in [Dtype::BF16, Dtype::F16, Dtype::F32] {
        recorder.check(format!("load, cast to {dtype:?}"), || subject.casts(dtype));
    }
    recorder.check("load, small tensors of odd sizes", || {
        compare(&[small], [loader(), loader().memory_limit(MemoryLimit::Min)])
    });
    recorder.check("load, some tensors stay on the host", || subject.device_map());
    recorder.check("load, one loader again and again, tensors kept", || subject.again());
    recorder.check("load, two at a time", || subject.two_at_a_time());
    recorder.check("read_into memory on the GPU", || subject.read_into(&mut rng));
}

/// Loads one small checkpoint, and compares it.
///
/// # Errors
/// The first difference, or the failure.
pub fn one_load(gpu: &Gpu, places: &Places) -> Result<usize> {
    let free_bytes = gpu.free_bytes()?;
    let written =
        Written::new(places.disk(), "one", vec![tensors(1 << 20, 0, &mut Rng::with_seed(0))])?;
    let loader = Loader::new().device(places.device);
    compare(&[&written], [loader]).with_context(|| format!("{} MiB were free", free_bytes >> 20))
}

/// Loads all of `checkpoints` with each loader and compares; returns the number of tensors.
fn compare(checkpoints: &[&Written], loaders: impl IntoIterator<Item = Loader>) -> Result<usize> {
    let mut tensors = 0;
    for loader in loaders {
        for written in checkpoints {
            let loaded = loader.load(&written.files)?;
            written.compare(&loaded)?;
            tensors += loaded.len();
        }
    }
    Ok(tensors)
}

/// Tensors of every type with odd sizes, some empty, some scalars, and two large tensors.
fn tensors(bytes: u64, shard: usize, rng: &mut Rng) -> Vec<Tensor> {
    let mut tensors =
        vec![Tensor::new(format!("s{shard}.large"), Dtype::U8, &[bytes as usize / 4])];
    let mut left = bytes / 2;
    while left > 0 {
        // Every type comes, also in a small checkpoint.
        let dtype = Dtype::ALL[tensors.len() % Dtype::ALL.len()];
        let dimensions = match rng.usize(0..12) {
            // Elements that are narrower than a byte fill whole bytes.
            _ if dtype.bitsize() < 8 => vec![rng.usize(0..70), 4 * rng.usize(1..20)],
            0 => vec![],
            1 => vec![3, 0, 5],
            2 => vec![rng.usize(1..left as usize / 8 + 2)],
            _ => vec![rng.usize(1..70), rng.usize(1..70)],
        };
        let tensor = Tensor::new(format!("s{shard}.t{}", tensors.len()), dtype, &dimensions);
        left = left.saturating_sub(tensor.bytes().max(1));
        tensors.push(tensor);
    }
    let large = Tensor::new(format!("s{shard}.last"), Dtype::BF16, &[bytes as usize / 8, 1]);
    tensors.push(large);
    tensors
}

impl<'a> Subject<'a> {
    fn write(gpu: &'a Gpu, places: &Places, bytes: u64, rng: &mut Rng) -> Result<Self> {
        let shards: Vec<_> = (0..3).map(|shard| tensors(bytes / 3, shard, rng)).collect();
        let disk = Written::new(places.disk(), "check", shards)?;
        let tmpfs = disk.copied(places.tmpfs())?;
        let count = (bytes / (16 << 10)).clamp(64, 4096) as usize;
        let one = |i: usize| Tensor::new(format!("{i:05}"), Dtype::U8, &[rng.usize(0..9000)]);
        let small = Written::new(places.tmpfs(), "small", vec![(0..count).map(one).collect()])?;
        Ok(Self { disk, tmpfs, small, device: places.device, gpu })
    }

    fn loader(&self) -> Loader {
        Loader::new().device(self.device).memory_limit(MemoryLimit::Unlimited)
    }

    /// Tensors that are cast equal those that the library's reference casts.
    fn casts(&self, to: Dtype) -> Result<usize> {
        let as_cast = |from: Dtype, bytes: Vec<u8>| match Cast::new(from, to) {
            Some(cast) => {
                let mut target = vec![0; cast.target_bytes(bytes.len() as u64) as usize];
                cast.run(&bytes, &mut target);
                target
            }
            None => bytes,
        };
        let mut tensors = 0;
        for limit in [MemoryLimit::Unlimited, MemoryLimit::Bytes(3 << 20)] {
            let loader = self.loader().memory_limit(limit).dtype(to);
            let loaded = loader.load(&self.disk.files)?;
            self.disk.compare_as(&loaded, as_cast)?;
            tensors += loaded.len();
        }
        Ok(tensors)
    }

    fn device_map(&self) -> Result<usize> {
        let map = DeviceMap::from(self.device).with("*.t*[02468]", Device::Host)?;
        let loaded = self.loader().device(map.clone()).load(&self.disk.files)?;
        for tensor in &loaded {
            let (name, device) = (tensor.name(), tensor.device());
            ensure!(device == map.device_of(name), "{name} is on {device}");
        }
        self.disk.compare(&loaded)?;
        Ok(loaded.len())
    }

    fn again(&self) -> Result<usize> {
        let loader = self.loader();
        let mut kept = Vec::new();
        for written in [&self.disk, &self.small, &self.tmpfs] {
            kept.push((written, loader.load(&written.files)?));
        }
        for (written, loaded) in &kept {
            written.compare(loaded)?;
        }
        Ok(kept.iter().map(|(_, loaded)| loaded.len()).sum())
    }

    fn two_at_a_time(&self) -> Result<usize> {
        let (loader, disk, tmpfs) = (self.loader(), &self.disk, &self.tmpfs);
        thread::scope(|scope| {
            let beside = scope.spawn(|| compare(&[tmpfs], [loader.clone()]));
            let here = compare(&[disk], [loader.clone()]);
            let beside = beside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok(here? + beside?)
        })
    }

    /// Reads random ranges of a file, one after the other, into memory that this process allocated.
    #[allow(unsafe_code)]
    fn read_into(&self, rng: &mut Rng) -> Result<usize> {
        let path: &Path = &self.disk.files[0];
        let file = std::fs::read(path).context("cannot read a file again")?;
        let ranges: Vec<_> = (0..32)
            .map(|_| {
                let start = rng.usize(0..file.len());
                start..rng.usize(start..=file.len())
            })
            .collect();
        let wanted: Vec<u8> =
            ranges.iter().flat_map(|range| &file[range.clone()]).copied().collect();
        let memory = Memory::new(self.gpu, wanted.len())?;
        memory.fill(0xA5)?;
        let mut end = memory.address();
        let mut requests = Vec::new();
        for range in &ranges {
            let (address, len) = (end, range.len() as u64);
            end += len;
            let Device::Cuda(ordinal) = self.device else { continue };
            // SAFETY: the ranges are within `memory` and apart, and nothing else uses it meanwhile.
            let request =
                unsafe { ReadRequest::on_device(path, range.start as u64, ordinal, address, len) };
            requests.push(request);
        }
        self.loader().read_into(&mut requests, |_| ControlFlow::Continue(()))?;
        check_equal("what was read into the GPU's memory", &memory.read()?, &wanted)?;
        Ok(ranges.len())
    }
}
