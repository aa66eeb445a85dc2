//! Looking at a cache, and tidying it: what `ringload cache` does.

/// An entry.
#[derive(Debug)]
pub struct CacheEntry;
/// x
#[derive(Debug)]
pub struct Checked;
/// x
#[derive(Debug)]
pub struct Pruned;
