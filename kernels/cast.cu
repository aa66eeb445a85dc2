// cast: converts each piece's elements to another float type.
//
// kernels/README.md defines the result bit for bit; src/cast is the implementation for the host.
// The casts go through the bits of an f32, which can represent every value of the narrower types.
// Only those from 8 bits to F16 do not: they convert two elements of a word at a time.
//
// The float multiplications here are exact, and the addition rounds to nearest even. No operand is
// NaN or infinite. Some are subnormal, which GPUs multiply at full speed, and which PTX keeps unless
// an instruction says `.ftz`. The results are therefore the same on every GPU.
//
// A thread converts 16 bytes of the wider type at a time, so that loads and stores are coalesced.
// An H200 moves 4.3e12 bytes/s. To reach half of that, a multiprocessor has to convert 3.1 elements
// per cycle from 8 to 16 bits, and may spend 20 of its 64 integer operations per cycle on each. To
// reach all of it, it may spend 10. As compiled for the H200, the loops of these casts have 3.2 to 9.3
// instructions of any kind per element.
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

// The formats. FIRST_SPECIAL is the value that the first infinity or NaN would have if its exponent
// were as any other.
struct F32 {
    static constexpr int BYTES = 4;
};

// The upper half of an F32.
struct BF16 {
    static constexpr int BYTES = 2;
};

struct F16 {
    static constexpr int BYTES = 2, EXPONENT_BITS = 5;
    static constexpr float FIRST_SPECIAL = 65536;
};

// It has no infinities and one NaN of each sign.
struct F8_E4M3 {
    static constexpr int BYTES = 1, EXPONENT_BITS = 4;
    static constexpr float FIRST_SPECIAL = 480;
};

// The upper half of an F16.
struct F8_E5M2 {
    static constexpr int BYTES = 1, EXPONENT_BITS = 5;
    static constexpr float FIRST_SPECIAL = F16::FIRST_SPECIAL;
};

// Returns the bits of the f32 with the value of an element, which is in the upper bits of `high`.
// The lower bits may belong to other elements. A signaling NaN stays signaling.
//
// Exponent and mantissa are moved to where an f32 has them. Since the exponents have different
// biases, the value is too small by a power of two, by which it is multiplied. This is also right
// for subnormals. The result for an infinity or NaN is finite; setting bits of the exponent makes it
// an infinity or NaN.
template <typename From> __device__ inline u32 widen(u32 high) {
    constexpr int moved_by = 8 - From::EXPONENT_BITS;
    constexpr u32 bias = (1u << (From::EXPONENT_BITS - 1)) - 1;
    constexpr u32 magnitude = 0x7fffffffu - (0x7fffffffu >> (8 * From::BYTES - 1));
    const u32 moved = (u32)((int)high >> moved_by) & (0x80000000 | magnitude >> moved_by);
    const float value = __uint_as_float(moved) * __uint_as_float((254 - bias) << 23);
    const u32 bits = __float_as_uint(value);
    return fabsf(value) >= From::FIRST_SPECIAL ? bits | (127 - bias) << 23 : bits;
}

template <> __device__ inline u32 widen<F32>(u32 high) {
    return high;
}

template <> __device__ inline u32 widen<BF16>(u32 high) {
    return high & 0xffff0000;
}

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

// Makes the NaNs among the four elements of a word quiet.
template <typename From> __device__ inline u32 quiet_four(u32 four);

template <> __device__ inline u32 quiet_four<F8_E4M3>(u32 four) {
    return four;
}

template <> __device__ inline u32 quiet_four<F8_E5M2>(u32 four) {
    // Sets the highest bit of each byte whose magnitude is greater than that of an infinity, 0x7c.
    const u32 nan = (four & 0x7f7f7f7f) + 0x03030303;
    return four | (nan >> 6 & 0x02020202);
}

#ifdef __CUDACC__
// Multiplies two pairs of F16. CUDA declares a function for this instruction only in a header.
__device__ inline u32 multiply_f16x2(u32 a, u32 b) {
    u32 product;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
    return product;
}
#endif

// Returns two elements of 8 bits as F16s: each is the upper byte of a half of `pair`.
template <typename From> __device__ inline u32 pair_to_f16(u32 pair);

template <> __device__ inline u32 pair_to_f16<F8_E4M3>(u32 pair) {
    // As in `widen`. A NaN is told by the carry if 1 is added to its mantissa.
    constexpr u32 two_to_the_8 = 0x5c005c00;
    const u32 moved = pair >> 1 & 0x3f803f80;
    const u32 nan = (moved + 0x00800080) >> 1 & 0x20002000;
    return multiply_f16x2(moved, two_to_the_8) | nan | (pair & 0x80008000);
}

template <> __device__ inline u32 pair_to_f16<F8_E5M2>(u32 pair) {
    return pair;
}

// Converts the four elements of a word. Every target type can represent all of their
// values, so nothing is rounded.
template <typename From> __device__ inline Words<4> convert_four(u32 four, F32) {
    const u32 quiet = quiet_four<From>(four);
    return {{widen<From>(quiet << 24), widen<From>(quiet << 16), widen<From>(quiet << 8),
             widen<From>(quiet)}};
}

template <typename From> __device__ inline Words<2> convert_four(u32 four, BF16) {
    const Words<4> f32 = convert_four<From>(four, F32());
    constexpr u32 upper_halves = 0x7632;
    return {{__byte_perm(f32.word[0], f32.word[1], upper_halves),
             __byte_perm(f32.word[2], f32.word[3], upper_halves)}};
}

template <typename From> __device__ inline Words<2> convert_four(u32 four, F16) {
    const u32 quiet = quiet_four<From>(four);
    constexpr u32 first_pair = 0x1404, second_pair = 0x3424;
    return {{pair_to_f16<From>(__byte_perm(quiet, 0, first_pair)),
             pair_to_f16<From>(__byte_perm(quiet, 0, second_pair))}};
}

// Returns a word with element `i` of words in its upper bits.
template <int BYTES, int COUNT> __device__ inline u32 element(const Words<COUNT> &words, int i) {
    return words.word[i * BYTES / 4] << (32 - 8 * BYTES - i * BYTES % 4 * 8);
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

    // Converts the element that is the lower part of `bits`, whose upper part is zero.
    static __device__ inline u32 convert(u32 bits) {
        if constexpr (From::BYTES == 1) {
            return convert_four<From>(bits, To()).word[0];
        } else {
            return narrow<To>(widen<From>(bits << (32 - 8 * From::BYTES)));
        }
    }

    static __device__ inline Words<TO_WORDS> convert(const Words<FROM_WORDS> &from) {
        Words<TO_WORDS> to = {};
        if constexpr (From::BYTES == 1) {
            UNROLL
            for (int i = 0; i < FROM_WORDS; i++) {
                const Words<To::BYTES> four = convert_four<From>(from.word[i], To());
                UNROLL
                for (int j = 0; j < To::BYTES; j++) {
                    to.word[i * To::BYTES + j] = four.word[j];
                }
            }
        } else {
            UNROLL
            for (int i = 0; i < GROUP; i++) {
                const u32 bits = narrow<To>(widen<From>(element<From::BYTES>(from, i)));
                to.word[i * To::BYTES / 4] |= bits << (i * To::BYTES % 4 * 8);
            }
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
