//! The memory limit made concrete: how large rings are, and how large extents and reads may be.
//!
//! A limit bounds tensor memory. Direct reads work in whole blocks, so an extent's slot is up to two
//! blocks longer than its bytes; the host's ring is allowed that much more so that a limit equal to
//! the largest tensor is enough. Everything else that a load allocates (headers, names, stacks,
//! queues) is outside the ring and does not grow with the tensors' bytes.
//!
//! A tensor that is cast is in the ring twice for a moment, as stored and as it is cast, so both count;
//! then what it was read into is free again.
//!
//! Tensors of the host live in their ring, so it must hold the largest one. Those of GPUs pass
//! through theirs in pieces: two slots are enough for any tensor, and without a limit a ring of
//! [`GPU_RING_BYTES`] keeps a GPU busy; pinning more takes longer than it saves.

use crate::error::{Error, ErrorKind, Result};
use crate::options::MemoryLimit;

/// Small tensors are gathered into extents of about this many bytes, large ones on their way to a
/// GPU cut into them.
const EXTENT_BYTES: u64 = 8 << 20;

/// `min` is at least this much: with less, a checkpoint of tiny tensors would be read a block at a
/// time, for a saving that no process could notice.
const MIN_BYTES: u64 = 1 << 20;

/// The ring for GPUs where there is no limit. Pinning 512 MiB was measured at 0.5 s elsewhere.
pub const GPU_RING_BYTES: u64 = 256 << 20;

/// Tensors are not cut into smaller pieces than this to suit a tight limit.
const PIECE_BYTES_MIN: u64 = 64 << 10;

/// What is to be loaded: what the limits depend on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// The largest tensor that stays in host memory, with its result if it is cast.
    pub host_largest_bytes: u64,
    /// How many of those are its result.
    pub host_largest_cast_bytes: u64,
    /// All tensors that stay there, with their results.
    pub host_bytes: u64,
    /// All tensors that go to GPUs.
    pub device_bytes: u64,
    /// The largest block of the sources.
    pub block_bytes: u64,
}

/// The limits of one load, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The limit in force; `None` without one.
    pub limit_bytes: Option<u64>,
    /// The part of it for tensors that stay in host memory.
    pub host_limit_bytes: Option<u64>,
    /// Tensors for the host are gathered into one extent while they fit into this.
    pub extent_bytes: u64,
    /// The largest that the ring for GPUs may be.
    pub gpu_ring_bytes: u64,
    /// Tensors for GPUs are cut at multiples of this.
    pub piece_bytes: u64,
}

impl Budget {
    /// The budget for a load with these needs.
    ///
    /// # Errors
    /// [`ErrorKind::MemoryLimit`] with both sizes when the limit is below the largest tensor of the
    /// host and, where there is a GPU, two slots.
    pub fn new(limit: MemoryLimit, needs: Needs) -> Result<Self> {
        let limit_bytes = needs.limit_bytes(limit)?;
        let gpu_ring_bytes = needs.gpu_ring_bytes(limit, limit_bytes);
        let host_limit_bytes = limit_bytes.map(|limit| limit.saturating_sub(gpu_ring_bytes));
        // A quarter of a tight limit, so that extents are read while others are in use.
        let extent_bytes = match host_limit_bytes {
            Some(limit) if limit < needs.host_bytes => EXTENT_BYTES.min((limit / 4).max(1)),
            _ => EXTENT_BYTES,
        };
        let piece_bytes = needs.piece_bytes(gpu_ring_bytes);
        Ok(Self { limit_bytes, host_limit_bytes, extent_bytes, gpu_ring_bytes, piece_bytes })
    }

    /// The capacity of the host's ring for extents whose slots sum up to `slots_bytes`, the largest
    /// of `largest_slot_bytes`: never more than the load needs, never less than one slot.
    pub fn ring_bytes(&self, slots_bytes: u64, largest_slot_bytes: u64) -> u64 {
        match self.host_limit_bytes {
            None => slots_bytes,
            Some(limit) => slots_bytes.min(limit.max(largest_slot_bytes)),
        }
    }
}

