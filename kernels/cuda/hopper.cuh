// The instructions of sm_90a that hopper.cu uses beside the products (wgmma.cuh): barriers in shared memory, tile
// copies, clusters and register counts, one function each.
#ifndef HALLMARK_HOPPER
#define HALLMARK_HOPPER
#include "generator.cuh"
#include "wgmma.cuh"

// What cuTensorMapEncodeTiled fills.
struct __align__(64) TensorMap {
    u64 opaque[16];
};

__device__ __forceinline__ u32 dynamic_shared() {
    extern __shared__ __align__(1024) u8 dynamic[];
    return (u32)__cvta_generic_to_shared(dynamic);
}

__device__ __forceinline__ void barrier_begin(u32 barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// Makes barriers that were just begun known to the copy engine and to the cluster.
__device__ __forceinline__ void barriers_begun() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// Arrives, and has the phase wait for that many bytes as well.
__device__ __forceinline__ void barrier_expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

__device__ __forceinline__ void barrier_arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Arrives at the same barrier of block `rank` of the cluster. What the arrival reports are reads that have ended, so it
// needs no order beyond the block, and no fence of the whole device.
__device__ __forceinline__ void barrier_arrive_at(u32 barrier, u32 rank) {
    asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(barrier),
                 "r"(rank)
                 : "memory");
}

// Waits until the phase of this parity is complete; the phase before the first counts as complete, with parity 1.
__device__ __forceinline__ void barrier_wait(u32 barrier, u32 parity) {
    u32 done;
    do {
        asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                     : "=r"(done)
                     : "r"(barrier), "r"(parity)
                     : "memory");
    } while (!done);
}

// Brings the box at (x, y), x the faster dimension, to shared memory; counts its bytes at the barrier, whole even
// where it reaches beyond the matrix, for there zeros come.
__device__ __forceinline__ void bring_box(u32 to, const TensorMap& map, u32 x, u32 y, u32 barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
                     to),
                 "l"((u64)&map), "r"(x), "r"(y), "r"(barrier)
                 : "memory");
}

// The same to the same place of both blocks of the cluster, each with its own barrier at the same place.
__device__ __forceinline__ void bring_box_to_both(u32 to, const TensorMap& map, u32 x, u32 y, u32 barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
                 "[%1, {%2, %3}], [%4], %5;" ::"r"(to),
                 "l"((u64)&map), "r"(x), "r"(y), "r"(barrier), "h"((u16)3)
                 : "memory");
}

__device__ __forceinline__ void fetch_map(const TensorMap& map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"((u64)&map) : "memory");
}

__device__ __forceinline__ u32 rank_in_cluster() {
    u32 rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

__device__ __forceinline__ void cluster_wait() {
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}

template <u32 COUNT> __device__ __forceinline__ void registers_give() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}

template <u32 COUNT> __device__ __forceinline__ void registers_take() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

#endif
