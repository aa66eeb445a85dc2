//! Local files: which file it is, and its open descriptors.

mod identity;
mod open;

pub(super) use identity::FileIdentity;
pub use open::DirectFile;
pub(super) use open::{OpenFile, open_regular};
