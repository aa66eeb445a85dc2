//! Copies from pinned memory to the GPU in chunks of many sizes, on two streams: from which size on a
//! copy is as fast as the largest, and so how small a slot may be.
//!
//! A load copies 8 MiB at a time. Where smaller copies are as fast, a smaller ring suffices.
//!
//! Then copies right after memory of the GPU was freed, which the driver clears in the background. A load
//! that takes the place of another model begins like that.
//!
//! Then a slot that holds many small tensors: a copy for each, or one copy to a staging buffer and a
//! kernel that scatters them. A load takes single copies for up to 8 of them; the two are as fast as each
//! other where that number should be.

use super::{Part, each, size};
use crate::gpu::{
    Batch, Kernel, Kernels, Memory, Piece, Pinned, host_to_device_seconds, single_copies_seconds,
    staged_copy_seconds,
};
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

/// What is freed, and the copies that follow.
const FREED_BYTES: usize = 8 << 30;
const AFTER_BYTES: usize = 512 << 20;

/// How many tensors a slot holds.
const PIECES: [usize; 6] = [2, 4, 8, 16, 64, 1024];
const PIECE_BYTES_LEAST: usize = 8 << 10;
/// The alignment of tensors.
const ALIGNMENT_BYTES: usize = 256;
/// Transfers of a slot in a row.
const REPEATS: u32 = 8;

pub fn measure(part: &Part<'_>, recorder: &mut Recorder) -> Result<()> {
    let bytes = part.args.buffer as usize;
    let mut from = Pinned::new(part.gpu, PINNED_BYTES.min(bytes))?;
    from.bytes_mut().fill(0x5A);
    let to = Memory::new(part.gpu, COPIED_BYTES.min(bytes))?;
    let mut chunks = Chunks::new(PINNED_BYTES.min(bytes));
    let kernels = Kernels::load(part.gpu)?;
    let slot = OF_LOADS.min(bytes);
    let staging = Memory::new(part.gpu, slot)?;
    let scattered = Memory::new(part.gpu, slot + PIECES[PIECES.len() - 1] * ALIGNMENT_BYTES)?;
    let mut slots = Vec::new();
    for count in PIECES.into_iter().filter(|count| slot / count >= PIECE_BYTES_LEAST) {
        slots.push(Slot::new(&kernels, &staging, &scattered, count, slot)?);
    }
    let mut after = AfterFreeing::default();
    for _ in part.clock.take() {
        after.take(part, &mut from, &to)?;
        after.record(recorder, AFTER_BYTES.min(bytes));
        chunks.take(&mut from, &to, COPIED_BYTES.min(bytes))?;
        chunks.record(recorder);
        for slot in &mut slots {
            slot.take(&mut from, &staging, &scattered)?;
            slot.record(recorder);
        }
    }
    Ok(())
}

/// The speeds of copies, by the length of a copy.
struct Chunks(Vec<(usize, Vec<f64>)>);

impl Chunks {
    fn new(most: usize) -> Self {
        let fitting = CHUNKS.into_iter().filter(|chunk| *chunk <= most);
        Self(fitting.map(|chunk| (chunk, Vec::new())).collect())
    }

    fn take(&mut self, from: &mut Pinned<'_>, to: &Memory<'_>, bytes: usize) -> Result<()> {
        for (chunk, speeds) in &mut self.0 {
            let total = bytes.min(*chunk * COPIES_MOST) / *chunk * *chunk;
            let seconds = host_to_device_seconds(from, to, *chunk, total)?;
            speeds.push(total as f64 / seconds / 1e9);
        }
        Ok(())
    }

    fn record(&self, recorder: &mut Recorder) {
        let Some((_, largest)) = self.0.last() else { return };
        for (chunk, speeds) in &self.0 {
            let name = format!("copies of {} from pinned memory", size(*chunk as u64));
            recorder.add(name.clone(), "GB/s", speeds, None);
            let target = (*chunk == OF_LOADS).then_some((Bound::AtLeast, LEAST));
            recorder.add(format!("{name} / of the largest"), "", &ratios(speeds, largest), target);
        }
    }
}

