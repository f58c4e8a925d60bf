// Decides how ranks sum a buffer over memory that each can reach: the ranks of one device, or devices with peer access.
// Two ways: ONE SHOT for small messages, every rank sends its words to every rank and sums what it was sent; TWO SHOT for
// large ones, rank k sums the k-th part of every input and writes it to every output. Refuses to wait for ever: a rank
// that stays away is noted by its number, and the kernel ends. Built for compute_80 and later:
// ptx/all_reduce.compute_80.ptx.
//
// CONTRACT. Names of types are those of step.cu; block 256×1×1, no dynamic shared memory. `Group` below travels by value.
// Every rank runs `blocks` blocks, and ALL blocks of a launch must be resident at once (a cooperative launch), as must
// those of all ranks; a launch holds the blocks of the ranks `first`, first + 1, …, blocks apiece. Ranks call the same
// entries in the same order with the same `bytes`, `blocks` and `turn`, streams in order.
//   peer[r].input, .output  `bytes` bytes, aligned to 16; they may be the same memory (in place)
//   peer[r].stage           one shot: 2 · ranks · room u64, ZEROED once before the first turn; room ≥ bytes / 4 rounded up
//   peer[r].flags           two shot: 32 · blocks u32, ZEROED once before the first turn
//   peer[r].status          one u32, ZEROED before the launch: bit p is set where rank r waited in vain for rank p. The
//                           result of a launch that sets one is void for every rank, and stage and flags of all must be zeroed
//   turn                    counts the calls of one shot, and apart from it those of two shot, from 1; it may wrap
//   limit_ns                longest single wait by %globaltimer; a kernel has at most two (two shot) or one a word (one shot)
//   ranks                   1 … 16
// f32, bf16 and f16 are summed in f32 and rounded once to nearest even; i32 wraps. Every rank gets the same bits.
//
// | entry | parameters in order | notes |
// |---|---|---|
// | all_reduce_one_f32, all_reduce_one_bf16, all_reduce_one_f16, all_reduce_one_i32 |
// |   | Group group, u64 bytes, u32 turn | one shot; bytes is a whole number of elements |
// | all_reduce_two_f32, all_reduce_two_bf16, all_reduce_two_f16, all_reduce_two_i32 |
// |   | Group group, u64 bytes, u32 turn | two shot; reads ranks · bytes and writes ranks · bytes over all ranks |
// | rank_fill_f32, rank_fill_bf16, rank_fill_f16, rank_fill_i32 |
// |   | out*, u64 count, u32 key, u32 shift | element i = (hash >> shift) − 2^(31 − shift), hash and key as |
// |   |   | collective/exact.rs has them (shift 15 is its range). Totals are exact while ranks · 2^(31 − shift) is at |
// |   |   | most 2²⁴ (f32), 2¹¹ (f16), 2⁸ (bf16); i32 wraps. Any grid |
// | rank_check_f32, rank_check_bf16, rank_check_f16, rank_check_i32 |
// |   | Group group, u32 held, u64 count, const u32* keys, u32 shift, u32* faults, u32 room | compares `count` |
// |   |   | elements of the outputs of ranks first … first + held − 1 with the total over keys[0 .. ranks]. faults[0] |
// |   |   | counts wrong elements (standing still at 2³¹ or above); the first `room` to be found are recorded at |
// |   |   | faults + 4: {u32 index low, rank << 16 | index high, wanted bits, found bits}. The caller ZEROES faults[0]. |
// |   |   | Any grid |

#include "generator.cuh"
#include "ptx.cuh"

// Four blocks of each multiprocessor keep its memory busy; the registers that leaves are enough.
#define KERNEL extern "C" __global__ void __launch_bounds__(256, 4)
#define EACH(index, count) \
    for (u64 index = (u64)blockIdx.x * 256u + threadIdx.x; index < (count); index += (u64)gridDim.x * 256u)

const u32 RANKS_MAX = 16;
// Flags of one block: a line of its own.
const u32 FLAGS = 32;
// Inputs that a thread asks for before it adds the first.
const u32 AHEAD = 8;

