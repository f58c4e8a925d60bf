// Stands in for hopper.cuh and wgmma.cuh: tensor maps and tile copies with the 128-byte swizzle, barriers in shared
// memory, clusters, and wgmma by its canonical layouts (CUTLASS, mma_traits_sm90_gmma.hpp), on fibers. Copies come at a
// time drawn by chance; products read shared memory as late as they may, at the wait that needs them.
#pragma once
#include "tensor_cores.h"
#include <map>

#define HALLMARK_HOPPER

struct alignas(64) TensorMap {
    const char* base;
    u64 dim[2], stride;
    u32 box[2], bytes;
    char unused[128 - 3 * 8 - 8 - 12 - 4];
};
static_assert(sizeof(TensorMap) == 128);

// What cuTensorMapEncodeTiled refuses.
inline TensorMap encode(const void* base, u32 bytes, u64 inner, u64 outer, u32 box_inner, u32 box_outer) {
    TensorMap map = {};
    map.base = (const char*)base;
    map.dim[0] = inner, map.dim[1] = outer, map.stride = inner * bytes;
    map.box[0] = box_inner, map.box[1] = box_outer, map.bytes = bytes;
    require((uintptr_t)base % 16 == 0 && map.stride % 16 == 0, "a tensor map needs multiples of 16 bytes");
    require(box_inner * bytes <= 128 && box_outer <= 256, "a box is too large for the 128-byte swizzle");
    return map;
}

const u32 WINDOW = 232448;
// The base is aligned to 16 bytes only, as dynamic shared memory may be.
const u32 DYNAMIC = 128 + 16, DYNAMIC_BYTES = 197888;
alignas(1024) inline char windows[2][WINDOW];
inline char* window(u32 rank, u32 address) {
    require(address >= DYNAMIC && address < DYNAMIC + DYNAMIC_BYTES, "shared memory beyond what was asked for");
    return &windows[rank][address];
}

struct Barrier {
    u32 arrivals = 0, pending = 0;
    long long bytes = 0;
    u32 phase = 0;
};
typedef std::pair<u32, u32> Named;
inline std::map<Named, Barrier> barriers;
inline Barrier& barrier_of(u32 rank, u32 address) {
    const auto found = barriers.find({rank, address});
    require(found != barriers.end(), "a barrier that was never begun");
    return found->second;
}
inline void settle(Barrier& barrier) {
    if (barrier.pending == 0 && barrier.bytes == 0) {
        barrier.phase ^= 1;
        barrier.pending = barrier.arrivals;
    }
}
inline void arrive(Barrier& barrier) {
    require(barrier.pending > 0, "more arrivals than a phase has");
    barrier.pending--;
    settle(barrier);
}
inline u32 dynamic_shared() { return DYNAMIC; }
inline void barrier_begin(u32 address, u32 arrivals) {
    require(address % 8 == 0 && address + 8 <= DYNAMIC + DYNAMIC_BYTES, "a barrier outside of shared memory");
    barriers[{self().rank, address}] = {arrivals, arrivals, 0, 0};
}
inline void barriers_begun() {}
inline void barrier_expect(u32 address, u32 bytes) {
    Barrier& barrier = barrier_of(self().rank, address);
    barrier.bytes += bytes;
    arrive(barrier);
}
inline void barrier_arrive(u32 address) { arrive(barrier_of(self().rank, address)); }
inline void barrier_arrive_at(u32 address, u32 rank) { arrive(barrier_of(rank, address)); }
inline void barrier_wait(u32 address, u32 parity) {
    while (barrier_of(self().rank, address).phase == parity) {
        yield();
    }
}

struct Coming {
    u32 to, x, y, barrier, first, last;
    const TensorMap* map;
};
inline std::vector<Coming> coming;
inline void land(const Coming& c, u32 rank) {
    require(c.to % 1024 == 0, "a swizzled box begins at no multiple of 1024 bytes");
    const TensorMap& map = *c.map;
    const u32 line = map.box[0] * map.bytes;
    require(line == 128, "lines of a box are 128 bytes here");
    for (u32 row = 0; row < map.box[1]; row++) {
        for (u32 e = 0; e < map.box[0]; e++) {
            const u64 x = (u64)c.x + e, y = (u64)c.y + row;
            const u32 linear = c.to + row * line + e * map.bytes;
            const u32 address = linear ^ (linear >> 7 & 7) << 4;
            char* to = window(rank, address);
            if (x < map.dim[0] && y < map.dim[1]) {
                memcpy(to, map.base + y * map.stride + x * map.bytes, map.bytes);
            } else {
                memset(to, 0, map.bytes);
            }
        }
    }
    Barrier& barrier = barrier_of(rank, c.barrier);
    barrier.bytes -= (long long)line * map.box[1];
    settle(barrier);
}
// Between rounds of the fibers some of the copies under way land, in any order.
inline void land_some() {
    for (u32 tries = coming.empty() ? 0 : machine.chance() % 3; tries > 0 && !coming.empty(); tries--) {
        const size_t at = machine.chance() % coming.size();
        const Coming c = coming[at];
        coming.erase(coming.begin() + at);
        for (u32 rank = c.first; rank <= c.last; rank++) {
            land(c, rank);
        }
    }
}
inline void bring_box(u32 to, const TensorMap& map, u32 x, u32 y, u32 barrier) {
    coming.push_back({to, x, y, barrier, self().rank, self().rank, &map});
}
inline void bring_box_to_both(u32 to, const TensorMap& map, u32 x, u32 y, u32 barrier) {
    coming.push_back({to, x, y, barrier, 0, 1, &map});
}
inline void fetch_map(const TensorMap&) {}
inline u32 rank_in_cluster() { return self().rank; }
inline void cluster_wait() { meet(machine.cluster); }
template <u32 COUNT> void registers_give() {}
template <u32 COUNT> void registers_take() {}

