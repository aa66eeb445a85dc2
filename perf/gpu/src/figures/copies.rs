//! Copies from pinned memory to the GPU in chunks of many sizes, on two streams: from which size on a
//! copy is as fast as the largest, and so how small a slot may be.
//!
//! A load copies 8 MiB at a time. Smaller copies would let it do with a smaller ring, and a target that
//! is reached with them says so. Copies of a few KiB show what a copy costs by itself, which decides
//! from how many tensors of a slot on a kernel scatters them.

use super::{Part, size};
use crate::gpu::{Memory, Pinned, host_to_device_seconds};
use crate::record::Recorder;
use anyhow::Result;
use ringload_measure::stats::{Bound, ratios};

const CHUNKS: [usize; 9] =
    [4 << 10, 64 << 10, 256 << 10, 1 << 20, 2 << 20, 4 << 20, 8 << 20, 32 << 20, 128 << 20];
/// The chunk of a load.
const OF_LOADS: usize = 8 << 20;
/// Copies of the chunk of loads reach this part of the speed of the largest.
const LEAST: f64 = 0.95;
const PINNED_BYTES: usize = 256 << 20;
const COPIED_BYTES: usize = 2 << 30;
/// The most copies of a turn: of the smallest chunks, fewer bytes are copied.
const COPIES_MOST: usize = 4096;

pub fn measure(part: &Part<'_>, recorder: &mut Recorder) -> Result<()> {
    let bytes = part.args.buffer as usize;
    let pinned = PINNED_BYTES.min(bytes);
    let mut from = Pinned::new(part.gpu, pinned)?;
    from.bytes_mut().fill(0x5A);
    let to = Memory::new(part.gpu, COPIED_BYTES.min(bytes))?;
    let chunks: Vec<_> = CHUNKS.into_iter().filter(|chunk| *chunk <= pinned).collect();
    let mut speeds = vec![Vec::new(); chunks.len()];
    for _ in part.clock.take() {
        for (&chunk, speeds) in std::iter::zip(&chunks, &mut speeds) {
            let total = COPIED_BYTES.min(bytes).min(chunk * COPIES_MOST) / chunk * chunk;
            let seconds = host_to_device_seconds(&mut from, &to, chunk, total)?;
            speeds.push(total as f64 / seconds / 1e9);
        }
        for (&chunk, turns) in std::iter::zip(&chunks, &speeds) {
            let name = format!("copies of {} from pinned memory", size(chunk as u64));
            recorder.add(name.clone(), "GB/s", turns, None);
            let Some(largest) = speeds.last() else { continue };
            let target = (chunk == OF_LOADS).then_some((Bound::AtLeast, LEAST));
            recorder.add(format!("{name} / of the largest"), "", &ratios(turns, largest), target);
        }
    }
    Ok(())
}