struct Peer {
    const void* input;
    void* output;
    u64* stage;
    u32* flags;
    u32* status;
};
struct Group {
    Peer peer[RANKS_MAX];
    u64 limit_ns;
    u32 ranks, first, blocks, room;
};
static_assert(sizeof(Group) == 664, "kernels/src/cuda/reduce.rs lays it out too");

// How the elements of a 32-bit word are added up.
template <class T> struct Sums;
template <> struct Sums<f32> {
    typedef f32 Sum;
    typedef u32 Element;
    static const u32 PER_WORD = 1;
    static __device__ __forceinline__ void add(f32 (&sum)[1], u32 word) { sum[0] += __uint_as_float(word); }
    static __device__ __forceinline__ u32 round(const f32 (&sum)[1]) { return __float_as_uint(sum[0]); }
    static __device__ __forceinline__ u32 whole(i32 value) { return __float_as_uint((f32)value); }
};
template <> struct Sums<i32> {
    typedef u32 Sum;
    typedef u32 Element;
    static const u32 PER_WORD = 1;
    static __device__ __forceinline__ void add(u32 (&sum)[1], u32 word) { sum[0] += word; }
    static __device__ __forceinline__ u32 round(const u32 (&sum)[1]) { return sum[0]; }
    static __device__ __forceinline__ u32 whole(i32 value) { return (u32)value; }
};
template <> struct Sums<Bf16> {
    typedef f32 Sum;
    typedef u16 Element;
    static const u32 PER_WORD = 2;
    static __device__ __forceinline__ void add(f32 (&sum)[2], u32 word) {
        sum[0] += __uint_as_float(word << 16);
        sum[1] += __uint_as_float(word & 0xFFFF0000u);
    }
    static __device__ __forceinline__ u32 round(const f32 (&sum)[2]) { return bf16_pair(sum[0], sum[1]); }
    static __device__ __forceinline__ u32 whole(i32 value) { return whole_as<8, 7>(value); }
};
template <> struct Sums<F16> {
    typedef f32 Sum;
    typedef u16 Element;
    static const u32 PER_WORD = 2;
    static __device__ __forceinline__ void add(f32 (&sum)[2], u32 word) {
        sum[0] += half_value((u16)word);
        sum[1] += half_value((u16)(word >> 16));
    }
    static __device__ __forceinline__ u32 round(const f32 (&sum)[2]) { return half_pair(sum[0], sum[1]); }
    static __device__ __forceinline__ u32 whole(i32 value) { return whole_as<5, 10>(value); }
};

// Word `at` of a buffer of `bytes` bytes, which may end in half a word.
__device__ __forceinline__ u32 load_word(const void* from, u64 at, u64 bytes) {
    return at * 4 + 4 <= bytes ? ((const u32*)from)[at] : ((const u16*)from)[at * 2];
}
__device__ __forceinline__ void store_word(void* to, u64 at, u64 bytes, u32 word) {
    if (at * 4 + 4 <= bytes) {
        ((u32*)to)[at] = word;
    } else {
        ((u16*)to)[at * 2] = (u16)word;
    }
}

// The time is asked for at few of the looks: it is far to fetch.
struct Patience {
    u64 from = 0;
    u32 looks = 0;
    __device__ __forceinline__ bool is_over(u64 limit_ns) {
        if (++looks % 64 != 0) {
            return false;
        }
        const u64 now = device_nanoseconds();
        if (from == 0) {
            from = now;
        }
        return now - from > limit_ns;
    }
};

