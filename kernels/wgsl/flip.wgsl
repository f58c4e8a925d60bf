// Flips one bit of one element of C in device memory: the fault that the audit must see.

struct Flip { element: u32, bit: u32, unused_0: u32, unused_1: u32 }

@group(0) @binding(0) var<storage, read_write> c: array<u32>;
@group(0) @binding(1) var<uniform> flip: Flip;

@compute @workgroup_size(1, 1, 1)
fn main() {
    c[flip.element] ^= 1u << flip.bit;
}
