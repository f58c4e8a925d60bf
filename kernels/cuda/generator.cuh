// Names of the integer types, and the counter-based generator of audit.rs: the same bits on host and device.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef float f32;
typedef double f64;

// MurmurHash3's 32-bit finaliser (A. Appleby, public domain).
__device__ __forceinline__ u32 mix(u32 h) {
    h ^= h >> 16;
    h *= 0x85EBCA6Bu;
    h ^= h >> 13;
    h *= 0xC2B2AE35u;
    return h ^ (h >> 16);
}

__device__ __forceinline__ u32 hash(u32 index, u32 key) {
    return mix(mix(index ^ key) + key);
}

// A whole number, uniform over −range..=range.
__device__ __forceinline__ i32 operand(u32 index, u32 key, u32 range) {
    return (i32)(hash(index, key) % (2 * range + 1)) - (i32)range;
}

// Bits of a whole number in a float of `EXPONENT` and `SIGNIFICAND` bits that holds it exactly.
template <u32 EXPONENT, u32 SIGNIFICAND> __device__ __forceinline__ u32 whole_as(i32 value) {
    const u32 bias = (1u << (EXPONENT - 1)) - 1;
    const u32 bits = __float_as_uint((f32)value);
    const u32 exponent = ((bits >> 23) & 255u) - 127u + bias;
    const u32 significand = (bits & 0x7FFFFFu) >> (23 - SIGNIFICAND);
    const u32 rest = exponent << SIGNIFICAND | significand;
    return value == 0 ? 0u : (bits >> 31) << (EXPONENT + SIGNIFICAND) | rest;
}

// A float of that form with random sign and significand and a magnitude in [0.5, 2).
template <u32 EXPONENT, u32 SIGNIFICAND> __device__ __forceinline__ u32 noise_as(u32 random) {
    const u32 bias = (1u << (EXPONENT - 1)) - 1;
    const u32 exponent = bias - (random >> 30 & 1u);
    const u32 significand = random & ((1u << SIGNIFICAND) - 1);
    return (random >> 31) << (EXPONENT + SIGNIFICAND) | exponent << SIGNIFICAND | significand;
}
