// Stands in for ptx.cuh: cp.async, ldmatrix and mma.sync as the PTX ISA defines their fragments, on fibers. Copies are
// made as late as they may be, at the wait that needs them. A running fp8 sum above 2¹³ fails: a device may round there.
#pragma once
#include "fibers.h"

#define HALLMARK_PTX
#define HALLMARK_WGMMA
#include "../../kernels/cuda/generator.cuh"

struct Bf16 {};
struct F16 {};
struct Tf32 {};
struct I8 {};
struct E4m3 {};
struct E5m2 {};

// The value of a float of that form, by the definition: no code is shared with the kernels.
inline f64 decode(u32 bits, int exponent_bits, int significand_bits) {
    const int exponent = bits >> significand_bits & ((1 << exponent_bits) - 1);
    const f64 fraction = (bits & ((1 << significand_bits) - 1)) / (f64)(1 << significand_bits);
    const int bias = (1 << (exponent_bits - 1)) - 1;
    const f64 magnitude = exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1 + fraction, exponent - bias);
    return bits >> (exponent_bits + significand_bits) & 1 ? -magnitude : magnitude;
}
template <class Type> struct Form;
template <> struct Form<Bf16> {
    static const u32 BYTES = 2;
    static f64 value(u32 bits) { return decode(bits, 8, 7); }
};
template <> struct Form<F16> {
    static const u32 BYTES = 2;
    static f64 value(u32 bits) { return decode(bits, 5, 10); }
};
template <> struct Form<Tf32> {
    static const u32 BYTES = 4;
    // Tensor cores do not read the last 13 bits.
    static f64 value(u32 bits) { return __uint_as_float(bits & 0xFFFFE000u); }
};
template <> struct Form<I8> {
    static const u32 BYTES = 1;
    static f64 value(u32 bits) { return (signed char)bits; }
};
template <> struct Form<E4m3> {
    static const u32 BYTES = 1;
    static f64 value(u32 bits) { return decode(bits, 4, 3); }
};
template <> struct Form<E5m2> {
    static const u32 BYTES = 1;
    static f64 value(u32 bits) { return decode(bits, 5, 2); }
};
template <class Type> void within_fp8(f64) {}
template <> inline void within_fp8<E4m3>(f64 sum) { require(std::fabs(sum) <= 8192, "an fp8 sum leaves the exact range"); }
template <> inline void within_fp8<E5m2>(f64 sum) { within_fp8<E4m3>(sum); }

// The bits of the float of that form that is nearest, the even one of two.
inline u32 nearest(f64 value, int exponent_bits, int significand_bits) {
    const int bias = (1 << (exponent_bits - 1)) - 1, sign = std::signbit(value);
    int exponent;
    std::frexp(value, &exponent);
    exponent = std::max(exponent - 1, 1 - bias);
    const f64 steps = std::nearbyint(std::ldexp(std::fabs(value), significand_bits - exponent));
    const u32 one = 1u << significand_bits, most = (u32)(2 * bias + 1) << significand_bits;
    const u32 bits = steps < one ? (u32)steps : ((u32)(exponent + bias) << significand_bits) + (u32)steps - one;
    return (u32)sign << (exponent_bits + significand_bits) | std::min(bits, most);
}
inline u32 bf16_pair(f32 low, f32 high) { return nearest(low, 8, 7) | nearest(high, 8, 7) << 16; }
inline u32 half_pair(f32 low, f32 high) { return nearest(low, 5, 10) | nearest(high, 5, 10) << 16; }
inline f32 half_value(u16 bits) { return (f32)decode(bits, 5, 10); }

// Others take their turn before each store and at each look, so that what must be waited for has not happened yet.
inline void store_release(u32* to, u32 value) {
    yield();
    *to = value;
}
inline u32 load_acquire(const u32* from) {
    yield();
    return *from;
}
inline void store_whole(u64* to, u64 value) {
    require((uintptr_t)to % 8 == 0, "a store of 8 bytes to no multiple of them");
    yield();
    *to = value;
}
inline u64 load_whole(const u64* from) {
    yield();
    return *from;
}

inline u64 device_nanoseconds() {
    static u64 now = 0;
    return now += 32;
}

// Shared memory of a block is static here, so that an address is a distance from a fixed place.
inline char anchor;
inline u32 shared_address(const void* pointer) { return (u32)(i32)((const char*)pointer - &anchor); }
[[gnu::noinline]] inline char* shared_pointer(u32 address) { return &anchor + (i32)address; }

