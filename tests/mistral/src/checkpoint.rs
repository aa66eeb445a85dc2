//! Writes a tiny Llama: random weights of BF16 in two shards with an index, its configuration, and a
//! byte-level BPE tokenizer of ASCII characters and pairs of letters. Each call writes the same.

use anyhow::Result;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

const VOCABULARY: usize = 512;
const HIDDEN: usize = 64;
const INTERMEDIATE: usize = 128;
const LAYERS: usize = 2;
const HEADS: usize = 4;
const KEY_VALUE_HEADS: usize = 2;

/// Writes the files of the model to the directory.
///
/// # Errors
/// Those of the file system.
pub fn write(directory: &Path) -> Result<()> {
    let mut random = Random(17);
    let first = vec![("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, HIDDEN])];
    let last = [
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
        ("lm_head.weight".to_owned(), vec![VOCABULARY, HIDDEN]),
    ];
    let shards = [[first, layer(0)].concat(), [layer(1).as_slice(), &last].concat()];
    let mut places = Map::new();
    for (number, shard) in shards.iter().enumerate() {
        let file = format!("model-{:05}-of-00002.safetensors", number + 1);
        places.extend(shard.iter().map(|(name, _)| (name.clone(), json!(file))));
        write_shard(&directory.join(file), shard, &mut random)?;
    }
    let index = json!({ "metadata": {}, "weight_map": places });
    fs::write(directory.join("model.safetensors.index.json"), index.to_string())?;
    fs::write(directory.join("config.json"), config().to_string())?;
    fs::write(directory.join("tokenizer.json"), tokenizer().to_string())?;
    let special = json!({ "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>" });
    fs::write(directory.join("tokenizer_config.json"), special.to_string())?;
    Ok(())
}

/// The names and shapes of one layer's tensors.
fn layer(number: usize) -> Vec<(String, Vec<usize>)> {
    let key_value = HIDDEN / HEADS * KEY_VALUE_HEADS;
    let tensors = [
        ("input_layernorm", vec![HIDDEN]),
        ("self_attn.q_proj", vec![HIDDEN, HIDDEN]),
        ("self_attn.k_proj", vec![key_value, HIDDEN]),
        ("self_attn.v_proj", vec![key_value, HIDDEN]),
        ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
        ("post_attention_layernorm", vec![HIDDEN]),
        ("mlp.gate_proj", vec![INTERMEDIATE, HIDDEN]),
        ("mlp.up_proj", vec![INTERMEDIATE, HIDDEN]),
        ("mlp.down_proj", vec![HIDDEN, INTERMEDIATE]),
    ];
    let name = |tensor| format!("model.layers.{number}.{tensor}.weight");
    tensors.into_iter().map(|(tensor, shape)| (name(tensor), shape)).collect()
}

fn write_shard(path: &Path, tensors: &[(String, Vec<usize>)], random: &mut Random) -> Result<()> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, shape)| {
            (0..shape.iter().product()).flat_map(|_| random.weight().to_le_bytes()).collect()
        })
        .collect();
    let mut views = Vec::with_capacity(tensors.len());
    for ((name, shape), bytes) in tensors.iter().zip(&bytes) {
        views.push((name, TensorView::new(Dtype::BF16, shape.clone(), bytes)?));
    }
    safetensors::serialize_to_file(views, None, path)?;
    Ok(())
}

fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "vocab_size": VOCABULARY,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 128,
        "tie_word_embeddings": false,
    })
}

fn tokenizer() -> Value {
    let special = ["<unk>", "<s>", "</s>"];
    // In byte-level BPE, the space is written as `Ġ`, the other characters as themselves.
    let mut words: Vec<String> = special.map(str::to_owned).to_vec();
    words.push("Ġ".to_owned());
    words.extend(('!'..='~').map(String::from));
    let mut merges = Vec::new();
    for (left, right) in ('a'..='z').flat_map(|left| ('a'..='z').map(move |right| (left, right))) {
        if words.len() < VOCABULARY {
            words.push(format!("{left}{right}"));
            merges.push(format!("{left} {right}"));
        }
    }
    let vocabulary: Map<String, Value> =
        words.into_iter().enumerate().map(|(id, word)| (word, json!(id))).collect();
    let added = special.iter().enumerate().map(|(id, word)| {
        json!({
            "id": id, "content": word, "special": true, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false,
        })
    });
    let byte_level =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": { "type": "BPE", "unk_token": "<unk>", "vocab": vocabulary, "merges": merges },
    })
}

/// Random numbers (xorshift).
struct Random(u64);

impl Random {
    /// The bits of a BF16 in -0.5..-0.0625 or 0.0625..0.5.
    fn weight(&mut self) -> u16 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let bits = self.0 >> 32;
        let (sign, mantissa) = ((bits & 1) << 15, bits >> 1 & 0x7f);
        let exponent = 123 + (bits >> 8) % 3;
        (sign | exponent << 7 | mantissa) as u16
    }
}
