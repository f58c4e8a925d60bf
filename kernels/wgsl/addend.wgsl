// Fills a gradient bucket with the whole numbers of collective/exact.rs, whose total over ranks is exact.

struct Addend { count: u32, key: u32, unused_0: u32, unused_1: u32 }

@group(0) @binding(0) var<storage, read_write> values: array<f32>;
@group(0) @binding(1) var<uniform> addend: Addend;

// MurmurHash3's 32-bit finaliser (A. Appleby, public domain).
fn mix(input: u32) -> u32 {
    var h = input;
    h ^= h >> 16u;
    h *= 0x85EBCA6Bu;
    h ^= h >> 13u;
    h *= 0xC2B2AE35u;
    return h ^ (h >> 16u);
}

@compute @workgroup_size(256, 1, 1)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = (group.y * groups.x + group.x) * 256u + local;
    if (index < addend.count) {
        let hash = mix((index * 0x9E3779B1u) ^ addend.key);
        values[index] = f32(i32(hash >> 15u) - 65536);
    }
}
