//! The engine for AVX2 with FMA: register tiles of 6×16.

use super::{Engine, Source, Tile, portable};
use std::arch::x86_64::*;

const ROWS: usize = 6;
/// Vectors of 8 side by side in a tile.
const VECTORS: usize = 2;

pub(super) static F32: Engine<f32> = Engine {
    name: "avx2 f32 6x16",
    tile_rows: ROWS,
    tile_cols: 8 * VECTORS,
    block_rows: 504,
    block_depth: 256,
    grain: 1,
    pack_a,
    pack_b: portable::pack_b::<8>,
    tile,
};

/// Packs rows of A so that the values of one depth lie side by side.
///
/// # Safety
/// As [`portable::pack_a`], and the processor has AVX2.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn pack_a(source: &Source<f32>, dst: *mut f32) {
    let (rows, cols) = (source.rows, source.cols);
    let (whole_rows, whole_cols) = (rows - rows % 8, cols - cols % 8);
    for p in (0..whole_cols).step_by(8) {
        for i in (0..whole_rows).step_by(8) {
            // SAFETY: an 8×8 square inside the source goes to its place inside the panel.
            unsafe {
                transpose(
                    source.at.add(i * source.stride + p),
                    source.stride,
                    dst.add(p * rows + i),
                    rows,
                );
            }
        }
    }
    for i in 0..rows {
        let done = if i < whole_rows { whole_cols } else { 0 };
        for p in done..cols {
            // SAFETY: inside the source and the panel.
            unsafe { *dst.add(p * rows + i) = *source.at.add(i * source.stride + p) };
        }
    }
}

/// Writes the transpose of the 8×8 square at `src` to `dst`.
///
/// # Safety
/// Both squares are accessible at their strides; the processor has AVX2.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn transpose(src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let row = |i: usize| _mm256_loadu_ps(src.add(i * src_stride));
        let pair = |i: usize| {
            let (x, y) = (row(i), row(i + 1));
            (_mm256_unpacklo_ps(x, y), _mm256_unpackhi_ps(x, y))
        };
        // Columns 0 and 4, 1 and 5, 2 and 6, 3 and 7 of four rows, one pair in each vector.
        let four = |i: usize| {
            let ((low, high), (low_next, high_next)) = (pair(i), pair(i + 2));
            [
                _mm256_shuffle_ps::<0x44>(low, low_next),
                _mm256_shuffle_ps::<0xee>(low, low_next),
                _mm256_shuffle_ps::<0x44>(high, high_next),
                _mm256_shuffle_ps::<0xee>(high, high_next),
            ]
        };
        let (upper, lower) = (four(0), four(4));
        for i in 0..4 {
            let left = _mm256_permute2f128_ps::<0x20>(upper[i], lower[i]);
            let right = _mm256_permute2f128_ps::<0x31>(upper[i], lower[i]);
            _mm256_storeu_ps(dst.add(i * dst_stride), left);
            _mm256_storeu_ps(dst.add((i + 4) * dst_stride), right);
        }
    }
}

/// # Safety
/// See [`Engine::tile`].
unsafe fn tile(tile: &Tile<f32>) {
    macro_rules! pick {
        ($($rows:literal)*) => {
            match (tile.rows, tile.cols.div_ceil(8)) {
                $(
                    // SAFETY: the caller's promise.
                    ($rows, 1) => unsafe { fixed::<$rows, 1>(tile) },
                    // SAFETY: the caller's promise.
                    ($rows, _) => unsafe { fixed::<$rows, VECTORS>(tile) },
                )*
                _ => unreachable!("a tile has 1 to {ROWS} rows"),
            }
        };
    }
    pick!(1 2 3 4 5 6)
}

/// # Safety
/// See [`Engine::tile`]; the tile has `R` rows and at most `8 × V` columns.
#[expect(
    clippy::needless_range_loop,
    reason = "indices over fixed bounds keep the sums in registers and read like the tile"
)]
#[target_feature(enable = "avx2,fma")]
unsafe fn fixed<const R: usize, const V: usize>(tile: &Tile<f32>) {
    let mut sum = [[_mm256_setzero_ps(); V]; R];
    let (mut a, mut b) = (tile.a, tile.b);
    // SAFETY: panels hold `depth` times `R` and `8 × V` values.
    unsafe {
        for _ in 0..tile.depth {
            let mut right = [_mm256_setzero_ps(); V];
            for v in 0..V {
                right[v] = _mm256_loadu_ps(b.add(8 * v));
            }
            for i in 0..R {
                let left = _mm256_broadcast_ss(&*a.add(i));
                for v in 0..V {
                    sum[i][v] = _mm256_fmadd_ps(left, right[v], sum[i][v]);
                }
            }
            a = a.add(R);
            b = b.add(8 * V);
        }
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        for i in 0..R {
            for v in 0..V {
                let left = i32::try_from(tile.cols.saturating_sub(8 * v)).unwrap_or(8);
                let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(left), lanes);
                let c = tile.c.wrapping_add(i * tile.c_stride + 8 * v);
                let old = if tile.accumulate {
                    _mm256_maskload_ps(c, mask)
                } else {
                    _mm256_setzero_ps()
                };
                _mm256_maskstore_ps(c, mask, _mm256_add_ps(old, sum[i][v]));
            }
        }
    }
}
