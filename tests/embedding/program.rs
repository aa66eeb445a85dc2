//! A program that embeds ringload, selects a version of cudarc's bindings itself, and loads to a GPU.
//!
//! ringload once depended on cudarc with the feature `cuda-12020`. A program built for CUDA 13 got the
//! bindings of 12.2 by that, and with `CUDARC_CUDA_VERSION=13000` it did not compile. Here the
//! bindings have to be those that the program selected, which `EXPECTED_CUDA_VERSION` names, and loads
//! have to work with them: `check_embedding` of `tests/support/checkers.sh` runs the program on the
//! stand-in for the driver.

use ringload::{Device, Loader};

const fn number(text: &str) -> u32 {
    let (mut number, mut at) = (0, 0);
    while at < text.len() {
        number = 10 * number + (text.as_bytes()[at] - b'0') as u32;
        at += 1;
    }
    number
}

const _: () = assert!(
    cudarc::driver::sys::CUDA_VERSION == number(env!("EXPECTED_CUDA_VERSION")),
    "ringload has changed the version of cudarc's bindings"
);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bytes: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
    let header =
        format!(r#"{{"a":{{"dtype":"U8","shape":[{}],"data_offsets":[0,{0}]}}}}"#, bytes.len());
    let path = std::env::temp_dir().join(format!("embedding-{}.safetensors", std::process::id()));
    let length = (header.len() as u64).to_le_bytes();
    std::fs::write(&path, [&length[..], header.as_bytes(), &bytes].concat())?;
    let loaded = Loader::new().device(Device::cuda(1)).load(&path);
    std::fs::remove_file(&path)?;
    let loaded = loaded?;
    let tensor = loaded.get("a").ok_or("the tensor is missing")?;
    assert!(tensor.to_vec()? == bytes, "the GPU has other bytes");
    let (gpus, driver) = ringload::gpus()?;
    let bindings = cudarc::driver::sys::CUDA_VERSION;
    println!("{} GPUs, a driver of CUDA {driver:?}, bindings of {bindings}", gpus.len());
    Ok(())
}
