//! The tensors of the synthetic checkpoint, which are those of a Llama model.
//!
//! The widths are those of Llama 3.2 1B (2048 wide, 8192 in the feed-forward part, 8 key and value
//! heads of 64, tied embeddings), so that the mix of large matrices and tiny norms is realistic.
//! The vocabulary has 32,000 words instead of 128,256, so that the largest tensor, the embedding,
//! has 125 MiB and fits the memory limit that is measured. The size is set by the number of layers.

/// The element type of all tensors.
pub const DTYPE: &str = "BF16";
const ELEMENT_BYTES: u64 = 2;

const VOCABULARY: u64 = 32_000;
const WIDTH: u64 = 2048;
const FEED_FORWARD: u64 = 8192;
const KEYS: u64 = 512;

/// The number of shards, unless a shard would exceed [`SHARD_BYTES_MAX`].
const SHARDS: u64 = 4;
const SHARD_BYTES_MAX: u64 = 5 << 30;

/// The name and shape of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    pub name: String,
    pub dimensions: Vec<u64>,
}

impl Shape {
    fn new(name: impl Into<String>, dimensions: &[u64]) -> Self {
        Self { name: name.into(), dimensions: dimensions.to_vec() }
    }

    pub fn bytes(&self) -> u64 {
        self.dimensions.iter().product::<u64>() * ELEMENT_BYTES
    }
}

/// The size of the smallest model: the embedding and one layer.
pub fn least_bytes() -> u64 {
    bytes_of(&model(1))
}

/// The number of layers, at least one, for the size that is closest to `bytes`.
pub fn layers_for(bytes: u64) -> u64 {
    let layer = bytes_of(&layer(0));
    let rest = bytes.saturating_sub(least_bytes() - layer);
    ((rest + layer / 2) / layer).max(1)
}

/// All tensors of a model with `layers`, in the order in which they are written.
pub fn model(layers: u64) -> Vec<Shape> {
    let mut shapes = vec![Shape::new("model.embed_tokens.weight", &[VOCABULARY, WIDTH])];
    shapes.extend((0..layers).flat_map(layer));
    shapes.push(Shape::new("model.norm.weight", &[WIDTH]));
    shapes
}

fn layer(number: u64) -> Vec<Shape> {
    let tensors: [(&str, &[u64]); 9] = [
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
    let name = |part| format!("model.layers.{number}.{part}.weight");
    tensors.into_iter().map(|(part, dimensions)| Shape::new(name(part), dimensions)).collect()
}

pub fn bytes_of(shapes: &[Shape]) -> u64 {
    shapes.iter().map(Shape::bytes).sum()
}

/// Distributes the tensors over shards of about the same size, in order.
pub fn shards(shapes: Vec<Shape>) -> Vec<Vec<Shape>> {
    let total = bytes_of(&shapes);
    let share = total.div_ceil(SHARDS.max(total.div_ceil(SHARD_BYTES_MAX)));
    let mut shards: Vec<Vec<Shape>> = Vec::new();
    for shape in shapes {
        match shards.last_mut() {
            Some(shard) if bytes_of(shard) < share => shard.push(shape),
            _ => shards.push(vec![shape]),
        }
    }
    shards
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_comes_within_half_a_layer_of_the_size_asked_for() {
        let layer_bytes = bytes_of(&layer(0));
        for asked in [1_u64 << 30, 4 << 30, 15_000_000_000] {
            let got = bytes_of(&model(layers_for(asked)));
            assert!(got.abs_diff(asked) <= layer_bytes / 2 + 1, "{got} for {asked}");
        }
        assert_eq!(layers_for(0), 1);
    }

    #[test]
    fn the_largest_tensor_fits_the_memory_limit_that_is_measured() {
        let largest = model(2).iter().map(Shape::bytes).max();
        assert_eq!(largest, Some(131_072_000));
    }

    #[test]
    fn shards_hold_all_tensors_in_order() {
        let shapes = model(8);
        let shards = shards(shapes.clone());
        assert_eq!(shards.len(), 4);
        assert_eq!(shards.concat(), shapes);
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = model(3).into_iter().map(|shape| shape.name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!((names.len(), count), (2 + 3 * 9, 2 + 3 * 9));
    }
}
