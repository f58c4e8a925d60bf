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
// | matmul_e4m3, matmul_e5m2 | 89 | fp8, B turned | f32 | 128 | 128 | k % 16 == 0 |
// | matmul_bf16_any, _f16_any, _tf32_any, _i8_any | 80 | as above | as above | 128 | 128 | any |
// | matmul_e4m3_any, matmul_e5m2_any | 89 | as above | as above | 128 | 128 | any |
// | matmul_f32 | 80 | f32 | f32 | 128 | 256 | any |
// | matmul_f64 | 80 | f64 | f64 | 64 | 256 | any |
//
// Alignment: a and b to 16 bytes except for `_any`, f32 and f64, which need only that of one element; c to 8 bytes
// where n is even, else to one element (any whole allocation is aligned to 256). Blocks walk C in bands of 8
// tiles of m, so that a wave of blocks shares operands in L2. a, b and c must not overlap.
//
// EXACTNESS. With whole-number operands in −R..=R every partial sum is exact, so the bits of C depend on no
// order, where k·R² ≤ 2²⁴ and R fits the type (bf16 256, f16 and tf32 2048, i8 127; f64 has no limit in sight).
// fp8 (e4m3 R ≤ 8, e5m2 R ≤ 8): tensor cores may keep only 14 bits of a running fp8 sum, so sums of 64 products (at
// most 2¹²) are taken from zero and added in f32 registers; R = 8 holds up to k = 2¹⁸.
