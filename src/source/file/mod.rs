//! The identity of a local file, and its open descriptors.

mod identity;
mod open;

pub(super) use identity::FileIdentity;
pub use open::DirectFile;
pub(super) use open::{OpenFile, SAFETENSORS};