// Waits until the same block of every rank is here; what those blocks wrote before is seen after. False where one stays
// away: then this block must touch nothing of its peers any more.
__device__ __forceinline__ bool meet(const Group& group, u32 rank, u32 block, u32 value) {
    __syncthreads();
    bool here = true;
    const u32 peer = threadIdx.x;
    if (peer < group.ranks) {
        store_release(group.peer[peer].flags + block * FLAGS + rank, value);
        const u32* flag = group.peer[rank].flags + block * FLAGS + peer;
        Patience patience;
        // A peer may be one meeting ahead.
        while (here && (i32)(load_acquire(flag) - value) < 0) {
            here = !patience.is_over(group.limit_ns);
        }
        if (!here) {
            atomicOr(group.peer[rank].status, 1u << peer);
        }
    }
    return __syncthreads_and(here);
}

// Looks again until the word carries its turn; false where it never does.
__device__ __forceinline__ bool arrived(u64& word, const u64* from, u32 turn, u64 limit_ns) {
    Patience patience;
    while ((u32)(word >> 32) != turn) {
        if (patience.is_over(limit_ns)) {
            return false;
        }
        word = load_whole(from);
    }
    return true;
}

// A word and its turn travel as one, so that who finds the turn has the word, with no order between two stores to keep.
// Two stages take turns: whoever writes to a stage again has had all words of the turn between, and so all peers had
// read those of the turn before.
template <class T> __device__ __forceinline__ void all_reduce_one(const Group& group, u64 bytes, u32 turn) {
    typedef Sums<T> By;
    const u32 rank = group.first + blockIdx.x / group.blocks, block = blockIdx.x % group.blocks;
    const u32 words = (u32)((bytes + 3) / 4), stride = group.blocks * 256u, ranks = group.ranks;
    const u64 half = (u64)(turn & 1) * ranks * group.room;
    const void* input = group.peer[rank].input;
    for (u32 at = block * 256u + threadIdx.x; at < words; at += stride) {
        const u64 sent = (u64)turn << 32 | load_word(input, at, bytes);
        for (u32 p = 0; p < ranks; p++) {
            // Every rank begins with itself, so that not all write to one.
            const u32 peer = rank + p < ranks ? rank + p : rank + p - ranks;
            store_whole(group.peer[peer].stage + half + (u64)rank * group.room + at, sent);
        }
    }
    const u64* stage = group.peer[rank].stage + half;
    for (u32 at = block * 256u + threadIdx.x; at < words; at += stride) {
        typename By::Sum sum[By::PER_WORD] = {};
        for (u32 base = 0; base < ranks; base += AHEAD) {
            const u64* from = stage + (u64)base * group.room + at;
            u64 come[AHEAD];
#pragma unroll
            for (u32 u = 0; u < AHEAD; u++) {
                come[u] = base + u < ranks ? load_whole(from + u * group.room) : 0;
            }
#pragma unroll
            for (u32 u = 0; u < AHEAD; u++) {
                if (base + u < ranks) {
                    if (!arrived(come[u], from + u * group.room, turn, group.limit_ns)) {
                        atomicOr(group.peer[rank].status, 1u << (base + u));
                        return;
                    }
                    By::add(sum, (u32)come[u]);
                }
            }
        }
        store_word(group.peer[rank].output, at, bytes, By::round(sum));
    }
}

