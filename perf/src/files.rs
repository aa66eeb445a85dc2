//! The checkpoints that are loaded: random bytes in tensors of one size, written once and kept.
//!
//! Each has a file of checksums (`.sums.json`: CRC-32 and SHA-256 of every tensor, computed when the
//! bytes were generated), against which the bytes of every client are checked.

use anyhow::{Context, Result};
use aws_lc_rs::digest::{Context as Digest, SHA256};
use crc_fast::CrcAlgorithm::Crc32IsoHdlc;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The prefix of the tensor names.
const PREFIX: &str = "model.layers";

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
    /// CRC-32 (ISO-HDLC, as zlib's) of each tensor's bytes.
    pub crc32: BTreeMap<String, u32>,
    /// SHA-256 of each tensor's bytes, hexadecimal.
    pub sha256: BTreeMap<String, String>,
    /// SHA-256 of the whole file.
    pub file_sha256: String,
    /// CRC-32 of the whole file.
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

    /// The header of a file of such tensors with its length. Names begin with `prefix`.
    pub fn header(self, prefix: &str) -> Vec<u8> {
        let mut text = String::from("{");
        for number in 0..self.tensors {
            let comma = if number == 0 { "" } else { "," };
            let (length, start) = (self.tensor_bytes, number * self.tensor_bytes);
            let end = start + length;
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                r#"{comma}"{prefix}.{number}.weight":{{"dtype":"U8","shape":[{length}],"data_offsets":[{start},{end}]}}"#
            );
        }
        text.push('}');
        text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.into_bytes());
        bytes
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
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut sums = Sums::default();
    let mut whole = Digest::new(&SHA256);
    let mut whole_crc = crc_fast::Digest::new(Crc32IsoHdlc);
    let mut put = |bytes: &[u8]| {
        whole.update(bytes);
        whole_crc.update(bytes);
        out.write_all(bytes)
    };
    put(&shape.header(PREFIX))?;
    let mut noise = fastrand::Rng::with_seed(shape.bytes());
    let mut tensor = vec![0; shape.tensor_bytes];
    for number in 0..shape.tensors {
        noise.fill(&mut tensor);
        let name = format!("{PREFIX}.{number}.weight");
        sums.crc32.insert(name.clone(), crc_fast::checksum(Crc32IsoHdlc, &tensor) as u32);
        let mut digest = Digest::new(&SHA256);
        digest.update(&tensor);
        sums.sha256.insert(name, hexadecimal(digest.finish().as_ref()));
        put(&tensor)?;
    }
    sums.file_sha256 = hexadecimal(whole.finish().as_ref());
    sums.file_crc32 = whole_crc.finalize() as u32;
    out.into_inner()?.sync_all()?;
    Ok(sums)
}

pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
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
        assert_eq!(kept.sums.crc32.len(), 3);
        for tensor in loaded.iter() {
            let sum = crc_fast::checksum(Crc32IsoHdlc, tensor.bytes()) as u32;
            assert_eq!(Some(&sum), kept.sums.crc32.get(tensor.name()));
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
