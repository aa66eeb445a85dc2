//! Checks that the tensors of a header fill its file, and says why they do not.

use super::dtype;
use super::json::HeaderEntry;
use super::text::{Quoted, Shape};
use crate::error::Size;

/// The error is a sentence that says why a shard is invalid; the caller prepends the location.
pub(super) type CheckResult<T> = std::result::Result<T, String>;

/// The reason why a header in which the tensor `name` occurs twice is invalid.
pub(super) fn occurs_twice(name: &str) -> String {
    format!("tensor {} occurs twice in the header", Quoted(name))
}

/// Checks that `tensors`, sorted by offset, fill `data_bytes` without hole or overlap.
pub(super) fn check_layout(tensors: &[HeaderEntry], data_bytes: u64) -> CheckResult<()> {
    let mut end_of_last = 0;
    for (i, entry) in tensors.iter().enumerate() {
        check_offsets(entry, i.checked_sub(1).map(|last| &tensors[last]))?;
        check_size(entry)?;
        end_of_last = entry.data_offsets[1];
    }
    if end_of_last > data_bytes {
        return Err(format!(
            "the file is truncated: the header describes {} of tensor data, the file has {}: {} \
             missing; was its download finished?",
            Size(end_of_last),
            Size(data_bytes),
            Size(end_of_last - data_bytes)
        ));
    }
    if end_of_last < data_bytes {
        return Err(format!(
            "the header describes {} of tensor data, the file has {}: {} too many",
            Size(end_of_last),
            Size(data_bytes),
            Size(data_bytes - end_of_last)
        ));
    }
    Ok(())
}

/// Checks that `entry` begins where the one before it ends.
fn check_offsets(entry: &HeaderEntry, before: Option<&HeaderEntry>) -> CheckResult<()> {
    let name = Quoted(&entry.name);
    let [begin, end] = entry.data_offsets;
    if end < begin {
        return Err(format!(
            "tensor {name} has data_offsets [{begin}, {end}], which end before they begin"
        ));
    }
    match before {
        None if begin == 0 => Ok(()),
        None => Err(format!(
            "tensor {name}, the first of the data, begins at byte {begin} instead of 0"
        )),
        Some(HeaderEntry { data_offsets: [_, expected], .. }) if begin == *expected => Ok(()),
        Some(HeaderEntry { name: before, data_offsets: [_, expected], .. }) => Err(format!(
            "tensor {name} begins at byte {begin} of the data, but tensor {} before it ends at \
             {expected}: {}",
            Quoted(before),
            if begin < *expected { "they overlap" } else { "there is a hole" }
        )),
    }
}

/// Checks that the length which follows from the shape and type of `entry` agrees with its offsets.
fn check_size(entry: &HeaderEntry) -> CheckResult<()> {
    let [begin, end] = entry.data_offsets;
    let of_shape = match dtype::len_bytes(entry.dtype, &entry.shape) {
        Ok(len_bytes) if len_bytes == end - begin => return Ok(()),
        Ok(len_bytes) => format!(
            "which is {}, but data_offsets [{begin}, {end}] give {}",
            Size(len_bytes),
            Size(end - begin)
        ),
        Err(dtype::SizeError::Overflow) => "whose size does not fit 64 bits".into(),
        Err(dtype::SizeError::PartOfByte(bits)) => {
            format!("which is {bits} bits, not a whole number of bytes")
        }
    };
    let (name, shape) = (Quoted(&entry.name), Shape(&entry.shape));
    Err(format!("tensor {name} has shape {shape} of {}, {of_shape}", entry.dtype))
}
