//! The triad `a = b + s · c` over arrays that no cache of one core holds.
//!
//! Counts 12 bytes per element, two read and one written, as STREAM does; write-allocation is not counted.

use std::hint::black_box;

/// Floats per array: 64 MiB.
const FLOATS: usize = 16 << 20;
const SCALE: f32 = 3.0;

pub struct Arrays {
    a: Vec<Line>,
    b: Vec<Line>,
    c: Vec<Line>,
}

#[derive(Clone)]
#[repr(C, align(64))]
struct Line([f32; 16]);

impl Arrays {
    pub fn new() -> Self {
        let of = |x: f32| vec![Line([x; 16]); FLOATS / 16];
        Self {
            a: of(0.0),
            b: of(1.0),
            c: of(2.0),
        }
    }

    /// Bytes read and written by one pass.
    pub fn bytes_moved(&self) -> u64 {
        12 * FLOATS as u64
    }

    /// One pass, with stores past the caches if `stream` and the processor has AVX-512, plain ones otherwise.
    pub fn pass(&mut self, stream: bool) {
        #[cfg(target_arch = "x86_64")]
        if stream && is_x86_feature_detected!("avx512f") {
            // SAFETY: AVX-512F was just detected; the arrays are equally long and 64-byte aligned by type.
            unsafe { pass_avx512(&mut self.a, &self.b, &self.c) };
            return;
        }
        let _ = stream;
        for ((a, b), c) in self.a.iter_mut().zip(&self.b).zip(&self.c) {
            for k in 0..16 {
                a.0[k] = c.0[k] * SCALE + b.0[k];
            }
        }
        black_box(&mut self.a);
    }

    pub fn check(&self) -> Result<(), String> {
        match self
            .a
            .iter()
            .flat_map(|l| l.0)
            .find(|x| (x - 7.0).abs() > 0.0)
        {
            Some(wrong) => Err(format!("triad gave {wrong}, expected 7")),
            None => Ok(()),
        }
    }
}

/// # Safety
/// AVX-512F is there, and `b` and `c` are at least as long as `a`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn pass_avx512(a: &mut [Line], b: &[Line], c: &[Line]) {
    use std::arch::x86_64::{
        _mm_sfence, _mm512_fmadd_ps, _mm512_load_ps, _mm512_set1_ps, _mm512_stream_ps,
    };
    let scale = _mm512_set1_ps(SCALE);
    for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
        // SAFETY: each line is 64 bytes, 64-byte aligned.
        unsafe {
            let sum = _mm512_fmadd_ps(
                _mm512_load_ps(c.0.as_ptr()),
                scale,
                _mm512_load_ps(b.0.as_ptr()),
            );
            _mm512_stream_ps(a.0.as_mut_ptr(), sum);
        }
    }
    _mm_sfence();
}
