// Fills a buffer with small whole numbers from the counter-based generator of audit.rs.
//
// The host puts in front: `alias Operand = f32` or `f16`.

struct Fill { count: u32, key: u32, range: u32, unused: u32 }

@group(0) @binding(0) var<storage, read_write> values: array<Operand>;
@group(0) @binding(1) var<uniform> fill: Fill;

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
    if (index < fill.count) {
        let hash = mix(mix(index ^ fill.key) + fill.key);
        let value = i32(hash % (2u * fill.range + 1u)) - i32(fill.range);
        values[index] = Operand(value);
    }
}
