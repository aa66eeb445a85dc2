//! Checkpoint files for tests: their bytes, and the comparison of loaded tensors with them.

use crate::checkpoint::Checkpoint;
use crate::source::Source;
use crate::tensor::Tensor;
use std::sync::Arc;

/// A deterministic random generator (splitmix64), made from a seed.
pub(crate) struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// A safetensors file with tensors of `sizes` bytes, named `prefix` and their number, whose data
/// begins at `data_offset`. Its bytes are random and never zero, so that unread memory never compares equal.
pub(crate) fn file_at(prefix: &str, sizes: &[usize], data_offset: usize) -> Vec<u8> {
    let tensors: Vec<_> = sizes.iter().map(|&size| ("U8", size)).collect();
    file_of(prefix, &tensors, data_offset)
}

/// A safetensors file of tensors with the element types `U8`, `F16`, `BF16` and `F32` in turn.
pub(crate) fn float_file(tensors: &[(&str, usize)]) -> Vec<u8> {
    file_of("t", tensors, 0)
}

fn file_of(prefix: &str, tensors: &[(&str, usize)], data_offset: usize) -> Vec<u8> {
    let mut entries = Vec::new();
    let mut end = 0;
    for (number, (dtype, size)) in tensors.iter().enumerate() {
        let begin = end;
        end += size;
        let elements = match *dtype {
            "F32" => size / 4,
            "F16" | "BF16" => size / 2,
            _ => *size,
        };
        entries.push(format!(
            r#""{prefix}{number:06}":{{"dtype":"{dtype}","shape":[{elements}],"data_offsets":[{begin},{end}]}}"#
        ));
    }
    let mut header = format!("{{{}}}", entries.join(",")).into_bytes();
    let room = data_offset.max(8 + header.len()) - 8;
    header.resize(room, b' ');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.append(&mut header);
    file.reserve(end);
    let mut random = Random(end as u64 ^ prefix.len() as u64);
    while end > 0 {
        let word = (random.next() | 0x0101_0101_0101_0101).to_le_bytes();
        let take = end.min(8);
        file.extend_from_slice(&word[..take]);
        end -= take;
    }
    file
}

/// A checkpoint of these sources.
pub(crate) fn checkpoint_of<S: Source + 'static>(sources: Vec<S>) -> Arc<Checkpoint> {
    let sources = sources.into_iter().map(|source| Arc::new(source) as Arc<dyn Source>).collect();
    Arc::new(Checkpoint::from_sources(sources).unwrap())
}

/// Whether `tensor` is byte for byte the one in its file.
pub(crate) fn is_intact(tensor: &Tensor, files: &[&[u8]]) -> bool {
    let info = tensor.info();
    let start = info.offset_bytes() as usize;
    tensor.bytes() == &files[info.shard()][start..][..info.len_bytes() as usize]
}
