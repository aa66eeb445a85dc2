// scatter: copies all pieces from the staging buffer to their targets in one launch.
//
// A thread copies 16 bytes at a time to aligned addresses. The few bytes before the first and after
// the last of these vectors are copied one by one. If source and target are congruent modulo 16,
// loads are as wide as stores. Otherwise a load is five words, which are shifted; neighbouring
// threads read the same cache lines, which then are in the L1 cache.
#include "pieces.cuh"

namespace scatter {

constexpr u32 BLOCK_THREADS = 256;
constexpr u32 VECTOR_BYTES = 16;
// The number of vectors that a thread loads before it stores the first.
constexpr u32 IN_FLIGHT = 4;

template <bool ALIGNED> __device__ inline Words<4> load_vector(u64 address) {
    if (ALIGNED) {
        return load_aligned<4>(address);
    }
    return load_anywhere<4>(address);
}

// Copies `count` vectors to `target`, which is a multiple of 16.
template <bool ALIGNED> __device__ void copy_vectors(u64 source, u64 target, u64 count) {
    u64 at = threadIdx.x;
    for (; at + (IN_FLIGHT - 1) * BLOCK_THREADS < count; at += IN_FLIGHT * BLOCK_THREADS) {
        Words<4> vectors[IN_FLIGHT];
        UNROLL
        for (u32 i = 0; i < IN_FLIGHT; i++) {
            vectors[i] = load_vector<ALIGNED>(source + (at + i * BLOCK_THREADS) * VECTOR_BYTES);
        }
        UNROLL
        for (u32 i = 0; i < IN_FLIGHT; i++) {
            store_aligned(target + (at + i * BLOCK_THREADS) * VECTOR_BYTES, vectors[i]);
        }
    }
    NO_UNROLL
    for (; at < count; at += BLOCK_THREADS) {
        store_aligned(target + at * VECTOR_BYTES, load_vector<ALIGNED>(source + at * VECTOR_BYTES));
    }
}

// Copies fewer than 16 bytes.
__device__ inline void copy_bytes(u64 source, u64 target, u64 count) {
    const u64 at = threadIdx.x;
    if (at < count) {
        store<u8>(target + at, load<u8>(source + at));
    }
}

__device__ inline void copy(const Piece &piece) {
    const u64 up_to_aligned = (0 - piece.target) % VECTOR_BYTES;
    const u64 head = up_to_aligned < piece.length ? up_to_aligned : piece.length;
    const u64 vectors = (piece.length - head) / VECTOR_BYTES;
    const u64 body = head + vectors * VECTOR_BYTES;
    copy_bytes(piece.source, piece.target, head);
    if ((piece.source + head) % VECTOR_BYTES == 0) {
        copy_vectors<true>(piece.source + head, piece.target + head, vectors);
    } else {
        copy_vectors<false>(piece.source + head, piece.target + head, vectors);
    }
    copy_bytes(piece.source + body, piece.target + body, piece.length - body);
}

} // namespace scatter

// Copies `length` bytes from `source` to `target` for each piece; both may have any alignment.
extern "C" __global__ void __launch_bounds__(scatter::BLOCK_THREADS)
    ringload_scatter(const Piece *pieces, u32 count) {
    for (u32 i = blockIdx.x; i < count; i += gridDim.x) {
        scatter::copy(pieces[i]);
    }
}
