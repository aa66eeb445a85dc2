//! Runs the kernels on the host and compares them bit for bit with the casts and checksums of the
//! library.
//!
//! Only a GPU can show that the PTX does the same as the source, and how fast it is.

use cuda_stand_in as _;
use proptest::prelude::*;
use ringload::Dtype;
use ringload::cast::Cast;
use ringload::internals::crc64_nvme;
use std::cell::Cell;
use std::ffi::{CString, c_char, c_int, c_void};

unsafe extern "C" {
    fn stand_in_launch(
        name: *const c_char,
        grid_x: u32,
        block_x: u32,
        shared_bytes: u32,
        arguments: *mut *mut c_void,
        seed: u64,
    ) -> c_int;
    fn stand_in_leave_out_wait(number: c_int);
}

/// As `Piece` of `kernels/pieces.cuh`.
#[repr(C)]
struct Piece {
    source: u64,
    target: u64,
    length: u64,
}

const SCATTER_THREADS: u32 = 256;
const CAST_THREADS: u32 = 256;
const CRC64_THREADS: u32 = 64;
/// Of bytes that no kernel may write.
const UNTOUCHED: u8 = 0xA5;

const FROM: [(Dtype, &str, usize); 5] = [
    (Dtype::F32, "f32", 4),
    (Dtype::F16, "f16", 2),
    (Dtype::BF16, "bf16", 2),
    (Dtype::F8_E4M3, "f8_e4m3", 1),
    (Dtype::F8_E5M2, "f8_e5m2", 1),
];
const TO: [(Dtype, &str, usize); 3] =
    [(Dtype::F32, "f32", 4), (Dtype::F16, "f16", 2), (Dtype::BF16, "bf16", 2)];

thread_local! {
    /// The seed of the next launch of the test: each has another order of blocks and threads.
    static SEED: Cell<u64> = const { Cell::new(0) };
}

/// Launches a kernel on pieces, and where results are numbers, on those.
fn launch(name: &str, grid: u32, threads: u32, pieces: &[Piece], results: &mut [u64]) -> c_int {
    let name = CString::new(name).unwrap();
    let (mut pieces_at, mut count) = (pieces.as_ptr(), pieces.len() as u32);
    let mut results_at = results.as_mut_ptr();
    let mut arguments = [
        (&raw mut pieces_at).cast::<c_void>(),
        (&raw mut count).cast(),
        (&raw mut results_at).cast(),
    ];
    // SAFETY: the arguments are those of every kernel (`crc64` alone takes the third), and the
    // tests hand in pieces of memory that lives until this returns.
    unsafe {
        let seed = SEED.replace(SEED.get() + 1);
        stand_in_launch(name.as_ptr(), grid, threads, 0, arguments.as_mut_ptr(), seed)
    }
}

/// Bytes at a chosen alignment: `skip` bytes from a multiple of 16.
struct Placed {
    words: Vec<u128>,
    skip: usize,
    len: usize,
}

impl Placed {
    fn new(skip: usize, bytes: &[u8]) -> Self {
        let words = vec![u128::from_ne_bytes([UNTOUCHED; 16]); (skip + bytes.len()) / 16 + 3];
        let mut placed = Self { words, skip: skip + 16, len: bytes.len() };
        let range = placed.range();
        placed.all_mut()[range].copy_from_slice(bytes);
        placed
    }

    fn untouched(skip: usize, len: usize) -> Self {
        Self::new(skip, &vec![UNTOUCHED; len])
    }

    fn range(&self) -> std::ops::Range<usize> {
        self.skip..self.skip + self.len
    }

    fn all(&self) -> &[u8] {
        // SAFETY: the words as bytes.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), self.words.len() * 16) }
    }

    fn all_mut(&mut self) -> &mut [u8] {
        let bytes = self.words.len() * 16;
        // SAFETY: the words as bytes.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), bytes) }
    }

    fn bytes(&self) -> &[u8] {
        &self.all()[self.range()]
    }

    fn address(&mut self) -> u64 {
        self.all_mut().as_mut_ptr() as u64 + self.skip as u64
    }

    /// Whether only its own bytes may have changed.
    fn neighbours_untouched(&self) -> bool {
        let range = self.range();
        let (before, after) = (&self.all()[..range.start], &self.all()[range.end..]);
        before.iter().chain(after).all(|&byte| byte == UNTOUCHED)
    }
}

