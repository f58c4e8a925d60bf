// Decides the matmuls C[m×n] = A[m×k] · B[k×n] of engine `own` on Ampere and later: tensor cores through
// mma.sync fed by cp.async, and plain multiply-adds for f32 and f64. Serves every shape from 1×1×1 on.
// Refuses nothing by itself: the contract below is the caller's to keep. Hopper's own path: hopper.cu.
// Built twice: ptx/matmul.compute_80.ptx (all but fp8), ptx/matmul.compute_89.ptx (fp8 alone, 8.9 and later).
//
// CONTRACT. Every entry takes (const void* a, const void* b, void* c, u32 m, u32 n, u32 k), each ≥ 1; launch with
// grid ceil(m / tile) · ceil(n / tile) × 1 × 1 (refuse above 2³¹ − 1 blocks), the block below × 1 × 1, and no
// dynamic shared memory (48 KiB or less are static, so no attribute is needed). A is row-major m×k, C row-major
// m×n. B is row-major k×n for types of 16 bits and more; types of 8 bits have B TURNED, row-major n×k (element
// (l, j) at j·k + l), as the tensor cores and cuBLASLt want it. Nothing beyond the matrices is read or written.
//
// | entry | PTX | A, B | C | tile | block | k and n |
// |---|---|---|---|---|---|---|
// | matmul_bf16, matmul_f16 | 80 | 16 bits | f32 | 128 | 128 | k % 8 == 0 and n % 8 == 0 |
// | matmul_tf32 | 80 | f32, already rounded to tf32 | f32 | 128 | 128 | k % 4 == 0 and n % 4 == 0 |
// | matmul_i8 | 80 | i8, B turned | i32 | 128 | 128 | k % 16 == 0 |
// | matmul_e4m3, matmul_e5m2 | 89 | fp8, B turned | f32 | 128 | 256 | k % 16 == 0 |
// | matmul_bf16_any, _f16_any, _tf32_any, _i8_any | 80 | as above | as above | 128 | 128 | any |
// | matmul_e4m3_any, matmul_e5m2_any | 89 | as above | as above | 128 | 256 | any |
// | matmul_f32 | 80 | f32 | f32 | 128 | 256 | any |
// | matmul_f64 | 80 | f64 | f64 | 64 | 256 | any |
//
// Alignment: a and b to 16 bytes except for `_any`, f32 and f64, which need only that of one element; c to 8 bytes
// where n is even, else to one element (any whole allocation is aligned to 256). Blocks walk C in bands of 8
// tiles of m, so that a wave of blocks shares operands in L2. a, b and c must not overlap.
//
// EXACTNESS. With whole-number operands in −R..=R the bits of C depend on no order as long as no partial sum leaves
// ±2²⁴ (f32 sums), ±(2³¹ − 1) (i8) or ±2⁵³ (f64), and R fits the type (bf16 256, f16 and tf32 2048, i8 127); that is
// certain where k·R² stays within. fp8 (R ≤ 8 for both types): tensor cores may keep only 14 bits of a running fp8
// sum, so sums of 64 products (at most 2¹²) are taken from zero and added in f32 registers; certain up to k = 2¹⁸.

#include "generator.cuh"
#include "ptx.cuh"

const u32 TILE = 128;
// Bytes of k in a stage; two instructions of 32 bytes each take them.
const u32 DEPTH = 64;
const u32 STAGES = 3;
// Bytes of A's part of a stage; B's part is as large for every type.
const u32 PART = TILE * DEPTH;
const u32 BAND = 8;

// Where a block's tile lies: bands of 8 tiles of m are walked column by column.
struct Place {
    u32 row, column;
};

__device__ __forceinline__ Place place(u32 block, u32 tiles_m, u32 tiles_n, u32 tile) {
    const u32 first = block / (BAND * tiles_n) * BAND;
    const u32 within = block % (BAND * tiles_n);
    const u32 height = min(BAND, tiles_m - first);
    return {(first + within % height) * tile, within / height * tile};
}

