//! Random loads to GPUs. The seed determines the checkpoint, the limit, the devices and the end.

use crate::common::{self, Expected};
use ringload::{
    Allocation, Device, DeviceMap, ErrorKind, Loader, MemoryLimit, Order, ReadPath, ReadRequest,
    Result, Tensor,
};
use std::collections::HashMap;
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::time::Duration;

/// A checkpoint on disk and its expected content.
struct Model {
    shards: Vec<PathBuf>,
    tensors: HashMap<String, Expected>,
}

/// A random number generator (splitmix64).
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }
}

/// The load of one seed.
struct Scene<'a> {
    model: &'a Model,
    loader: Loader,
    /// Whether some tensors stay in host memory and exceed the limit.
    host_is_tight: bool,
    failing: bool,
}

pub fn run(seeds: Range<u64>) {
    let directory = common::directory();
    let models = [
        model(&directory, "large", &[&[1 << 20, 4096, 256, 700_000, 0, 300_000]]),
        model(&directory, "mixed", &[&odd(60), &[0, 1, 0], &odd(25)]),
        model(&directory, "tiny", &[&(0..700).map(|i| i % 40).collect::<Vec<_>>()]),
        model(&directory, "one", &[&[2_400_001]]),
        model(&directory, "even", &[&[4096; 200], &[512; 100]]),
    ];
    let models: Vec<_> = models.into();
    let models: &'static [Model] = Vec::leak(models);
    for seed in seeds {
        common::in_time(&format!("seed {seed}"), move || {
            let mut draw = Draw(seed);
            let scene = scene(seed, &mut draw, models);
            println!("seed {seed}: {:?}, failing {}", scene.loader, scene.failing);
            scene.play(&mut draw);
        });
    }
}

/// Sizes up to 40 kB, most of them unaligned.
fn odd(count: usize) -> Vec<usize> {
    (0..count).map(|i| (i * 7919) % 40_000).collect()
}

fn model(directory: &tempfile::TempDir, name: &str, shards: &[&[usize]]) -> Model {
    let mut model = Model { shards: Vec::new(), tensors: HashMap::new() };
    for (number, sizes) in shards.iter().enumerate() {
        let tensors: Vec<_> = sizes
            .iter()
            .enumerate()
            .map(|(i, &size)| Expected::of_bytes(format!("s{number}.t{i}"), size, i as u64))
            .collect();
        let path = directory.path().join(format!("{name}-{number}.safetensors"));
        common::write(&path, &tensors, None);
        model.shards.push(path);
        model.tensors.extend(tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor)));
    }
    model
}

fn scene<'a>(seed: u64, draw: &mut Draw, models: &'a [Model]) -> Scene<'a> {
    let model = draw.of(models);
    let limits = [
        MemoryLimit::Unlimited,
        MemoryLimit::Min,
        MemoryLimit::Bytes(150_000),
        MemoryLimit::Bytes(900_000),
    ];
    let mut limit = *draw.of(&limits);
    let mut devices = DeviceMap::from(Device::cuda(draw.below(2) as u32));
    if draw.one_in(3) {
        devices = devices.with("*[0-3]", Device::cuda(draw.below(2) as u32)).unwrap();
    }
    let with_host = draw.one_in(5);
    if with_host {
        devices = devices.with("*5", Device::Host).unwrap();
        if limit == MemoryLimit::Bytes(150_000) {
            limit = MemoryLimit::Min; // the tensors in host memory do not fit into 150 kB
        }
    }
    let failing = draw.one_in(4);
    order(seed, if failing { failure(draw) } else { String::new() });
    let loader = Loader::new()
        .engines(1 + draw.below(3) as usize)
        .order(draw.of(&[Order::Completion, Order::File]).clone())
        .allocation(*draw.of(&[Allocation::PerShard, Allocation::PerTensor]))
        .memory_limit(limit)
        .read_path(*draw.of(&[ReadPath::Auto, ReadPath::Auto, ReadPath::Gds]))
        .device(devices)
        .verify(!with_host && draw.one_in(4))
        .hold_timeout(Duration::from_millis(200));
    let host_is_tight = with_host && limit != MemoryLimit::Unlimited;
    Scene { model, loader, host_is_tight, failing }
}

