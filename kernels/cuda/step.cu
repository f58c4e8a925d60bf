// Decides all device work of a step but the matmuls: operands, audits, the flipped bit, memory streams, the
// optimizer, addends and digests of buckets, and the test of free memory. Refuses nothing by itself: the
// contract below is the caller's to keep. Built for compute_80 and later: ptx/step.compute_80.ptx.
//
// CONTRACT. `u32`, `u64`, `f32` are C's unsigned int, unsigned long long and float; every pointer is device
// memory. Unless an entry says otherwise: block 256×1×1, no dynamic shared memory, and any grid of one
// dimension gives the right answer (kernels stride over the grid; 8 blocks per multiprocessor is a good one).
// A count of zero does nothing. Bits are those of audit.rs: hash(i) = mix(mix(i ^ key) + key), i the position
// in memory modulo 2³²; operand = hash % (2·range + 1) − range.
//
// | entry | parameters in order | notes |
// |---|---|---|
// | fill_f64, fill_f32, fill_f16, fill_bf16, fill_e4m3, fill_e5m2, fill_i8 |
// |   | out*, u64 count, u32 key, u32 range | operands; `out` aligned to one element. range ≤ what the type |
// |   |   | holds exactly: f16 2048, bf16 256, e4m3 16, e5m2 8, i8 127. tf32 uses fill_f32, range ≤ 2048 |
// | fill_e2m1 | u8* out, u64 count, u32 key, u32 range | two elements a byte, the even one in the low half; |
// |   |   | range ≤ 4; an odd count leaves the last high half zero |
// | noise_bf16, noise_f16, noise_f32, noise_e4m3, noise_e5m2, noise_i8 |
// |   | out*, u64 count, u32 key | random bits for the burn: sign and significand random, magnitude in |
// |   |   | [0.5, 2), never NaN or infinite (i8: any byte). Never audited: sums are not exact |
// | audit_f32, audit_i32, audit_f64 |
// |   | const C* c, u32* rows, u32 m, u32 n, u32 key, u32 first | rows[first + i] += Σ_j term(C[i,j])·r[j] |
// |   |   | mod 2³², r[j] = hash(j) | 1 under `key` (Stream::R). The caller ZEROES rows[first .. first + m] |
// |   |   | first (a memset node). Grid exactly ceil(m / 8) · ceil(n / 2048); c aligned to one element |
// | weigh_b | u32* w, u32 n, u32 k, u32 key_b, u32 key_r, u32 range, u32 turned | w[l] = Σ_j B[l,j]·r[j] from the |
// |   |   | generator alone, no buffer is read. turned = 1: B is stored n×k, so B[l,j] is operand j·k + l; 0: |
// |   |   | operand l·n + j. Writes w[0 .. k] |
// | weigh_a | u32* rows, const u32* w, u32 m, u32 k, u32 key_a, u32 range | rows[i] = Σ_l A[i,l]·w[l]: what |
// |   |   | audit_* must give. Writes rows[0 .. m] |
// | expect_row | i32* out, u32 row, u32 n, u32 k, u32 key_a, u32 key_b, u32 range, u32 turned | the exact row |
// |   |   | of C from the generator, to locate tile and bits after a mismatch. Writes out[0 .. n] |
// | flip | u32* words, u64 word, u32 bit | grid 1, block 1. Flips one bit, bit < 32; an f64's element e is |
// |   |   | words 2e (low) and 2e + 1 |
// | copy | const uint4* x, uint4* y, u64 count | y = x; count in 16-byte groups; aligned to 16 |
// | triad | const float4* x, const float4* z, float4* y, f32 scale, u64 count | y = x + scale·z, as above |
// | adamw | float4* parameter, const float4* gradient, float4* mean, float4* square, u64 count, f32 rate, |
// |   | f32 beta_1, f32 beta_2, f32 floor, f32 decay | as adamw.wgsl; count in groups of four floats |
// | addend | f32* out, u64 count, u32 key | collective/exact.rs: fill_exact with its key(seed, rank, iteration) |
// | add | f32* y, const f32* x, u64 count | y += x: one hop of a reduction |
// | digest | const u32* words, u64 count, u64 first, u64* out | out[0], out[1] += exact.rs Digest of the words, |
// |   |   | the first of which has index `first`; the caller ZEROES out. Serves totals and whole C alike |
// | pattern_write | uint4* p, u64 count, u32 key, u32 mask, u32 flip | count in 16-byte groups, aligned to 16. |
// |   |   | word i holds (hash(i) & mask) ^ flip, hash over both halves of the 64-bit i; mask 0 gives constants |
// |   |   | (flip 0, ~0, 0xAAAAAAAA, 0x55555555), mask ~0 random words, with flip ~0 their complement |
// | pattern_check | const uint4* p, u64 count, u32 key, u32 mask, u32 flip, u32* faults, u32 room | |
// |   |   | faults[0] counts wrong words (saturating at 2³¹ or above, never wrapping to 0); the first `room` to |
// |   |   | be found are recorded at faults + 4: {u32 index low, u32 index high, u32 wanted, u32 found}. The |
// |   |   | caller ZEROES faults[0 .. 4]; faults holds 4 + 4·room words |
// | stamp | u64* out | grid 1, block 1. The device's nanosecond counter (%globaltimer) |
// | spin | u64 nanoseconds | grid 1, block 1. Keeps its stream busy that long by %globaltimer |