/// Runs one cast over `parts`, one piece each, and compares with the library's.
fn check_cast(
    from: (Dtype, &str, usize),
    to: (Dtype, &str, usize),
    parts: &[&[u8]],
    skips: (usize, usize),
    grid: u32,
) {
    let Some(cast) = Cast::new(from.0, to.0) else {
        assert_eq!(from.0, to.0);
        return;
    };
    let whole: Vec<&[u8]> =
        parts.iter().map(|part| &part[..part.len() / from.2 * from.2]).collect();
    let mut sources: Vec<_> = whole.iter().map(|part| Placed::new(skips.0, part)).collect();
    let made = |part: &&[u8]| part.len() / from.2 * to.2;
    let aligned = skips.1 / to.2 * to.2;
    let mut targets: Vec<_> =
        whole.iter().map(|part| Placed::untouched(aligned, made(part))).collect();
    let pieces: Vec<_> = sources
        .iter_mut()
        .zip(&mut targets)
        .map(|(source, target)| Piece {
            length: (source.len / from.2) as u64,
            source: source.address(),
            target: target.address(),
        })
        .collect();
    let name = format!("ringload_cast_{}_{}", from.1, to.1);
    assert_eq!(launch(&name, grid, CAST_THREADS, &pieces, &mut []), 0, "{name}");
    for (part, target) in whole.iter().zip(&targets) {
        let mut expected = vec![0; made(part)];
        cast.run(part, &mut expected);
        assert!(target.bytes() == expected, "{name} of {} bytes", part.len());
        assert!(target.neighbours_untouched(), "{name} wrote beyond its target");
    }
}

fn check_crc64(parts: &[&[u8]], skip: usize, grid: u32) {
    let results = crc64(parts, skip, grid);
    for (part, result) in parts.iter().zip(&results) {
        assert_eq!(*result, crc64_nvme(part), "{} bytes, {skip} from a line", part.len());
    }
    assert_eq!(results.last(), Some(&0), "wrote beyond its results");
}

/// What the kernel computes of `parts`, one piece each, and the number after its results.
fn crc64(parts: &[&[u8]], skip: usize, grid: u32) -> Vec<u64> {
    let mut sources: Vec<_> = parts.iter().map(|part| Placed::new(skip, part)).collect();
    let piece = |source: &mut Placed| Piece {
        source: source.address(),
        target: 0,
        length: source.len as u64,
    };
    let pieces: Vec<_> = sources.iter_mut().map(piece).collect();
    let mut results = vec![0; parts.len() + 1];
    assert_eq!(launch("ringload_crc64", grid, CRC64_THREADS, &pieces, &mut results), 0);
    results
}

/// Bytes that look random and have no period worth speaking of.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64 ^ len as u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn every_value_of_the_small_types_is_cast_as_the_library_does() {
    let bytes: Vec<u8> = (0..=u8::MAX).collect();
    let words: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for from in &FROM[1..] {
        let all = if from.2 == 1 { &bytes } else { &words };
        for to in TO {
            check_cast(*from, to, &[all, &all[..all.len() - 3 * from.2]], (0, 0), 2);
            check_cast(*from, to, &[all], (1, 4), 1);
        }
    }
}

/// The casts from 8 bits process several elements of a word at a time, so one element may change the
/// result of its neighbour, such as by a carry out of a NaN. Every pair of values is therefore cast at
/// every place in a word.
#[test]
fn every_pair_of_neighbours_of_8_bits_is_cast_as_the_library_does() {
    let pairs: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let parts = [&pairs, &pairs[1..], &pairs[2..], &pairs[3..]];
    for from in &FROM[3..] {
        for to in TO {
            check_cast(*from, to, &parts, (0, 0), 4);
        }
    }
}

/// F32s that matter: both sides of each rounding boundary, infinities, NaNs, subnormals.
fn delicate_f32s() -> Vec<u8> {
    let tops = 0..512_u32;
    let mantissas =
        [0, 1, 2, 0xfff, 0x1000, 0x1001, 0x2fff, 0x3000, 0x7fff, 0x8000, 0x8001, 0x17fff];
    let ends = [0x18000, 0x200000, 0x3fffff, 0x400000, 0x400001, 0x7fefff, 0x7ff000, 0x7fffff];
    let all = mantissas.into_iter().chain(ends);
    tops.flat_map(|top| all.clone().map(move |mantissa| top << 23 | mantissa))
        .flat_map(u32::to_le_bytes)
        .collect()
}

#[test]
fn delicate_f32s_are_cast_as_the_library_does() {
    let delicate = delicate_f32s();
    for to in TO {
        for skips in [(0, 0), (4, 0), (3, 8), (9, 12)] {
            check_cast(FROM[0], to, &[&delicate, &delicate[8..]], skips, 1);
        }
    }
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() }
}

