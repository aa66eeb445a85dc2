// crc64: the CRC-64/NVME of each piece.
//
// A table lookup per byte would be far too slow. Instead thousands of words are reduced in
// parallel, with XOR only:
//
//   Arrange a piece in rows of ROW_BYTES (a power of two); each thread has one column of words.
//   With polynomials over GF(2), moving down a row is a multiplication by x^ROW_BITS. Because
//   ROW_BITS is a power of two, Q(x^ROW_BITS) = Q(x)^ROW_BITS for every Q. Each multiple Q of the
//   CRC's polynomial P therefore gives a rule for rows: if Q = x^n + x^a + x^b + ..., a row can be
//   eliminated by adding it to the rows n - a, n - b, ... below it. The last n rows remain, and
//   their CRC is that of the whole piece.
//
// P itself has n = 64 and 32 further terms. The cheapest of its multiples up to degree 96 is used
// here: n = 76 and 20 further terms. A word costs 20 XORs, which are 10 three-input operations
// (LOP3). A thread keeps the last 76 words of its column in registers, which is possible because
// the loop over them is unrolled.
//
// Then each thread applies Horner's rule to its 76 words, acc = acc * x^ROW_BITS + word, with
// tables for half bytes. The 16 entries of 8 bytes cover all 32 banks of the shared memory once, so
// lookups never conflict. The CRC is the sum over the threads of their results times x^(bits that
// follow).
//
// Cycles: a multiprocessor of an H200 executes 64 LOP3s per cycle, so 10 of them for 4 bytes take
// 0.039 cycles per byte (25 bytes per cycle). Horner's rule takes 64 x 76 steps of about 64
// operations per piece: 4900 cycles, or 0.005 per byte for pieces of 1 MiB. At 1.75 GHz and 132
// multiprocessors that is 5e12 bytes/s, more than the bandwidth of the memory. It needs 512 threads
// with 19 words in flight each: 128 registers per thread, 39 KB in flight per multiprocessor.
//
// Numbers are reflected, as those of this CRC are: the lowest bit of a byte is the highest power,
// and bit i of a u64 is x^(63 - i).
#include "pieces.cuh"

