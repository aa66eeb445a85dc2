//! What the sizes of a load depend on: its tensors, and the shares of a memory limit that they get.

use crate::error::{Error, ErrorKind, Result, Size};
use crate::options::MemoryLimit;

/// Small tensors for the host are gathered into extents of about this many bytes, and tensors for
/// GPUs that come over the network are cut into pieces of at most this many.
pub(super) const EXTENT_BYTES: u64 = 8 << 20;
/// Tensors for GPUs that come from files are cut into pieces of at most this many bytes. On one H200 with
/// 16 cores, copies of 2, 4 and 8 MiB reach 0.93, 0.965 and 0.98 times the speed of the longest, and 14
/// threads that copy from the page cache to the GPU through two slots each reach 47, 51 and 49 GB/s: longer
/// slots do not stay in the cores' caches until the GPU reads them.
pub(super) const FILE_PIECE_BYTES: u64 = 4 << 20;
/// The memory limits `min` are at least this much. With less, a checkpoint of tiny tensors would be
/// read one block at a time, for a saving that no process would notice.
pub(super) const LIMIT_BYTES_MIN: u64 = 1 << 20;
/// The size of the GPUs' ring without a limit, where tensors come over the network: a body fills its slot
/// slowly.
pub(super) const GPU_RING_BYTES: u64 = 256 << 20;
/// The same for files, of which 64 MiB in flight keep a disk busy. On the H200 above, pinning 64, 128, 256
/// and 512 MiB of fresh memory took 12, 26, 57 and 81 ms.
pub(super) const GPU_FILE_RING_BYTES: u64 = 128 << 20;
/// The size without a limit of the ring of pieces from which parts of tensors are gathered: eight pieces,
/// as much as a small load keeps in flight.
pub(super) const GATHER_RING_BYTES: u64 = 64 << 20;
/// The minimum size of pieces of tensors under a tight limit.
pub(super) const PIECE_BYTES_MIN: u64 = 64 << 10;

/// The tensors of a load, as far as its sizes depend on them. All in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TensorSizes {
    /// The largest tensor that stays in host memory, including the result of its cast.
    pub host_largest_bytes: u64,
    /// The part of [`host_largest_bytes`](Self::host_largest_bytes) that is the result of a cast.
    pub host_largest_cast_bytes: u64,
    /// All tensors that stay in host memory, including the results of casts.
    pub host_bytes: u64,
    /// All tensors that go to GPUs.
    pub device_bytes: u64,
    /// All parts of tensors that stay in host memory and are gathered.
    pub gathered_bytes: u64,
    /// The largest block of the sources.
    pub block_bytes: u64,
    /// Whether some of the tensors come over the network.
    pub is_remote: bool,
}

impl TensorSizes {
    /// The limit in bytes, or an error if it does not suffice.
    pub(super) fn limit_bytes(&self, limit: MemoryLimit) -> Result<Option<u64>> {
        let (largest, block) = (self.host_largest_bytes, self.block_bytes);
        let min_slots = self.two_slots(LIMIT_BYTES_MIN) + self.gather_slots(LIMIT_BYTES_MIN);
        match limit {
            MemoryLimit::Unlimited => Ok(None),
            MemoryLimit::Min | MemoryLimit::MinHoldingOne
                if self.host_bytes == 0 && self.device_bytes > 0 =>
            {
                Ok(Some(min_slots))
            }
            MemoryLimit::Min => Ok(Some(largest.max(LIMIT_BYTES_MIN) + min_slots)),
            MemoryLimit::MinHoldingOne => {
                // Of three slots, one is always free, wherever the tensor lies that the caller
                // holds.
                let slot = largest.max(LIMIT_BYTES_MIN) + 2 * block;
                Ok(Some(slot.saturating_mul(3).saturating_add(min_slots)))
            }
            MemoryLimit::Bytes(bytes) if bytes < self.least_bytes() => Err(self.too_small(bytes)),
            MemoryLimit::Bytes(bytes) => Ok(Some(bytes)),
        }
    }

    /// The smallest limit.
    pub(super) fn least_bytes(&self) -> u64 {
        self.host_largest_bytes
            + self.two_slots(PIECE_BYTES_MIN)
            + self.gather_slots(PIECE_BYTES_MIN)
    }

