//! Which tensors are packed: read together with those near them, and copied next to each other.
//!
//! ```text
//! file:          | ##.... | ##.... | ##.... |      an extent: one read, with the gaps
//!                  \/       \/       \/
//! host's ring:     ## ## ##                        the slot that the tensors keep; the other is free again
//! ```
//!
//! This is for short slices, of which each would be a read of its own. A gap is read along where that costs
//! less than another read does:
//!
//! - **Files.** A direct read takes a processor 33 microseconds, in which a disk of 2 GB/s reads 64 KiB. Two
//!   engines make two reads in this time, so gaps have at most half of that: with gaps of 32 KiB between
//!   slices of 32 KiB both ways took 1.0 s, with 64 KiB separate reads took 0.6 s instead of 0.7 s. Ranks share
//!   a disk and not their processors. So that they do not wait for what each of them reads and drops, what is
//!   read together is at most twice what reads of each slice would have read, in whole blocks. 4 ranks at once
//!   took 1.3 s for 40,000 slices of 4 KiB each with gaps of 12 KiB, which are within this, and 3.8 s with
//!   separate reads; for 20,000 of 16 KiB and gaps of 48 KiB, which are not, 3.0 s and 2.2 s. (Medians of 3,
//!   direct reads, 2 cores.)
//! - **Stores.** A request takes as long as 1 MiB does ([`parts`](super::parts)). The 8 ranks of a host share
//!   its network, so gaps have at most an eighth of that. 20,000 slices of 8 KiB with gaps of 24 KiB took 29 s
//!   with a request for each, and 0.8 s together, from a store that answers after 20 ms.
//!
//! On a GPU there is nothing to pack: slots pass through the ring with their gaps, and are copied from there
//! tensor by tensor.

use crate::source::Source;

/// Tensors and parts of up to this many bytes, with the gaps within them, are packed. The copy takes about
/// 15 microseconds, less than another read.
const SHORT_BYTES: u64 = 64 << 10;
/// The longest gap before one of them that is read along with it; see the head of the module.
const GAP_BYTES: u64 = 32 << 10;
const GAP_BYTES_REMOTE: u64 = 128 << 10;
/// Where tensors begin that are packed: at multiples of this.
const ALIGNMENT_BYTES: u64 = 64;

/// Whether a range of this many bytes is packed with others.
pub(super) fn is_short(bytes: u64) -> bool {
    (1..=SHORT_BYTES).contains(&bytes)
}

/// The longest gap before a short range of `bytes` bytes of `source` that is read along with it. A read of
/// the range alone reads `alone_bytes`, as it reads whole blocks.
pub(super) fn gap_bytes(source: &dyn Source, bytes: u64, alone_bytes: u64) -> u64 {
    match source.is_remote() {
        true => GAP_BYTES_REMOTE,
        false => GAP_BYTES.min(2 * alone_bytes - bytes),
    }
}

/// Where a tensor begins that is packed after `bytes` bytes of others.
pub(crate) fn packed_start(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGNMENT_BYTES)
}

/// The bytes of memory that tensors with these many `bytes` take as they are packed.
pub(super) fn packed_bytes(bytes: impl IntoIterator<Item = u64>) -> u64 {
    bytes.into_iter().fold(0, |before, bytes| packed_start(before) + bytes)
}
