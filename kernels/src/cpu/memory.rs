//! Moves memory on the CPU: copy, triad and the fused AdamW step, over all threads of a pool.
//!
//! Each thread takes one contiguous chunk. Copy and triad write past the caches (non-temporal
//! stores) once the arrays are larger than [`STREAM_FROM_BYTES`], so that the bytes counted are
//! the bytes that move: an ordinary store would first read the line it overwrites. Refuses
//! slices of unequal length and optimizer settings that let values leave the finite range.

use super::pool::{Pool, PoolError};

/// Arrays of at least this many bytes together are written past the caches: below it the next
/// reader would find them in a cache.
pub const STREAM_FROM_BYTES: u64 = 8 << 20;
/// Bytes of a cache line; chunks begin on multiples of it within the slice.
const LINE_BYTES: usize = 64;

/// Why a memory operation was refused or broke off.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Slices of one operation differ in length.
    #[error("{operation} got slices of {lengths:?} values; all must be equally long")]
    Lengths {
        /// The operation.
        operation: &'static str,
        /// Length of each slice, in the order of the arguments.
        lengths: Vec<usize>,
    },
    /// A setting with which values need not stay finite.
    #[error("adamw {name} is {value}, must be {allowed}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: f32,
        /// What is allowed.
        allowed: &'static str,
    },
    /// Steps count from 1.
    #[error("adamw step 0 was asked for; the first update is step 1")]
    StepZero,
    /// A thread of the pool failed.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// Settings of AdamW. Source: Loshchilov and Hutter, “Decoupled Weight Decay Regularization”,
/// algorithm 2, with the schedule multiplier folded into `rate`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Decoupled weight decay, per step times `rate`.
    pub weight_decay: f32,
}

impl Default for AdamW {
    /// The settings common for language models: 3e-4, 0.9, 0.95, 1e-8, 0.1.
    fn default() -> Self {
        Self {
            rate: 3e-4,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.1,
        }
    }
}

impl AdamW {
    fn check(&self) -> Result<(), MemoryError> {
        let unit = |x: f32| (0.0..1.0).contains(&x);
        let least = f32::MIN_POSITIVE;
        let decayed = self.rate * self.weight_decay;
        let rules = [
            (
                "rate",
                self.rate,
                (0.0..=1.0).contains(&self.rate),
                "in 0 to 1",
            ),
            (
                "beta1",
                self.beta1,
                unit(self.beta1),
                "in 0 to 1, 1 excluded",
            ),
            (
                "beta2",
                self.beta2,
                unit(self.beta2),
                "in 0 to 1, 1 excluded",
            ),
            (
                "epsilon",
                self.epsilon,
                (least..=1.0).contains(&self.epsilon),
                "positive, normal and at most 1",
            ),
            (
                "weight_decay",
                self.weight_decay,
                self.weight_decay >= 0.0 && decayed <= 1.0,
                "at least 0 and at most 1 / rate",
            ),
        ];
        match rules.into_iter().find(|(_, _, holds, _)| !holds) {
            None => Ok(()),
            Some((name, value, _, allowed)) => Err(MemoryError::Setting {
                name,
                value,
                allowed,
            }),
        }
    }
}

/// `dst = src`. Returns the bytes read + written: `8 × values`.
///
/// # Errors
/// [`MemoryError`] for unequal lengths or a failed thread.
pub fn copy(pool: &mut Pool, dst: &mut [f32], src: &[f32]) -> Result<u64, MemoryError> {
    same("copy", &[dst.len(), src.len()])?;
    let bytes = moved(dst.len(), 2);
    let stream = bytes >= STREAM_FROM_BYTES;
    let to = Shared(dst.as_mut_ptr());
    pool.run(|thread, threads| {
        let range = chunk(src.len(), threads, thread);
        // SAFETY: chunks of different threads do not overlap and lie inside `dst`.
        let to = unsafe { to.slice(range.clone()) };
        store(to, stream, Source::Copy(&src[range]));
    })?;
    Ok(bytes)
}

