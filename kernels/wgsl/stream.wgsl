// Device copy and triad, the memory-bound part of a step: y = x, and y = x + s·z.
//
// Arrays are padded to whole groups of four floats; `count` counts groups of four.

struct Stream { count: u32, scale: f32, unused_0: u32, unused_1: u32 }

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> z: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(3) var<uniform> stream: Stream;

@compute @workgroup_size(256, 1, 1)
fn copy(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = (group.y * groups.x + group.x) * 256u + local;
    if (index < stream.count) {
        y[index] = x[index];
    }
}

@compute @workgroup_size(256, 1, 1)
fn triad(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = (group.y * groups.x + group.x) * 256u + local;
    if (index < stream.count) {
        y[index] = x[index] + stream.scale * z[index];
    }
}
