//! A chain of linear layers, and checkpoints for it, for the tests and the comparison.

use burn_core as burn;
use burn_core::module::Module;
use burn_core::tensor::{Device, Tensor};
use burn_nn::{Linear, LinearConfig};
use ringload_measure::checkpoint;
use safetensors::Dtype;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

#[derive(Module, Debug)]
pub struct Chain {
    pub layers: Vec<Linear>,
}

impl Chain {
    /// The sizes of the layers of `blocks` blocks of about 16 `width` squares.
    pub fn sizes(width: usize, blocks: usize) -> Vec<(usize, usize)> {
        let (inner, square) = (width * 11 / 4, (width, width));
        let block = [
            square,
            square,
            square,
            square,
            (width, inner),
            (inner, width),
            (width, inner),
            (inner, width),
        ];
        block.repeat(blocks)
    }

    pub fn new(sizes: &[(usize, usize)], device: &Device) -> Self {
        let layer = |&(from, to): &(usize, usize)| {
            LinearConfig::new(from, to).with_bias(false).init(device)
        };
        Self { layers: sizes.iter().map(layer).collect() }
    }

    /// The bits of the result for an input of ones.
    pub fn bits(&self, width: usize, device: &Device) -> Vec<u32> {
        let mut x = Tensor::<2>::ones([1, width], device);
        for layer in &self.layers {
            x = layer.forward(x);
        }
        x.into_data().to_vec::<f32>().expect("floats").into_iter().map(f32::to_bits).collect()
    }
}

/// Writes a checkpoint of F32 for layers of these sizes, in `files` files. Returns the files.
pub fn write(directory: &Path, sizes: &[(usize, usize)], files: usize) -> io::Result<Vec<PathBuf>> {
    let tensor = |(number, &(from, to)): (usize, &(usize, usize))| {
        checkpoint::Tensor::new(format!("layers.{number}.weight"), Dtype::F32, &[from, to])
    };
    let tensors: Vec<_> = sizes.iter().enumerate().map(tensor).collect();
    let parts = tensors.chunks(tensors.len().div_ceil(files)).enumerate();
    let mut written = Vec::new();
    for (number, part) in parts {
        let path = directory.join(checkpoint::shard_name(number, files));
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        file.write_all(&checkpoint::header(part)?)?;
        let mut state = 7_u32 + number as u32;
        for _ in 0..checkpoint::data_bytes(part) / 4 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let number = (state >> 8) as f32 / (1 << 24) as f32 - 0.5;
            file.write_all(&(number / 16.0).to_le_bytes())?;
        }
        file.into_inner()?.sync_all()?;
        written.push(path);
    }
    Ok(written)
}