/// `a = b + scalar · c`. Returns the bytes read + written: `12 × values`.
///
/// # Errors
/// [`MemoryError`] for unequal lengths or a failed thread.
pub fn triad(
    pool: &mut Pool,
    a: &mut [f32],
    b: &[f32],
    c: &[f32],
    scalar: f32,
) -> Result<u64, MemoryError> {
    same("triad", &[a.len(), b.len(), c.len()])?;
    let bytes = moved(a.len(), 3);
    let stream = bytes >= STREAM_FROM_BYTES;
    let to = Shared(a.as_mut_ptr());
    pool.run(|thread, threads| {
        let range = chunk(b.len(), threads, thread);
        // SAFETY: chunks of different threads do not overlap and lie inside `a`.
        let to = unsafe { to.slice(range.clone()) };
        store(
            to,
            stream,
            Source::Triad(&b[range.clone()], &c[range], scalar),
        );
    })?;
    Ok(bytes)
}

/// One AdamW update of `params`, `m` and `v` from `grads`, in one pass. `step` counts from 1.
///
/// Returns the bytes read + written: `28 × values` (four arrays read, three written).
/// With moments that start at zero and gradients of magnitude up to 1e18, moments stay within the gradients'
/// range (squared for `v`) and an update is at most `rate / √(1 − beta2)` times a constant, so with
/// weight decay the parameters stay bounded for ever.
///
/// # Errors
/// [`MemoryError`] for unequal lengths, settings out of range, step 0 or a failed thread.
pub fn adamw(
    pool: &mut Pool,
    params: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
    grads: &[f32],
    settings: &AdamW,
    step: u64,
) -> Result<u64, MemoryError> {
    same("adamw", &[params.len(), m.len(), v.len(), grads.len()])?;
    settings.check()?;
    if step == 0 {
        return Err(MemoryError::StepZero);
    }
    let factors = Factors::of(settings, step);
    let (p, m, v) = (
        Shared(params.as_mut_ptr()),
        Shared(m.as_mut_ptr()),
        Shared(v.as_mut_ptr()),
    );
    pool.run(|thread, threads| {
        let range = chunk(grads.len(), threads, thread);
        // SAFETY: chunks of different threads do not overlap and lie inside their slices.
        let (p, m, v) = unsafe {
            (
                p.slice(range.clone()),
                m.slice(range.clone()),
                v.slice(range.clone()),
            )
        };
        update(p, m, v, &grads[range], factors);
    })?;
    Ok(moved(grads.len(), 7))
}

/// The settings and bias corrections of one step, as the inner loop uses them.
#[derive(Clone, Copy)]
struct Factors {
    keep: f32,
    rate: f32,
    epsilon: f32,
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    root2: f32,
}

impl Factors {
    fn of(settings: &AdamW, step: u64) -> Self {
        // In float64 and by exponent, so that step 10¹² is as exact as step 1.
        let correction = |beta: f32| 1.0 - f64::from(beta).powf(step as f64);
        Self {
            keep: 1.0 - settings.rate * settings.weight_decay,
            rate: (f64::from(settings.rate) / correction(settings.beta1)) as f32,
            epsilon: settings.epsilon,
            beta1: settings.beta1,
            rest1: 1.0 - settings.beta1,
            beta2: settings.beta2,
            rest2: 1.0 - settings.beta2,
            root2: (1.0 / correction(settings.beta2).sqrt()) as f32,
        }
    }

    #[inline(always)]
    fn apply(self, params: &mut [f32], m: &mut [f32], v: &mut [f32], grads: &[f32]) {
        for (((p, m), v), g) in params.iter_mut().zip(m).zip(v).zip(grads) {
            *m = self.beta1 * *m + self.rest1 * g;
            *v = self.beta2 * *v + self.rest2 * (g * g);
            *p = self.keep * *p - self.rate * *m / (v.sqrt() * self.root2 + self.epsilon);
        }
    }
}

fn update(params: &mut [f32], m: &mut [f32], v: &mut [f32], grads: &[f32], factors: Factors) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the instructions.
            return unsafe { vector::update_avx512(params, m, v, grads, factors) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has the instructions.
            return unsafe { vector::update_avx2(params, m, v, grads, factors) };
        }
    }
    factors.apply(params, m, v, grads);
}

/// What a chunk is filled with.
#[derive(Clone, Copy)]
enum Source<'a> {
    Copy(&'a [f32]),
    Triad(&'a [f32], &'a [f32], f32),
}

impl<'a> Source<'a> {
    #[cfg(target_arch = "x86_64")]
    fn part(self, range: std::ops::Range<usize>) -> Source<'a> {
        match self {
            Source::Copy(src) => Source::Copy(&src[range]),
            Source::Triad(b, c, scalar) => Source::Triad(&b[range.clone()], &c[range], scalar),
        }
    }

    /// The multiplication and the addition each round, so that every path gives the same bits.
    #[inline(always)]
    fn fill(self, to: &mut [f32]) {
        match self {
            Source::Copy(src) => to.copy_from_slice(src),
            Source::Triad(b, c, scalar) => {
                for ((a, b), c) in to.iter_mut().zip(b).zip(c) {
                    *a = b + scalar * c;
                }
            }
        }
    }
}

