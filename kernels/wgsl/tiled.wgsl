// C[m×n] = A[m×k] · B[k×n], row-major, any shape, for adapters with silicon of their own.
//
// A workgroup of 256 computes 128×128 of C; 128×16 of A and 16×128 of B at a time pass through workgroup
// memory (16 KiB, what every WebGPU adapter has), and each invocation keeps 8×8 sums in registers. Elements
// beyond a matrix enter as zero and are not stored, so that every access is in bounds.
//
// The host puts in front: `alias Operand = f32` or `f16`.

struct Shape { m: u32, n: u32, k: u32, unused: u32 }

@group(0) @binding(0) var<storage, read> a: array<Operand>;
@group(0) @binding(1) var<storage, read> b: array<Operand>;
@group(0) @binding(2) var<storage, read_write> c: array<f32>;
@group(0) @binding(3) var<uniform> shape: Shape;

const TILE = 128u;
const DEPTH = 16u;
const SIDE = 16u;
const BLOCK = 8u;

// A's tile is kept column by column, so that the inner loop reads both tiles along a row.
var<workgroup> tile_a: array<f32, 2048>;
var<workgroup> tile_b: array<f32, 2048>;

@compute @workgroup_size(16, 16, 1)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let row_first = group.y * TILE;
    let col_first = group.x * TILE;
    var sum: array<array<f32, BLOCK>, BLOCK>;
    for (var depth = 0u; depth < shape.k; depth += DEPTH) {
        for (var load = 0u; load < BLOCK; load++) {
            let at = index + load * SIDE * SIDE;
            let row = row_first + at / DEPTH;
            let l = depth + at % DEPTH;
            var value = 0.0;
            if (row < shape.m && l < shape.k) {
                value = f32(a[row * shape.k + l]);
            }
            tile_a[(at % DEPTH) * TILE + at / DEPTH] = value;
        }
        for (var load = 0u; load < BLOCK; load++) {
            let at = index + load * SIDE * SIDE;
            let l = depth + at / TILE;
            let col = col_first + at % TILE;
            var value = 0.0;
            if (l < shape.k && col < shape.n) {
                value = f32(b[l * shape.n + col]);
            }
            tile_b[at] = value;
        }
        workgroupBarrier();
        for (var l = 0u; l < DEPTH; l++) {
            var left: array<f32, BLOCK>;
            var right: array<f32, BLOCK>;
            for (var i = 0u; i < BLOCK; i++) {
                left[i] = tile_a[l * TILE + local.y + i * SIDE];
                right[i] = tile_b[l * TILE + local.x + i * SIDE];
            }
            for (var i = 0u; i < BLOCK; i++) {
                for (var j = 0u; j < BLOCK; j++) {
                    sum[i][j] = fma(left[i], right[j], sum[i][j]);
                }
            }
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < BLOCK; i++) {
        for (var j = 0u; j < BLOCK; j++) {
            let row = row_first + local.y + i * SIDE;
            let col = col_first + local.x + j * SIDE;
            if (row < shape.m && col < shape.n) {
                c[row * shape.n + col] = sum[i][j];
            }
        }
    }
}
