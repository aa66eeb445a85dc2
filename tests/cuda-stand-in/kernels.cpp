// The project's kernels on the host: the real .cu files, compiled as C++ with a shim.
//
//   stand_in_launch(name, grid, block, ..., seed)
//     for each block:  threads one after the other, or, where a kernel waits for its block
//                      (__syncthreads), each as a fiber that is switched at every wait
//
// Memory that a block shares belongs to the calling thread, which runs one block at a time: launches
// from several threads do not meet. The seed orders the blocks, and anew after each wait the
// threads: forwards, backwards, warp by warp, or all of them at random. So a kernel that leans on
// an order, or lacks a wait, has wrong results with some seeds; one that waits for threads which have
// ended aborts. A load or store at an address that is not a multiple of its size traps, as it does on
// a GPU (build.rs has the option of the compiler).
#pragma GCC optimize("O2")

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>
#include <ucontext.h>

// What a kernel sees of the language that CUDA adds.
#define __device__
#define __global__
#define __launch_bounds__(...)
#define __shared__ static thread_local

namespace {

struct Index {
    unsigned x;
};
thread_local Index threadIdx, blockIdx, gridDim;

void wait_for_block();

void __syncthreads() {
    wait_for_block();
}

unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof(bits));
    return bits;
}

float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
}

void *__cvta_global_to_generic(std::size_t address) {
    return reinterpret_cast<void *>(address);
}

// Byte i of the result is that byte of `high:low` whose number is in bits 4i to 4i + 2 of `selector`.
unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
    const uint64_t bytes = (uint64_t)high << 32 | low;
    unsigned result = 0;
    for (unsigned i = 0; i < 4; i++) {
        result |= (unsigned)(bytes >> (selector >> 4 * i & 7) * 8 & 0xff) << 8 * i;
    }
    return result;
}

unsigned multiply_f16x2(unsigned a, unsigned b);

#include "../../kernels/cast.cu"
#include "../../kernels/crc64.cu"
#include "../../kernels/scatter.cu"

// As the instruction `mul.rn.f16x2`, except for NaNs. An f32 holds the product of two F16 exactly.
u32 multiply_f16x2(u32 a, u32 b) {
    const auto product = [](u32 left, u32 right) {
        const float value = __uint_as_float(cast::widen<cast::F16>(left << 16)) *
                            __uint_as_float(cast::widen<cast::F16>(right << 16));
        return cast::narrow<cast::F16>(__float_as_uint(value));
    };
    return product(a, b) | product(a >> 16, b >> 16) << 16;
}

template <typename T> T argument(void **arguments, int i) {
    T value;
    std::memcpy(&value, arguments[i], sizeof(value));
    return value;
}

template <void (*KERNEL)(const Piece *, u32)> void run_on_pieces(void **arguments) {
    KERNEL(argument<const Piece *>(arguments, 0), argument<u32>(arguments, 1));
}

void run_crc64(void **arguments) {
    ringload_crc64(argument<const Piece *>(arguments, 0), argument<u32>(arguments, 1),
                   argument<u64 *>(arguments, 2));
}

struct Kernel {
    const char *name;
    unsigned block_threads;
    bool waits;
    void (*run)(void **arguments);
};

#define CAST(NAME) {#NAME, cast::BLOCK_THREADS, false, run_on_pieces<NAME>}

const Kernel KERNELS[] = {
    {"ringload_scatter", scatter::BLOCK_THREADS, false, run_on_pieces<ringload_scatter>},
    {"ringload_crc64", crc64::BLOCK_THREADS, true, run_crc64},
    CAST(ringload_cast_f32_f16),
    CAST(ringload_cast_f32_bf16),
    CAST(ringload_cast_f16_f32),
    CAST(ringload_cast_f16_bf16),
    CAST(ringload_cast_bf16_f32),
    CAST(ringload_cast_bf16_f16),
    CAST(ringload_cast_f8_e4m3_f32),
    CAST(ringload_cast_f8_e4m3_f16),
    CAST(ringload_cast_f8_e4m3_bf16),
    CAST(ringload_cast_f8_e5m2_f32),
    CAST(ringload_cast_f8_e5m2_f16),
    CAST(ringload_cast_f8_e5m2_bf16),
};

// Numbers from a seed (SplitMix64).
class Random {
  public:
    explicit Random(uint64_t seed = 0) : state_(seed) {}

    // Below `end`.
    unsigned below(unsigned end) {
        state_ += 0x9e3779b97f4a7c15;
        uint64_t mixed = state_;
        mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9;
        mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111eb;
        return (unsigned)((mixed ^ mixed >> 31) % end);
    }

  private:
    uint64_t state_;
};

constexpr unsigned WARP_THREADS = 32;
constexpr unsigned BLOCK_THREADS_MAX = 256;
static_assert(scatter::BLOCK_THREADS <= BLOCK_THREADS_MAX && cast::BLOCK_THREADS <= BLOCK_THREADS_MAX,
              "there is a place for each thread of a block");

