// One AdamW step (Loshchilov and Hutter, “Decoupled weight decay regularization”, 2019): reads parameters,
// gradients and both moments, writes parameters and both moments. Bias corrections are in `rate` and `floor`.
//
// Arrays are padded to whole groups of four floats; `count` counts groups of four.

struct Adamw {
    count: u32,
    rate: f32,
    beta_1: f32,
    beta_2: f32,
    floor: f32,
    decay: f32,
    unused_0: u32,
    unused_1: u32,
}

@group(0) @binding(0) var<storage, read_write> parameter: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> gradient: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> mean: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> square: array<vec4<f32>>;
@group(0) @binding(4) var<uniform> adamw: Adamw;

@compute @workgroup_size(256, 1, 1)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = (group.y * groups.x + group.x) * 256u + local;
    if (index < adamw.count) {
        let g = gradient[index];
        let first = adamw.beta_1 * mean[index] + (1.0 - adamw.beta_1) * g;
        let second = adamw.beta_2 * square[index] + (1.0 - adamw.beta_2) * g * g;
        let old = parameter[index];
        let step = first / (sqrt(second) + vec4<f32>(adamw.floor));
        parameter[index] = old - adamw.rate * (step + adamw.decay * old);
        mean[index] = first;
        square[index] = second;
    }
}
