//! The engines for AVX-512: register tiles of 9×48, f32 and (with `avx512_bf16`) bf16.
//!
//! 27 sums, 3 vectors of B and 2 broadcasts of A fill the 32 registers. Wide tiles need the
//! fewest instructions per multiply-add, which matters where a core is shared by two threads.

mod whole;

use super::{Engine, Source, Tile, avx2};
use half::bf16;
use std::arch::x86_64::*;

const ROWS: usize = 9;
/// Vectors of 16 side by side in a tile.
const VECTORS: usize = 3;
/// How many steps of depth ahead B is asked for: it streams from the L2 cache.
const AHEAD: usize = 8;

pub(super) static F32: Engine<f32> = Engine {
    name: "avx512 f32 9x48",
    tile_rows: ROWS,
    tile_cols: 16 * VECTORS,
    block_rows: 522,
    block_depth: 512,
    grain: 1,
    pack_a: avx2::pack_a,
    pack_b,
    tile,
};

pub(super) static BF16: Engine<bf16> = Engine {
    name: "avx512_bf16 9x48",
    tile_rows: ROWS,
    tile_cols: 16 * VECTORS,
    block_rows: 522,
    block_depth: 1024,
    grain: 2,
    pack_a: pack_a_pairs,
    pack_b: pack_b_pairs,
    tile: tile_bf16,
};

/// # Safety
/// As [`super::portable::pack_b`] with lanes of 16, and the processor has AVX-512F.
#[target_feature(enable = "avx512f")]
unsafe fn pack_b(source: &Source<f32>, dst: *mut f32) {
    let vectors = source.cols.div_ceil(16);
    let masks: [__mmask16; VECTORS] = std::array::from_fn(|v| mask(source.cols, v));
    for p in 0..source.rows {
        for (v, &mask) in masks.iter().enumerate().take(vectors) {
            // SAFETY: lanes outside the source are masked off; the panel holds whole vectors.
            unsafe {
                let values = _mm512_maskz_loadu_ps(mask, source.at.add(p * source.stride + 16 * v));
                _mm512_storeu_ps(dst.add((p * vectors + v) * 16), values);
            }
        }
    }
}

/// Lanes of vector `v` that lie inside a row of `cols` columns.
fn mask(cols: usize, v: usize) -> __mmask16 {
    let inside = cols.saturating_sub(16 * v).min(16);
    ((1u32 << inside) - 1) as __mmask16
}

/// Packs pairs of neighbouring values of each row; an odd last value is paired with zero.
///
/// # Safety
/// `source` is readable; `dst` holds `rows` times `cols` rounded up to 2.
unsafe fn pack_a_pairs(source: &Source<bf16>, dst: *mut bf16) {
    for pair in 0..source.cols.div_ceil(2) {
        for i in 0..source.rows {
            for half in 0..2 {
                let p = 2 * pair + half;
                // SAFETY: inside the source (or not read) and the panel.
                unsafe {
                    let value = if p < source.cols {
                        *source.at.add(i * source.stride + p)
                    } else {
                        bf16::ZERO
                    };
                    *dst.add((pair * source.rows + i) * 2 + half) = value;
                }
            }
        }
    }
}

/// Packs two rows of B at a time, values of one column side by side; padding is zero.
///
/// # Safety
/// `source` is readable; `dst` holds `rows` rounded up to 2 times `cols` rounded up to 16.
unsafe fn pack_b_pairs(source: &Source<bf16>, dst: *mut bf16) {
    let width = source.cols.next_multiple_of(16);
    for pair in 0..source.rows.div_ceil(2) {
        for half in 0..2 {
            let p = 2 * pair + half;
            for j in 0..width {
                let inside = p < source.rows && j < source.cols;
                // SAFETY: inside the source (or not read) and the panel.
                unsafe {
                    let value = if inside {
                        *source.at.add(p * source.stride + j)
                    } else {
                        bf16::ZERO
                    };
                    *dst.add((pair * width + j) * 2 + half) = value;
                }
            }
        }
    }
}

/// Writes or adds the sums to C. A macro, since a function that the compiler does not inline would
/// pass 27 registers through memory.
macro_rules! store {
    ($tile:expr, $sum:expr, $rows:expr, $vectors:expr) => {{
        let masks: [__mmask16; $vectors] = std::array::from_fn(|v| mask($tile.cols, v));
        for i in 0..$rows {
            for v in 0..$vectors {
                let c = $tile.c.wrapping_add(i * $tile.c_stride + 16 * v);
                let mut value = $sum[i][v];
                if $tile.accumulate {
                    value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(masks[v], c));
                }
                _mm512_mask_storeu_ps(c, masks[v], value);
            }
        }
    }};
}

