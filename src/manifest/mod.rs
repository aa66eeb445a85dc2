//! Manifests: the checksums of the files of a checkpoint and of their tensors.
//!
//! ```text
//! ringload sum:        Loader::sum --> Manifest --> JSON
//! load --manifest:     JSON --format--> Manifest --matching--> the sums of a checkpoint's tensors
//! ```
//!
//! A file of a manifest is divided into its header and its tensors, each with a CRC-64/NVME, so that
//! the tensors can be verified one by one. The CRC of the file follows from those of its parts.

mod document;
mod file_sums;
mod format;
mod matching;
mod names;

pub use document::Manifest;
pub(crate) use file_sums::{FileSums, PartSum, TensorSum};
pub(crate) use matching::CheckpointSums;
pub(crate) use names::common_names;

#[cfg(test)]
mod tests;
