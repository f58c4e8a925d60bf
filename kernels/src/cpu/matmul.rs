//! Multiplies row-major matrices on the CPU: `C[m×n] (f32) = A[m×k] · B[k×n]`, f32 or bf16 inputs.
//!
//! The best engine the processor has is chosen at run time (AVX-512, AVX2 with FMA, portable).
//! C is split into one rectangle per thread, so threads share nothing and every element is summed
//! in the same order whatever the number of threads: the bits do not depend on it. Inputs that
//! are integers whose partial sums stay below 2²⁴ give the exact product. Refuses slices that do
//! not fit the shape, and bf16 where the processor has no bf16 dot product.
//!
//! Blocking after Goto and van de Geijn, “Anatomy of High-Performance Matrix Multiplication”
//! (2008): a block of A stays in the L2 cache; narrow panels of B pass over it, copied while the first
//! block of A passes and kept for the others; a register tile of C is kept through the whole depth
//! of the block.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use super::pool::{Pool, PoolError};
use half::bf16;
use memmap2::MmapMut;

/// Where the packing memory starts, and each thread's part of it.
const HUGE_PAGE_BYTES: usize = 2 << 20;
/// Bytes of packing memory per thread: whole huge pages.
const ARENA_BYTES: usize = 6 << 20;
/// The copied panels of B start here inside the arena; A's block lies before them.
const PANELS_AT_BYTES: usize = 3 << 19;
/// Most columns of B that are copied at a time: with a block's depth they fill the arena.
const BLOCK_COLS: usize = 2304;

/// Why a product was refused or broke off.
#[derive(Debug, thiserror::Error)]
pub enum MatmulError {
    /// A slice is not as long as the shape says.
    #[error(
        "matrix {name} holds {got} values, shape {shape} needs {need}; allocate it for the shape"
    )]
    Length {
        /// `a`, `b` or `c`.
        name: &'static str,
        /// Values in the slice.
        got: usize,
        /// Values the shape needs.
        need: usize,
        /// The shape asked for.
        shape: Shape,
    },
    /// The number of values does not fit the address space.
    #[error("shape {0} has more values than can be addressed; lower `m`, `n` or `k`")]
    TooLarge(Shape),
    /// The workspace was made for fewer threads.
    #[error("workspace made for {made} threads, pool has {threads}; make it for the pool")]
    Workspace {
        /// Threads the workspace was made for.
        made: usize,
        /// Threads of the pool.
        threads: usize,
    },
    /// Packing memory could not be had.
    #[error("{bytes} B of packing memory not available: {source}; lower the number of threads")]
    Memory {
        /// Bytes asked for.
        bytes: usize,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// This processor has no bf16 dot product.
    #[error("this processor has no avx512_bf16, so bf16 matmul cannot run on it; choose f32")]
    NoBf16,
    /// A thread of the pool failed.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// Rows of A and C, columns of B and C, and the depth that is summed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A, rows of B.
    pub k: usize,
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}x{}", self.m, self.n, self.k)
    }
}

/// Packing memory of every thread, made once and reused for any shape: 6 MiB a thread.
pub struct Workspace {
    map: MmapMut,
    threads: usize,
}

impl Workspace {
    /// Reserves packing memory for `threads` threads. Each thread's pages are first touched by that
    /// thread, so they come from its own NUMA node.
    ///
    /// # Errors
    /// [`MatmulError::Memory`] if the system refuses the mapping.
    pub fn new(threads: usize) -> Result<Self, MatmulError> {
        let bytes = threads
            .saturating_mul(ARENA_BYTES)
            .saturating_add(HUGE_PAGE_BYTES);
        let map =
            MmapMut::map_anon(bytes).map_err(|source| MatmulError::Memory { bytes, source })?;
        // One address translation for the whole arena. A refusal costs speed, not correctness.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self { map, threads })
    }

    fn arenas(&mut self) -> Shared<u8> {
        let start = self.map.as_mut_ptr();
        Shared(start.wrapping_add(start.align_offset(HUGE_PAGE_BYTES)))
    }
}

/// A pointer whose disjoint parts are written by different threads.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);
// SAFETY: each thread touches its own arena and its own rectangle of C only; see `Split`.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// A method, so that closures capture the wrapper and not the bare pointer.
    fn at(self, offset: usize) -> *mut T {
        self.0.wrapping_add(offset)
    }
}