macro_rules! pick {
    ($tile:ident, $fixed:ident: $($rows:literal)*) => {
        match ($tile.rows, $tile.cols.div_ceil(16)) {
            $(
                // SAFETY: the caller's promise.
                ($rows, 1) => unsafe { $fixed::<$rows, 1>($tile) },
                // SAFETY: the caller's promise.
                ($rows, 2) => unsafe { $fixed::<$rows, 2>($tile) },
                // SAFETY: the caller's promise.
                ($rows, _) => unsafe { $fixed::<$rows, VECTORS>($tile) },
            )*
            _ => unreachable!("a tile has 1 to {ROWS} rows"),
        }
    };
}

/// # Safety
/// See [`Engine::tile`].
unsafe fn tile(tile: &Tile<f32>) {
    if tile.rows == ROWS && tile.cols.div_ceil(16) == VECTORS {
        // SAFETY: the caller's promise.
        return unsafe { full(tile) };
    }
    pick!(tile, fixed: 1 2 3 4 5 6 7 8 9)
}

/// # Safety
/// See [`Engine::tile`].
unsafe fn tile_bf16(tile: &Tile<bf16>) {
    pick!(tile, fixed_bf16: 1 2 3 4 5 6 7 8 9)
}

/// # Safety
/// See [`Engine::tile`]; the tile has 9 rows and 33 to 48 columns.
#[target_feature(enable = "avx512f")]
unsafe fn full(tile: &Tile<f32>) {
    request::<f32, ROWS, VECTORS>(tile);
    // SAFETY: the caller's promise.
    unsafe {
        let sum = whole::sums(tile);
        store!(tile, sum, ROWS, VECTORS);
    }
}

/// # Safety
/// See [`Engine::tile`]; the tile has `R` rows and at most `16 × V` columns.
#[expect(
    clippy::needless_range_loop,
    reason = "indices over fixed bounds keep the sums in registers and read like the tile"
)]
#[target_feature(enable = "avx512f")]
unsafe fn fixed<const R: usize, const V: usize>(tile: &Tile<f32>) {
    let mut sum = [[_mm512_setzero_ps(); V]; R];
    let (mut a, mut b) = (tile.a, tile.b);
    request::<f32, R, V>(tile);
    // SAFETY: panels hold `depth` times `R` and `16 × V` values; a prefetch never faults.
    unsafe {
        for _ in 0..tile.depth {
            let mut right = [_mm512_setzero_ps(); V];
            for v in 0..V {
                right[v] = _mm512_loadu_ps(b.add(16 * v));
                _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(16 * (v + AHEAD * V)).cast());
            }
            for i in 0..R {
                let left = _mm512_set1_ps(*a.add(i));
                for v in 0..V {
                    sum[i][v] = _mm512_fmadd_ps(left, right[v], sum[i][v]);
                }
            }
            a = a.add(R);
            b = b.add(16 * V);
        }
        store!(tile, sum, R, V);
    }
}

/// # Safety
/// As [`fixed`], with depth even and panels packed in pairs.
#[expect(
    clippy::needless_range_loop,
    reason = "indices over fixed bounds keep the sums in registers and read like the tile"
)]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn fixed_bf16<const R: usize, const V: usize>(tile: &Tile<bf16>) {
    let mut sum = [[_mm512_setzero_ps(); V]; R];
    let (mut a, mut b) = (tile.a.cast::<i32>(), tile.b.cast::<i32>());
    request::<bf16, R, V>(tile);
    // SAFETY: panels hold `depth / 2` times `R` and `16 × V` pairs; every bit pattern is a valid
    // pair, and the two vector types have the same size.
    unsafe {
        let pairs = |bits: __m512i| std::mem::transmute::<__m512i, __m512bh>(bits);
        for _ in 0..tile.depth / 2 {
            let mut right = [_mm512_setzero_si512(); V];
            for v in 0..V {
                right[v] = _mm512_loadu_si512(b.add(16 * v).cast());
                _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(16 * (v + AHEAD * V)).cast());
            }
            for i in 0..R {
                let left = _mm512_set1_epi32(a.add(i).read_unaligned());
                for v in 0..V {
                    sum[i][v] = _mm512_dpbf16_ps(sum[i][v], pairs(left), pairs(right[v]));
                }
            }
            a = a.add(R);
            b = b.add(16 * V);
        }
        store!(tile, sum, R, V);
    }
}

/// Asks for the tile of C long before it is written.
#[inline(always)]
fn request<T, const R: usize, const V: usize>(tile: &Tile<T>) {
    for i in 0..R {
        for v in 0..V {
            let c = tile.c.wrapping_add(i * tile.c_stride + 16 * v);
            // SAFETY: a prefetch never faults, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(c.cast()) };
        }
    }
}
