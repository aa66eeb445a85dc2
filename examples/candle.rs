//! Loads a checkpoint into candle tensors and prints the figures of each.
//!
//! ```text
//! cargo run --release -p ringload-examples --bin candle -- /models/llama-8b
//! cargo run --release -p ringload-examples --bin candle --features cuda -- /models/llama-8b --device cuda
//! ```
//!
//! **On the CPU** candle owns its memory (a `Vec` of elements), so bytes cannot land in it directly,
//! and one copy is left: tensors stream through a small ring, and every core copies one of them into
//! candle's memory. At no time is the model there twice. That copy costs about as much as a warm load
//! does; a server that computes on its own can use `ringload::Tensor` itself, which costs none.
//!
//! **On a GPU** (feature `cuda`) there is no copy: candle allocates the tensors, and the bytes are
//! brought to where they are (`candle/GPU.rs`).

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

/// What can go wrong here is only ever told.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

type Tensors = BTreeMap<String, Tensor>;

/// Loads a checkpoint into candle tensors, and prints name, type, shape, mean, least and greatest
/// element of each.
#[derive(Debug, Parser)]
struct Args {
    /// A file, directory, index, pattern, or s3://, gs://, az://, hf://, https:// location.
    location: String,
    /// Where the tensors end up: cpu, cuda or cuda:N.
    #[arg(long, default_value_t)]
    device: Device,
    /// Host memory that the bytes pass through: bytes such as 256MiB, or min.
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
    let loader = Loader::new().memory_limit(args.memory_limit);
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

/// All tensors of the checkpoint, in candle's memory.
fn load(loader: &Loader, location: &str) -> Outcome<Tensors> {
    let stream = loader.stream(location)?;
    // Each core takes the next tensor that is there, copies it, and by dropping it gives its place in
    // the ring back.
    stream
        .par_bridge()
        .map(|tensor| {
            let tensor = tensor?;
            Ok((tensor.name().to_owned(), to_candle(&tensor)?))
        })
        .collect()
}

/// A copy of a tensor in host memory, as candle's.
fn to_candle(tensor: &ringload::Tensor) -> Outcome<Tensor> {
    let dtype = dtype_of(tensor.info())?;
    Ok(Tensor::from_raw_buffer(tensor.bytes(), dtype, tensor.shape(), &CandleDevice::Cpu)?)
}

/// candle's name for a tensor's type.
fn dtype_of(info: &ringload::TensorInfo) -> Outcome<DType> {
    DType::try_from(info.dtype()).map_err(|_| {
        let (name, dtype) = (info.name(), info.dtype());
        format!("candle has no tensors of {dtype:?}, which {name} is").into()
    })
}

#[cfg(feature = "cuda")]
fn load_on_gpu(loader: &Loader, location: &str, ordinal: u32) -> Outcome<Tensors> {
    gpu::load(loader, location, ordinal)
}

#[cfg(not(feature = "cuda"))]
fn load_on_gpu(_: &Loader, _: &str, _: u32) -> Outcome<Tensors> {
    Err("this was built without candle's CUDA support; build it with --features cuda".into())
}

/// `F32 [2, 3]  mean 0.5  least 0  greatest 1`, computed by candle.
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