/// One register tile: `rows × cols` of C from `depth` of a packed panel of A and one of B.
struct Tile<T> {
    depth: usize,
    a: *const T,
    b: *const T,
    c: *mut f32,
    c_stride: usize,
    rows: usize,
    cols: usize,
    /// Add to C; otherwise overwrite it.
    accumulate: bool,
}

/// A rectangle of a row-major matrix to be packed.
struct Source<T> {
    at: *const T,
    stride: usize,
    rows: usize,
    cols: usize,
}

/// What one instruction set brings.
struct Engine<T: 'static> {
    name: &'static str,
    /// Most rows of a register tile.
    tile_rows: usize,
    /// Most columns of a register tile.
    tile_cols: usize,
    /// Rows of a block of A, its depth.
    block_rows: usize,
    block_depth: usize,
    /// Depth of a packed panel is rounded up to this.
    grain: usize,
    /// # Safety
    /// The processor has the engine's instructions; `dst` holds the padded panel.
    pack_a: unsafe fn(&Source<T>, *mut T),
    /// # Safety
    /// As `pack_a`.
    pack_b: unsafe fn(&Source<T>, *mut T),
    /// # Safety
    /// As `pack_a`; panels were packed by this engine and the tile of C is exclusively owned.
    tile: unsafe fn(&Tile<T>),
}

/// `A · B` with f32 inputs into `c`; `k` = 0 gives zeros. No allocation.
///
/// `a`: m×k, `b`: k×n, `c`: m×n, all row-major. Work: `2·m·n·k` FLOP.
///
/// # Errors
/// [`MatmulError`] for slices that do not fit `shape`, a workspace for fewer threads than the
/// pool's, or a failed thread.
pub fn matmul_f32(
    pool: &mut Pool,
    workspace: &mut Workspace,
    shape: Shape,
    a: &[f32],
    b: &[f32],
    c: &mut [f32],
) -> Result<(), MatmulError> {
    multiply(engine(), pool, workspace, shape, a, b, c)
}

/// `A · B` with bf16 inputs, products summed in f32; otherwise as [`matmul_f32`].
///
/// # Errors
/// Those of [`matmul_f32`], and [`MatmulError::NoBf16`] where [`has_bf16`] is false.
pub fn matmul_bf16(
    pool: &mut Pool,
    workspace: &mut Workspace,
    shape: Shape,
    a: &[bf16],
    b: &[bf16],
    c: &mut [f32],
) -> Result<(), MatmulError> {
    multiply(
        engine_bf16().ok_or(MatmulError::NoBf16)?,
        pool,
        workspace,
        shape,
        a,
        b,
        c,
    )
}

/// Whether this processor multiplies bf16 natively (`avx512_bf16`).
#[must_use]
pub fn has_bf16() -> bool {
    engine_bf16().is_some()
}

/// Name of the f32 engine this processor gets, for the record.
#[must_use]
pub fn engine_name() -> &'static str {
    engine().name
}

fn engine() -> &'static Engine<f32> {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx2") {
            return &avx512::F32;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return &avx2::F32;
        }
    }
    &portable::F32
}

fn engine_bf16() -> Option<&'static Engine<bf16>> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16") {
        return Some(&avx512::BF16);
    }
    None
}

fn multiply<T: Sync>(
    engine: &Engine<T>,
    pool: &mut Pool,
    workspace: &mut Workspace,
    shape: Shape,
    a: &[T],
    b: &[T],
    c: &mut [f32],
) -> Result<(), MatmulError> {
    let Shape { m, n, k } = shape;
    for (name, got, rows, cols) in [
        ("a", a.len(), m, k),
        ("b", b.len(), k, n),
        ("c", c.len(), m, n),
    ] {
        let need = rows.checked_mul(cols).ok_or(MatmulError::TooLarge(shape))?;
        if got != need {
            return Err(MatmulError::Length {
                name,
                got,
                need,
                shape,
            });
        }
    }
    if workspace.threads < pool.threads() {
        return Err(MatmulError::Workspace {
            made: workspace.threads,
            threads: pool.threads(),
        });
    }
    if m == 0 || n == 0 || k == 0 {
        c.fill(0.0);
        return Ok(());
    }
    let split = Split::of(shape, pool.threads(), engine.tile_rows, engine.tile_cols);
    let arenas = workspace.arenas();
    let out = Shared(c.as_mut_ptr());
    pool.run(|thread, _| {
        let Some(part) = split.part(thread) else {
            return;
        };
        let arena = arenas.at(thread * ARENA_BYTES);
        // SAFETY: the slices fit `shape` (checked above), the parts of different threads do not
        // overlap, each thread has its own arena, and `engine` was chosen for this processor.
        unsafe {
            rectangle(
                engine,
                shape,
                &part,
                a.as_ptr(),
                b.as_ptr(),
                out.at(0),
                arena,
            )
        };
    })?;
    Ok(())
}