__device__ __forceinline__ u32 tiles(u32 length, u32 tile) {
    return length / tile + (length % tile != 0);
}

// What the tensor cores need to know of a type: its word in memory, its sums, whether B is turned, and whether sums
// are taken in short pieces.
template <class Word_, class Sum_, bool TURNED_, bool SHORT_> struct Traits {
    typedef Word_ Word;
    typedef Sum_ Sum;
    static const bool TURNED = TURNED_, SHORT = SHORT_;
    static const u32 BYTES = sizeof(Word_);
    // Sums in pieces take more registers, so that a warp has 64×32 of C rather than 64×64.
    static const u32 THREADS = SHORT_ ? 256 : 128, COLUMNS = SHORT_ ? 32 : 64;
    // Elements of a chunk of 16 bytes, and of a stage along k.
    static const u32 CHUNK = 16 / BYTES, STEP = DEPTH / BYTES;
};
template <class Type> struct Of;
template <> struct Of<Bf16> : Traits<u16, f32, false, false> {};
template <> struct Of<F16> : Traits<u16, f32, false, false> {};
template <> struct Of<Tf32> : Traits<u32, f32, false, false> {};
template <> struct Of<I8> : Traits<u8, i32, true, false> {};
template <> struct Of<E4m3> : Traits<u8, f32, true, true> {};
template <> struct Of<E5m2> : Traits<u8, f32, true, true> {};

// Offset of a chunk in a part whose rows run along k (A, and B turned): 64 bytes a row. Eight rows at the same chunk
// lie in eight different groups of banks, as ldmatrix wants it.
__device__ __forceinline__ u32 along_k(u32 row, u32 chunk) {
    return row * DEPTH + ((chunk ^ (row >> 1 & 3)) << 4);
}

// The same for B as it is: rows of 128 elements along n. Eight rows of 16-bit elements at the same chunk, or four rows
// of 32-bit elements at two chunks, meet no bank twice.
template <u32 BYTES> __device__ __forceinline__ u32 along_n(u32 row, u32 chunk) {
    const u32 turn = BYTES == 2 ? row & 7 : (row & 3) << 1;
    return row * (TILE * BYTES) + ((chunk ^ turn) << 4);
}

// Brings one chunk of a row-major rows×columns matrix to shared memory; what lies beyond the matrix is zero.
template <class Type, bool ANY>
__device__ __forceinline__ void bring(u32 to, const void* from, u32 row, u32 column, u32 rows, u32 columns) {
    typedef typename Of<Type>::Word Word;
    const Word* matrix = (const Word*)from;
    if (!ANY) {
        // A chunk that begins inside ends inside: rows are a multiple of chunks long.
        const bool inside = row < rows && column < columns;
        copy_async(to, matrix + (inside ? (u64)row * columns + column : 0), inside);
        return;
    }
    u32 word[4] = {};
#pragma unroll
    for (u32 e = 0; e < Of<Type>::CHUNK; e++) {
        const bool inside = row < rows && column + e < columns;
        const u32 value = inside ? (u32)matrix[(u64)row * columns + column + e] : 0u;
        word[e * Of<Type>::BYTES / 4] |= value << (e * Of<Type>::BYTES % 4 * 8);
    }
    store_shared(to, make_uint4(word[0], word[1], word[2], word[3]));
}

