//! The memory limit made concrete: how large the ring is, and how large extents and reads may be.
//!
//! A limit bounds tensor memory. Direct reads work in whole blocks, so an extent's slot is up to two
//! blocks longer than its bytes; the ring is allowed that much more so that a
//! limit equal to the largest tensor is enough. Everything else that a load allocates (headers,
//! names, stacks, queues) is outside the ring and does not grow with the tensors' bytes.

use crate::error::{Error, ErrorKind, Result};
use crate::options::MemoryLimit;

/// Small tensors are gathered into extents of about this many bytes.
const EXTENT_BYTES: u64 = 8 << 20;

/// `min` is at least this much: with less, a checkpoint of tiny tensors would be read a block at a
/// time, for a saving that no process could notice.
const MIN_BYTES: u64 = 1 << 20;

/// The limits of one load, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The limit in force; `None` without one.
    pub limit_bytes: Option<u64>,
    /// Tensors are gathered into one extent while they fit into this.
    pub extent_bytes: u64,
}

impl Budget {
    /// The budget for a load of `total_bytes` of tensors, the largest of `largest_bytes`.
    ///
    /// # Errors
    /// [`ErrorKind::MemoryLimit`] with both sizes when the largest tensor exceeds the limit.
    pub fn new(limit: MemoryLimit, largest_bytes: u64, total_bytes: u64) -> Result<Self> {
        let limit_bytes = match limit {
            MemoryLimit::Unlimited => None,
            MemoryLimit::Min => Some(largest_bytes.max(MIN_BYTES)),
            MemoryLimit::Bytes(bytes) if bytes < largest_bytes => {
                return Err(Error::new(
                    ErrorKind::MemoryLimit,
                    format!(
                        "the memory limit of {bytes} bytes is smaller than the largest tensor of \
                         {largest_bytes} bytes; set the limit to at least {largest_bytes}, or to \"min\""
                    ),
                ));
            }
            MemoryLimit::Bytes(bytes) => Some(bytes),
        };
        // A quarter of a tight limit, so that extents are read while others are in use.
        let extent_bytes = match limit_bytes {
            Some(limit) if limit < total_bytes => EXTENT_BYTES.min((limit / 4).max(1)),
            _ => EXTENT_BYTES,
        };
        Ok(Self { limit_bytes, extent_bytes })
    }

    /// The ring's capacity for extents whose slots sum up to `slots_bytes`, the largest of
    /// `largest_slot_bytes`: never more than the load needs, never less than one slot.
    pub fn ring_bytes(&self, slots_bytes: u64, largest_slot_bytes: u64) -> u64 {
        match self.limit_bytes {
            None => slots_bytes,
            Some(limit) => slots_bytes.min(limit.max(largest_slot_bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_below_the_largest_tensor_names_both_sizes() {
        let error = Budget::new(MemoryLimit::Bytes(99), 100, 1000).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MemoryLimit);
        let text = error.to_string();
        assert!(text.contains("99 bytes") && text.contains("100 bytes"), "{text}");
    }

    #[test]
    fn the_ring_never_exceeds_load_or_limit_by_more_than_one_slot_s_blocks() {
        let budget = Budget::new(MemoryLimit::Min, 1 << 20, 1 << 30).unwrap();
        let slot = (1 << 20) + 2 * 4096;
        assert_eq!(budget.ring_bytes(1 << 30, slot), slot);
        assert_eq!(budget.ring_bytes(slot, slot), slot);
        let roomy = Budget::new(MemoryLimit::Bytes(1 << 30), 10, 1000).unwrap();
        assert_eq!(roomy.ring_bytes(8192, 8192), 8192);
    }
}
