//! The tensors of the synthetic checkpoint, which are those of a Llama model.
//!
//! The widths are those of Llama 3.2 1B (2048 wide, 8192 in the feed-forward part, 8 key and value
//! heads of 64, tied embeddings), so that the mix of large matrices and tiny norms is realistic.
//! The vocabulary has 32,000 words instead of 128,256, so that the largest tensor, the embedding,
//! has 125 MiB and fits the memory limit that is measured. The size is set by the number of layers.

use ringload::Dtype;
use ringload_measure::checkpoint::{Tensor, data_bytes};

const VOCABULARY: usize = 32_000;
const WIDTH: usize = 2048;
const FEED_FORWARD: usize = 8192;
const KEYS: usize = 512;

/// The number of shards, unless a shard would exceed [`SHARD_BYTES_MAX`].
const SHARDS: u64 = 4;
const SHARD_BYTES_MAX: u64 = 5 << 30;

/// The size of the smallest model: the embedding and one layer.
pub fn least_bytes() -> u64 {
    data_bytes(&tensors(1))
}

/// The number of layers, at least one, for the size that is closest to `bytes`.
pub fn layers_for(bytes: u64) -> u64 {
    let layer = data_bytes(&layer(0));
    let rest = bytes.saturating_sub(least_bytes() - layer);
    ((rest + layer / 2) / layer).max(1)
}

/// The bytes of the tensors of a model with `layers`, computed without making the tensors.
pub fn bytes_of(layers: u64) -> u64 {
    let more = layers.saturating_sub(1).saturating_mul(data_bytes(&layer(0)));
    least_bytes().saturating_add(more)
}

/// All tensors of a model with `layers`, in the order in which they are written.
pub fn tensors(layers: u64) -> Vec<Tensor> {
    let mut tensors = vec![tensor("model.embed_tokens", &[VOCABULARY, WIDTH])];
    tensors.extend((0..layers).flat_map(layer));
    tensors.push(tensor("model.norm", &[WIDTH]));
    tensors
}

fn tensor(part: &str, shape: &[usize]) -> Tensor {
    Tensor::new(format!("{part}.weight"), Dtype::BF16, shape)
}

fn layer(number: u64) -> Vec<Tensor> {
    let parts: [(&str, &[usize]); 9] = [
        ("input_layernorm", &[WIDTH]),
        ("mlp.down_proj", &[WIDTH, FEED_FORWARD]),
        ("mlp.gate_proj", &[FEED_FORWARD, WIDTH]),
        ("mlp.up_proj", &[FEED_FORWARD, WIDTH]),
        ("post_attention_layernorm", &[WIDTH]),
        ("self_attn.k_proj", &[KEYS, WIDTH]),
        ("self_attn.o_proj", &[WIDTH, WIDTH]),
        ("self_attn.q_proj", &[WIDTH, WIDTH]),
        ("self_attn.v_proj", &[KEYS, WIDTH]),
    ];
    let named = |(part, shape)| tensor(&format!("model.layers.{number}.{part}"), shape);
    parts.map(named).into()
}

/// Distributes the tensors over shards of about the same size, in order.
pub fn shards(tensors: Vec<Tensor>) -> Vec<Vec<Tensor>> {
    let total = data_bytes(&tensors);
    let share = total.div_ceil(SHARDS.max(total.div_ceil(SHARD_BYTES_MAX)));
    let mut shards: Vec<Vec<Tensor>> = Vec::new();
    for tensor in tensors {
        match shards.last_mut() {
            Some(shard) if data_bytes(shard) < share => shard.push(tensor),
            _ => shards.push(vec![tensor]),
        }
    }
    shards
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_comes_within_half_a_layer_of_the_size_asked_for() {
        let layer_bytes = data_bytes(&layer(0));
        for asked in [1_u64 << 30, 4 << 30, 15_000_000_000] {
            let got = data_bytes(&tensors(layers_for(asked)));
            assert!(got.abs_diff(asked) <= layer_bytes / 2 + 1, "{got} for {asked}");
            assert_eq!(bytes_of(layers_for(asked)), got);
        }
        assert_eq!(layers_for(0), 1);
    }

    #[test]
    fn the_largest_tensor_fits_the_memory_limit_that_is_measured() {
        let largest = tensors(2).iter().map(Tensor::bytes).max();
        assert_eq!(largest, Some(131_072_000));
    }

    #[test]
    fn shards_hold_all_tensors_in_order() {
        let tensors = tensors(8);
        let shards = shards(tensors.clone());
        assert_eq!(shards.len(), 4);
        assert_eq!(shards.concat(), tensors);
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = tensors(3).into_iter().map(|tensor| tensor.name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!((names.len(), count), (2 + 3 * 9, 2 + 3 * 9));
    }
}