// Brings the stage that begins at `depth` along k: 512 chunks of A and as many of B.
template <class Type, bool ANY>
__device__ __forceinline__ void bring_stage(u32 stage, const void* a, const void* b, Place at, u32 depth, u32 m, u32 n, u32 k) {
    typedef Of<Type> T;
#pragma unroll(ANY ? 1 : 2)
    for (u32 chunk = threadIdx.x; chunk < TILE * DEPTH / 16; chunk += T::THREADS) {
        const u32 row = chunk / 4, column = chunk % 4;
        bring<Type, ANY>(stage + along_k(row, column), a, at.row + row, depth + column * T::CHUNK, m, k);
        if (T::TURNED) {
            bring<Type, ANY>(stage + PART + along_k(row, column), b, at.column + row, depth + column * T::CHUNK, n, k);
        } else {
            const u32 WIDE = TILE / T::CHUNK;
            const u32 l = chunk / WIDE, j = chunk % WIDE;
            bring<Type, ANY>(stage + PART + along_n<T::BYTES>(l, j), b, depth + l, at.column + j * T::CHUNK, k, n);
        }
    }
}

// Fragments of B for 16 columns and 32 bytes of k: two for each of two groups of eight columns.
template <class Type> __device__ __forceinline__ void load_b(u32 (&to)[4], u32 part, u32 column, u32 step) {
    typedef Of<Type> T;
    const u32 lane = threadIdx.x % 32;
    if (T::TURNED) {
        const u32 row = column + (lane >> 4) * 8 + lane % 8;
        load_matrices(to, part + along_k(row, step * 2 + (lane >> 3 & 1)));
    } else if (T::BYTES == 2) {
        load_matrices_turned(to, part + along_n<2>(step * 16 + lane % 16, column / 8 + (lane >> 4)));
    } else {
#pragma unroll
        for (u32 e = 0; e < 4; e++) {
            const u32 l = step * 8 + lane % 4 + e % 2 * 4;
            const u32 j = column + e / 2 * 8 + lane / 4;
            to[e] = load_shared(part + along_n<4>(l, j / 4) + j % 4 * 4);
        }
    }
}

// A warp's part of C advances by one stage. Registers are what is short: only so many fragments of A are held at once
// as the sums leave room for.
template <class Type>
__device__ __forceinline__ void advance(typename Of<Type>::Sum (&sum)[4][Of<Type>::COLUMNS / 8][4], u32 stage, u32 row, u32 column) {
    typedef typename Of<Type>::Sum Sum;
    const u32 lane = threadIdx.x % 32;
    const u32 row_a = row + lane % 16, chunk_a = lane >> 4;
    if constexpr (Of<Type>::SHORT) {
        // Both instructions of a piece follow each other, so 32 rows of A at a time are held for both.
#pragma unroll
        for (u32 upper = 0; upper < 4; upper += 2) {
            u32 a[2][2][4];
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                load_matrices(a[i / 2][i % 2], stage + along_k(row_a + (upper + i % 2) * 16, i / 2 * 2 + chunk_a));
            }
#pragma unroll
            for (u32 j = 0; j < Of<Type>::COLUMNS / 8; j++) {
                // All 64 bytes of k of eight columns.
                u32 b[4];
                load_matrices(b, stage + PART + along_k(column + j * 8 + lane % 8, lane >> 3));
                const u32 low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
#pragma unroll
                for (u32 i = 0; i < 2; i++) {
                    Sum piece[4] = {};
                    multiply(Type(), piece, a[0][i], low);
                    multiply(Type(), piece, a[1][i], high);
#pragma unroll
                    for (u32 e = 0; e < 4; e++) {
                        sum[upper + i][j][e] += piece[e];
                    }
                }
            }
        }
    } else {
#pragma unroll
        for (u32 step = 0; step < 2; step++) {
            u32 a[4][4];
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                load_matrices(a[i], stage + along_k(row_a + i * 16, step * 2 + chunk_a));
            }
#pragma unroll
            for (u32 pair = 0; pair < 4; pair++) {
                u32 b[4];
                load_b<Type>(b, stage + PART, column + pair * 16, step);
#pragma unroll
                for (u32 j = 0; j < 2; j++) {
                    const u32 right[2] = {b[j * 2], b[j * 2 + 1]};
#pragma unroll
                    for (u32 i = 0; i < 4; i++) {
                        multiply(Type(), sum[i][pair * 2 + j], a[i], right);
                    }
                }
            }
        }
    }
}

