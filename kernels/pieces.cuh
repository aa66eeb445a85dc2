// Code that the kernels share: the pieces that they process, and loads from any address.
//
// A launch gets a list of pieces. Each piece is a range of bytes (or elements) and the address of
// its result. Block b processes the pieces b, b + gridDim.x, ..., so a launch is correct with any
// grid. The block size is fixed: BLOCK_THREADS in each kernel's namespace.
//
// The files compile for a GPU (NVRTC) and, with the shim of the tests, for the host. Therefore they
// include no header, and use little of what CUDA adds to C++: threadIdx.x, blockIdx.x, gridDim.x,
// __shared__, __syncthreads, and a few functions that take and return numbers.
#pragma once

// Unrolling makes loops faster and keeps arrays in registers.
#ifdef __CUDACC__
#define UNROLL _Pragma("unroll")
#define UNROLL_BY_4 _Pragma("unroll 4")
#define NO_UNROLL _Pragma("unroll 1")
#else
#define UNROLL
#define UNROLL_BY_4
#define NO_UNROLL
#endif

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// A range to process. `Piece` in src/device/cuda has the same layout.
struct Piece {
    u64 source; // the address of its first byte
    u64 target; // the address of its result; unused if results are numbers
    u64 length; // of the source: bytes, or elements for `cast`
};

// Vectors of 8 and 16 bytes with the alignment that wide loads and stores need.
struct alignas(8) Bytes8 {
    u32 word[2];
};
struct alignas(16) Bytes16 {
    u32 word[4];
};

// Loads and stores of global memory. Global and generic addresses are the same numbers. Declaring
// an address as global saves a check of the address space at every access.
template <typename T> __device__ inline T load(u64 address) {
    return *reinterpret_cast<const T *>(__cvta_global_to_generic(address));
}

template <typename T> __device__ inline void store(u64 address, T value) {
    *reinterpret_cast<T *>(__cvta_global_to_generic(address)) = value;
}

// The lower word of the 64 bits `high:low`, shifted right by `bits` (below 32): one funnel shift.
__device__ inline u32 funnel(u32 low, u32 high, u32 bits) {
    return (u32)((((u64)high << 32) | low) >> bits);
}

// `COUNT` words.
template <int COUNT> struct Words {
    u32 word[COUNT];
};

// Loads `COUNT` words (1, 2 or 4) from any address. It reads whole aligned words, so up to three
// bytes on either side of the range. They share a word, and so a page, with bytes of the range.
template <int COUNT> __device__ inline Words<COUNT> load_anywhere(u64 address) {
    Words<COUNT> result;
    const u64 aligned = address & ~(u64)3;
    const u32 bits = (u32)(address & 3) * 8;
    u32 low = load<u32>(aligned);
    UNROLL
    for (int i = 0; i < COUNT; i++) {
        // Without a shift, the next word may lie beyond the last byte.
        const bool more = bits != 0 || i + 1 < COUNT;
        const u32 high = more ? load<u32>(aligned + 4 * (i + 1)) : 0;
        result.word[i] = funnel(low, high, bits);
        low = high;
    }
    return result;
}

// Loads `COUNT` words from an address that is a multiple of their size, in one load.
template <int COUNT> __device__ inline Words<COUNT> load_aligned(u64 address);

template <> __device__ inline Words<1> load_aligned<1>(u64 address) {
    return {{load<u32>(address)}};
}

template <> __device__ inline Words<2> load_aligned<2>(u64 address) {
    const Bytes8 bytes = load<Bytes8>(address);
    return {{bytes.word[0], bytes.word[1]}};
}

template <> __device__ inline Words<4> load_aligned<4>(u64 address) {
    const Bytes16 bytes = load<Bytes16>(address);
    return {{bytes.word[0], bytes.word[1], bytes.word[2], bytes.word[3]}};
}

// Stores words at an address that is a multiple of their size, in one store.
__device__ inline void store_aligned(u64 address, const Words<1> &words) {
    store(address, words.word[0]);
}

__device__ inline void store_aligned(u64 address, const Words<2> &words) {
    store(address, Bytes8{{words.word[0], words.word[1]}});
}

__device__ inline void store_aligned(u64 address, const Words<4> &words) {
    store(address, Bytes16{{words.word[0], words.word[1], words.word[2], words.word[3]}});
}