fn store(to: &mut [f32], stream: bool, source: Source<'_>) {
    #[cfg(target_arch = "x86_64")]
    if stream && is_x86_feature_detected!("avx512f") {
        // Whole lines only: half a line written past the cache costs as much as a read.
        let before = to.as_ptr().align_offset(LINE_BYTES).min(to.len());
        let (head, rest) = to.split_at_mut(before);
        let whole = rest.len() - rest.len() % (LINE_BYTES / size_of::<f32>());
        let (lines, tail) = rest.split_at_mut(whole);
        source.part(0..before).fill(head);
        // SAFETY: the processor has the instructions; `lines` is aligned and whole lines long.
        unsafe { vector::stream(lines, source.part(before..before + whole)) };
        return source
            .part(before + whole..before + whole + tail.len())
            .fill(tail);
    }
    let _ = stream;
    source.fill(to);
}

#[cfg(target_arch = "x86_64")]
mod vector {
    use super::{Factors, Source};
    use std::arch::x86_64::*;

    /// # Safety
    /// The processor has AVX-512F.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn update_avx512(
        p: &mut [f32],
        m: &mut [f32],
        v: &mut [f32],
        g: &[f32],
        factors: Factors,
    ) {
        factors.apply(p, m, v, g);
    }

    /// # Safety
    /// The processor has AVX2.
    #[target_feature(enable = "avx2")]
    pub unsafe fn update_avx2(
        p: &mut [f32],
        m: &mut [f32],
        v: &mut [f32],
        g: &[f32],
        factors: Factors,
    ) {
        factors.apply(p, m, v, g);
    }

    /// Fills whole cache lines past the caches.
    ///
    /// # Safety
    /// The processor has AVX-512F; `to` starts on a cache line and is whole lines long, and the
    /// source is as long as `to`.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn stream(to: &mut [f32], source: Source<'_>) {
        let out = to.as_mut_ptr();
        // SAFETY: offsets stay below `to.len()`, and the source is as long; stores are aligned.
        unsafe {
            match source {
                Source::Copy(src) => {
                    for i in (0..to.len()).step_by(16) {
                        _mm512_stream_ps(out.add(i), _mm512_loadu_ps(src.as_ptr().add(i)));
                    }
                }
                Source::Triad(b, c, scalar) => {
                    let scalar = _mm512_set1_ps(scalar);
                    for i in (0..to.len()).step_by(16) {
                        let product = _mm512_mul_ps(scalar, _mm512_loadu_ps(c.as_ptr().add(i)));
                        let sum = _mm512_add_ps(_mm512_loadu_ps(b.as_ptr().add(i)), product);
                        _mm512_stream_ps(out.add(i), sum);
                    }
                }
            }
        }
        // Such stores are not ordered with others: the pool's hand-over must come after them.
        _mm_sfence();
    }
}

/// A pointer whose disjoint parts are written by different threads.
#[derive(Clone, Copy)]
struct Shared(*mut f32);
// SAFETY: each thread makes a slice of its own chunk only.
unsafe impl Sync for Shared {}

impl Shared {
    /// # Safety
    /// `range` lies inside the slice the pointer came from, and nobody else uses that part.
    unsafe fn slice<'a>(self, range: std::ops::Range<usize>) -> &'a mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(range.start), range.len()) }
    }
}

/// Chunk `index` of `0..length` in `threads` contiguous chunks that differ by at most one line.
fn chunk(length: usize, threads: usize, index: usize) -> std::ops::Range<usize> {
    let line = LINE_BYTES / size_of::<f32>();
    let lines = length.div_ceil(line);
    let edge = |i: usize| (lines * i / threads * line).min(length);
    edge(index)..edge(index + 1)
}

fn moved(values: usize, arrays: u64) -> u64 {
    values as u64 * size_of::<f32>() as u64 * arrays
}

fn same(operation: &'static str, lengths: &[usize]) -> Result<(), MemoryError> {
    if lengths.iter().all(|length| *length == lengths[0]) {
        return Ok(());
    }
    Err(MemoryError::Lengths {
        operation,
        lengths: lengths.to_vec(),
    })
}

#[cfg(test)]
mod tests;
