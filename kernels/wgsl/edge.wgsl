// C[m×n] = A[m×k] · B[k×n], row-major, any shape, for adapters that run on a processor's own cores.
//
// direct.wgsl for matrices whose rows do not start on a multiple of four elements: the same block in
// registers, loads of one element. Rows and columns beyond the matrix are clamped to the last one when
// loaded and not stored, so that every access is in bounds.
//
// The host puts in front: `alias Operand = f32` or `f16`.

struct Shape { m: u32, n: u32, k: u32, unused: u32 }

@group(0) @binding(0) var<storage, read> a: array<Operand>;
@group(0) @binding(1) var<storage, read> b: array<Operand>;
@group(0) @binding(2) var<storage, read_write> c: array<f32>;
@group(0) @binding(3) var<uniform> shape: Shape;

const LANES = 8u;
const ROWS = 16u;
const COLS = 8u;

@compute @workgroup_size(8, 1, 1)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let row_first = group.y * ROWS;
    let col_first = group.x * LANES * COLS + local.x;
    var start: array<u32, ROWS>;
    for (var i = 0u; i < ROWS; i++) {
        start[i] = min(row_first + i, shape.m - 1u) * shape.k;
    }
    var col: array<u32, COLS>;
    for (var j = 0u; j < COLS; j++) {
        col[j] = min(col_first + j * LANES, shape.n - 1u);
    }
    var sum: array<array<f32, COLS>, ROWS>;
    for (var l = 0u; l < shape.k; l++) {
        var left: array<f32, ROWS>;
        for (var i = 0u; i < ROWS; i++) {
            left[i] = f32(a[start[i] + l]);
        }
        for (var j = 0u; j < COLS; j++) {
            let right = f32(b[l * shape.n + col[j]]);
            for (var i = 0u; i < ROWS; i++) {
                sum[i][j] = fma(left[i], right, sum[i][j]);
            }
        }
    }
    for (var i = 0u; i < ROWS; i++) {
        for (var j = 0u; j < COLS; j++) {
            if (row_first + i < shape.m && col_first + j * LANES < shape.n) {
                c[(row_first + i) * shape.n + col[j]] = sum[i][j];
            }
        }
    }
}
