//! Casts against plain arithmetic, over all inputs of the small types and around every boundary.
//!
//! The reference takes a value apart into an f64, which holds all of them, and finds the nearest
//! value of the target by comparing with its neighbours: no shared trick, and no bit of the code
//! under test.

use super::*;
use proptest::prelude::*;

const FROM: [Dtype; 5] = [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F8_E4M3, Dtype::F8_E5M2];
const TO: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];

/// How a type is laid out.
#[derive(Clone, Copy)]
struct Layout {
    bytes: usize,
    mantissa: u32,
    exponent: u32,
    infinities: bool,
}

fn layout(dtype: Dtype) -> Layout {
    let (bytes, mantissa, exponent) = match dtype {
        Dtype::F32 => (4, 23, 8),
        Dtype::F16 => (2, 10, 5),
        Dtype::BF16 => (2, 7, 8),
        Dtype::F8_E4M3 => (1, 3, 4),
        Dtype::F8_E5M2 => (1, 2, 5),
        _ => unreachable!(),
    };
    Layout { bytes, mantissa, exponent, infinities: dtype != Dtype::F8_E4M3 }
}

impl Layout {
    fn sign(self) -> u32 {
        1 << (self.mantissa + self.exponent)
    }

    fn infinity(self) -> u32 {
        ((1 << self.exponent) - 1) << self.mantissa
    }

    fn is_nan(self, bits: u32) -> bool {
        let magnitude = bits & (self.sign() - 1);
        if self.infinities { magnitude > self.infinity() } else { magnitude == self.sign() - 1 }
    }

    /// The value of a magnitude that is no NaN.
    fn value(self, magnitude: u32) -> f64 {
        if self.infinities && magnitude == self.infinity() {
            return f64::INFINITY;
        }
        let bias = (1 << (self.exponent - 1)) - 1;
        let (exponent, mantissa) =
            (magnitude >> self.mantissa, magnitude & ((1 << self.mantissa) - 1));
        let one = f64::from(1_u32 << self.mantissa);
        match exponent {
            0 => f64::from(mantissa) / one * 2_f64.powi(1 - bias),
            _ => (1.0 + f64::from(mantissa) / one) * 2_f64.powi(exponent as i32 - bias),
        }
    }

    /// The magnitude nearest to a value, ties to even, by bisection.
    fn nearest(self, value: f64) -> u32 {
        let (mut low, mut high) = (0, self.infinity());
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.value(middle) <= value { low = middle } else { high = middle }
        }
        // What an infinity stands for in rounding: the next power of two.
        let above = match high == self.infinity() {
            true => {
                2.0 * self.value(1 << (self.mantissa + self.exponent - 1))
                    * 2_f64.powi((1 << (self.exponent - 1)) - 2)
            }
            false => self.value(high),
        };
        let (down, up) = (value - self.value(low), above - value);
        if value == f64::INFINITY || up < down || (up == down && high % 2 == 0) {
            high
        } else {
            low
        }
    }
}

/// What the cast of `bits` has to be.
fn reference(bits: u32, from: Dtype, to: Dtype) -> u32 {
    let (from, to) = (layout(from), layout(to));
    let sign = if bits & from.sign() == 0 { 0 } else { to.sign() };
    let magnitude = bits & (from.sign() - 1);
    if from.is_nan(bits) {
        let payload = u64::from(magnitude & ((1 << from.mantissa) - 1)) << (64 - from.mantissa);
        let kept = (payload >> (64 - to.mantissa)) as u32;
        return sign | to.infinity() | 1 << (to.mantissa - 1) | kept;
    }
    sign | to.nearest(from.value(magnitude))
}

/// Casts each of `inputs` and compares.
fn check(from: Dtype, to: Dtype, inputs: impl Iterator<Item = u32>) {
    let Some(cast) = Cast::new(from, to) else {
        assert_eq!(from, to);
        return;
    };
    let (source_layout, target_layout) = (layout(from), layout(to));
    let inputs: Vec<u32> = inputs.collect();
    let source: Vec<u8> =
        inputs.iter().flat_map(|bits| bits.to_le_bytes()[..source_layout.bytes].to_vec()).collect();
    let mut target = vec![0xEE; cast.target_bytes(source.len() as u64) as usize];
    cast.run(&source, &mut target);
    for (&bits, got) in inputs.iter().zip(target.chunks_exact(target_layout.bytes)) {
        let got = got.iter().rev().fold(0, |all, &byte| all << 8 | u32::from(byte));
        let expected = reference(bits, from, to);
        assert_eq!(got, expected, "{from:?} {bits:#x} to {to:?}: {got:#x}, not {expected:#x}");
    }
}

