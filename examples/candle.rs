//! Loads a checkpoint into candle tensors and prints statistics of each.
//!
//! ```text
//! cargo run --release -p ringload-examples --bin candle -- /models/llama-8b
//! cargo run --release -p ringload-examples --bin candle --features cuda -- /models/llama-8b --device cuda
//! ```
//!
//! **On the CPU** a candle tensor owns a `Vec` of elements, so ringload cannot load into it
//! directly. Tensors stream through a small ring, and all cores copy tensors from it into candle's
//! memory, so the model is never in memory twice. The copy takes about as long as a warm load; a
//! server that does not need candle can use `ringload::Tensor` without the copy.
//!
//! **On a GPU** (feature `cuda`) there is no copy: candle allocates the tensors, and ringload loads
//! the bytes directly into them (`candle/gpu.rs`).

#[cfg(feature = "cuda")]
#[path = "candle/gpu.rs"]
mod gpu;

use candle_core::{DType, Device as CandleDevice, Tensor};
use clap::Parser;
use rayon::iter::{ParallelBridge, ParallelIterator};
use ringload::{Device, Loader, MemoryLimit};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

/// A result whose error is only printed.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

type Tensors = BTreeMap<String, Tensor>;

/// Loads a checkpoint into candle tensors, and prints the name, type, shape, mean, minimum and
/// maximum of each.
#[derive(Debug, Parser)]
struct Args {
    /// A file, directory, index, pattern, or s3://, gs://, az://, hf://, https:// location.
    location: String,
    /// The device of the tensors: cpu, cuda or cuda:N.
    #[arg(long, default_value_t)]
    device: Device,
    /// The limit of the host memory that tensors pass through: bytes such as 256MiB, or min.
    #[arg(long, default_value = "256MiB")]
    memory_limit: MemoryLimit,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Outcome<()> {
    let loader = Loader::from_env().memory_limit(args.memory_limit);
    let began = Instant::now();
    let tensors = match args.device.ordinal() {
        None => load(&loader, &args.location)?,
        Some(ordinal) => load_on_gpu(&loader, &args.location, ordinal)?,
    };
    let seconds = began.elapsed().as_secs_f64();
    for (name, tensor) in &tensors {
        println!("{name}  {}", figures(tensor)?);
    }
    eprintln!("{} tensors on {} in {seconds:.3} s", tensors.len(), args.device);
    Ok(())
}

/// Loads all tensors of the checkpoint into candle's memory.
fn load(loader: &Loader, location: &str) -> Outcome<Tensors> {
    let stream = loader.stream(location)?;
    // Each core takes the next complete tensor, copies it, and drops it, which releases its memory
    // in the ring.
    stream
        .par_bridge()
        .map(|tensor| {
            let tensor = tensor?;
            Ok((tensor.name().to_owned(), to_candle(&tensor)?))
        })
        .collect()
}

/// Copies a tensor in host memory into a candle tensor.
fn to_candle(tensor: &ringload::Tensor) -> Outcome<Tensor> {
    let dtype = dtype_of(tensor.info())?;
    Ok(Tensor::from_raw_buffer(tensor.bytes(), dtype, tensor.shape(), &CandleDevice::Cpu)?)
}

/// Returns candle's type for the elements of a tensor.
fn dtype_of(info: &ringload::TensorInfo) -> Outcome<DType> {
    DType::try_from(safetensors::Dtype::from(info.dtype())).map_err(|_| {
        let (name, dtype) = (info.name(), info.dtype());
        format!("candle has no type for tensor {name} of {dtype:?}").into()
    })
}

#[cfg(feature = "cuda")]
fn load_on_gpu(loader: &Loader, location: &str, ordinal: u32) -> Outcome<Tensors> {
    gpu::load(loader, location, ordinal)
}

#[cfg(not(feature = "cuda"))]
fn load_on_gpu(_: &Loader, _: &str, _: u32) -> Outcome<Tensors> {
    Err("this example was built without CUDA support; build it with --features cuda".into())
}

/// Returns the statistics, computed by candle: `F32 [2, 3]  mean 0.5  least 0  greatest 1`.
fn figures(tensor: &Tensor) -> Outcome<String> {
    let (dtype, shape) = (tensor.dtype(), tensor.dims());
    let kind = format!("{} {shape:?}", dtype.as_str());
    if tensor.elem_count() == 0 {
        return Ok(format!("{kind}  no elements"));
    }
    let flat = tensor.flatten_all()?.to_dtype(DType::F64)?;
    let [mean, least, greatest] = [flat.mean_all()?, flat.min_all()?, flat.max_all()?]
        .map(|figure| figure.to_scalar::<f64>());
    Ok(format!("{kind}  mean {:.6}  least {}  greatest {}", mean?, least?, greatest?))
}