/// One call of the driver that fails.
fn failure(draw: &mut Draw) -> String {
    let (call, most) = *draw.of(&[
        ("cuDevicePrimaryCtxRetain", 2),
        ("cuMemGetInfo_v2", 2),
        ("cuMemAlloc_v2", 6),
        ("cuMemHostRegister_v2", 3),
        ("cuMemcpyHtoDAsync_v2", 30),
        ("cuMemcpyHtoDAsync_v2@run", 30),
        ("cuStreamCreate", 4),
        ("cuEventCreate", 10),
        ("cuEventRecord", 10),
        ("cuEventSynchronize", 10),
        ("cuModuleLoadData", 2),
        ("cuModuleGetFunction", 2),
        ("cuLaunchKernel", 10),
        ("cuLaunchKernel@run", 10),
        ("cuFileHandleRegister", 3),
        ("cuFileRead", 30),
    ]);
    let error = match call {
        "cuMemAlloc_v2" => "CUDA_ERROR_OUT_OF_MEMORY",
        "cuMemHostRegister_v2" => "CUDA_ERROR_NOT_PERMITTED",
        // The first calls belong to the probe, whose result would be remembered.
        "cuFileHandleRegister" | "cuFileRead" => {
            return format!("{call}:{}:CU_FILE_IO_NOT_SUPPORTED", 3 + draw.below(most));
        }
        _ => "CUDA_ERROR_ILLEGAL_ADDRESS",
    };
    format!("{call}:{}:{error}", 1 + draw.below(most))
}

/// Sets the variables that the stand-in reads when the next context is created.
#[allow(unsafe_code)]
fn order(seed: u64, failure: String) {
    // SAFETY: the load before has ended, and with it all threads but this one and its waiting
    // parent: nobody else reads the environment now.
    unsafe {
        std::env::set_var("CUDA_STAND_IN_SEED", seed.to_string());
        std::env::set_var("CUDA_STAND_IN_FAIL", failure);
    }
}

