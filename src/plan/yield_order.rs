//! The order in which a load yields its tensors, as its caller names it.

use std::sync::Arc;

/// The order in which tensors are yielded.
#[derive(Debug, Clone)]
pub struct YieldOrder {
    /// The names of tensors. The others follow in the order of the checkpoint.
    pub names: Arc<[String]>,
    /// Whether files have to be read from front to back.
    pub reads_in_file_order: bool,
}
