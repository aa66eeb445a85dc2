//! Kernels compared with copies within the GPU.
//!
//! Both sides count the bytes that they move, read and written together: a copy of n bytes moves
//! 2n, `crc64` of n bytes moves n, a cast of n bytes to half as many moves 1.5n. (Compared with the
//! copied bytes, each figure would be twice as large.) Times come from GPU events around several
//! launches in a row. The input is reused, which does not matter because it is larger than the
//! caches.

use super::Part;
use crate::gpu::{Batch, Kernel, Kernels, Memory, device_to_device_seconds};
use crate::record::Recorder;
use anyhow::Result;
use ringload_measure::stats::{Bound, ratios};

/// Copies or launches in a row.
const REPEATS: u32 = 8;
const LEAST: f64 = 0.5;

pub fn measure(part: &Part<'_>, recorder: &mut Recorder) -> Result<()> {
    let len = part.args.buffer as usize;
    let source = Memory::new(part.gpu, len)?;
    // A cast turns one byte into at most four.
    let target = Memory::new(part.gpu, 4 * len)?;
    let mut noise = vec![0; len];
    fastrand::Rng::with_seed(0).fill(&mut noise);
    source.write(0, &noise)?;
    drop(noise);
    let kernels = Kernels::load(part.gpu)?;
    let mut subjects = Vec::new();
    for kernel in Kernel::all() {
        let batch = Batch::new(&kernels, kernel, &source, &target, &kernel.pieces(len))?;
        subjects.push((kernel, batch, Vec::new()));
    }
    recorder.note(
        "kernels and copies within the GPU are counted by the bytes they move, read and written: \
         a copy of n bytes moves 2n, crc64 of n bytes n, a cast to half as many 1.5n",
    );
    let mut copies = Vec::new();
    for _ in part.clock.take() {
        let seconds = device_to_device_seconds(&source, &target, len, REPEATS)?;
        copies.push(2.0 * len as f64 / seconds / 1e9);
        for (kernel, batch, speeds) in &mut subjects {
            speeds.push(moved_bytes(*kernel, len) as f64 / batch.seconds(REPEATS)? / 1e9);
        }
        recorder.add("copy within the GPU, read and written", "GB/s", &copies, None);
        for (kernel, _, speeds) in &subjects {
            let name = kernel.name();
            recorder.add(format!("{name}, read and written"), "GB/s", speeds, None);
            let target = (!matches!(kernel, Kernel::Scatter)).then_some((Bound::AtLeast, LEAST));
            let ratio = ratios(speeds, &copies);
            recorder.add(format!("{name} / copy within the GPU"), "", &ratio, target);
        }
    }
    Ok(())
}

/// The bytes that a kernel reads and writes.
fn moved_bytes(kernel: Kernel, source_bytes: usize) -> usize {
    match kernel {
        Kernel::Crc64 => source_bytes, // and a few results
        _ => source_bytes + kernel.target_bytes(source_bytes / kernel.source_bytes(1)),
    }
}
