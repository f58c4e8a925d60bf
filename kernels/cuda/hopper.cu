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
// EXACTNESS. With whole-number operands in −R..=R the bits of C depend on no order where k·R² ≤ 2²⁴ and R fits the
// type (bf16 256, f16 2048). fp8 (e4m3 R ≤ 8, e5m2 R ≤ 8): Hopper keeps 14 bits of a running fp8 sum, so sums of 128
// products (at most 2¹³ for R = 8) are taken from zero and added in f32 registers; R = 8 holds up to k = 2¹⁸.