impl Needs {
    /// The limit in bytes, if it is enough.
    fn limit_bytes(&self, limit: MemoryLimit) -> Result<Option<u64>> {
        let (largest, two_slots) = (self.host_largest_bytes, self.two_slots(PIECE_BYTES_MIN));
        let least = largest + two_slots;
        match limit {
            MemoryLimit::Unlimited => Ok(None),
            MemoryLimit::Min | MemoryLimit::MinHoldingOne
                if self.host_bytes == 0 && two_slots > 0 =>
            {
                Ok(Some(self.two_slots(MIN_BYTES)))
            }
            MemoryLimit::Min => Ok(Some(largest.max(MIN_BYTES) + self.two_slots(MIN_BYTES))),
            MemoryLimit::MinHoldingOne => {
                // Slots are up to two blocks longer than what is in them.
                let slot = largest.max(MIN_BYTES) + 2 * self.block_bytes;
                Ok(Some(slot.saturating_mul(3).saturating_add(self.two_slots(MIN_BYTES))))
            }
            MemoryLimit::Bytes(bytes) if bytes < least => {
                let cast = self.host_largest_cast_bytes;
                let what = match (largest, two_slots) {
                    (_, 0) if cast > 0 => format!(
                        "the largest tensor, of {} bytes as stored and {cast} bytes as it is cast",
                        largest - cast
                    ),
                    (_, 0) => format!("the largest tensor of {largest} bytes"),
                    (0, _) => {
                        format!("the two slots of together {two_slots} bytes that a GPU needs")
                    }
                    _ => format!(
                        "the largest tensor for host memory, of {largest} bytes, and the two slots \
                         of together {two_slots} bytes that a GPU needs"
                    ),
                };
                Err(Error::new(
                    ErrorKind::MemoryLimit,
                    format!(
                        "the memory limit of {bytes} bytes is smaller than {what}; set the limit to \
                         at least {least}, or to \"min\""
                    ),
                ))
            }
            MemoryLimit::Bytes(bytes) => Ok(Some(bytes)),
        }
    }

    /// The GPUs' part of a limit of `limit_bytes`.
    fn gpu_ring_bytes(&self, limit: MemoryLimit, limit_bytes: Option<u64>) -> u64 {
        let least = self.two_slots(PIECE_BYTES_MIN);
        match limit_bytes {
            _ if self.device_bytes == 0 => 0,
            None => GPU_RING_BYTES.max(least),
            Some(_) if matches!(limit, MemoryLimit::Min | MemoryLimit::MinHoldingOne) => {
                self.two_slots(MIN_BYTES)
            }
            Some(all) if self.host_bytes == 0 => all,
            Some(all) => {
                let most = all - self.host_largest_bytes;
                (all / 4).min(GPU_RING_BYTES).clamp(least, most)
            }
        }
    }

    /// Pieces of which eight fill a ring of `ring_bytes`, or two where it is small.
    fn piece_bytes(&self, ring_bytes: u64) -> u64 {
        let block = self.block_bytes.max(1);
        let two_fit = (ring_bytes / 2).saturating_sub(2 * block);
        let most = EXTENT_BYTES.min(two_fit).max(PIECE_BYTES_MIN);
        let bytes = (ring_bytes / 8).clamp(PIECE_BYTES_MIN, most);
        (bytes / block * block).max(block)
    }

