// The instructions of compute_80 and compute_89 that C++ has no word for, one function each. An emulation of this
// file on a processor lets the kernels' index arithmetic be tested without a device.
#ifndef HALLMARK_PTX
#define HALLMARK_PTX
#include "generator.cuh"

__device__ __forceinline__ u64 device_nanoseconds() {
    u64 now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    return now;
}

__device__ __forceinline__ u32 shared_address(const void* pointer) {
    return (u32)__cvta_generic_to_shared(pointer);
}

// What a rank tells another, on this device or a peer: whoever loads the value stored has all that came before it.
__device__ __forceinline__ void store_release(u32* to, u32 value) {
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}

__device__ __forceinline__ u32 load_acquire(const u32* from) {
    u32 value;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
    return value;
}

// Eight bytes that are never seen in part, and order nothing else.
__device__ __forceinline__ void store_whole(u64* to, u64 value) {
    asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(to), "l"(value) : "memory");
}

__device__ __forceinline__ u64 load_whole(const u64* from) {
    u64 value;
    asm volatile("ld.relaxed.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(from) : "memory");
    return value;
}

// Two floats rounded to nearest even, the first in the low half.
__device__ __forceinline__ u32 bf16_pair(f32 low, f32 high) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

__device__ __forceinline__ u32 half_pair(f32 low, f32 high) {
    u32 pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

__device__ __forceinline__ f32 half_value(u16 bits) {
    f32 value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

// Queues 16 bytes for shared memory; zeros, and `from` untouched, where `inside` is false.
__device__ __forceinline__ void copy_async(u32 to, const void* from, bool inside) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(inside ? 16 : 0)
                 : "memory");
}

__device__ __forceinline__ void copy_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most `PENDING` of this thread's groups are under way.
template <int PENDING> __device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

__device__ __forceinline__ void store_shared(u32 to, uint4 value) {
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(value.x), "r"(value.y), "r"(value.z),
                 "r"(value.w)
                 : "memory");
}

__device__ __forceinline__ u32 load_shared(u32 from) {
    u32 value;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(value) : "r"(from) : "memory");
    return value;
}

// Four 8×8 matrices of 16-bit elements; lane 8·i + r gives the address of row r of matrix i.
__device__ __forceinline__ void load_matrices(u32 (&to)[4], u32 row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row)
                 : "memory");
}

__device__ __forceinline__ void load_matrices_turned(u32 (&to)[4], u32 row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row)
                 : "memory");
}

// Elements of the tensor cores: bytes of one, and d += a · b over 32 bytes of k for a 16×8 tile of C.
struct Bf16 {};
struct F16 {};
struct Tf32 {};
struct I8 {};
struct E4m3 {};
struct E5m2 {};

#define MULTIPLY(type, shape, kinds, sum, letter) \
    __device__ __forceinline__ void multiply(type, sum(&d)[4], const u32(&a)[4], const u32(&b)[2]) { \
        asm volatile("mma.sync.aligned." shape ".row.col." kinds " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, " \
                     "{%0, %1, %2, %3};" \
                     : "+" letter(d[0]), "+" letter(d[1]), "+" letter(d[2]), "+" letter(d[3]) \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])); \
    }

MULTIPLY(Bf16, "m16n8k16", "f32.bf16.bf16.f32", f32, "f")
MULTIPLY(F16, "m16n8k16", "f32.f16.f16.f32", f32, "f")
MULTIPLY(Tf32, "m16n8k8", "f32.tf32.tf32.f32", f32, "f")
MULTIPLY(I8, "m16n8k32", "s32.s8.s8.s32", i32, "r")
#if __CUDA_ARCH__ >= 890
#define FP8
MULTIPLY(E4m3, "m16n8k32", "f32.e4m3.e4m3.f32", f32, "f")
MULTIPLY(E5m2, "m16n8k32", "f32.e5m2.e5m2.f32", f32, "f")
#endif

#endif
