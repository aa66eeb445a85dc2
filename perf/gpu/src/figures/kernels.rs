//! Kernels compared with copies within the GPU.
//!
//! Both sides count the bytes that they move, read and written together: a copy of n bytes moves
//! 2n, `crc64` of n bytes moves n, a cast of n bytes to half as many moves 1.5n. (Compared with the
//! copied bytes, each figure would be twice as large.) Times come from GPU events around several
//! launches in a row. The input is reused, which does not matter because it is larger than the
//! caches.

use super::Part;
use crate::gpu::{Batch, Kernel, Kernels, Memory, Piece, device_to_device_seconds};
use crate::report::Report;
use anyhow::Result;
use ringload_measure::stats::{Bound, ratios};

/// Copies or launches in a row.
const REPEATS: u32 = 8;
const LEAST: f64 = 0.5;
/// The number of random bytes that are written at a time.
const NOISE_BYTES: usize = 64 << 20;

/// A kernel that processes the whole buffer.
struct Subject<'a> {
    name: String,
    batch: Batch<'a>,
    moved_bytes: usize,
    judged: bool,
    speeds: Vec<f64>,
}

pub fn measure(part: &Part<'_>, report: &mut Report) -> Result<()> {
    let len = part.args.buffer as usize;
    let source = Memory::new(part.gpu, len)?;
    // A cast turns one byte into at most four.
    let target = Memory::new(part.gpu, 4 * len)?;
    fill_with_noise(&source)?;
    let kernels = Kernels::load(part.gpu)?;
    let mut subjects = Vec::new();
    for kernel in
        [Kernel::Crc64, Kernel::Scatter].into_iter().chain(Kernel::casts().map(Kernel::Cast))
    {
        subjects.push(subject(&kernels, kernel, &source, &target)?);
    }
    let mut copies = Vec::new();
    for _ in part.clock.take() {
        let seconds = device_to_device_seconds(&source, &target, len, REPEATS)?;
        copies.push(2.0 * len as f64 / seconds / 1e9);
        for subject in &mut subjects {
            let seconds = subject.batch.seconds(REPEATS)?;
            subject.speeds.push(subject.moved_bytes as f64 / seconds / 1e9);
        }
    }
    report.explain("copy within the GPU, read and written", "GB/s", &copies);
    report.notes.push(
        "kernels and copies within the GPU are counted by the bytes they move, read and written: \
         a copy of n bytes moves 2n, crc64 of n bytes n, a cast to half as many 1.5n"
            .into(),
    );
    for Subject { name, speeds, judged, .. } in &subjects {
        report.explain(format!("{name}, read and written"), "GB/s", speeds);
        let (ratio, name) = (ratios(speeds, &copies), format!("{name} / copy within the GPU"));
        match judged {
            true => report.judge(name, "", &ratio, (Bound::AtLeast, LEAST)),
            false => report.explain(name, "", &ratio),
        }
    }
    Ok(())
}

fn fill_with_noise(memory: &Memory<'_>) -> Result<()> {
    let mut noise = vec![0; NOISE_BYTES.min(memory.len())];
    fastrand::Rng::with_seed(0).fill(&mut noise);
    for offset in (0..memory.len()).step_by(noise.len()) {
        memory.write(offset, &noise[..noise.len().min(memory.len() - offset)])?;
    }
    Ok(())
}

/// `kernel` with pieces of the greatest length, over all of `source`.
fn subject<'a>(
    kernels: &'a Kernels<'a>,
    kernel: Kernel,
    source: &'a Memory<'a>,
    target: &'a Memory<'a>,
) -> Result<Subject<'a>> {
    let elements = source.len() / kernel.source_bytes(1);
    let longest = kernel.longest_piece();
    let piece = |(index, first): (usize, usize)| Piece {
        source: kernel.source_bytes(first),
        target: match kernel {
            Kernel::Crc64 => index * kernel.target_bytes(1),
            _ => kernel.target_bytes(first),
        },
        length: longest.min(elements - first),
    };
    let pieces: Vec<_> = (0..elements).step_by(longest).enumerate().map(piece).collect();
    let batch = Batch::new(kernels, kernel, source, target, &pieces)?;
    let (name, written) = match kernel {
        Kernel::Crc64 => ("crc64".to_owned(), 0), // a few results
        Kernel::Scatter => ("scatter".to_owned(), kernel.target_bytes(elements)),
        Kernel::Cast(cast) => {
            let name = format!("cast {:?} to {:?}", cast.from(), cast.to());
            (name, kernel.target_bytes(elements))
        }
    };
    let moved_bytes = kernel.source_bytes(elements) + written;
    let judged = !matches!(kernel, Kernel::Scatter);
    Ok(Subject { name, batch, moved_bytes, judged, speeds: Vec::new() })
}
