//! The identity of a local file, its open descriptors, and the number of its reads at a time.

mod cold_reads;
mod identity;
mod mapped;
mod open;

pub(crate) use cold_reads::ColdReads;
pub(super) use identity::FileIdentity;
pub(crate) use mapped::{MappedFile, WeakMappedFile};
pub use open::DirectFile;
pub(super) use open::{OpenFile, SAFETENSORS};
