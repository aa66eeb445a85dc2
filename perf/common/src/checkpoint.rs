//! Writes safetensors files of random bytes, and the index of a checkpoint of several files.
//!
//! The entries of a header are those of the `safetensors` crate. The bytes are those of a generator with a seed,
//! so a file is the same whenever it is written.

use safetensors::tensor::{Dtype, TensorInfo};
use serde::Serializer;
use serde_json::{Map, json};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// The name, the element type and the dimensions of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: Vec<usize>,
}

impl Tensor {
    /// A tensor of these properties.
    pub fn new(name: impl Into<String>, dtype: impl Into<Dtype>, shape: &[usize]) -> Self {
        Self { name: name.into(), dtype: dtype.into(), shape: shape.to_vec() }
    }

    /// The length of its data.
    pub fn bytes(&self) -> u64 {
        self.shape.iter().product::<usize>() as u64 * self.dtype.bitsize() as u64 / 8
    }
}

/// The length of the data of all `tensors`.
pub fn data_bytes(tensors: &[Tensor]) -> u64 {
    tensors.iter().map(Tensor::bytes).sum()
}

/// The name of the shard with this number, counted from 0.
pub fn shard_name(number: usize, shards: usize) -> String {
    format!("model-{:05}-of-{shards:05}.safetensors", number + 1)
}

/// The header of a file with `tensors`, whose data lie one behind the other: its length and its text.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn header(tensors: &[Tensor]) -> io::Result<Vec<u8>> {
    let mut start = 0;
    let entries = tensors.iter().cloned().map(|tensor| {
        let data_offsets = (start, start + tensor.bytes() as usize);
        start = data_offsets.1;
        (tensor.name, TensorInfo { dtype: tensor.dtype, shape: tensor.shape, data_offsets })
    });
    let mut text = Vec::new();
    serde_json::Serializer::new(&mut text).collect_map(entries)?;
    Ok(framed(&text))
}

/// A header with this text: the length, the text, and spaces up to a multiple of 8 bytes.
pub fn framed(text: &[u8]) -> Vec<u8> {
    let len = text.len().next_multiple_of(8);
    let mut header = (len as u64).to_le_bytes().to_vec();
    header.extend(text);
    header.resize(8 + len, b' ');
    header
}

/// The text of the index of a checkpoint: the file of each tensor, and the length of all data.
pub fn index<'a>(files: impl IntoIterator<Item = (&'a str, &'a [Tensor])>) -> String {
    let (mut weight_map, mut total_size) = (Map::new(), 0);
    for (file, tensors) in files {
        total_size += data_bytes(tensors);
        weight_map.extend(tensors.iter().map(|tensor| (tensor.name.clone(), file.into())));
    }
    json!({"metadata": {"total_size": total_size}, "weight_map": weight_map}).to_string()
}

/// Writes a file with random bytes of `seed`, and waits until it is on the disk. `written` gets each
/// tensor with its bytes.
///
/// # Errors
/// When the file cannot be written.
pub fn write(
    path: &Path,
    tensors: &[Tensor],
    seed: u64,
    mut written: impl FnMut(&Tensor, &[u8]),
) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(&header(tensors)?)?;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = Vec::new();
    for tensor in tensors {
        bytes.resize(tensor.bytes() as usize, 0);
        random.fill(&mut bytes);
        file.write_all(&bytes)?;
        written(tensor, &bytes);
    }
    file.into_inner()?.sync_all()
}

/// Writes a sparse file: the header, and data without blocks on the disk.
///
/// # Errors
/// When the file cannot be written.
pub fn write_sparse(path: &Path, tensors: &[Tensor]) -> io::Result<()> {
    let header = header(tensors)?;
    let mut file = File::create(path)?;
    file.write_all(&header)?;
    file.set_len(header.len() as u64 + data_bytes(tensors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;
    use std::fs;

    #[test]
    fn a_written_file_can_be_read_and_holds_the_bytes_that_were_reported() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(shard_name(0, 1));
        let tensors =
            [Tensor::new("b", Dtype::BF16, &[300, 5]), Tensor::new("a", Dtype::U8, &[700])];
        let mut reported = Vec::new();
        write(&path, &tensors, 1, |tensor, bytes| reported.push((tensor.clone(), bytes.to_vec())))
            .unwrap();
        let file = fs::read(&path).unwrap();
        let read = SafeTensors::deserialize(&file).unwrap();
        assert_eq!(read.len(), 2);
        for (tensor, bytes) in reported {
            let view = read.tensor(&tensor.name).unwrap();
            assert_eq!((view.dtype(), view.shape()), (tensor.dtype, &*tensor.shape));
            assert_eq!(view.data(), bytes);
            let mut distinct = bytes.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert!(distinct.len() > 200, "the bytes are not all alike");
        }
        write_sparse(&path, &tensors).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), file.len() as u64);
        assert_eq!(fs::read(&path).unwrap()[..64], file[..64]);
    }

    #[test]
    fn an_index_names_the_file_of_each_tensor() {
        let (one, two) = ([Tensor::new("a", Dtype::U8, &[3])], [Tensor::new("b", Dtype::F32, &[])]);
        let index: serde_json::Value =
            serde_json::from_str(&index([("1", &one[..]), ("2", &two[..])])).unwrap();
        assert_eq!(
            index,
            json!({"metadata": {"total_size": 7}, "weight_map": {"a": "1", "b": "2"}})
        );
    }
}
