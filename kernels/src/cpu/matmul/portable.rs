//! The engine for a processor without known vector extensions: plain loops a compiler vectorizes.

use super::{Engine, Source, Tile};

const ROWS: usize = 4;
const COLS: usize = 16;

pub(super) static F32: Engine<f32> = Engine {
    name: "portable f32 4x16",
    tile_rows: ROWS,
    tile_cols: COLS,
    block_rows: 512,
    block_depth: 256,
    grain: 1,
    pack_a,
    pack_b: pack_b::<COLS>,
    tile,
};

/// Packs rows of A so that the values of one depth lie side by side.
///
/// # Safety
/// `source` is readable; `dst` holds `rows × cols` values.
pub(super) unsafe fn pack_a<T: Copy>(source: &Source<T>, dst: *mut T) {
    for p in 0..source.cols {
        for i in 0..source.rows {
            // SAFETY: inside the source and the packed panel.
            unsafe { *dst.add(p * source.rows + i) = *source.at.add(i * source.stride + p) };
        }
    }
}

/// Packs columns of B densely, each row padded with zeros to a multiple of `LANE` columns.
///
/// # Safety
/// `source` is readable; `dst` holds `rows × cols` values, `cols` rounded up to `LANE`.
pub(super) unsafe fn pack_b<const LANE: usize>(source: &Source<f32>, dst: *mut f32) {
    let width = source.cols.next_multiple_of(LANE);
    for p in 0..source.rows {
        // SAFETY: inside the source and the packed panel.
        unsafe {
            let row = dst.add(p * width);
            std::ptr::copy_nonoverlapping(source.at.add(p * source.stride), row, source.cols);
            row.add(source.cols).write_bytes(0, width - source.cols);
        }
    }
}

/// # Safety
/// See [`Engine::tile`].
unsafe fn tile(tile: &Tile<f32>) {
    let mut sum = [[0.0f32; COLS]; ROWS];
    for p in 0..tile.depth {
        // SAFETY: a packed panel of B has `COLS` values for each depth.
        let b = unsafe { &*tile.b.add(p * COLS).cast::<[f32; COLS]>() };
        for (i, sum) in sum.iter_mut().enumerate().take(tile.rows) {
            // SAFETY: a packed panel of A has `rows` values for each depth.
            let a = unsafe { *tile.a.add(p * tile.rows + i) };
            for (sum, b) in sum.iter_mut().zip(b) {
                *sum += a * b;
            }
        }
    }
    for (i, sum) in sum.iter().enumerate().take(tile.rows) {
        // SAFETY: the tile of C is exclusively ours, `rows × cols` at stride `c_stride`.
        let c = unsafe { std::slice::from_raw_parts_mut(tile.c.add(i * tile.c_stride), tile.cols) };
        for (c, sum) in c.iter_mut().zip(sum) {
            *c = if tile.accumulate { *c + sum } else { *sum };
        }
    }
}