template <class T> __device__ __forceinline__ void all_reduce_two(const Group& group, u64 bytes, u32 turn) {
    typedef Sums<T> By;
    const u32 rank = group.first + blockIdx.x / group.blocks, block = blockIdx.x % group.blocks;
    const u32 ranks = group.ranks;
    if (!meet(group, rank, block, 2 * turn - 1)) {
        return;
    }
    const u64 lines = bytes / 16, end = lines * (rank + 1) / ranks;
    for (u64 at = lines * rank / ranks + block * 256u + threadIdx.x; at < end; at += group.blocks * 256u) {
        typename By::Sum sum[4][By::PER_WORD] = {};
        for (u32 base = 0; base < ranks; base += AHEAD) {
            uint4 line[AHEAD];
#pragma unroll
            for (u32 u = 0; u < AHEAD; u++) {
                if (base + u < ranks) {
                    line[u] = __ldcs((const uint4*)group.peer[base + u].input + at);
                }
            }
#pragma unroll
            for (u32 u = 0; u < AHEAD; u++) {
                if (base + u < ranks) {
                    By::add(sum[0], line[u].x);
                    By::add(sum[1], line[u].y);
                    By::add(sum[2], line[u].z);
                    By::add(sum[3], line[u].w);
                }
            }
        }
        const uint4 total = make_uint4(By::round(sum[0]), By::round(sum[1]), By::round(sum[2]), By::round(sum[3]));
        for (u32 p = 0; p < ranks; p++) {
            const u32 peer = rank + p < ranks ? rank + p : rank + p - ranks;
            __stcs((uint4*)group.peer[peer].output + at, total);
        }
    }
    // What is left over is the last rank's: at most four words.
    if (rank == ranks - 1 && block == 0 && threadIdx.x < (u32)(bytes % 16 + 3) / 4) {
        const u64 at = lines * 4 + threadIdx.x;
        typename By::Sum sum[By::PER_WORD] = {};
        for (u32 peer = 0; peer < ranks; peer++) {
            By::add(sum, load_word(group.peer[peer].input, at, bytes));
        }
        for (u32 peer = 0; peer < ranks; peer++) {
            store_word(group.peer[peer].output, at, bytes, By::round(sum));
        }
    }
    meet(group, rank, block, 2 * turn);
}

// Element `index` of the rank that has `key`; see collective/exact.rs.
__device__ __forceinline__ i32 addend_of(u64 index, u32 key, u32 shift) {
    return (i32)((mix(((u32)index * 0x9E3779B1u) ^ key) >> shift) - (1u << (31 - shift)));
}

template <class T> __device__ __forceinline__ void fill(typename Sums<T>::Element* out, u64 count, u32 key, u32 shift) {
    EACH(i, count) {
        out[i] = (typename Sums<T>::Element)Sums<T>::whole(addend_of(i, key, shift));
    }
}

__device__ void note_element(u64 index, u32 rank, u32 wanted, u32 found, u32* faults, u32 room) {
    // A count that wrapped to zero would be a pass.
    if (*(volatile u32*)faults >= 0x80000000u) {
        return;
    }
    const u32 place = atomicAdd(&faults[0], 1u);
    if (place < room) {
        u32* entry = faults + 4 + 4 * (u64)place;
        entry[0] = (u32)index;
        entry[1] = rank << 16 | (u32)(index >> 32);
        entry[2] = wanted;
        entry[3] = found;
    }
}

template <class T>
__device__ __forceinline__ void check(const Group& group, u32 held, u64 count, const u32* keys, u32 shift, u32* faults,
                                      u32 room) {
    EACH(i, count) {
        u32 total = 0;
        for (u32 r = 0; r < group.ranks; r++) {
            total += (u32)addend_of(i, keys[r], shift);
        }
        const u32 wanted = Sums<T>::whole((i32)total);
        for (u32 r = group.first; r < group.first + held; r++) {
            const u32 found = ((const typename Sums<T>::Element*)group.peer[r].output)[i];
            if (found != wanted) {
                note_element(i, r, wanted, found, faults, room);
            }
        }
    }
}

#define ENTRIES(name, T) \
    KERNEL all_reduce_one_##name(const __grid_constant__ Group group, u64 bytes, u32 turn) { \
        all_reduce_one<T>(group, bytes, turn); \
    } \
    KERNEL all_reduce_two_##name(const __grid_constant__ Group group, u64 bytes, u32 turn) { \
        all_reduce_two<T>(group, bytes, turn); \
    } \
    KERNEL rank_fill_##name(Sums<T>::Element* out, u64 count, u32 key, u32 shift) { fill<T>(out, count, key, shift); } \
    KERNEL rank_check_##name(const __grid_constant__ Group group, u32 held, u64 count, const u32* keys, u32 shift, \
                             u32* faults, u32 room) { \
        check<T>(group, held, count, keys, shift, faults, room); \
    }

ENTRIES(f32, f32)
ENTRIES(bf16, Bf16)
ENTRIES(f16, F16)
ENTRIES(i32, i32)
