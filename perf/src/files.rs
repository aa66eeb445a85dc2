//! The checkpoints that are loaded: random bytes in tensors of one size, written once and kept.
//!
//! Each has a file of checksums (`.sums.json`: SHA-256 of every tensor, computed when the bytes were
//! generated), against which the bytes of every client are checked.

use anyhow::{Context, Result};
use aws_lc_rs::digest::{Context as Digest, SHA256, digest};
use crc_fast::CrcAlgorithm::Crc32IsoHdlc;
use ringload::Dtype;
use ringload_measure::checkpoint::{self, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The number and size of the tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub tensors: usize,
    pub tensor_bytes: usize,
}

/// A checkpoint of one file.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    pub path: PathBuf,
    pub shape: Shape,
    pub sums: Sums,
}

/// The checksums of a file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    /// SHA-256 of each tensor's bytes, hexadecimal.
    pub sha256: BTreeMap<String, String>,
    /// SHA-256 of the whole file.
    pub file_sha256: String,
    /// CRC-32 (ISO-HDLC, as zlib's) of the whole file.
    pub file_crc32: u32,
}

impl Shape {
    /// About `bytes` in tensors of `tensor_bytes`.
    pub fn of_bytes(bytes: u64, tensor_bytes: usize) -> Self {
        let tensors = (bytes as f64 / tensor_bytes as f64).round().max(1.0) as usize;
        Self { tensors, tensor_bytes }
    }

    pub fn bytes(self) -> u64 {
        self.tensors as u64 * self.tensor_bytes as u64
    }

    pub fn gigabytes(self) -> f64 {
        self.bytes() as f64 / 1e9
    }

    /// The tensors, whose names begin with `prefix`.
    pub fn tensors(self, prefix: &str) -> Vec<Tensor> {
        let tensor = |number| {
            Tensor::new(format!("{prefix}.{number}.weight"), Dtype::U8, &[self.tensor_bytes])
        };
        (0..self.tensors).map(tensor).collect()
    }
}

impl Checkpoint {
    /// The checkpoint of `shape` in `directory`, which is written if it does not exist.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kept(directory: &Path, shape: Shape) -> Result<Self> {
        let name = format!("{}x{}.safetensors", shape.tensors, shape.tensor_bytes);
        let path = directory.join(name);
        let sums_path = path.with_extension("sums.json");
        let cannot = || format!("cannot write {}", path.display());
        if !sums_path.exists() {
            fs::create_dir_all(directory).with_context(cannot)?;
            let sums = write(&path, shape).with_context(cannot)?;
            fs::write(&sums_path, serde_json::to_vec(&sums)?).with_context(cannot)?;
        }
        let sums = serde_json::from_slice(&fs::read(&sums_path).with_context(cannot)?)?;
        Ok(Self { path, shape, sums })
    }

    pub fn file_bytes(&self) -> Result<u64> {
        Ok(fs::metadata(&self.path)?.len())
    }

    /// The name of the file without its directory.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Removes the file if it is too large to be kept.
    pub fn remove(self) -> Result<()> {
        fs::remove_file(self.path.with_extension("sums.json"))?;
        Ok(fs::remove_file(&self.path)?)
    }
}

fn write(path: &Path, shape: Shape) -> Result<Sums> {
    let tensors = shape.tensors("model.layers");
    let mut sums = Sums::default();
    let mut whole = Digest::new(&SHA256);
    let mut whole_crc = crc_fast::Digest::new(Crc32IsoHdlc);
    let header = checkpoint::header(&tensors)?;
    whole.update(&header);
    whole_crc.update(&header);
    checkpoint::write(path, &tensors, shape.bytes(), |tensor, bytes| {
        whole.update(bytes);
        whole_crc.update(bytes);
        sums.sha256.insert(tensor.name.clone(), hexadecimal(digest(&SHA256, bytes).as_ref()));
    })?;
    sums.file_sha256 = hexadecimal(whole.finish().as_ref());
    sums.file_crc32 = whole_crc.finalize() as u32;
    Ok(sums)
}

pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringload::Loader;

    #[test]
    fn a_checkpoint_holds_what_its_sums_say() {
        let directory = tempfile::tempdir().unwrap();
        let shape = Shape { tensors: 3, tensor_bytes: 1000 };
        let kept = Checkpoint::kept(directory.path(), shape).unwrap();
        let loaded = Loader::new().load(kept.path.clone()).unwrap();
        assert_eq!(kept.sums.sha256.len(), 3);
        for tensor in loaded.iter() {
            let sum = hexadecimal(digest(&SHA256, tensor.bytes()).as_ref());
            assert_eq!(Some(&sum), kept.sums.sha256.get(tensor.name()));
        }
        let again = Checkpoint::kept(directory.path(), shape).unwrap();
        assert_eq!(again.sums, kept.sums);
    }

    #[test]
    fn shapes_come_near_to_sizes() {
        assert_eq!(Shape::of_bytes(100, 30), Shape { tensors: 3, tensor_bytes: 30 });
        assert_eq!(Shape::of_bytes(1, 30).tensors, 1);
    }
}