    /// The error for a limit of `bytes`.
    fn too_small(&self, bytes: u64) -> Error {
        let (largest, two_slots) = (self.host_largest_bytes, self.two_slots(PIECE_BYTES_MIN));
        let (least, cast) = (self.least_bytes(), self.host_largest_cast_bytes);
        let what = match (largest, two_slots) {
            (_, 0) if cast > 0 => format!(
                "the largest tensor, of {} as stored and {} as it is cast",
                Size(largest - cast),
                Size(cast)
            ),
            (_, 0) => format!("the largest tensor of {}", Size(largest)),
            (0, _) => format!("the two slots of together {} that a GPU needs", Size(two_slots)),
            _ => format!(
                "the largest tensor for host memory, of {}, and the two slots of together {} that \
                 a GPU needs",
                Size(largest),
                Size(two_slots)
            ),
        };
        let sentence = format!(
            "the memory limit of {} is smaller than {what}; set the limit to at least {}, or to \
             \"min\"",
            Size(bytes),
            Size(least)
        );
        Error::new(ErrorKind::MemoryLimit, sentence)
    }

    /// The share of a limit of `limit_bytes` for the ring of GPUs.
    pub(super) fn gpu_share_bytes(&self, limit: MemoryLimit, limit_bytes: Option<u64>) -> u64 {
        let least = self.two_slots(PIECE_BYTES_MIN);
        match limit_bytes {
            _ if self.device_bytes == 0 => 0,
            None => self.gpu_ring_bytes().max(least),
            Some(_) if matches!(limit, MemoryLimit::Min | MemoryLimit::MinHoldingOne) => {
                self.two_slots(LIMIT_BYTES_MIN)
            }
            Some(all) if self.host_bytes == 0 => all,
            Some(all) => {
                let most = all - self.host_largest_bytes;
                (all / 4).min(self.gpu_ring_bytes()).clamp(least, most)
            }
        }
    }

    /// The share of a limit of `limit_bytes` for the ring of gathered pieces.
    pub(super) fn gather_share_bytes(&self, limit: MemoryLimit, limit_bytes: Option<u64>) -> u64 {
        let least = self.gather_slots(PIECE_BYTES_MIN);
        match limit_bytes {
            _ if self.gathered_bytes == 0 => 0,
            None => GATHER_RING_BYTES.max(least),
            Some(_) if matches!(limit, MemoryLimit::Min | MemoryLimit::MinHoldingOne) => {
                self.gather_slots(LIMIT_BYTES_MIN)
            }
            Some(all) => {
                let most = all - self.host_largest_bytes - self.two_slots(PIECE_BYTES_MIN);
                (all / 4).min(GATHER_RING_BYTES).clamp(least, most.max(least))
            }
        }
    }

    /// The size of the GPUs' ring that no limit makes smaller.
    fn gpu_ring_bytes(&self) -> u64 {
        if self.is_remote { GPU_RING_BYTES } else { GPU_FILE_RING_BYTES }
    }

    /// The pieces of tensors for a GPU, for a ring of `ring_bytes`.
    pub(super) fn gpu_piece_bytes(&self, ring_bytes: u64) -> u64 {
        self.piece_bytes(ring_bytes, if self.is_remote { EXTENT_BYTES } else { FILE_PIECE_BYTES })
    }

    /// The pieces of tensors whose parts are gathered, for a ring of `ring_bytes`.
    pub(super) fn gather_piece_bytes(&self, ring_bytes: u64) -> u64 {
        self.piece_bytes(ring_bytes, EXTENT_BYTES)
    }

    /// Pieces of at most `most_bytes` for a ring of `ring_bytes`.
    fn piece_bytes(&self, ring_bytes: u64, most_bytes: u64) -> u64 {
        let block = self.block_bytes.max(1);
        let two_fit = (ring_bytes / 2).saturating_sub(2 * block);
        let most = most_bytes.min(two_fit).max(PIECE_BYTES_MIN);
        let bytes = (ring_bytes / 8).clamp(PIECE_BYTES_MIN, most);
        (bytes / block * block).max(block)
    }

    /// The bytes of two slots for pieces of this many bytes; 0 if no tensor goes to a GPU.
    fn two_slots(&self, piece_bytes: u64) -> u64 {
        if self.device_bytes == 0 { 0 } else { self.slots_of(piece_bytes) }
    }

    /// As [`two_slots`](Self::two_slots), for pieces from which parts are gathered.
    fn gather_slots(&self, piece_bytes: u64) -> u64 {
        if self.gathered_bytes == 0 { 0 } else { self.slots_of(piece_bytes) }
    }

    fn slots_of(&self, piece_bytes: u64) -> u64 {
        2 * (piece_bytes.max(self.block_bytes) + 2 * self.block_bytes)
    }
}