impl Scene<'_> {
    fn play(&self, draw: &mut Draw) {
        let outcome = match draw.below(6) {
            0 | 1 if !self.host_is_tight => self.resident(draw),
            0..=2 => self.streamed(),
            3 => self.abandoned(draw),
            4 => self.streamed().and_then(|()| self.streamed()),
            _ => self.read_into(draw),
        };
        println!("  {outcome:?}");
        if let Err(error) = outcome {
            assert!(self.failing, "{error:?}");
            let kinds = [ErrorKind::Device, ErrorKind::OutOfMemory, ErrorKind::Unsupported];
            assert!(kinds.contains(&error.kind()), "{error:?}");
            assert!(error.to_string().starts_with("cuda:"), "{error:?}");
        }
    }

    fn check(&self, tensor: &Tensor) -> Result<()> {
        let expected = &self.model.tensors[tensor.name()];
        assert!(tensor.to_vec()? == expected.bytes, "{} is wrong", tensor.name());
        if !tensor.device().is_host() && tensor.len_bytes() > 0 {
            assert_eq!(tensor.address() % 256, 0, "{} is not aligned", tensor.name());
        }
        Ok(())
    }

    /// Loads all tensors at once and drops them in random order.
    fn resident(&self, draw: &mut Draw) -> Result<()> {
        let loaded = self.loader.load(self.model.shards.clone())?;
        assert_eq!(loaded.len(), self.model.tensors.len());
        let mut tensors: Vec<_> = loaded.into_iter().collect();
        while !tensors.is_empty() {
            let tensor = tensors.swap_remove(draw.below(tensors.len() as u64) as usize);
            self.check(&tensor)?;
        }
        Ok(())
    }

    /// Takes one tensor after the other and drops each before the next.
    fn streamed(&self) -> Result<()> {
        let mut left = self.model.tensors.len();
        for tensor in self.loader.stream(self.model.shards.clone())? {
            self.check(&tensor?)?;
            left -= 1;
        }
        assert_eq!(left, 0, "tensors are missing");
        Ok(())
    }

    /// Drops the stream in the middle and keeps the tensors taken before.
    fn abandoned(&self, draw: &mut Draw) -> Result<()> {
        let mut stream = self.loader.stream(self.model.shards.clone())?;
        let most = if self.host_is_tight { 1 } else { self.model.tensors.len() as u64 };
        let taken = stream.by_ref().take(draw.below(most) as usize);
        let taken = taken.collect::<Result<Vec<_>>>()?;
        if draw.one_in(2) {
            std::thread::sleep(Duration::from_micros(draw.below(3000)));
        }
        drop(stream);
        taken.iter().try_for_each(|tensor| self.check(tensor))
    }

    /// Reads ranges of the first shard into memory that the caller allocated.
    fn read_into(&self, draw: &mut Draw) -> Result<()> {
        if self.failing {
            return Ok(()); // the injected failure could hit the caller's own calls
        }
        let shard = &self.model.shards[0];
        let file = std::fs::read(shard).unwrap();
        let gpu = OwnMemory::new(file.len());
        let mut host = vec![0; 1000.min(file.len())];
        let cuts = [0, draw.below(file.len() as u64), file.len() as u64];
        #[allow(unsafe_code)]
        let mut requests: Vec<_> = cuts
            .windows(2)
            // SAFETY: disjoint parts of memory that lives until the end, and nobody else uses.
            .map(|cut| unsafe {
                let address = gpu.address + cut[0];
                ReadRequest::on_device(shard.as_path(), cut[0], 0, address, cut[1] - cut[0])
            })
            .collect();
        let expected_host = file[..host.len()].to_vec();
        requests.push(ReadRequest::new(shard.as_path(), 0, &mut host));
        let mut completed = Vec::new();
        let loader = self.loader.clone().verify(false);
        loader.read_into(&mut requests, |index| {
            completed.push(index);
            ControlFlow::Continue(())
        })?;
        drop(requests);
        completed.sort_unstable();
        assert_eq!(completed, [0, 1, 2]);
        assert_eq!(host, expected_host);
        assert!(gpu.bytes() == file, "the memory of the caller is wrong");
        Ok(())
    }
}

/// Memory of GPU 0 that the test allocates, as a user's allocator does.
struct OwnMemory {
    address: u64,
    len: usize,
}

#[allow(unsafe_code)]
impl OwnMemory {
    fn new(len: usize) -> Self {
        use cudarc::driver::sys;
        let mut address = 0;
        // SAFETY: pointers to locals; the context is retained until the memory is freed.
        unsafe {
            let mut context = std::ptr::null_mut();
            sys::cuInit(0).result().unwrap();
            sys::cuDevicePrimaryCtxRetain(&raw mut context, 0).result().unwrap();
            sys::cuCtxPushCurrent_v2(context).result().unwrap();
            sys::cuMemAlloc_v2(&raw mut address, len).result().unwrap();
        }
        Self { address, len }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        // SAFETY: the memory is allocated and as long as the vector.
        unsafe {
            let into = bytes.as_mut_ptr().cast();
            cudarc::driver::sys::cuMemcpyDtoH_v2(into, self.address, self.len).result().unwrap();
        }
        bytes
    }
}

#[allow(unsafe_code)]
impl Drop for OwnMemory {
    fn drop(&mut self) {
        use cudarc::driver::sys;
        let mut popped = std::ptr::null_mut();
        // SAFETY: allocated, pushed and retained once.
        unsafe {
            sys::cuMemFree_v2(self.address).result().unwrap();
            sys::cuCtxPopCurrent_v2(&raw mut popped).result().unwrap();
            sys::cuDevicePrimaryCtxRelease_v2(0).result().unwrap();
        }
    }
}
