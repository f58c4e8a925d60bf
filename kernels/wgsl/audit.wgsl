// Row sums of C for the audit: rows[i] = Σ_j term(C[i,j]) · r[j] modulo 2³², as audit.rs defines them.
//
// One workgroup per row; unsigned sums wrap, so their order does not matter. C is read as bits: a device that
// flushes denormals or tells no two NaNs apart would otherwise hide a flipped bit.

struct Audit { m: u32, n: u32, key: u32, first: u32 }

@group(0) @binding(0) var<storage, read> c: array<u32>;
@group(0) @binding(1) var<storage, read_write> rows: array<u32>;
@group(0) @binding(2) var<uniform> audit: Audit;

const WIDTH = 64u;
const SURPLUS = 0x9E3779B1u;
var<workgroup> part: array<u32, WIDTH>;

// MurmurHash3's 32-bit finaliser (A. Appleby, public domain).
fn mix(input: u32) -> u32 {
    var h = input;
    h ^= h >> 16u;
    h *= 0x85EBCA6Bu;
    h ^= h >> 13u;
    h *= 0xC2B2AE35u;
    return h ^ (h >> 16u);
}

// Towards zero, saturating, 0 for NaN: a plain conversion leaves these cases to the device.
fn whole(bits: u32) -> i32 {
    let magnitude = bits & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u) {
        return 0;
    }
    if (magnitude >= 0x4F000000u) {
        return select(0x7FFFFFFF, -0x7FFFFFFF - 1, (bits >> 31u) == 1u);
    }
    return i32(bitcast<f32>(bits));
}

fn term(bits: u32) -> u32 {
    let value = whole(bits);
    let surplus = bits ^ bitcast<u32>(f32(value));
    return bitcast<u32>(value) + select(surplus * SURPLUS, 0u, surplus == 0x80000000u);
}

@compute @workgroup_size(64, 1, 1)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group.y * groups.x + group.x;
    var sum = 0u;
    if (row < audit.m) {
        for (var j = local; j < audit.n; j += WIDTH) {
            let challenge = mix(mix(j ^ audit.key) + audit.key) | 1u;
            sum += term(c[row * audit.n + j]) * challenge;
        }
    }
    part[local] = sum;
    workgroupBarrier();
    if (local == 0u && row < audit.m) {
        for (var i = 1u; i < WIDTH; i++) {
            sum += part[i];
        }
        rows[audit.first + row] = sum;
    }
}