struct Queued {
    u32 to;
    const void* from;
    bool inside;
};
inline std::vector<std::vector<std::vector<Queued>>> groups;
inline std::vector<std::vector<Queued>>& groups_of_thread() {
    if (groups.size() < machine.fibers.size()) {
        groups.resize(machine.fibers.size());
    }
    auto& mine = groups[machine.now];
    if (mine.empty()) {
        mine.emplace_back();
    }
    return mine;
}
inline void copy_async(u32 to, const void* from, bool inside) {
    require((uintptr_t)shared_pointer(to) % 16 == 0, "cp.async writes to no multiple of 16 bytes");
    require((uintptr_t)from % 16 == 0, "cp.async reads from no multiple of 16 bytes");
    groups_of_thread().back().push_back({to, from, inside});
}
inline void copy_commit() { groups_of_thread().emplace_back(); }
template <int PENDING> void copy_wait() {
    auto& mine = groups_of_thread();
    while (mine.size() > PENDING + 1) {
        for (const Queued& copy : mine.front()) {
            if (copy.inside) {
                memcpy(shared_pointer(copy.to), copy.from, 16);
            } else {
                memset(shared_pointer(copy.to), 0, 16);
            }
        }
        mine.erase(mine.begin());
    }
}

inline void store_shared(u32 to, uint4 value) {
    require((uintptr_t)shared_pointer(to) % 16 == 0, "st.shared.v4 writes to no multiple of 16 bytes");
    memcpy(shared_pointer(to), &value, 16);
}
inline u32 load_shared(u32 from) {
    u32 value;
    memcpy(&value, shared_pointer(from), 4);
    return value;
}
inline void load_matrices(u32 (&to)[4], u32 row) {
    require((uintptr_t)shared_pointer(row) % 16 == 0, "ldmatrix reads from no multiple of 16 bytes");
    const auto rows = exchange(row);
    const u32 lane = threadIdx.x % 32;
    for (u32 i = 0; i < 4; i++) {
        memcpy(&to[i], shared_pointer(rows.lane[8 * i + lane / 4]) + lane % 4 * 4, 4);
    }
}
inline void load_matrices_turned(u32 (&to)[4], u32 row) {
    const auto rows = exchange(row);
    const u32 lane = threadIdx.x % 32;
    for (u32 i = 0; i < 4; i++) {
        u16 two[2];
        for (u32 e = 0; e < 2; e++) {
            memcpy(&two[e], shared_pointer(rows.lane[8 * i + lane % 4 * 2 + e]) + lane / 4 * 2, 2);
        }
        to[i] = two[0] | (u32)two[1] << 16;
    }
}

// Element `at` of a register that packs elements of that many bytes.
template <class Type> f64 element(u32 packed, u32 at) {
    const u32 bytes = Form<Type>::BYTES;
    return Form<Type>::value(bytes == 4 ? packed : packed >> at * bytes * 8 & ((1ull << bytes * 8) - 1));
}
struct Fragments {
    u32 a[4], b[2];
};
// PTX ISA, “Matrix fragments for mma”: with E elements a register, register r of A holds row lane / 4 + 8 · (r % 2), k from
// E · (lane % 4) + 4E · (r / 2); register r of B holds k from E · (lane % 4) + 4E · r, column lane / 4.
template <class Type, class Sum> void multiply(Type, Sum (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    Fragments own;
    memcpy(own.a, a, sizeof(a));
    memcpy(own.b, b, sizeof(b));
    const auto all = exchange(own);
    const u32 lane = threadIdx.x % 32, E = 4 / Form<Type>::BYTES;
    for (u32 e = 0; e < 4; e++) {
        const u32 row = lane / 4 + e / 2 * 8, column = lane % 4 * 2 + e % 2;
        f64 sum = d[e];
        for (u32 k = 0; k < 8 * E; k++) {
            const u32 giver = k % (4 * E) / E, late = k / (4 * E);
            const f64 left = element<Type>(all.lane[row % 8 * 4 + giver].a[late * 2 + row / 8], k % E);
            sum += left * element<Type>(all.lane[column * 4 + giver].b[late], k % E);
        }
        within_fp8<Type>(sum);
        require(std::fabs(sum) <= 16777216, "a sum leaves the exact range");
        d[e] = (Sum)sum;
    }
}