    /// Two slots of pieces of so many bytes; 0 where nothing goes to a GPU.
    fn two_slots(&self, piece_bytes: u64) -> u64 {
        if self.device_bytes == 0 {
            0
        } else {
            2 * (piece_bytes.max(self.block_bytes) + 2 * self.block_bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(largest: u64, total: u64) -> Needs {
        Needs {
            host_largest_bytes: largest,
            host_bytes: total,
            block_bytes: 4096,
            ..Needs::default()
        }
    }

    fn gpu(total: u64) -> Needs {
        Needs { device_bytes: total, ..host(0, 0) }
    }

    #[test]
    fn a_limit_below_the_largest_tensor_names_both_sizes() {
        let error = Budget::new(MemoryLimit::Bytes(99), host(100, 1000)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MemoryLimit);
        let text = error.to_string();
        assert!(text.contains("99 bytes") && text.contains("100 bytes"), "{text}");
    }

    #[test]
    fn a_limit_below_the_largest_tensor_and_its_cast_names_all_sizes() {
        let needs = Needs { host_largest_cast_bytes: 50, ..host(150, 1000) };
        let text = Budget::new(MemoryLimit::Bytes(149), needs).unwrap_err().to_string();
        for size in ["149 bytes", "100 bytes as stored", "50 bytes as it is cast", "least 150"] {
            assert!(text.contains(size), "{text}");
        }
    }

    #[test]
    fn the_ring_never_exceeds_load_or_limit_by_more_than_one_slot_s_blocks() {
        let budget = Budget::new(MemoryLimit::Min, host(1 << 20, 1 << 30)).unwrap();
        let slot = (1 << 20) + 2 * 4096;
        assert_eq!(budget.ring_bytes(1 << 30, slot), slot);
        assert_eq!(budget.ring_bytes(slot, slot), slot);
        let roomy = Budget::new(MemoryLimit::Bytes(1 << 30), host(10, 1000)).unwrap();
        assert_eq!(roomy.ring_bytes(8192, 8192), 8192);
    }

    #[test]
    fn for_a_gpu_two_slots_are_enough_and_less_is_an_error() {
        let least = 2 * ((64 << 10) + 2 * 4096);
        for limit in [least, least + 1, 1 << 20, 7 << 20, 64 << 20, 1 << 30, 1 << 40] {
            let budget = Budget::new(MemoryLimit::Bytes(limit), gpu(1 << 40)).unwrap();
            assert_eq!(budget.gpu_ring_bytes, limit);
            assert_eq!(budget.piece_bytes % 4096, 0);
            assert!((64 << 10..=8 << 20).contains(&budget.piece_bytes), "{budget:?}");
            assert!(2 * (budget.piece_bytes + 2 * 4096) <= limit, "{budget:?}");
        }
        let error = Budget::new(MemoryLimit::Bytes(least - 1), gpu(1)).unwrap_err().to_string();
        assert!(error.contains(&format!("{} bytes", least - 1)), "{error}");
        assert!(error.contains(&format!("at least {least}")), "{error}");
        let unlimited = Budget::new(MemoryLimit::Unlimited, gpu(1 << 40)).unwrap();
        assert_eq!((unlimited.gpu_ring_bytes, unlimited.limit_bytes), (GPU_RING_BYTES, None));
        let min = Budget::new(MemoryLimit::Min, gpu(1 << 40)).unwrap();
        assert_eq!(min.limit_bytes, Some(min.gpu_ring_bytes));
        assert!(min.gpu_ring_bytes < 3 << 20);
    }

    #[test]
    fn whoever_holds_one_tensor_has_room_for_the_next_wherever_that_one_lies() {
        let needs = host(5 << 20, 1 << 30);
        let limit = Budget::new(MemoryLimit::MinHoldingOne, needs).unwrap().limit_bytes.unwrap();
        let slot = (5 << 20) + 2 * 4096;
        // The worst place is the middle.
        assert!((limit - slot) / 2 >= slot && limit < 16 << 20, "{limit}");
        let gpus = Budget::new(MemoryLimit::MinHoldingOne, gpu(1 << 40)).unwrap();
        assert_eq!(gpus, Budget::new(MemoryLimit::Min, gpu(1 << 40)).unwrap());
    }

    #[test]
    fn host_and_gpu_share_a_limit() {
        for (largest, limit) in
            [(1 << 20, 2 << 20), (1 << 30, (1 << 30) + (147 << 10)), (10, 1 << 34)]
        {
            let needs = Needs { device_bytes: 1 << 34, ..host(largest, 1 << 34) };
            let budget = Budget::new(MemoryLimit::Bytes(limit), needs).unwrap();
            let host_part = budget.host_limit_bytes.unwrap();
            assert_eq!(host_part + budget.gpu_ring_bytes, limit);
            assert!(host_part >= largest && budget.gpu_ring_bytes >= 2 * (72 << 10), "{budget:?}");
        }
    }
}
