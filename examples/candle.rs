//! Loads a checkpoint into candle tensors and prints statistics of each.
//!
//! ```text
//! cargo run --release -p ringload-examples --bin candle -- /models/llama-8b
//! cargo run --release -p ringload-examples --bin candle --features cuda -- /models/llama-8b --device cuda
//! ```
//!
//! `ringload_candle::load` reads into the memory of candle's tensors, on the CPU and on a GPU (feature
//! `cuda`). `ringload_candle::var_builder` loads a model in the same way; `axum.rs` shows that.

use candle_core::{DType, Device as CandleDevice, Tensor};
use clap::Parser;
use ringload::{Device, Loader, MemoryLimit};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

/// A result whose error is only printed.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Loads a checkpoint into candle tensors, and prints the name, type, shape, mean, minimum and
/// maximum of each.
#[derive(Debug, Parser)]
struct Args {
    /// A file, directory, index, pattern, or s3://, gs://, az://, hf://, https:// location.
    location: String,
    /// The device of the tensors: cpu, cuda or cuda:N.
    #[arg(long, default_value_t)]
    device: Device,
    /// The limit of the host memory that tensors for a GPU pass through: bytes such as 256MiB, or min.
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
    let device = candle_device(args.device)?;
    let tensors = ringload_candle::load(&loader, args.location.as_str(), None, &device)?;
    let seconds = began.elapsed().as_secs_f64();
    for (name, tensor) in &BTreeMap::from_iter(&tensors) {
        println!("{name}  {}", figures(tensor)?);
    }
    eprintln!("{} tensors on {} in {seconds:.3} s", tensors.len(), args.device);
    Ok(())
}

fn candle_device(device: Device) -> Outcome<CandleDevice> {
    match device.ordinal() {
        None => Ok(CandleDevice::Cpu),
        Some(ordinal) if cfg!(feature = "cuda") => Ok(CandleDevice::new_cuda(ordinal as usize)?),
        Some(_) => {
            Err("this example was built without CUDA support; build it with --features cuda".into())
        }
    }
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
