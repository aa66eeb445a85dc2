//! Writes the files of a synthetic checkpoint: header, pseudo-random bytes, index.

use super::shapes::{self, DTYPE, Shape};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

const BUFFER_BYTES: usize = 4 << 20;

/// The header of a shard with its length, padded to 8 bytes as in the safetensors library.
pub fn header(shapes: &[Shape]) -> Vec<u8> {
    let mut tensors = Map::new();
    tensors.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut start = 0;
    for shape in shapes {
        let end = start + shape.bytes();
        let entry = json!({
            "dtype": DTYPE,
            "shape": shape.dimensions,
            "data_offsets": [start, end],
        });
        tensors.insert(shape.name.clone(), entry);
        start = end;
    }
    let mut text = Value::Object(tensors).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.append(&mut text);
    header
}

/// The text of the index of `shards`, which are given with their file names.
pub fn index<'a>(shards: impl Iterator<Item = (&'a str, &'a Vec<Shape>)>) -> String {
    let mut weight_map = Map::new();
    let mut total = 0;
    for (file, shapes) in shards {
        total += shapes::bytes_of(shapes);
        weight_map.extend(shapes.iter().map(|shape| (shape.name.clone(), file.into())));
    }
    json!({"metadata": {"total_size": total}, "weight_map": weight_map}).to_string()
}

/// Writes one shard and syncs it; `progress` is called with the number of bytes written.
pub fn write_shard(path: &Path, shapes: &[Shape], progress: impl Fn(u64)) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(&header(shapes))?;
    let total = shapes::bytes_of(shapes);
    let mut noise = Noise(0x9E37_79B9_7F4A_7C15 ^ total);
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut written = 0;
    while written < total {
        let len = BUFFER_BYTES.min((total - written) as usize);
        noise.fill(&mut buffer[..len]);
        file.write_all(&buffer[..len])?;
        written += len as u64;
        progress(written);
    }
    file.sync_all()
}

/// Incompressible bytes, made with xorshift64.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_le_bytes()[..word.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn shapes() -> Vec<Shape> {
        let shape = |name: &str, dimensions| Shape { name: name.into(), dimensions };
        vec![shape("b", vec![3, 5]), shape("a", vec![7])]
    }

    #[test]
    fn a_written_checkpoint_can_be_opened() {
        let directory = tempfile::tempdir().unwrap();
        write_shard(&directory.path().join("m.safetensors"), &shapes(), |_| {}).unwrap();
        let index_path = directory.path().join("model.safetensors.index.json");
        fs::write(index_path, index([("m.safetensors", &shapes())].into_iter())).unwrap();
        let checkpoint = ringload::Checkpoint::open(directory.path()).unwrap();
        let names: Vec<_> = checkpoint.tensors().iter().map(|tensor| tensor.name()).collect();
        assert_eq!(names, ["b", "a"]);
        assert_eq!(checkpoint.data_bytes(), 44);
    }

    #[test]
    fn the_bytes_are_not_all_alike() {
        let mut bytes = [0; 1024];
        Noise(1).fill(&mut bytes);
        let mut distinct = bytes.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        assert!(distinct.len() > 200);
    }
}
