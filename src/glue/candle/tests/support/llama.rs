//! Llama checkpoints with random weights, for the tests and the comparison.

use candle_transformers::models::llama::Config;
use ringload_measure::checkpoint::{self, Tensor};
use safetensors::Dtype;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A model of this size, with heads of 64 elements.
pub fn config(hidden: usize, intermediate: usize, vocabulary: usize, layers: usize) -> Config {
    Config {
        hidden_size: hidden,
        intermediate_size: intermediate,
        vocab_size: vocabulary,
        num_hidden_layers: layers,
        num_attention_heads: hidden / 64,
        num_key_value_heads: hidden / 64,
        max_position_embeddings: 64,
        ..Config::config_7b_v2(false)
    }
}

/// The tensors of a model, in the order in which transformers writes them.
pub fn tensors(config: &Config, dtype: Dtype) -> Vec<Tensor> {
    let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
    let mut tensors = Vec::new();
    let mut add = |name: String, shape: &[usize]| tensors.push(Tensor::new(name, dtype, shape));
    add("lm_head.weight".to_owned(), &[config.vocab_size, hidden]);
    add("model.embed_tokens.weight".to_owned(), &[config.vocab_size, hidden]);
    for layer in 0..config.num_hidden_layers {
        let mut add = |name: &str, shape: &[usize]| {
            add(format!("model.layers.{layer}.{name}.weight"), shape);
        };
        add("input_layernorm", &[hidden]);
        add("mlp.down_proj", &[hidden, intermediate]);
        add("mlp.gate_proj", &[intermediate, hidden]);
        add("mlp.up_proj", &[intermediate, hidden]);
        add("post_attention_layernorm", &[hidden]);
        for name in ["k_proj", "o_proj", "q_proj", "v_proj"] {
            add(&format!("self_attn.{name}"), &[hidden, hidden]);
        }
    }
    add("model.norm.weight".to_owned(), &[hidden]);
    tensors
}

/// Writes a model of F32 or BF16 as `shards` files and an index. Returns the files.
pub fn write(
    directory: &Path,
    config: &Config,
    dtype: Dtype,
    shards: usize,
) -> io::Result<Vec<PathBuf>> {
    let tensors = tensors(config, dtype);
    let total: u64 = checkpoint::data_bytes(&tensors);
    let mut parts: Vec<Vec<Tensor>> = vec![Vec::new()];
    let mut bytes = 0;
    for tensor in tensors {
        if bytes >= total * parts.len() as u64 / shards as u64 {
            parts.push(Vec::new());
        }
        bytes += tensor.bytes();
        if let Some(part) = parts.last_mut() {
            part.push(tensor);
        }
    }
    let name = |number| checkpoint::shard_name(number, parts.len());
    let names: Vec<String> = (0..parts.len()).map(name).collect();
    for (name, tensors) in names.iter().zip(&parts) {
        write_shard(&directory.join(name), tensors)?;
    }
    let all = names.iter().map(String::as_str).zip(parts.iter().map(Vec::as_slice));
    fs::write(directory.join("model.safetensors.index.json"), checkpoint::index(all))?;
    Ok(names.iter().map(|name| directory.join(name)).collect())
}

fn write_shard(path: &Path, tensors: &[Tensor]) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(&checkpoint::header(tensors)?)?;
    let mut random = fastrand::Rng::with_seed(7);
    for tensor in tensors {
        let around = if tensor.shape.len() == 1 { 1.0 } else { 0.0 };
        for _ in 0..tensor.shape.iter().product::<usize>() {
            let number = around + (random.f32() - 0.5) / 8.0;
            // BF16 is the upper half of an F32.
            let bytes = number.to_le_bytes();
            file.write_all(if tensor.dtype == Dtype::F32 { &bytes } else { &bytes[2..] })?;
        }
    }
    file.into_inner()?.sync_all()
}
