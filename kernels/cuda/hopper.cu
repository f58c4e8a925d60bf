// Decides the matmuls C[m×n] = A[m×k] · B[k×n] of engine `own` on Hopper (compute capability 9.0 alone): TMA brings
// tiles into shared memory, one warp group produces, two consume with wgmma, blocks stay resident and walk C.
// Refuses nothing by itself: the contract below is the caller's to keep; whatever shape does not fit it is
// matmul.cu's, which serves every shape. Built for sm_90a: ptx/hopper.sm_90a.ptx.
//
// CONTRACT. Parameters in order: (CUtensorMap a, CUtensorMap b, f32* c, u32 m, u32 n, u32 k), both maps by value
// (128 bytes, aligned to 64, `__grid_constant__`); each of m, n, k ≥ 1. C is row-major m×n, f32.
//
// | entry | A, B | B in memory | CTAs that share B | fits where |
// |---|---|---|---|---|
// | hopper_bf16, hopper_f16 | 16 bits | row-major k×n | 1 | k % 8 == 0 and n % 8 == 0 |
// | hopper_bf16_pair, hopper_f16_pair | 16 bits | row-major k×n | 2 | the same |
// | hopper_e4m3, hopper_e5m2 | fp8 | turned: row-major n×k | 1 | k % 16 == 0, any n |
// | hopper_e4m3_pair, hopper_e5m2_pair | fp8 | turned: row-major n×k | 2 | the same |
//
// Launch: block 384×1×1, dynamic shared memory 197,888 bytes (set CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES to it
// once per entry). Tiles are 128 × 256. Grid, one dimension: without `_pair` min(multiprocessors, ceil(m / 128) ·
// ceil(n / 256)); with `_pair` 2 · min(multiprocessors / 2, ceil(m / 256) · ceil(n / 256)), always even: the
// cluster of 2×1×1 is compiled in, so a plain cuLaunchKernel launches it. Any smaller grid is right, only slower.
// a, b and c must be aligned to 16 bytes (any whole allocation is) and must not overlap.
//
// Tensor maps, by cuTensorMapEncodeTiled: rank 2, elementStrides {1, 1}, interleave NONE, swizzle 128B, L2 promotion
// 256B, out-of-bounds fill NONE (which means zeros; kernels rely on it at every edge). S is the element size.
//
// | map | data type | globalDim | globalStrides[0] | boxDim |
// |---|---|---|---|---|
// | a, 16 bits | BFLOAT16 or FLOAT16 | {k, m} | k·2 | {64, 128} |
// | b, 16 bits | BFLOAT16 or FLOAT16 | {n, k} | n·2 | {64, 64} |
// | a, fp8 | UINT8 | {k, m} | k | {128, 128} |
// | b, fp8 | UINT8 | {k, n} | k | {128, 128} |
//
// Strides must stay below 2⁴⁰ and be multiples of 16, hence the column “fits where”; dimensions are below 2³².
//
// EXACTNESS. With whole-number operands in −R..=R the bits of C depend on no order as long as no partial sum leaves
// ±2²⁴ and R fits the type (bf16 256, f16 2048); that is certain where k·R² ≤ 2²⁴. fp8 (R ≤ 8 for both types): Hopper
// keeps 14 bits of a running fp8 sum, so sums of 128 products (at most 2¹³) are taken from zero and added in f32
// registers; certain up to k = 2¹⁸.

#include "generator.cuh"
#include "hopper.cuh"

const u32 TILE_M = 128, TILE_N = 256;
// Every line of a tile in shared memory is 128 bytes: along k for A and for B turned, along n for B as it is.
const u32 LINE = 128;
const u32 PART_A = TILE_M * LINE, STAGE = PART_A + TILE_N * LINE;
const u32 STAGES = 4;
// Rows of C that a band of tiles has, so that resident blocks share operands in L2.
const u32 BAND_ROWS = 2048;
// Each warp of the two consuming groups releases a stage for itself.
const u32 CONSUMERS = 8;

template <class Type> struct Of {
    static const u32 BYTES = 1;
};
template <> struct Of<Bf16> {
    static const u32 BYTES = 2;
};
template <> struct Of<F16> {
    static const u32 BYTES = 2;
};

struct Place {
    u32 row, column;
};

__device__ __forceinline__ u32 tiles(u32 length, u32 tile) {
    return length / tile + (length % tile != 0);
}

// Where tile `index` lies: bands of tiles are walked column by column.
__device__ __forceinline__ Place place(u32 index, u32 tiles_m, u32 tiles_n, u32 height) {
    const u32 band = BAND_ROWS / height;
    const u32 first = index / (band * tiles_n) * band;
    const u32 within = index % (band * tiles_n);
    const u32 rows = min(band, tiles_m - first);
    return {(first + within % rows) * height, within / rows * TILE_N};
}

// A stage of the ring, and which pass over the ring it is in.
struct Turn {
    u32 stage, parity;
    __device__ __forceinline__ void next() {
        stage = stage + 1 == STAGES ? 0 : stage + 1;
        parity ^= stage == 0;
    }
};