// Orders `count` threads: forwards, backwards, by warps in any order, or at random.
void order(Random &random, unsigned *threads, unsigned count) {
    const unsigned kind = random.below(4);
    const unsigned together = kind == 2 && count % WARP_THREADS == 0 ? WARP_THREADS : 1;
    for (unsigned i = 0; i < count; i++) {
        threads[i] = kind == 1 ? count - 1 - i : i;
    }
    if (kind < 2) {
        return;
    }
    for (unsigned i = count / together; i > 1; i--) {
        const unsigned other = random.below(i);
        for (unsigned lane = 0; lane < together; lane++) {
            std::swap(threads[(i - 1) * together + lane], threads[other * together + lane]);
        }
    }
}

// The wait that tests leave out: the first and the second of a kernel are 0 and 1; of those after
// them, which its loop repeats, the even ones are 2 and the odd ones 3. -1: none.
thread_local int left_out = -1;

// The threads of one block, as fibers of the calling thread.
class Fibers {
  public:
    // Runs `kernel` for each thread of the current block.
    void run_block(const Kernel &kernel, void **arguments, Random &random) {
        kernel_ = &kernel;
        arguments_ = arguments;
        for (unsigned i = 0; i < kernel.block_threads; i++) {
            prepare(i);
        }
        // One round goes from one wait of the block to the next.
        unsigned threads[THREADS_MAX];
        for (unsigned running = kernel.block_threads; running > 0;) {
            const unsigned before = running;
            order(random, threads, kernel.block_threads);
            for (unsigned i = 0; i < kernel.block_threads; i++) {
                const unsigned thread = threads[i];
                if (!fibers_[thread].ended) {
                    resume(thread);
                    running -= fibers_[thread].ended;
                }
            }
            if (running > 0 && running < before) {
                std::fprintf(stderr, "%s: threads wait for others that have ended\n", kernel.name);
                std::abort();
            }
        }
    }

    // Called by a fiber: lets the others go on until all have come here.
    void wait() {
        const unsigned number = fibers_[current_].waits++;
        if (left_out == (int)(number < 2 ? number : 2 + number % 2)) {
            return;
        }
        swapcontext(&fibers_[current_].context, &scheduler_);
        threadIdx.x = current_;
    }

  private:
    static constexpr std::size_t STACK_BYTES = 64 << 10;
    static constexpr unsigned THREADS_MAX = 64;

    struct Fiber {
        ucontext_t context;
        bool ended;
        unsigned waits;
        std::unique_ptr<char[]> stack;
    };

    void prepare(unsigned thread) {
        Fiber &fiber = fibers_[thread];
        if (!fiber.stack) {
            fiber.stack.reset(new char[STACK_BYTES]);
        }
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = STACK_BYTES;
        fiber.context.uc_link = &scheduler_;
        fiber.ended = false;
        fiber.waits = 0;
        makecontext(&fiber.context, enter, 0);
    }

    void resume(unsigned thread) {
        current_ = thread;
        threadIdx.x = thread;
        swapcontext(&scheduler_, &fibers_[thread].context);
    }

    static void enter();

    const Kernel *kernel_ = nullptr;
    void **arguments_ = nullptr;
    unsigned current_ = 0;
    ucontext_t scheduler_;
    Fiber fibers_[THREADS_MAX] = {};
};

static_assert(crc64::BLOCK_THREADS <= 64, "there is a fiber for each thread of a block");

thread_local std::unique_ptr<Fibers> fibers;

void Fibers::enter() {
    Fibers &self = *fibers;
    self.kernel_->run(self.arguments_);
    self.fibers_[self.current_].ended = true;
}

void wait_for_block() {
    fibers->wait();
}

void run_block(const Kernel &kernel, void **arguments, Random &random) {
    if (kernel.waits) {
        if (!fibers) {
            fibers.reset(new Fibers);
        }
        fibers->run_block(kernel, arguments, random);
        return;
    }
    unsigned threads[BLOCK_THREADS_MAX];
    order(random, threads, kernel.block_threads);
    for (unsigned i = 0; i < kernel.block_threads; i++) {
        threadIdx.x = threads[i];
        kernel.run(arguments);
    }
}

} // namespace

// Runs the whole grid of the kernel called `name`, as cuLaunchKernel would: `arguments` points to a
// pointer to each of its arguments. 0: done; 1: there is no such kernel; 2: not as it wants to be
// launched (its block size, a grid of at least one block, no dynamic shared memory).
extern "C" int stand_in_launch(const char *name, uint32_t grid_x, uint32_t block_x,
                               uint32_t shared_bytes, void **arguments, uint64_t seed) {
    for (const Kernel &kernel : KERNELS) {
        if (std::strcmp(kernel.name, name) != 0) {
            continue;
        }
        if (grid_x == 0 || block_x != kernel.block_threads || shared_bytes != 0) {
            return 2;
        }
        gridDim.x = grid_x;
        Random random(seed);
        const bool backwards = random.below(2) == 1;
        for (unsigned i = 0; i < grid_x; i++) {
            blockIdx.x = backwards ? grid_x - 1 - i : i;
            run_block(kernel, arguments, random);
        }
        return 0;
    }
    return 1;
}

// Leaves a wait of the block out of the launches of the calling thread, for tests: see `left_out`.
extern "C" void stand_in_leave_out_wait(int number) {
    left_out = number;
}