/// The speeds of copies right after memory was freed, and of the same when the GPU has settled.
#[derive(Default)]
struct AfterFreeing {
    at_once: Vec<f64>,
    settled: Vec<f64>,
}

impl AfterFreeing {
    fn take(&mut self, part: &Part<'_>, from: &mut Pinned<'_>, to: &Memory<'_>) -> Result<()> {
        let buffer = part.args.buffer as usize;
        let (chunk, bytes) = (OF_LOADS.min(buffer), AFTER_BYTES.min(buffer));
        let freed = FREED_BYTES.min(4 * buffer);
        let mut speed = || -> Result<f64> {
            Ok(bytes as f64 / host_to_device_seconds(from, to, chunk, bytes)? / 1e9)
        };
        drop(Memory::new(part.gpu, freed)?);
        self.at_once.push(speed()?);
        part.args.settle(freed as u64);
        self.settled.push(speed()?);
        Ok(())
    }

    fn record(&self, recorder: &mut Recorder, bytes: usize) {
        let name =
            format!("copies of {} right after memory of the GPU was freed", size(bytes as u64));
        recorder.add(name.clone(), "GB/s", &self.at_once, None);
        let of_settled = ratios(&self.at_once, &self.settled);
        recorder.add(format!("{name} / later"), "", &of_settled, None);
    }
}

/// A slot of some tensors, and the times of both ways.
struct Slot<'a> {
    bytes: usize,
    pieces: Vec<Piece>,
    scatter: Batch<'a>,
    single: Vec<f64>,
    staged: Vec<f64>,
}

impl<'a> Slot<'a> {
    fn new(
        kernels: &'a Kernels<'a>,
        staging: &'a Memory<'a>,
        scattered: &'a Memory<'a>,
        count: usize,
        bytes: usize,
    ) -> Result<Self> {
        let length = bytes / count;
        // Tensors end anywhere, and the next one begins at a multiple of the alignment.
        let piece = |index: usize| Piece {
            source: index * length,
            target: index * (length.next_multiple_of(ALIGNMENT_BYTES)),
            length: length - 1,
        };
        let pieces: Vec<_> = (0..count).map(piece).collect();
        // The kernel takes shorter pieces.
        let longest = Kernel::Scatter.longest_piece();
        let parts = pieces.iter().flat_map(|piece| {
            (0..piece.length).step_by(longest).map(|start| Piece {
                source: piece.source + start,
                target: piece.target + start,
                length: longest.min(piece.length - start),
            })
        });
        let parts: Vec<_> = parts.collect();
        let scatter = Batch::new(kernels, Kernel::Scatter, staging, scattered, &parts)?;
        Ok(Self { bytes, pieces, scatter, single: Vec::new(), staged: Vec::new() })
    }

    fn take(
        &mut self,
        from: &mut Pinned<'_>,
        staging: &Memory<'_>,
        scattered: &Memory<'_>,
    ) -> Result<()> {
        self.single.push(single_copies_seconds(from, scattered, &self.pieces, REPEATS)?);
        let staged = staged_copy_seconds(from, staging, &self.scatter, self.bytes, REPEATS)?;
        self.staged.push(staged);
        Ok(())
    }

    fn record(&self, recorder: &mut Recorder) {
        let name = format!("{} in {} tensors", size(self.bytes as u64), self.pieces.len());
        let micros = |seconds: &[f64]| each(seconds, |seconds| seconds * 1e6);
        recorder.add(format!("{name}: single copies"), "us", &micros(&self.single), None);
        recorder.add(format!("{name}: one copy and a kernel"), "us", &micros(&self.staged), None);
        let ratio = ratios(&self.staged, &self.single);
        recorder.add(format!("{name}: one copy and a kernel / single copies"), "", &ratio, None);
    }
}