#[test]
fn every_value_of_the_small_types_is_cast_right() {
    for from in FROM.into_iter().filter(|&from| from != Dtype::F32) {
        for to in TO {
            let values = 0..1 << (8 * layout(from).bytes);
            check(from, to, values.clone());
            // Enough of them to be looked up, where they are.
            check(from, to, std::iter::repeat_n(values, 5).flatten());
        }
    }
}

/// Each boundary of the target, exactly and half-way to its neighbours, and one unit beside those.
#[test]
fn f32s_around_every_f16_and_bf16_are_rounded_right() {
    for to in [Dtype::F16, Dtype::BF16] {
        let target = layout(to);
        let inputs =
            (0..target.infinity()).step_by(7).chain(target.infinity() - 99..target.infinity());
        let edges = inputs.flat_map(|magnitude| {
            let (low, high) = (target.value(magnitude), target.value(magnitude + 1));
            let middle = if high.is_finite() { (low + high) / 2.0 } else { 65520.0 };
            [low, middle].into_iter().flat_map(|edge| {
                let bits = (edge as f32).to_bits();
                [bits, bits + 1, bits.wrapping_sub(1), bits | 1 << 31, (bits + 1) | 1 << 31]
            })
        });
        check(Dtype::F32, to, edges);
    }
}

#[test]
fn f32s_of_every_exponent_are_cast_right() {
    let mantissas =
        [0, 1, 0xfff, 0x1000, 0x1001, 0x2000, 0x7fff, 0x8000, 0x18000, 0x400000, 0x7fffff];
    let all = (0..512_u32)
        .flat_map(|top| mantissas.into_iter().map(move |mantissa| top << 23 | mantissa));
    check(Dtype::F32, Dtype::F16, all.clone());
    check(Dtype::F32, Dtype::BF16, all);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_f32s_are_cast_right(inputs in proptest::collection::vec(any::<u32>(), 0..300)) {
        check(Dtype::F32, Dtype::F16, inputs.iter().copied());
        check(Dtype::F32, Dtype::BF16, inputs.iter().copied());
        // Where F16 has values at all.
        let near = |bits: &u32| bits & 0x8fff_ffff | 0x3000_0000;
        check(Dtype::F32, Dtype::F16, inputs.iter().map(near));
    }

    #[test]
    fn the_place_and_the_neighbours_of_an_element_change_nothing(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        skip in 0_usize..8,
    ) {
        for from in FROM {
            for to in TO {
                let Some(cast) = Cast::new(from, to) else { continue };
                let (size, made) = (layout(from).bytes, layout(to).bytes);
                let source = &bytes[skip.min(bytes.len())..];
                let source = &source[..source.len() / size * size];
                let mut whole = vec![0; cast.target_bytes(source.len() as u64) as usize];
                cast.run(source, &mut whole);
                for (one, made) in source.chunks(size).zip(whole.chunks(made)) {
                    let mut alone = vec![0; made.len()];
                    cast.run(one, &mut alone);
                    prop_assert_eq!(&alone, made);
                }
            }
        }
    }
}

#[test]
fn only_floats_are_cast_and_only_to_other_types() {
    assert!(Cast::new(Dtype::BF16, Dtype::BF16).is_none());
    for other in [Dtype::F64, Dtype::I32, Dtype::BOOL, Dtype::F8_E8M0, Dtype::F4, Dtype::C64] {
        assert!(TO.into_iter().all(|to| Cast::new(other, to).is_none()), "{other:?}");
        assert!(FROM.into_iter().all(|from| Cast::new(from, other).is_none()), "{other:?}");
    }
    assert!(Cast::new(Dtype::F32, Dtype::F8_E4M3).is_none());
}

#[test]
#[should_panic(expected = "as many elements")]
fn a_target_of_the_wrong_length_is_refused() {
    Cast::new(Dtype::F32, Dtype::BF16).unwrap().run(&[0; 8], &mut [0; 2]);
}

/// `cargo test --release --lib cast -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn speed_of_casts() {
    for from in FROM {
        for to in TO {
            let Some(cast) = Cast::new(from, to) else { continue };
            let source: Vec<u8> =
                (0..8_usize << 20).map(|i| ((i * 2_654_435_761) >> 13) as u8).collect();
            let mut target = vec![0; cast.target_bytes(source.len() as u64) as usize];
            let mut best = f64::INFINITY;
            for _ in 0..20 {
                let began = std::time::Instant::now();
                cast.run(std::hint::black_box(&source), &mut target);
                std::hint::black_box(&target);
                best = best.min(began.elapsed().as_secs_f64());
            }
            println!("{from:?} -> {to:?}: {:.2} GB/s of source", source.len() as f64 / best / 1e9);
        }
    }
}
