// The asynchronous matrix instruction of Hopper for the shapes that hopper.cu uses. A warp group of 128 threads adds a
// product of two tiles in shared memory to sums in its registers; `add` false begins from zero.
#ifndef HALLMARK_WGMMA
#define HALLMARK_WGMMA
#include "generator.cuh"

struct Bf16 {};
struct F16 {};
struct E4m3 {};
struct E5m2 {};

#define TEN(tens) \
    "%" #tens "0, %" #tens "1, %" #tens "2, %" #tens "3, %" #tens "4, %" #tens "5, %" #tens "6, %" #tens "7, %" #tens \
    "8, %" #tens "9"
#define NAMES_64 TEN() ", " TEN(1) ", " TEN(2) ", " TEN(3) ", " TEN(4) ", " TEN(5) ", %60, %61, %62, %63"
#define NAMES_128 \
    TEN() ", " TEN(1) ", " TEN(2) ", " TEN(3) ", " TEN(4) ", " TEN(5) ", " TEN(6) ", " TEN(7) ", " TEN(8) ", " TEN(9) \
    ", " TEN(10) ", " TEN(11) ", %120, %121, %122, %123, %124, %125, %126, %127"

#define SUMS_8(d, i) \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
        "+f"(d[i + 7])
#define SUMS_64(d, i) \
    SUMS_8(d, i), SUMS_8(d, i + 8), SUMS_8(d, i + 16), SUMS_8(d, i + 24), SUMS_8(d, i + 32), SUMS_8(d, i + 40), \
        SUMS_8(d, i + 48), SUMS_8(d, i + 56)

// 64×256 of C over 16 elements of k. A's lines run along k and B's along n, which is what the last two numbers say.
#define MULTIPLY_16(type, kinds) \
    __device__ __forceinline__ void multiply_async(type, f32(&d)[128], u64 a, u64 b, bool add) { \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n" \
                     "wgmma.mma_async.sync.aligned.m64n256k16." kinds " {" NAMES_128 "}, %128, %129, p, 1, 1, 0, 1;\n}" \
                     : SUMS_64(d, 0), SUMS_64(d, 64) \
                     : "l"(a), "l"(b), "r"((i32)add)); \
    }

// 64×128 of C over 32 elements of k: rows of A and of B run along k, the only way for types of 8 bits.
#define MULTIPLY_8(type, kinds) \
    __device__ __forceinline__ void multiply_async(type, f32(&d)[64], u64 a, u64 b, bool add) { \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n" \
                     "wgmma.mma_async.sync.aligned.m64n128k32." kinds " {" NAMES_64 "}, %64, %65, p, 1, 1;\n}" \
                     : SUMS_64(d, 0) \
                     : "l"(a), "l"(b), "r"((i32)add)); \
    }

MULTIPLY_16(Bf16, "f32.bf16.bf16")
MULTIPLY_16(F16, "f32.f16.f16")
MULTIPLY_8(E4m3, "f32.e4m3.e4m3")
MULTIPLY_8(E5m2, "f32.e5m2.e5m2")

// Orders this warp group's use of registers and shared memory before the products that follow.
__device__ __forceinline__ void products_begin() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void products_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits until at most `PENDING` committed groups are under way.
template <int PENDING> __device__ __forceinline__ void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

// Keeps the compiler from reading sums before the wait that stands above.
template <u32 COUNT> __device__ __forceinline__ void products_settle(f32 (&d)[COUNT]) {
#pragma unroll
    for (u32 i = 0; i < COUNT; i++) {
        asm volatile("" : "+f"(d[i])::"memory");
    }
}

#endif
