//! Conversions of each format to and from the bits of an F32, which can represent every value of the
//! other formats.
//!
//! The two float additions below are exact or round to nearest even, and their operands are never
//! NaN, infinite or subnormal. Their results therefore do not depend on the processor's mode, and
//! they run at full speed.

/// An element type of `BYTES` bytes whose values an F32 represents exactly.
pub(super) trait Format<const BYTES: usize> {
    /// Returns the bits of the F32 of the same value. A signaling NaN stays signaling.
    fn widen(bytes: [u8; BYTES]) -> u32;
}

/// An element type of `BYTES` bytes that an F32 can be rounded to.
pub(super) trait Narrow<const BYTES: usize> {
    /// Returns the value nearest to the F32 with these bits.
    fn narrow(bits: u32) -> [u8; BYTES];
}

pub(super) struct F32;
pub(super) struct F16;
/// The upper half of an F32.
pub(super) struct BF16;
/// The OCP format without infinities and with one NaN of each sign.
pub(super) struct F8E4M3;
/// The upper half of an F16.
pub(super) struct F8E5M2;

const INFINITY: u32 = 0x7f80_0000;
const MAGNITUDE: u32 = 0x7fff_ffff;
const QUIET: u32 = 0x0040_0000;
/// As F32 bits: the least normal F16, and the power of two above the greatest F16.
const F16_LEAST_NORMAL: u32 = 0x3880_0000;
const F16_BEYOND: u32 = 0x4780_0000;
/// The bits of the least normal F32.
const LEAST_NORMAL: u32 = 0x0080_0000;

/// Widens the finite `magnitude` (exponent and mantissa without the sign) of a type with `mantissa`
/// bits of mantissa and an exponent bias of `bias` to the bits of an F32.
fn widened(magnitude: u32, mantissa: u32, bias: u32) -> u32 {
    let moved = magnitude << (23 - mantissa);
    let normal = moved + ((127 - bias) << 23);
    // A subnormal is the least normal number with this mantissa, minus the least normal number. The
    // subtraction is exact.
    let least_normal = (128 - bias) << 23;
    let subnormal = f32::from_bits(moved + least_normal) - f32::from_bits(least_normal);
    if magnitude >> mantissa != 0 { normal } else { subnormal.to_bits() }
}

impl Format<4> for F32 {
    fn widen(bytes: [u8; 4]) -> u32 {
        u32::from_le_bytes(bytes)
    }
}

impl Format<2> for BF16 {
    fn widen(bytes: [u8; 2]) -> u32 {
        u32::from(u16::from_le_bytes(bytes)) << 16
    }
}

impl Format<2> for F16 {
    fn widen(bytes: [u8; 2]) -> u32 {
        let bits = u32::from(u16::from_le_bytes(bytes));
        let magnitude = bits & 0x7fff;
        let finite = widened(magnitude, 10, 15);
        let special = INFINITY | magnitude << 13;
        (bits & 0x8000) << 16 | if magnitude >= 0x7c00 { special } else { finite }
    }
}

impl Format<1> for F8E4M3 {
    fn widen([byte]: [u8; 1]) -> u32 {
        let bits = u32::from(byte);
        let magnitude = bits & 0x7f;
        let finite = widened(magnitude, 3, 7);
        let special = INFINITY | magnitude << 20;
        (bits & 0x80) << 24 | if magnitude == 0x7f { special } else { finite }
    }
}

impl Format<1> for F8E5M2 {
    fn widen([byte]: [u8; 1]) -> u32 {
        F16::widen([0, byte])
    }
}

impl Narrow<4> for F32 {
    fn narrow(bits: u32) -> [u8; 4] {
        let quiet = if bits & MAGNITUDE > INFINITY { QUIET } else { 0 };
        (bits | quiet).to_le_bytes()
    }
}

impl Narrow<2> for BF16 {
    fn narrow(bits: u32) -> [u8; 2] {
        let nan = bits | QUIET;
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
        let whole = if bits & MAGNITUDE > INFINITY { nan } else { rounded };
        ((whole >> 16) as u16).to_le_bytes()
    }
}

impl Narrow<2> for F16 {
    fn narrow(bits: u32) -> [u8; 2] {
        let magnitude = bits & MAGNITUDE;
        let nan = 0x7e00 | magnitude >> 13 & 0x3ff;
        // Rounds to nearest even. A carry out of the mantissa increments the exponent, up to infinity.
        let rebiased = magnitude.wrapping_sub(112 << 23);
        let normal = rebiased.wrapping_add(0xfff + (magnitude >> 13 & 1)) >> 13;
        // A unit in the last place of 0.5 equals one of F16's subnormals, so the addition rounds to
        // F16's subnormals, to nearest even. F32 subnormals are too small to change the result.
        let small = if magnitude < LEAST_NORMAL { 0 } else { magnitude };
        let sum = f32::from_bits(small) + 0.5;
        let subnormal = sum.to_bits().wrapping_sub(0.5_f32.to_bits());
        let finite = if magnitude >= F16_LEAST_NORMAL { normal } else { subnormal };
        let half = if magnitude >= F16_BEYOND { 0x7c00 } else { finite };
        let half = if magnitude > INFINITY { nan } else { half };
        ((bits >> 16 & 0x8000 | half) as u16).to_le_bytes()
    }
}
