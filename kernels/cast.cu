// cast: converts each piece's elements to another float type.
//
// kernels/README.md defines the result bit for bit; src/cast is the implementation for the host.
// Every cast goes through the bits of an f32, which can represent every value of the narrower
// types. The two float additions here are exact or round to nearest even, and their operands are
// never NaN, infinite or subnormal. Their results therefore do not depend on the processor or its
// mode.
//
// A thread converts 16 bytes of the wider type at a time, so that loads and stores are coalesced.
// An H200 moves 4.3e12 bytes/s. To reach half of that, a multiprocessor has to convert 3.1 elements
// per cycle from 8 to 16 bits, and may spend 20 of its 64 integer operations per cycle on each.
#include "pieces.cuh"

namespace cast {

constexpr u32 BLOCK_THREADS = 256;
// The number of groups of elements that a thread loads before it stores the first. The 1536 threads
// that fit on a multiprocessor have 12 to 49 KB in flight.
constexpr u32 IN_FLIGHT = 2;

constexpr u32 F32_INFINITY = 0x7f800000;
constexpr u32 F32_QUIET = 0x00400000;
// As f32 bits: the least normal F16, and the power of two above the greatest F16.
constexpr u32 F16_LEAST_NORMAL = 0x38800000;
constexpr u32 F16_BEYOND = 0x47800000;

// Widens the finite `magnitude` (exponent and mantissa without the sign) of a type with `MANTISSA`
// bits of mantissa and an exponent bias of `BIAS`.
template <int MANTISSA, int BIAS> __device__ inline u32 widened(u32 magnitude) {
    const u32 moved = magnitude << (23 - MANTISSA);
    const u32 normal = moved + ((127u - BIAS) << 23);
    // The least normal number with this mantissa, minus the least normal number. Exact.
    constexpr u32 least_normal = (128u - BIAS) << 23;
    const u32 subnormal =
        __float_as_uint(__uint_as_float(moved + least_normal) - __uint_as_float(least_normal));
    return magnitude >> MANTISSA != 0 ? normal : subnormal;
}

// The formats: their sizes, and the conversion of their bits to those of an f32.
struct F32 {
    static constexpr int BYTES = 4;
    static __device__ inline u32 widen(u32 bits) {
        return bits;
    }
};

struct BF16 {
    static constexpr int BYTES = 2;
    static __device__ inline u32 widen(u32 bits) {
        return bits << 16;
    }
};

struct F16 {
    static constexpr int BYTES = 2;
    static __device__ inline u32 widen(u32 bits) {
        const u32 magnitude = bits & 0x7fff;
        const u32 special = F32_INFINITY | magnitude << 13;
        const u32 finite = widened<10, 15>(magnitude);
        return (bits & 0x8000) << 16 | (magnitude >= 0x7c00 ? special : finite);
    }
};

// 8 bits with an exponent of 4 bits. It has no infinities and one NaN of each sign.
struct F8_E4M3 {
    static constexpr int BYTES = 1;
    static __device__ inline u32 widen(u32 bits) {
        const u32 magnitude = bits & 0x7f;
        const u32 special = F32_INFINITY | magnitude << 20;
        const u32 finite = widened<3, 7>(magnitude);
        return (bits & 0x80) << 24 | (magnitude == 0x7f ? special : finite);
    }
};

// The upper half of an F16.
struct F8_E5M2 {
    static constexpr int BYTES = 1;
    static __device__ inline u32 widen(u32 bits) {
        return F16::widen(bits << 8);
    }
};

// Rounds the f32 with these bits to type `To`.
template <typename To> __device__ inline u32 narrow(u32 bits);

__device__ inline u32 quiet(u32 bits) {
    return (bits & 0x7fffffff) > F32_INFINITY ? bits | F32_QUIET : bits;
}

template <> __device__ inline u32 narrow<F32>(u32 bits) {
    return quiet(bits);
}

template <> __device__ inline u32 narrow<BF16>(u32 bits) {
    const u32 rounded = bits + 0x7fff + (bits >> 16 & 1);
    return ((bits & 0x7fffffff) > F32_INFINITY ? bits | F32_QUIET : rounded) >> 16;
}

template <> __device__ inline u32 narrow<F16>(u32 bits) {
    const u32 magnitude = bits & 0x7fffffff;
    const u32 nan = 0x7e00 | (magnitude >> 13 & 0x3ff);
    // Rounds to nearest even. A carry out of the mantissa increments the exponent, up to infinity.
    const u32 normal = (magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
    // A unit in the last place of 0.5 equals one of F16's subnormals, so the addition rounds to
    // F16's subnormals, to nearest even. F32 subnormals are too small to change the result.
    const u32 small = magnitude < 0x00800000 ? 0 : magnitude;
    const u32 subnormal = __float_as_uint(__uint_as_float(small) + 0.5f) - 0x3f000000;
    const u32 finite = magnitude >= F16_LEAST_NORMAL ? normal : subnormal;
    const u32 half = magnitude >= F16_BEYOND ? 0x7c00 : finite;
    return (bits >> 16 & 0x8000) | (magnitude > F32_INFINITY ? nan : half);
}

// Returns element `i` of words that hold elements.
template <int BYTES, int COUNT> __device__ inline u32 element(const Words<COUNT> &words, int i) {
    const u32 word = words.word[i * BYTES / 4] >> (i * BYTES % 4 * 8);
    return BYTES == 4 ? word : word & ((1u << (8 * BYTES % 32)) - 1);
}

// Loads an element from memory of any alignment.
template <int BYTES> __device__ inline u32 load_element(u64 address) {
    u32 bits = 0;
    UNROLL
    for (int i = 0; i < BYTES; i++) {
        bits |= (u32)load<u8>(address + i) << (8 * i);
    }
    return bits;
}

template <typename From, typename To> struct Cast {
    // The number of elements that a thread converts at a time: 16 bytes of the wider type.
    static constexpr int GROUP = 16 / (From::BYTES > To::BYTES ? From::BYTES : To::BYTES);
    static constexpr int FROM_WORDS = GROUP * From::BYTES / 4;
    static constexpr int TO_WORDS = GROUP * To::BYTES / 4;

    static __device__ inline u32 convert(u32 bits) {
        return narrow<To>(From::widen(bits));
    }

    static __device__ inline Words<TO_WORDS> convert(const Words<FROM_WORDS> &from) {
        Words<TO_WORDS> to = {};
        UNROLL
        for (int i = 0; i < GROUP; i++) {
            const u32 bits = convert(element<From::BYTES>(from, i));
            to.word[i * To::BYTES / 4] |= bits << (i * To::BYTES % 4 * 8);
        }
        return to;
    }

    template <bool ALIGNED> static __device__ inline Words<FROM_WORDS> load_group(u64 address) {
        if (ALIGNED) {
            return load_aligned<FROM_WORDS>(address);
        }
        return load_anywhere<FROM_WORDS>(address);
    }

    // Converts `count` groups to `target`, which is a multiple of the size of a group.
    template <bool ALIGNED>
    static __device__ inline void convert_groups(u64 source, u64 target, u64 count) {
        constexpr u64 from_bytes = FROM_WORDS * 4, to_bytes = TO_WORDS * 4;
        for (u64 at = threadIdx.x; at < count; at += IN_FLIGHT * BLOCK_THREADS) {
            Words<FROM_WORDS> groups[IN_FLIGHT];
            UNROLL
            for (u32 i = 0; i < IN_FLIGHT; i++) {
                const u64 group = at + i * BLOCK_THREADS;
                // The last groups may be loaded twice; groups beyond `count` are not stored.
                groups[i] = load_group<ALIGNED>(source + (group < count ? group : at) * from_bytes);
            }
            UNROLL
            for (u32 i = 0; i < IN_FLIGHT; i++) {
                const u64 group = at + i * BLOCK_THREADS;
                if (group < count) {
                    store_aligned(target + group * to_bytes, convert(groups[i]));
                }
            }
        }
    }

    // Converts fewer elements than a group has.
    static __device__ inline void convert_elements(u64 source, u64 target, u64 count) {
        const u64 at = threadIdx.x;
        if (at < count) {
            const u32 bits = convert(load_element<From::BYTES>(source + at * From::BYTES));
            if (To::BYTES == 4) {
                store<u32>(target + at * 4, bits);
            } else {
                store<u16>(target + at * 2, (u16)bits);
            }
        }
    }

    static __device__ inline void run(const Piece &piece) {
        constexpr u64 group_bytes = TO_WORDS * 4;
        const u64 up_to_aligned = (0 - piece.target) % group_bytes / To::BYTES;
        const u64 head = up_to_aligned < piece.length ? up_to_aligned : piece.length;
        const u64 groups = (piece.length - head) / GROUP;
        const u64 body = head + groups * GROUP;
        const u64 source = piece.source + head * From::BYTES;
        const u64 target = piece.target + head * To::BYTES;
        convert_elements(piece.source, piece.target, head);
        if (source % (FROM_WORDS * 4) == 0) {
            convert_groups<true>(source, target, groups);
        } else {
            convert_groups<false>(source, target, groups);
        }
        convert_elements(piece.source + body * From::BYTES, piece.target + body * To::BYTES,
                         piece.length - body);
    }
};

} // namespace cast

// Each kernel converts `length` elements at `source`, which may have any alignment, to `target`,
// which is aligned for its type.
#define RINGLOAD_CAST(NAME, FROM, TO)                                                              \
    extern "C" __global__ void __launch_bounds__(cast::BLOCK_THREADS)                              \
        NAME(const Piece *pieces, u32 count) {                                                     \
        for (u32 i = blockIdx.x; i < count; i += gridDim.x) {                                      \
            cast::Cast<cast::FROM, cast::TO>::run(pieces[i]);                                      \
        }                                                                                          \
    }

RINGLOAD_CAST(ringload_cast_f32_f16, F32, F16)
RINGLOAD_CAST(ringload_cast_f32_bf16, F32, BF16)
RINGLOAD_CAST(ringload_cast_f16_f32, F16, F32)
RINGLOAD_CAST(ringload_cast_f16_bf16, F16, BF16)
RINGLOAD_CAST(ringload_cast_bf16_f32, BF16, F32)
RINGLOAD_CAST(ringload_cast_bf16_f16, BF16, F16)
RINGLOAD_CAST(ringload_cast_f8_e4m3_f32, F8_E4M3, F32)
RINGLOAD_CAST(ringload_cast_f8_e4m3_f16, F8_E4M3, F16)
RINGLOAD_CAST(ringload_cast_f8_e4m3_bf16, F8_E4M3, BF16)
RINGLOAD_CAST(ringload_cast_f8_e5m2_f32, F8_E5M2, F32)
RINGLOAD_CAST(ringload_cast_f8_e5m2_f16, F8_E5M2, F16)
RINGLOAD_CAST(ringload_cast_f8_e5m2_bf16, F8_E5M2, BF16)
