//! What a directory of a store is listed as.

/// The depth to which a directory is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListDepth {
    /// The objects directly in the directory.
    Directory,
    /// All objects below the directory.
    Tree,
}

/// An object in a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ListEntry {
    /// The name relative to the listed directory.
    pub name: String,
    pub len_bytes: u64,
}