// Where an element lies by a descriptor with the 128-byte swizzle: `major` runs along the line.
inline u32 swizzled(u32 linear) { return linear ^ (linear >> 7 & 7) << 4; }
struct Layout {
    u32 start, leading, eight;
    explicit Layout(u64 d) : start((d & 0x3FFF) << 4), leading((d >> 16 & 0x3FFF) << 4), eight((d >> 32 & 0x3FFF) << 4) {
        require(d >> 62 == 1, "a descriptor without the 128-byte swizzle");
    }
    // Swizzle<3,4,3> o ((8,m),(T,2)):((8T,SBO),(1,T)): lines run along k.
    u32 along_k(u32 line, u32 byte) const { return swizzled(start + line % 8 * 128 + line / 8 * eight + byte); }
    // Swizzle<3,4,3> o ((T,8,m),(8,k)):((1,T,LBO),(8T,SBO)): lines run along n, 64 elements of 16 bits each.
    u32 along_n(u32 n, u32 k) const { return swizzled(start + n % 64 * 2 + n / 64 * leading + k % 8 * 128 + k / 8 * eight); }
};

struct Product {
    std::function<void()> run;
};
inline std::vector<std::vector<std::vector<Product>>> products;
inline std::vector<std::vector<Product>>& products_of_thread() {
    if (products.size() < machine.fibers.size()) {
        products.resize(machine.fibers.size());
    }
    auto& mine = products[machine.now];
    if (mine.empty()) {
        mine.emplace_back();
    }
    return mine;
}
// What this thread gets of 64×WIDE of C: sum i is row 16·warp + lane / 4 + 8 · (i / 2 % 2), column 8 · (i / 4) +
// 2 · (lane % 4) + i % 2 (PTX ISA, “Register fragments and shared memory matrix layouts” of wgmma).
template <class Type, u32 COUNT> void compute(f32 (&d)[COUNT], u64 a, u64 b, bool add) {
    const Layout left(a), right(b);
    const u32 BYTES = Form<Type>::BYTES, DEPTH = 32 / BYTES;
    const u32 rank = self().rank, thread = threadIdx.x % 128, lane = thread % 32;
    const auto value = [&](u32 address) {
        u32 bits = 0;
        memcpy(&bits, window(rank, address), BYTES);
        return Form<Type>::value(bits);
    };
    for (u32 half = 0; half < 2; half++) {
        const u32 row = thread / 32 * 16 + lane / 4 + half * 8;
        f64 line[32];
        for (u32 k = 0; k < DEPTH; k++) {
            line[k] = value(left.along_k(row, k * BYTES));
        }
        for (u32 i = half * 2; i < COUNT; i += i % 2 ? 3 : 1) {
            const u32 column = i / 4 * 8 + lane % 4 * 2 + i % 2;
            f64 sum = add ? d[i] : 0;
            for (u32 k = 0; k < DEPTH; k++) {
                sum += line[k] * value(BYTES == 2 ? right.along_n(column, k) : right.along_k(column, k));
            }
            within_fp8<Type>(sum);
            require(std::fabs(sum) <= 16777216, "a sum leaves the exact range");
            d[i] = (f32)sum;
        }
    }
}
template <class Type, u32 COUNT> void multiply_async(Type, f32 (&d)[COUNT], u64 a, u64 b, bool add) {
    static_assert(COUNT == (Form<Type>::BYTES == 2 ? 128 : 64));
    products_of_thread().back().push_back({[&d, a, b, add] { compute<Type>(d, a, b, add); }});
}
inline void products_begin() {}
inline void products_commit() { products_of_thread().emplace_back(); }
template <int PENDING> void products_wait() {
    auto& mine = products_of_thread();
    while (mine.size() > PENDING + 1) {
        for (const Product& product : mine.front()) {
            product.run();
        }
        mine.erase(mine.begin());
    }
}
template <u32 COUNT> void products_settle(f32 (&)[COUNT]) {}