// Two neighbours of a row of C, of which `left` are inside; at once where rows keep them aligned.
__device__ __forceinline__ void store_two(f32* to, f32 first, f32 second, u32 left, bool even) {
    if (even && left > 1) {
        *(float2*)to = make_float2(first, second);
    } else {
        if (left > 0) {
            to[0] = first;
        }
        if (left > 1) {
            to[1] = second;
        }
    }
}

__device__ __forceinline__ void store_two(i32* to, i32 first, i32 second, u32 left, bool even) {
    store_two((f32*)to, __int_as_float(first), __int_as_float(second), left, even);
}

// Stores a warp's part of C. Lane l holds columns 2·(l % 4) and the next, of rows l / 4 and l / 4 + 8, of each 16×8.
template <bool EVEN, class Sum, u32 WIDE>
__device__ __forceinline__ void store(Sum* c, const Sum (&sum)[4][WIDE][4], u32 row_first, u32 column_first, u32 m, u32 n) {
    const u32 lane = threadIdx.x % 32;
    const u32 column = column_first + lane % 4 * 2;
    const u32 left = column < n ? n - column : 0;
    Sum* to = c + (u64)(row_first + lane / 4) * n + column;
#pragma unroll
    for (u32 i = 0; i < 8; i++) {
        if (row_first + lane / 4 + i * 8 < m) {
#pragma unroll
            for (u32 j = 0; j < WIDE; j++) {
                const Sum* two = &sum[i / 2][j][i % 2 * 2];
                store_two(to + j * 8, two[0], two[1], left > j * 8 ? left - j * 8 : 0, EVEN);
            }
        }
        to += (u64)8 * n;
    }
}

// One block, one tile: two stages are on their way while a third is multiplied.
template <class Type, bool ANY>
__device__ __forceinline__ void matmul(const void* a, const void* b, void* c, u32 m, u32 n, u32 k) {
    typedef Of<Type> T;
    __shared__ __align__(128) u8 stages[STAGES * 2 * PART];
    const u32 shared = shared_address(stages);
    const Place at = place(blockIdx.x, tiles(m, TILE), tiles(n, TILE), TILE);
    const u32 warp = threadIdx.x / 32;
    const u32 row = warp % 2 * 64, column = warp / 2 * T::COLUMNS;
    const u32 count = tiles(k, T::STEP);
    typename T::Sum sum[4][T::COLUMNS / 8][4] = {};
#pragma unroll
    for (u32 stage = 0; stage < STAGES - 1; stage++) {
        if (stage < count) {
            bring_stage<Type, ANY>(shared + stage * 2 * PART, a, b, at, stage * T::STEP, m, n, k);
        }
        copy_commit();
    }
    for (u32 i = 0; i < count; i++) {
        // One group is committed for each stage, empty or not, so that at most one later stage may be under way.
        copy_wait<STAGES - 2>();
        // All have brought their part of this stage, and all are done with the stage that is brought next.
        __syncthreads();
        const u32 next = i + STAGES - 1;
        if (next < count) {
            bring_stage<Type, ANY>(shared + next % STAGES * 2 * PART, a, b, at, next * T::STEP, m, n, k);
        }
        copy_commit();
        advance<Type>(sum, shared + i % STAGES * 2 * PART, row, column);
    }
    typename T::Sum* out = (typename T::Sum*)c;
    if (n % 2 == 0) {
        store<true>(out, sum, at.row + row, at.column + column, m, n);
    } else {
        store<false>(out, sum, at.row + row, at.column + column, m, n);
    }
}

#define MATMUL(name, Type, ANY) \
    extern "C" __global__ void __launch_bounds__(Of<Type>::THREADS, Of<Type>::SHORT ? 1 : 2) \
        name(const void* a, const void* b, void* c, u32 m, u32 n, u32 k) { \
        matmul<Type, ANY>(a, b, c, m, n, k); \
    }

