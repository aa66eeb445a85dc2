//! Compares the kernels bit for bit with the library's references, on random and special input, and
//! checks that they write only to their targets.

use super::CheckArgs;
use crate::checkpoints::check_equal;
use crate::gpu::{Batch, Gpu, Kernel, Kernels, Memory, Piece};
use crate::record::Recorder;
use anyhow::{Result, ensure};
use fastrand::Rng;
use ringload::Dtype;
use ringload::internals::crc64_nvme;

/// The content of targets before a launch.
const UNTOUCHED: u8 = 0xA5;
/// Lengths around every boundary of the kernels: words, vectors, rows, groups of rows.
const LENGTHS: [usize; 24] = [
    0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 63, 127, 255, 256, 257, 1023, 4096, 19455, 19456, 19457,
    38912, 65535, 65536,
];

pub fn all(gpu: &Gpu, args: &CheckArgs, recorder: &mut Recorder) {
    let kernels = match Kernels::load(gpu) {
        Ok(kernels) => kernels,
        Err(error) => return recorder.check("the kernels load", || Err(error)),
    };
    let len = args.check_bytes as usize;
    let mut rng = Rng::with_seed(args.seed);
    let mut random = vec![0; len];
    rng.fill(&mut random);
    for kernel in Kernel::all() {
        recorder.check(format!("{} against the reference", kernel.name()), || match kernel {
            Kernel::Scatter => check(&kernels, kernel, &random, &mut rng),
            Kernel::Crc64 => {
                let alike = |byte| vec![byte; len.min(8 << 20)];
                let drawn = check(&kernels, kernel, &random, &mut rng)?;
                let zeroes = check(&kernels, kernel, &alike(0), &mut rng)?;
                Ok(drawn + zeroes + check(&kernels, kernel, &alike(0xFF), &mut rng)?)
            }
            Kernel::Cast(cast) => {
                let special = special(cast.from());
                let source: Vec<u8> = special.iter().chain(&random).copied().take(len).collect();
                // All of them in pieces, as loads do.
                let elements = special.len() / kernel.source_bytes(1);
                let pieces = kernel.pieces(special.len());
                run(&kernels, kernel, &special, &pieces, kernel.target_bytes(elements))?;
                Ok(1 + check(&kernels, kernel, &source, &mut rng)?)
            }
        });
    }
}

/// Special values of a type: all values of the small types, and the values of F32 around every
/// boundary of a mantissa, for each exponent and sign.
fn special(dtype: Dtype) -> Vec<u8> {
    match dtype.bitsize() {
        8 => (0..=u8::MAX).collect(),
        16 => (0..=u16::MAX).flat_map(u16::to_le_bytes).collect(),
        _ => {
            let near = |bits: u32| [bits.wrapping_sub(1), bits, bits + 1];
            let boundaries = [0, 1 << 22, 0x7f_ffff].into_iter().chain((0..23).flat_map(|bit| {
                let half = 1 << bit; // half a unit in the last place, of even, odd and all ones
                [half, half | half << 1, 0x7f_ffff & !(half - 1)]
            }));
            let mantissas: Vec<u32> =
                boundaries.flat_map(near).map(|bits| bits & 0x7f_ffff).collect();
            let heads = (0..512_u32).map(|head| head << 23);
            heads
                .flat_map(|head| mantissas.iter().map(move |mantissa| head | mantissa))
                .flat_map(u32::to_le_bytes)
                .collect()
        }
    }
}

/// Runs `kernel` on pieces of `source` with every length and alignment; returns the number of
/// pieces.
fn check(kernels: &Kernels<'_>, kernel: Kernel, source: &[u8], rng: &mut Rng) -> Result<usize> {
    let (mut pieces, mut at, mut target) = (Vec::new(), 0, 0);
    let longest = kernel.longest_piece();
    let fixed = LENGTHS.into_iter().cycle().take(3 * LENGTHS.len());
    // Some pieces of the greatest length and longer; then pieces that fit.
    let fixed: Vec<_> = fixed.chain([longest - 1, longest, longest + 1, 3 * longest + 5]).collect();
    for number in 0.. {
        let given = fixed.get(number).copied();
        let length = given.unwrap_or_else(|| rng.usize(0..=longest));
        let start = at + rng.usize(0..40);
        let end = start + kernel.source_bytes(length);
        match given {
            _ if end <= source.len() => {}
            Some(_) => continue,
            None => break,
        }
        target = (target + gap(kernel, rng)).next_multiple_of(kernel.target_bytes(1));
        pieces.push(Piece { source: start, target, length });
        (at, target) = (end, target + kernel.target_bytes(length));
    }
    ensure!(pieces.len() >= LENGTHS.len(), "{} bytes are too few to check with", source.len());
    run(kernels, kernel, source, &pieces, target + gap(kernel, rng))?;
    Ok(pieces.len())
}

/// The gap before a target.
fn gap(kernel: Kernel, rng: &mut Rng) -> usize {
    match kernel {
        Kernel::Crc64 => 0,
        _ => rng.usize(0..40),
    }
}

/// Runs `kernel` and compares all of the target's `target_len` bytes.
fn run(
    kernels: &Kernels<'_>,
    kernel: Kernel,
    source: &[u8],
    pieces: &[Piece],
    target_len: usize,
) -> Result<()> {
    let gpu = kernels.gpu;
    let (from, to) = (Memory::new(gpu, source.len())?, Memory::new(gpu, target_len)?);
    from.write(0, source)?;
    to.fill(UNTOUCHED)?;
    Batch::new(kernels, kernel, &from, &to, pieces)?.seconds(1)?;
    let mut wanted = vec![UNTOUCHED; target_len];
    for piece in pieces {
        let source = &source[piece.source..][..kernel.source_bytes(piece.length)];
        let target = &mut wanted[piece.target..][..kernel.target_bytes(piece.length)];
        match kernel {
            Kernel::Scatter => target.copy_from_slice(source),
            Kernel::Crc64 => target.copy_from_slice(&crc64_nvme(source).to_le_bytes()),
            Kernel::Cast(cast) => cast.run(source, target),
        }
    }
    let got = to.read()?;
    // Names the piece, which says more than its address.
    for (index, piece) in pieces.iter().enumerate() {
        let range = piece.target..piece.target + kernel.target_bytes(piece.length);
        check_equal(&format!("piece {index}, {piece:?}"), &got[range.clone()], &wanted[range])?;
    }
    check_equal("what is between the targets", &got, &wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_values_are_all_kinds() {
        assert_eq!(special(Dtype::F8_E4M3).len(), 256);
        assert_eq!(special(Dtype::BF16).len(), 2 << 16);
        let source = special(Dtype::F32);
        let floats: Vec<_> = source.as_chunks().0.iter().copied().map(f32::from_le_bytes).collect();
        let has = |is: fn(&f32) -> bool| floats.iter().any(is);
        assert!(
            has(|f| f.is_nan()) && has(|f| f.is_subnormal()) && has(|f| *f == f32::NEG_INFINITY)
        );
        assert!(has(|f| *f == 0.0) && has(|f| *f == f32::MAX) && has(|f| *f == 65520.0));
    }
}