namespace crc64 {

constexpr u32 BLOCK_THREADS = 64;
constexpr u32 BLOCKS_PER_MULTIPROCESSOR = 8;
constexpr u32 ROW_BYTES = 4 * BLOCK_THREADS;
static_assert((ROW_BYTES & (ROW_BYTES - 1)) == 0, "rows are a power of two");
// Rows begin at multiples of this in memory, so that a warp loads whole cache lines.
constexpr u32 LINE_BYTES = 128;

// P, reflected, without x^64.
constexpr u64 POLYNOMIAL = 0x9a6c9329ac4bc9b5;
// Q: the powers below DEGREE whose coefficient is 1, counted from the top: DEGREE - power.
constexpr u32 DEGREE = 76;
constexpr u32 TAPS[] = {1, 2, 4, 11, 15, 16, 22, 23, 29, 30, 37, 44, 46, 47, 50, 59, 62, 63, 69, 76};
// The number of words that are loaded ahead; a divisor of DEGREE.
constexpr u32 AHEAD = 19;
static_assert(DEGREE % AHEAD == 0, "a group of rows is some loads ahead");

// Returns a * x.
__device__ constexpr u64 times_x(u64 a) {
    return (a >> 1) ^ (POLYNOMIAL & (0 - (a & 1)));
}

// Returns a * b.
__device__ constexpr u64 product(u64 a, u64 b) {
    u64 sum = 0;
    NO_UNROLL
    for (int bit = 0; bit < 64; bit++) {
        sum ^= b & (0 - (a >> 63));
        a <<= 1;
        b = times_x(b);
    }
    return sum;
}

// The polynomial 1.
constexpr u64 ONE = (u64)1 << 63;

// Returns x^(2^`log`).
__device__ constexpr u64 x_to_power_of_two(u32 log) {
    u64 power = ONE >> 1;
    for (u32 i = 0; i < log; i++) {
        power = product(power, power);
    }
    return power;
}

// Returns x^(32 * `words`), for fewer than 2^7 words.
__device__ inline u64 x_to_words(u32 words) {
    constexpr u64 powers[] = {
        x_to_power_of_two(5), x_to_power_of_two(6),  x_to_power_of_two(7),  x_to_power_of_two(8),
        x_to_power_of_two(9), x_to_power_of_two(10), x_to_power_of_two(11),
    };
    u64 power = ONE;
    UNROLL
    for (u32 log = 0; log < 7; log++) {
        if (words >> log & 1) {
            power = product(power, powers[log]);
        }
    }
    return power;
}

// x^ROW_BITS.
constexpr u64 ROW = x_to_power_of_two(11);
static_assert(8 * ROW_BYTES == 1 << 11, "ROW is the power of a row");

// Q modulo P is 0, so the rule for rows is correct.
__device__ constexpr bool is_multiple() {
    // Horner's rule, from the highest power down.
    u64 sum = ONE;
    u32 power = DEGREE;
    for (u32 tap : TAPS) {
        for (; power > DEGREE - tap; power--) {
            sum = times_x(sum);
        }
        sum ^= ONE;
    }
    return sum == 0 && power == 0;
}
static_assert(is_multiple(), "the taps are those of a multiple of the polynomial");

// The shared memory of a block.
struct Shared {
    u32 rows[DEGREE][BLOCK_THREADS];
    // [i][v]: the i-th half byte with the bits v, times ROW.
    u64 moved[16][16];
    // x^(8 * (bytes that follow + 8)).
    u64 weights[ROW_BYTES];
    u64 sums[BLOCK_THREADS];
};

static_assert(BLOCK_THREADS == 64, "a thread for each bit, and for each word of a row");

// About 7 products per thread, which take as long as 0.07 MiB of a piece.
__device__ inline void fill_tables(Shared &shared) {
    const u32 thread = threadIdx.x;
    u64 weight = x_to_words(thread + 2);
    for (u32 i = 0; i < 4; i++) {
        shared.weights[4 * thread + i] = weight;
        for (int bit = 0; bit < 8; bit++) {
            weight = times_x(weight);
        }
    }
    // Each bit times ROW, then the sums of the four bits of each half byte.
    shared.sums[thread] = product(ROW, (u64)1 << thread);
    __syncthreads();
    for (u32 i = thread; i < 256; i += BLOCK_THREADS) {
        u64 sum = 0;
        for (u32 bit = 0; bit < 4; bit++) {
            sum ^= shared.sums[i / 16 * 4 + bit] & (0 - (u64)(i >> bit & 1));
        }
        shared.moved[i / 16][i % 16] = sum;
    }
}

// Loads at most `count` bytes of a piece from `at`; bytes before its first one are 0. Its first
// eight bytes are inverted, because the initial value of the CRC is all ones.
__device__ inline u32 edge_bytes(const Piece &piece, u64 at, u32 count) {
    u32 word = 0;
    NO_UNROLL
    for (u32 i = 0; i < count; i++) {
        const u64 place = at + i - piece.source; // huge if it lies before the source
        if (place < piece.length) {
            word |= (u32)(u8)(load<u8>(at + i) ^ (place < 8 ? 0xff : 0)) << (8 * i);
        }
    }
    return word;
}

__device__ inline u32 edge_word(const Piece &piece, u64 at) {
    const long long place = (long long)(at - piece.source);
    return place >= 8 ? load<u32>(at) : place > -4 ? edge_bytes(piece, at, 4) : 0;
}

// Copies DEGREE rows of this thread's column from `at` to the shared memory.
__device__ inline void stage(Shared &shared, const Piece &piece, u64 at) {
    UNROLL_BY_4
    for (u32 row = 0; row < DEGREE; row++) {
        shared.rows[row][threadIdx.x] = edge_word(piece, at + row * ROW_BYTES);
    }
}

// Loads DEGREE rows, from `at` or from the shared memory, and adds the DEGREE rows before them,
// which `words` holds, to them. All rows are eliminated; in the `LAST` group only the rows before
// them are, and the remaining ones are written back to the shared memory.
template <bool STAGED, bool LAST>
__device__ inline void take_rows(u32 (&words)[DEGREE], u32 (&ahead)[AHEAD], Shared &shared, u64 at) {
    UNROLL
    for (u32 part = 0; part < DEGREE; part += AHEAD) {
        u32 now[AHEAD];
        UNROLL
        for (u32 i = 0; i < AHEAD; i++) {
            now[i] = STAGED ? shared.rows[part + i][threadIdx.x] : ahead[i];
        }
        if (!STAGED) {
            UNROLL
            for (u32 i = 0; i < AHEAD; i++) {
                ahead[i] = load<u32>(at + (part + AHEAD + i) * ROW_BYTES);
            }
        }
        UNROLL
        for (u32 i = 0; i < AHEAD; i++) {
            const u32 row = part + i;
            u32 sum = now[i];
            UNROLL
            for (u32 tap : TAPS) {
                if (!LAST || tap > row) {
                    sum ^= words[(row + DEGREE - tap) % DEGREE];
                }
            }
            words[row] = sum;
            if (LAST) {
                shared.rows[row][threadIdx.x] = sum;
            }
        }
    }
}

// Returns the sum of the column's last rows, each times the power of x for the rows below it.
__device__ inline u64 sum_of_rows(const Shared &shared) {
    u64 sum = 0;
    NO_UNROLL
    for (u32 row = 0; row < DEGREE; row++) {
        u64 moved = 0;
        UNROLL
        for (u32 i = 0; i < 16; i++) {
            moved ^= shared.moved[i][sum >> (4 * i) & 15];
        }
        sum = moved ^ (u64)shared.rows[row][threadIdx.x] << 32;
    }
    return sum;
}

// Returns the contribution of this thread's column to the CRC of a piece of at least eight bytes.
__device__ inline u64 column(Shared &shared, const Piece &piece) {
    const u64 base = piece.source - piece.source % LINE_BYTES;
    const u64 len = piece.source + piece.length - base;
    const u64 first = 4 * threadIdx.x;
    const u64 rows = len >= first + 4 ? (len - first - 4) / ROW_BYTES + 1 : 0;
    const u64 end = first + rows * ROW_BYTES; // of the next word, which is incomplete
    u64 result = 0;
    if (end < len && len - end < 4) {
        const u32 count = (u32)(len - end);
        const u64 bytes = edge_bytes(piece, base + end, count);
        result = product(bytes << (64 - 8 * count), shared.weights[0]);
    }
    if (rows == 0) {
        return result;
    }
    // Rows of zeroes before the first row do not change the CRC. They complete the groups of DEGREE
    // rows.
    const u64 groups = (rows + DEGREE - 1) / DEGREE;
    u64 at = base + first - (groups * DEGREE - rows) * ROW_BYTES;
    u32 words[DEGREE] = {};
    u32 ahead[AHEAD];
    stage(shared, piece, at);
    if (groups > 1) {
        take_rows<true, false>(words, ahead, shared, at);
        at += DEGREE * ROW_BYTES;
        UNROLL
        for (u32 i = 0; i < AHEAD; i++) {
            ahead[i] = load<u32>(at + i * ROW_BYTES);
        }
        NO_UNROLL
        for (u64 group = 2; group < groups; group++) {
            take_rows<false, false>(words, ahead, shared, at);
            at += DEGREE * ROW_BYTES;
        }
        stage(shared, piece, at);
    }
    take_rows<true, true>(words, ahead, shared, at);
    const u64 follow = len - (end - ROW_BYTES + 4);
    return result ^ product(sum_of_rows(shared), shared.weights[follow]);
}

// Returns the CRC of fewer than eight bytes, bit by bit.
__device__ inline u64 of_few(const Piece &piece) {
    u64 sum = ~(u64)0;
    NO_UNROLL
    for (u64 i = 0; i < piece.length; i++) {
        sum ^= load<u8>(piece.source + i);
        NO_UNROLL
        for (int bit = 0; bit < 8; bit++) {
            sum = times_x(sum);
        }
    }
    return ~sum;
}

} // namespace crc64

// Writes the CRC-64/NVME of the `length` bytes of each piece, which may have any alignment, to
// `results`.
extern "C" __global__ void
__launch_bounds__(crc64::BLOCK_THREADS, crc64::BLOCKS_PER_MULTIPROCESSOR)
    ringload_crc64(const Piece *pieces, u32 count, u64 *results) {
    __shared__ crc64::Shared shared;
    crc64::fill_tables(shared);
    __syncthreads();
    for (u32 i = blockIdx.x; i < count; i += gridDim.x) {
        const Piece piece = pieces[i];
        shared.sums[threadIdx.x] = piece.length < 8 ? 0 : crc64::column(shared, piece);
        __syncthreads();
        if (threadIdx.x == 0) {
            u64 sum = ~(u64)0;
            for (u32 thread = 0; thread < crc64::BLOCK_THREADS; thread++) {
                sum ^= shared.sums[thread];
            }
            results[i] = piece.length < 8 ? crc64::of_few(piece) : sum;
        }
        __syncthreads();
    }
}