// Descriptor of a tile in shared memory: 128-byte swizzle, distances in bytes. For tiles that run along k, `eight` is
// from eight lines to the next and `leading` is not used; for tiles that run along n, `eight` is from eight lines of k
// to the next and `leading` from 64 elements of n to the next.
__device__ __forceinline__ u64 tile_descriptor(u32 address, u32 leading, u32 eight) {
    return (u64)((address & 0x3FFFF) >> 4) | (u64)(leading >> 4) << 16 | (u64)(eight >> 4) << 32 | 1ull << 62;
}

// Sums of one thread, of 64×256 a group: column 8·j + 2·(lane % 4) + e % 2 and row lane / 4 + e / 2 · 8 are at 4·j + e.
typedef f32 Sums[TILE_N / 2];

struct Ring {
    u32 stages, full, empty;
};

template <bool PAIR> __device__ __forceinline__ void release(const Ring& ring, u32 stage) {
    const u32 lane = threadIdx.x % 32;
    if (PAIR) {
        if (lane < 2) {
            barrier_arrive_at(ring.empty + stage * 8, lane);
        }
    } else if (lane == 0) {
        barrier_arrive(ring.empty + stage * 8);
    }
}

// Brings one stage: 128 lines of A, and of B either all or the half that is this block's to bring for both.
template <class Type, bool PAIR>
__device__ __forceinline__ void bring_stage(u32 to, u32 barrier, const TensorMap& a, const TensorMap& b, Place at, u32 depth,
                                            u32 rank) {
    // Boxes of B: 64 columns by 64 of k, or turned 128 columns by 128 of k.
    const u32 WIDE = Of<Type>::BYTES == 2 ? 64 : 128, BOXES = TILE_N / WIDE, BOX = WIDE * LINE;
    bring_box(to, a, depth, at.row, barrier);
    const u32 first = PAIR ? rank * BOXES / 2 : 0;
#pragma unroll
    for (u32 i = 0; i < (PAIR ? BOXES / 2 : BOXES); i++) {
        const u32 box = first + i;
        const u32 column = at.column + box * WIDE;
        const u32 x = Of<Type>::BYTES == 2 ? column : depth, y = Of<Type>::BYTES == 2 ? depth : column;
        if (PAIR) {
            bring_box_to_both(to + PART_A + box * BOX, b, x, y, barrier);
        } else {
            bring_box(to + PART_A + box * BOX, b, x, y, barrier);
        }
    }
}

// Types of 16 bits: the products of one stage are under way while the next stage is waited for.
template <class Type, bool PAIR>
__device__ __forceinline__ void consume_16(Sums& sum, Turn& turn, const Ring& ring, u32 group, u32 steps) {
    u32 last = 0;
#pragma unroll
    for (u32 i = 0; i < TILE_N / 2; i++) {
        sum[i] = 0.0f;
    }
    products_settle(sum);
#pragma unroll(1)
    for (u32 step = 0; step < steps; step++) {
        barrier_wait(ring.full + turn.stage * 8, turn.parity);
        const u32 stage = ring.stages + turn.stage * STAGE;
        const u64 a = tile_descriptor(stage + group * 64 * LINE, 16, 8 * LINE);
        const u64 b = tile_descriptor(stage + PART_A, 64 * LINE, 8 * LINE);
        products_begin();
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            // 16 of k are 32 bytes of a line of A, and 16 lines of B.
            multiply_async(Type(), sum, a + i * (32 >> 4), b + i * (16 * LINE >> 4), true);
        }
        products_commit();
        products_wait<1>();
        if (step > 0) {
            release<PAIR>(ring, last);
        }
        last = turn.stage;
        turn.next();
    }
    products_wait<0>();
    products_settle(sum);
    release<PAIR>(ring, last);
}

// fp8: each half of the columns sums 128 of k from zero in the tensor cores, then in f32. One group adds while the
// other group's products run.
template <class Type, bool PAIR>
__device__ __forceinline__ void consume_8(Sums& sum, Turn& turn, const Ring& ring, u32 group, u32 steps) {
    f32 piece[TILE_N / 4] = {};
#pragma unroll
    for (u32 i = 0; i < TILE_N / 2; i++) {
        sum[i] = 0.0f;
    }
    for (u32 step = 0; step < steps; step++) {
        barrier_wait(ring.full + turn.stage * 8, turn.parity);
        const u32 stage = ring.stages + turn.stage * STAGE;
        const u64 a = tile_descriptor(stage + group * 64 * LINE, 16, 8 * LINE);
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            const u64 b = tile_descriptor(stage + PART_A + half * 128 * LINE, 16, 8 * LINE);
            products_settle(piece);
            products_begin();
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                multiply_async(Type(), piece, a + i * (32 >> 4), b + i * (32 >> 4), i > 0);
            }
            products_commit();
            products_wait<0>();
            products_settle(piece);
            if (half == 1) {
                release<PAIR>(ring, turn.stage);
            }
#pragma unroll
            for (u32 i = 0; i < TILE_N / 4; i++) {
                sum[half * (TILE_N / 4) + i] += piece[i];
            }
        }
        turn.next();
    }
}

