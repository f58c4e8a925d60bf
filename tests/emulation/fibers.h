// Runs the threads of CUDA blocks as fibers of one processor thread, so that a kernel's own source can be tested without
// a device. Decides nothing about numbers: it is a stand-in for threads, barriers and C++ builtins, and shows wrong
// indices, not speed and not races that need two instructions at once. Fails by abort, with a sentence.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __grid_constant__
#define __shared__ static
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)
#define __cluster_dims__(...)

struct Index {
    unsigned x, y, z;
};
inline Index threadIdx, blockIdx, gridDim;

struct uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }

template <class To, class From> To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof(to));
    return to;
}
inline unsigned __float_as_uint(float x) { return bits_as<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return bits_as<float>(x); }
inline float __int_as_float(int x) { return bits_as<float>(x); }
inline long long __double_as_longlong(double x) { return bits_as<long long>(x); }
inline double __longlong_as_double(long long x) { return bits_as<double>(x); }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
template <class T> T __ldcs(const T* from) { return *from; }
template <class T> void __stcs(T* to, T value) { *to = value; }
template <class T> T atomicAdd(T* to, T value) {
    const T old = *to;
    *to = old + value;
    return old;
}

template <class T> T atomicOr(T* to, T value) {
    const T old = *to;
    *to = old | value;
    return old;
}

[[noreturn]] inline void fail(const char* what) {
    fprintf(stderr, "%s (block %u, thread %u)\n", what, blockIdx.x, threadIdx.x);
    abort();
}
inline void require(bool holds, const char* what) {
    if (!holds) {
        fail(what);
    }
}

// One block's or warp's meeting point.
struct Meeting {
    unsigned size = 0, arrived = 0, times = 0;
    // What everybody who is here has said, and what all said the last time.
    bool every = true, said = true;
};

struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    unsigned thread, block, rank;
    bool done;
};

struct Machine {
    ucontext_t home;
    std::vector<Fiber> fibers;
    std::vector<Meeting> blocks, warps;
    Meeting cluster;
    unsigned threads = 0;
    size_t now = 0;
    // Round until which a warp sleeps.
    std::vector<unsigned> asleep;
    std::function<void()> body, between;
    std::mt19937 chance{20240229};
};
inline Machine machine;

inline Fiber& self() { return machine.fibers[machine.now]; }
inline unsigned warp_now() { return self().rank * (machine.threads / 32) + self().thread / 32; }

[[gnu::noinline]] inline void yield() { swapcontext(&self().context, &machine.home); }

inline void meet(Meeting& meeting) {
    const unsigned times = meeting.times;
    if (++meeting.arrived == meeting.size) {
        meeting.arrived = 0;
        meeting.said = meeting.every;
        meeting.every = true;
        meeting.times++;
    }
    while (meeting.times == times) {
        yield();
    }
}
inline void __syncthreads() { meet(machine.blocks[self().rank]); }
inline int __syncthreads_and(int holds) {
    Meeting& meeting = machine.blocks[self().rank];
    meeting.every = meeting.every && holds;
    meet(meeting);
    return meeting.said;
}
inline void __syncwarp() { meet(machine.warps[warp_now()]); }

// Every lane gives a value and gets those of its whole warp.
template <class T> struct OfWarp {
    T lane[32];
};
template <class T> OfWarp<T> exchange(T value) {
    static std::vector<OfWarp<T>> board(64);
    board[warp_now()].lane[self().thread % 32] = value;
    __syncwarp();
    const OfWarp<T> all = board[warp_now()];
    __syncwarp();
    return all;
}
template <class T> T __shfl_xor_sync(unsigned, T value, unsigned distance) {
    return exchange(value).lane[(self().thread % 32) ^ distance];
}

inline void run_fiber() {
    machine.body();
    self().done = true;
    yield();
}

// Runs `body` for every thread of every block, the `cluster` blocks of a cluster at the same time. Fibers take turns in
// an order drawn anew every few rounds, and now and then a warp sleeps for a while, so that a barrier that is missing
// shows: without it the others run ahead.
inline void launch(unsigned grid, unsigned threads, unsigned cluster, std::function<void()> body) {
    Machine& m = machine;
    m.body = std::move(body);
    m.threads = threads;
    gridDim = {grid, 1, 1};
    if (m.fibers.size() < threads * cluster) {
        m.fibers.resize(threads * cluster);
    }
    for (unsigned first = 0; first < grid; first += cluster) {
        m.blocks.assign(cluster, Meeting{threads});
        m.warps.assign(cluster * (threads + 31) / 32, Meeting{threads < 32 ? threads : 32});
        m.cluster = Meeting{threads * cluster};
        m.asleep.assign(m.warps.size(), 0);
        std::vector<size_t> order;
        for (unsigned i = 0; i < threads * cluster; i++) {
            Fiber& fiber = m.fibers[i];
            const size_t STACK = 1 << 17;
            if (!fiber.stack) {
                fiber.stack.reset(new char[STACK]);
            }
            fiber.thread = i % threads;
            fiber.rank = i / threads;
            fiber.block = first + fiber.rank;
            fiber.done = false;
            getcontext(&fiber.context);
            fiber.context.uc_stack.ss_sp = fiber.stack.get();
            fiber.context.uc_stack.ss_size = STACK;
            fiber.context.uc_link = nullptr;
            makecontext(&fiber.context, run_fiber, 0);
            order.push_back(i);
        }
        for (unsigned round = 0; !order.empty(); round++) {
            require(round < 100000, "the block hangs: threads wait for what nobody does");
            if (m.between) {
                m.between();
            }
            if (round % 4 == 0) {
                std::shuffle(order.begin(), order.end(), m.chance);
            }
            if (m.chance() % 8 == 0) {
                m.asleep[m.chance() % m.asleep.size()] = round + m.chance() % 100;
            }
            size_t kept = 0;
            for (size_t i : order) {
                if (m.asleep[i / 32] > round) {
                    order[kept++] = i;
                    continue;
                }
                m.now = i;
                threadIdx = {m.fibers[i].thread, 0, 0};
                blockIdx = {m.fibers[i].block, 0, 0};
                swapcontext(&m.home, &m.fibers[i].context);
                if (!m.fibers[i].done) {
                    order[kept++] = i;
                }
            }
            order.resize(kept);
        }
    }
}

// Memory of exactly so many bytes that ends where a page begins that nobody may touch; it starts at no round address
// unless its size makes it so, and is filled with bytes that would show.
class Guarded {
    char *whole = nullptr, *begin = nullptr;
    size_t length = 0, size = 0;

public:
    explicit Guarded(size_t bytes) : size(bytes) {
        const size_t PAGE = 4096;
        length = (bytes + PAGE - 1) / PAGE * PAGE + 2 * PAGE;
        whole = (char*)mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        require(whole != MAP_FAILED, "no memory");
        mprotect(whole, PAGE, PROT_NONE);
        mprotect(whole + length - PAGE, PAGE, PROT_NONE);
        begin = whole + length - PAGE - bytes;
        memset(begin, 0x5A, bytes);
    }
    Guarded(const Guarded&) = delete;
    ~Guarded() { munmap(whole, length); }
    template <class T> T* as() { return (T*)begin; }
    size_t bytes() const { return size; }
};
