//! The shard of a checkpoint whose tensors are described by the caller: its source has no header.

use super::dtype;
use super::header::Header;
use super::shard::Shard;
use super::tensor_info::TensorInfos;
use super::tensor_table::{HashedTensors, NameKeys};
use super::text::Quoted;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::source::Source;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A tensor, as the caller describes it.
#[derive(Debug, Clone)]
pub struct DescribedTensor {
    /// The name, which no other tensor has.
    pub name: String,
    /// The element type.
    pub dtype: Dtype,
    /// The dimensions, slowest-varying first.
    pub shape: Vec<usize>,
    /// Where the tensor begins in the source, in bytes.
    pub offset_bytes: u64,
}

/// The only shard of a checkpoint of `tensors`, which are in the order of their offsets.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) if tensors overlap, exceed the source or have no
/// size in bytes.
pub(super) fn described(
    source: Arc<dyn Source>,
    tensors: &[DescribedTensor],
    keys: &NameKeys,
) -> Result<Header> {
    let mut infos = TensorInfos::with_capacity(tensors.len());
    let mut end_of_last = 0;
    for tensor in tensors {
        let DescribedTensor { name, dtype, shape, offset_bytes } = tensor;
        let len_bytes = dtype::len_bytes(*dtype, shape).ok();
        let end = len_bytes.and_then(|len| offset_bytes.checked_add(len));
        let (Some(len_bytes), Some(end)) = (len_bytes, end.filter(|&it| it <= source.len_bytes()))
        else {
            return Err(invalid(name, "does not lie within the memory"));
        };
        if *offset_bytes < end_of_last {
            return Err(invalid(name, "begins before the end of the tensor before it"));
        }
        end_of_last = end;
        infos.add(name, *dtype, shape, [*offset_bytes, len_bytes]);
    }
    let tensors = vec![HashedTensors::new(infos.of_shard(0), keys)];
    let metadata = BTreeMap::new();
    let shard = Shard { source, data_offset_bytes: 0, header_crc: 0, tensors: 0..0, metadata };
    Ok(Header { shard, tensors })
}

fn invalid(name: &str, why: &str) -> Error {
    Error::invalid_input(format!("tensor {} {why}", Quoted(name)))
}