#ifdef FP8
MATMUL(matmul_e4m3, E4m3, false)
MATMUL(matmul_e4m3_any, E4m3, true)
MATMUL(matmul_e5m2, E5m2, false)
MATMUL(matmul_e5m2_any, E5m2, true)
#else
MATMUL(matmul_bf16, Bf16, false)
MATMUL(matmul_bf16_any, Bf16, true)
MATMUL(matmul_f16, F16, false)
MATMUL(matmul_f16_any, F16, true)
MATMUL(matmul_tf32, Tf32, false)
MATMUL(matmul_tf32_any, Tf32, true)
MATMUL(matmul_i8, I8, false)
MATMUL(matmul_i8_any, I8, true)

// 16×16 threads, each with BLOCK×BLOCK sums in registers: the layout of tiled.wgsl. Elements beyond a matrix enter as
// zero and are not stored.
template <class Number, u32 BLOCK>
__device__ __forceinline__ void plain(const Number* a, const Number* b, Number* c, u32 m, u32 n, u32 k) {
    const u32 SIDE = 16, WIDE = SIDE * BLOCK;
    // One more than the tile is wide: A's tile is written column by column.
    __shared__ Number tile_a[SIDE][WIDE + 1];
    __shared__ Number tile_b[SIDE][WIDE];
    const Place at = place(blockIdx.x, tiles(m, WIDE), tiles(n, WIDE), WIDE);
    const u32 x = threadIdx.x % SIDE, y = threadIdx.x / SIDE;
    Number sum[BLOCK][BLOCK] = {};
    for (u32 depth = 0; depth < k; depth += SIDE) {
#pragma unroll(2)
        for (u32 load = 0; load < BLOCK; load++) {
            const u32 row = at.row + y + load * SIDE, l = depth + x;
            tile_a[x][y + load * SIDE] = row < m && l < k ? a[(u64)row * k + l] : Number(0);
            const u32 index = threadIdx.x + load * SIDE * SIDE;
            const u32 l_b = depth + index / WIDE, column = at.column + index % WIDE;
            tile_b[index / WIDE][index % WIDE] = l_b < k && column < n ? b[(u64)l_b * n + column] : Number(0);
        }
        __syncthreads();
#pragma unroll(4)
        for (u32 l = 0; l < SIDE; l++) {
            Number left[BLOCK], right[BLOCK];
#pragma unroll
            for (u32 i = 0; i < BLOCK; i++) {
                left[i] = tile_a[l][y + i * SIDE];
                right[i] = tile_b[l][x + i * SIDE];
            }
#pragma unroll
            for (u32 i = 0; i < BLOCK; i++) {
#pragma unroll
                for (u32 j = 0; j < BLOCK; j++) {
                    sum[i][j] += left[i] * right[j];
                }
            }
        }
        __syncthreads();
    }
    const u32 left = at.column + x < n ? n - at.column - x : 0;
    Number* to = c + (u64)(at.row + y) * n + at.column + x;
#pragma unroll
    for (u32 i = 0; i < BLOCK; i++) {
        if (at.row + y + i * SIDE < m) {
#pragma unroll
            for (u32 j = 0; j < BLOCK; j++) {
                if (j * SIDE < left) {
                    to[j * SIDE] = sum[i][j];
                }
            }
        }
        to += (u64)SIDE * n;
    }
}

extern "C" __global__ void __launch_bounds__(256, 2)
    matmul_f32(const f32* a, const f32* b, f32* c, u32 m, u32 n, u32 k) {
    plain<f32, 8>(a, b, c, m, n, k);
}

extern "C" __global__ void __launch_bounds__(256, 2)
    matmul_f64(const f64* a, const f64* b, f64* c, u32 m, u32 n, u32 k) {
    plain<f64, 4>(a, b, c, m, n, k);
}
#endif