/// How C is divided: a grid of `down × across` rectangles whose edges fall on register tiles.
struct Split {
    shape: Shape,
    down: usize,
    across: usize,
    tile_rows: usize,
    tile_cols: usize,
}

/// Rows and columns of C that one thread computes.
struct Part {
    rows: std::ops::Range<usize>,
    cols: std::ops::Range<usize>,
}

impl Split {
    /// Chooses the grid whose largest rectangle is least work, and among those the one that
    /// copies least: a thread copies its rows of A and, more cheaply, its columns of B.
    fn of(shape: Shape, threads: usize, tile_rows: usize, tile_cols: usize) -> Self {
        let (tall, wide) = (shape.m.div_ceil(tile_rows), shape.n.div_ceil(tile_cols));
        let cost = |down: usize| {
            let (rows, cols) = (tall.div_ceil(down), wide.div_ceil(threads / down));
            (rows * cols, rows * tile_rows * 2 + cols * tile_cols)
        };
        let down = (1..=threads).min_by_key(|&down| cost(down)).unwrap_or(1);
        Self {
            shape,
            down,
            across: threads / down,
            tile_rows,
            tile_cols,
        }
    }

    fn part(&self, thread: usize) -> Option<Part> {
        let (row, col) = (thread / self.across, thread % self.across);
        if row >= self.down {
            return None;
        }
        let rows = share(self.shape.m, self.tile_rows, self.down, row);
        let cols = share(self.shape.n, self.tile_cols, self.across, col);
        (!rows.is_empty() && !cols.is_empty()).then_some(Part { rows, cols })
    }
}

/// Share `index` of `parts` of `0..length`, cut on multiples of `tile`, sizes within one tile.
fn share(length: usize, tile: usize, parts: usize, index: usize) -> std::ops::Range<usize> {
    let tiles = length.div_ceil(tile);
    let edge = |i: usize| (tiles * i / parts * tile).min(length);
    edge(index)..edge(index + 1)
}

/// `length` in as few pieces of at most `most` as there can be, as even as multiples of `grain`
/// allow: an uneven last piece would waste a whole pass on a sliver.
fn even(length: usize, most: usize, grain: usize) -> usize {
    length
        .div_ceil(length.div_ceil(most))
        .next_multiple_of(grain)
}

/// A block of A, as it lies packed: `tiles` panels of `depth` steps, one below the other.
#[derive(Clone, Copy)]
struct Block<T> {
    at: *mut T,
    rows: usize,
    tiles: usize,
    /// Steps of depth, rounded up to the engine's grain.
    padded: usize,
}

impl<T> Block<T> {
    /// First row of tile `t`: heights differ by at most one.
    fn edge(&self, t: usize) -> usize {
        self.rows * t / self.tiles
    }

    /// Where tile `t` begins.
    fn panel(&self, t: usize) -> *mut T {
        self.at.wrapping_add(self.edge(t) * self.padded)
    }

    /// # Safety
    /// `source` is readable, `at` holds `rows` times `padded` values, the processor has `engine`'s instructions.
    unsafe fn pack(&self, engine: &Engine<T>, source: &Source<T>) {
        for t in 0..self.tiles {
            let source = Source {
                at: source.at.wrapping_add(self.edge(t) * source.stride),
                stride: source.stride,
                rows: self.edge(t + 1) - self.edge(t),
                cols: source.cols,
            };
            // SAFETY: the caller's promise.
            unsafe { (engine.pack_a)(&source, self.panel(t)) };
        }
    }
}