// Two neighbours of a row of C, of which `left` are inside. C is written once and not read again: it passes L2 by.
__device__ __forceinline__ void store_two(f32* to, f32 first, f32 second, u32 left, bool even) {
    if (even && left > 1) {
        __stcs((float2*)to, make_float2(first, second));
    } else {
        if (left > 0) {
            __stcs(to, first);
        }
        if (left > 1) {
            __stcs(to + 1, second);
        }
    }
}

template <bool EVEN>
__device__ __forceinline__ void store(f32* c, const Sums& sum, u32 row_first, u32 column_first, u32 m, u32 n) {
    const u32 lane = threadIdx.x % 32;
    const u32 column = column_first + lane % 4 * 2;
    const u32 left = column < n ? n - column : 0;
    u32 row = row_first + threadIdx.x / 32 % 4 * 16 + lane / 4;
    f32* to = c + (u64)row * n + column;
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        if (row < m) {
#pragma unroll
            for (u32 j = 0; j < TILE_N / 8; j++) {
                const f32* two = &sum[j * 4 + half * 2];
                store_two(to + j * 8, two[0], two[1], left > j * 8 ? left - j * 8 : 0, EVEN);
            }
        }
        row += 8;
        to += (u64)8 * n;
    }
}

template <class Type, bool PAIR>
__device__ __forceinline__ void hopper(const TensorMap& a, const TensorMap& b, f32* c, u32 m, u32 n, u32 k) {
    const u32 BLOCKS = PAIR ? 2 : 1, HEIGHT = TILE_M * BLOCKS, DEPTH = LINE / Of<Type>::BYTES;
    Ring ring;
    ring.stages = (dynamic_shared() + 1023) & ~1023u;
    ring.full = ring.stages + STAGES * STAGE;
    ring.empty = ring.full + STAGES * 8;
    const u32 rank = PAIR ? rank_in_cluster() : 0;
    if (threadIdx.x == 0) {
        fetch_map(a);
        fetch_map(b);
        for (u32 stage = 0; stage < STAGES; stage++) {
            barrier_begin(ring.full + stage * 8, 1);
            barrier_begin(ring.empty + stage * 8, CONSUMERS * BLOCKS);
        }
        barriers_begun();
    }
    __syncthreads();
    if (PAIR) {
        cluster_wait();
    }
    const u32 tiles_m = tiles(m, HEIGHT), tiles_n = tiles(n, TILE_N), steps = tiles(k, DEPTH);
    const u32 first = blockIdx.x / BLOCKS, stride = gridDim.x / BLOCKS;
    if (threadIdx.x < 128) {
        registers_give<40>();
        if (threadIdx.x == 0) {
            Turn turn = {0, 0};
            for (u32 tile = first; tile < tiles_m * tiles_n; tile += stride) {
                Place at = place(tile, tiles_m, tiles_n, HEIGHT);
                at.row += rank * TILE_M;
                for (u32 step = 0; step < steps; step++) {
                    barrier_wait(ring.empty + turn.stage * 8, turn.parity ^ 1);
                    // Both blocks' parts count: what the other brings may arrive before this, which is allowed.
                    barrier_expect(ring.full + turn.stage * 8, STAGE);
                    bring_stage<Type, PAIR>(ring.stages + turn.stage * STAGE, ring.full + turn.stage * 8, a, b, at,
                                            step * DEPTH, rank);
                    turn.next();
                }
            }
        }
        __syncwarp();
    } else {
        registers_take<232>();
        const u32 group = threadIdx.x / 128 - 1;
        Turn turn = {0, 0};
        for (u32 tile = first; tile < tiles_m * tiles_n; tile += stride) {
            const Place at = place(tile, tiles_m, tiles_n, HEIGHT);
            Sums sum;
            const u32 row = at.row + rank * TILE_M + group * 64;
            if constexpr (Of<Type>::BYTES == 2) {
                consume_16<Type, PAIR>(sum, turn, ring, group, steps);
                store<true>(c, sum, row, at.column, m, n);
            } else {
                consume_8<Type, PAIR>(sum, turn, ring, group, steps);
                if (n % 2 == 0) {
                    store<true>(c, sum, row, at.column, m, n);
                } else {
                    store<false>(c, sum, row, at.column, m, n);
                }
            }
        }
    }
    if (PAIR) {
        // The other block may still arrive at this one's barriers.
        cluster_wait();
    }
}

#define HOPPER(name, Type, PAIR, cluster) \
    extern "C" __global__ void cluster __launch_bounds__(384, 1) \
        name(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, f32* c, u32 m, u32 n, u32 k) { \
        hopper<Type, PAIR>(a, b, c, m, n, k); \
    }
#define HOPPER_BOTH(name, Type) \
    HOPPER(name, Type, false, ) \
    HOPPER(name##_pair, Type, true, __cluster_dims__(2, 1, 1))

HOPPER_BOTH(hopper_bf16, Bf16)
HOPPER_BOTH(hopper_f16, F16)
HOPPER_BOTH(hopper_e4m3, E4m3)
HOPPER_BOTH(hopper_e5m2, E5m2)
