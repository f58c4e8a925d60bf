// C[m×n] = A[m×k] · B[k×n], row-major, for adapters that run on a processor's own cores.
//
// Such an adapter vectorises over invocations and pays for every load of every invocation, while
// workgroup memory is ordinary memory behind a barrier. So each invocation keeps a large block of C in
// registers, loads four elements at a time straight from the buffers, and never synchronises.
// Refuses n or k that is no multiple of 4 (edge.wgsl takes those). Rows and columns beyond the matrix are
// clamped to the last one when loaded and not stored, so that every access is in bounds.
//
// The host puts in front: `alias Operand = vec4<f32>` or `vec4<f16>`.

struct Shape { m: u32, n: u32, k: u32, unused: u32 }

@group(0) @binding(0) var<storage, read> a: array<Operand>;
@group(0) @binding(1) var<storage, read> b: array<Operand>;
@group(0) @binding(2) var<storage, read_write> c: array<vec4<f32>>;
@group(0) @binding(3) var<uniform> shape: Shape;

const LANES = 8u;
const ROWS = 16u;
// Columns of one invocation, in fours; neighbouring lanes take neighbouring fours.
const FOURS = 2u;

@compute @workgroup_size(8, 1, 1)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let n4 = shape.n / 4u;
    let k4 = shape.k / 4u;
    let row_first = group.y * ROWS;
    let col_first = group.x * LANES * FOURS + local.x;
    var start: array<u32, ROWS>;
    for (var i = 0u; i < ROWS; i++) {
        start[i] = min(row_first + i, shape.m - 1u) * k4;
    }
    var col: array<u32, FOURS>;
    for (var j = 0u; j < FOURS; j++) {
        col[j] = min(col_first + j * LANES, n4 - 1u);
    }
    var sum: array<array<vec4<f32>, FOURS>, ROWS>;
    for (var l = 0u; l < k4; l++) {
        var left: array<vec4<f32>, ROWS>;
        for (var i = 0u; i < ROWS; i++) {
            left[i] = vec4<f32>(a[start[i] + l]);
        }
        for (var e = 0u; e < 4u; e++) {
            for (var j = 0u; j < FOURS; j++) {
                let right = vec4<f32>(b[(l * 4u + e) * n4 + col[j]]);
                for (var i = 0u; i < ROWS; i++) {
                    sum[i][j] = fma(vec4<f32>(left[i][e]), right, sum[i][j]);
                }
            }
        }
    }
    for (var i = 0u; i < ROWS; i++) {
        for (var j = 0u; j < FOURS; j++) {
            if (row_first + i < shape.m && col_first + j * LANES < n4) {
                c[(row_first + i) * n4 + col[j]] = sum[i][j];
            }
        }
    }
}