/// Computes one thread's rectangle of C.
///
/// # Safety
/// `a`, `b`, `c` point to whole matrices of `shape`, `part` lies inside C and nobody else writes
/// it, `arena` holds [`ARENA_BYTES`] that nobody else uses, the processor has `engine`'s instructions.
unsafe fn rectangle<T>(
    engine: &Engine<T>,
    shape: Shape,
    part: &Part,
    a: *const T,
    b: *const T,
    c: *mut f32,
    arena: *mut u8,
) {
    let Shape { n, k, .. } = shape;
    // SAFETY: inside the arena.
    let panels = unsafe { arena.add(PANELS_AT_BYTES) }.cast::<T>();
    let depth_step = even(k, engine.block_depth, engine.grain);
    let row_step = even(part.rows.len(), engine.block_rows, engine.tile_rows);
    let most_cols = BLOCK_COLS - BLOCK_COLS % engine.tile_cols;
    let col_step = even(part.cols.len(), most_cols, engine.tile_cols);
    for left in part.cols.clone().step_by(col_step) {
        let cols = left..(left + col_step).min(part.cols.end);
        for p in (0..k).step_by(depth_step) {
            let depth = depth_step.min(k - p);
            for i in part.rows.clone().step_by(row_step) {
                let rows = row_step.min(part.rows.end - i);
                let block = Block {
                    at: arena.cast::<T>(),
                    rows,
                    tiles: rows.div_ceil(engine.tile_rows),
                    padded: depth.next_multiple_of(engine.grain),
                };
                let source = |at, stride, rows, cols| Source {
                    at,
                    stride,
                    rows,
                    cols,
                };
                // SAFETY: rows `i ..` and columns `p ..` lie inside A, rows `p ..` and the columns inside B; a block
                // is at most `block_rows × block_depth` values, which ends before the panels, and
                // those of `BLOCK_COLS` columns fit the arena. The rows and columns of C are this thread's.
                unsafe {
                    block.pack(engine, &source(a.add(i * k + p), k, rows, depth));
                    let right = source(b.add(p * n + left), n, depth, cols.len());
                    // Panels are packed while the first block of A passes, and kept for the others.
                    let packed = i > part.rows.start;
                    let out = c.add(i * n + left);
                    pass(engine, block, &right, panels, packed, out, p > 0);
                }
            }
        }
    }
}

/// Multiplies a packed block of A by `right`, rows of B as deep as the block, into `out`, which has B's
/// stride: panel by panel, each packed just before use unless all are `packed`.
///
/// # Safety
/// As [`rectangle`]: all of `right` is readable, `panels` holds its panels, `out` is exclusively owned.
unsafe fn pass<T>(
    engine: &Engine<T>,
    block: Block<T>,
    right: &Source<T>,
    panels: *mut T,
    packed: bool,
    out: *mut f32,
    accumulate: bool,
) {
    let depth = right.rows;
    for j in (0..right.cols).step_by(engine.tile_cols) {
        let cols = engine.tile_cols.min(right.cols - j);
        let panel = panels.wrapping_add(j * block.padded);
        if !packed {
            let source = Source {
                at: right.at.wrapping_add(j),
                cols,
                ..*right
            };
            // SAFETY: the caller's promise.
            unsafe { (engine.pack_b)(&source, panel) };
        }
        let next = panel.wrapping_add(engine.tile_cols * block.padded);
        let (ahead, ahead_stride) = if packed {
            (next.cast_const(), engine.tile_cols)
        } else {
            (right.at.wrapping_add(j + cols), right.stride)
        };
        for t in 0..block.tiles {
            if j + cols < right.cols {
                let rows = depth * t / block.tiles..depth * (t + 1) / block.tiles;
                prefetch(ahead, ahead_stride, rows, engine.tile_cols);
            }
            // SAFETY: the tile lies inside `out`, and both panels are packed.
            unsafe {
                (engine.tile)(&Tile {
                    depth: block.padded,
                    a: block.panel(t),
                    b: panel,
                    c: out.add(block.edge(t) * right.stride + j),
                    c_stride: right.stride,
                    rows: block.edge(t + 1) - block.edge(t),
                    cols,
                    accumulate,
                });
            }
        }
    }
}

/// Asks for rows of the next panel of B while the current one is computed, so that copying it
/// finds it in the cache. A hint only: addresses past the matrix do no harm.
fn prefetch<T>(start: *const T, stride: usize, rows: std::ops::Range<usize>, cols: usize) {
    #[cfg(target_arch = "x86_64")]
    for row in rows {
        let row = start.wrapping_add(row * stride).cast::<i8>();
        for byte in (0..cols * size_of::<T>()).step_by(64) {
            // SAFETY: a prefetch never faults, whatever the address.
            unsafe {
                std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(
                    row.wrapping_add(byte),
                );
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (start, stride, rows, cols);
}

#[cfg(test)]
mod tests;