/// Lengths of pieces: mostly few, with zero among them, now and then as long as a piece gets.
fn lengths() -> impl Strategy<Value = Vec<usize>> {
    let length = prop_oneof![
        1 => Just(0),
        6 => 0_usize..80,
        4 => 0_usize..9000,
        1 => (64 << 10) - 40..=64_usize << 10,
    ];
    proptest::collection::vec(length, 0..12)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn casts_of_any_bytes_at_any_place_are_the_library_s(
        lengths in lengths(),
        skips in (0_usize..16, 0_usize..16),
        grid in 1_u32..5,
        from in 0_usize..5,
        to in 0_usize..3,
    ) {
        let parts: Vec<_> = lengths.into_iter().map(noise).collect();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        check_cast(FROM[from], TO[to], &parts, skips, grid);
    }

    #[test]
    fn scattered_pieces_arrive_and_nothing_else_changes(
        lengths in lengths(),
        source_skip in 0_usize..16,
        target_skip in 0_usize..16,
        grid in 1_u32..5,
    ) {
        let parts: Vec<_> = lengths.into_iter().map(noise).collect();
        // All pieces next to each other in one block, as they are staged.
        let mut staged = Placed::new(source_skip, &parts.concat());
        let mut targets: Vec<_> = parts.iter().enumerate()
            .map(|(i, part)| Placed::untouched((target_skip + i) % 16, part.len()))
            .collect();
        let mut at = staged.address();
        let pieces: Vec<_> = parts.iter().zip(&mut targets).map(|(part, target)| {
            let length = part.len() as u64;
            let piece = Piece { source: at, target: target.address(), length };
            at += length;
            piece
        }).collect();
        prop_assert_eq!(launch("ringload_scatter", grid, SCATTER_THREADS, &pieces, &mut []), 0);
        for (part, target) in parts.iter().zip(&targets) {
            prop_assert!(target.bytes() == part, "a piece of {} bytes", part.len());
            prop_assert!(target.neighbours_untouched());
        }
    }

    #[test]
    fn crcs_of_any_bytes_at_any_place_are_the_library_s(
        lengths in lengths(),
        skip in 0_usize..300,
        grid in 1_u32..5,
    ) {
        let parts: Vec<_> = lengths.into_iter().map(noise).collect();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        check_crc64(&parts, skip, grid);
    }
}

/// One row of threads is 256 bytes, a group of rows 76 of those.
#[test]
fn crcs_around_every_boundary_of_rows_and_groups_are_the_library_s() {
    let bytes = noise(4 * 76 * 256 + 600);
    let boundaries = [0, 256, 512, 75 * 256, 76 * 256, 77 * 256, 2 * 76 * 256, 4 * 76 * 256];
    let near = |boundary: usize| (boundary.saturating_sub(9)..boundary + 10).step_by(3);
    let lengths: Vec<usize> = (0..40).chain(boundaries.into_iter().flat_map(near)).collect();
    let parts: Vec<&[u8]> = lengths.iter().map(|&len| &bytes[..len]).collect();
    for skip in [0, 1, 3, 4, 125, 127, 128] {
        check_crc64(&parts, skip, 3);
    }
}

#[test]
fn the_crc_of_the_longest_piece_and_of_zeroes_is_right() {
    check_crc64(&[&noise(1 << 20), &vec![0; 100_000], &vec![0xFF; 4096]], 5, 7);
}

#[test]
fn launches_from_several_threads_do_not_meet() {
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            scope.spawn(move || {
                for round in 0..6 {
                    let part = noise(3000 * (thread + 1) + round);
                    check_crc64(&[&part, &part[1..]], thread, 2);
                    check_cast(FROM[0], TO[2], &[&part], (thread, 0), 1);
                }
            });
        }
    });
}

#[test]
fn what_is_no_kernel_or_not_launched_as_one_is_refused() {
    assert_eq!(launch("ringload_cast_f32_f32", 1, 256, &[], &mut []), 1);
    assert_eq!(launch("ringload_scatter", 1, 128, &[], &mut []), 2);
    assert_eq!(launch("ringload_crc64", 0, 64, &[], &mut []), 2);
    assert_eq!(launch("ringload_crc64", 3, 64, &[], &mut []), 0, "no pieces are no error");
}

/// The results of pieces that one block takes one after the other, on a thread whose blocks find no
/// memory of earlier ones. `left_out` is the barrier that the block goes through without waiting.
fn crcs_without(left_out: c_int, seed: u64, parts: &[&[u8]]) -> Vec<u64> {
    std::thread::scope(|scope| {
        let launched = scope.spawn(|| {
            // SAFETY: the call sets a variable of the thread.
            unsafe { stand_in_leave_out_wait(left_out) };
            SEED.set(seed);
            crc64(parts, 0, 1)
        });
        launched.join().unwrap()
    })
}

/// The emulation has to find a kernel that does not wait where it must: each of the four barriers of
/// `crc64` is left out, and some order of the threads has to make its results wrong.
#[test]
fn a_barrier_that_is_missing_is_found() {
    const SEEDS: u64 = 40;
    let parts: Vec<_> = [3000, 40_000, 500].map(noise).to_vec();
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let mut right: Vec<_> = parts.iter().map(|part| crc64_nvme(part)).collect();
    right.push(0);
    for seed in 0..SEEDS {
        assert_eq!(crcs_without(-1, seed, &parts), right, "seed {seed}");
    }
    for barrier in 0..4 {
        let wrong = (0..SEEDS).filter(|seed| crcs_without(barrier, *seed, &parts) != right);
        assert!(wrong.count() > 0, "barrier {barrier} is not needed, or no order shows it");
    }
}
