//! The checksums of one file and of its parts.

use std::ops::Range;

/// The checksums of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileSums {
    /// The path relative to the directory of the checkpoint, with slashes.
    pub name: String,
    pub bytes: u64,
    pub sha256: Option<[u8; 32]>,
    /// The length of the header, with the eight bytes of its length.
    pub header_bytes: u64,
    pub header_crc: u64,
    /// The tensors, in the order of their offsets.
    pub tensors: Vec<TensorSum>,
    /// The CRC-64/NVME of the file.
    pub crc: u64,
}

/// The checksum of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorSum {
    pub name: Box<str>,
    /// The offset in the file.
    pub offset: u64,
    pub bytes: u64,
    pub crc: u64,
}

/// A part of a file that has a checksum: its header or one of its tensors.
pub(crate) struct PartSum<'a> {
    /// The name of the tensor; `None` for the header.
    pub tensor: Option<&'a str>,
    pub offset: u64,
    pub bytes: u64,
    pub crc: u64,
}

impl FileSums {
    /// The header and the tensors that have bytes in `range`, in the order of their offsets.
    pub(crate) fn parts_in(&self, range: Range<u64>) -> impl Iterator<Item = PartSum<'_>> {
        let (bytes, crc) = (self.header_bytes, self.header_crc);
        let header = PartSum { tensor: None, offset: 0, bytes, crc };
        let first = self.tensors.partition_point(|sum| sum.offset + sum.bytes <= range.start);
        let tensors = self.tensors[first..].iter().map(|TensorSum { name, offset, bytes, crc }| {
            PartSum { tensor: Some(name), offset: *offset, bytes: *bytes, crc: *crc }
        });
        let tensors = tensors.take_while(move |part| part.offset < range.end);
        let header = Some(header).filter(|header| range.start < header.bytes && range.end > 0);
        header.into_iter().chain(tensors.filter(|part| part.bytes > 0))
    }
}
