//! Sums one piece of a bucket over all inputs into all outputs, in the widest vectors at hand.
//!
//! Members are added in the order given, so every rank's output gets the same bits. Refuses to know
//! about ranks, barriers or regions: it sees pointers that its caller vouches for.

/// The vectors to use; found once, named in the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isa {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Isa {
    /// The widest this processor has.
    pub(super) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2") {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }
}

/// Floats in a cache line; pieces start on line boundaries.
pub(super) const LINE_FLOATS: usize = 16;

/// Writes `Σ ins[k][i]` to every `outs[k][i]` for `i < len`.
///
/// `stream`: write past the caches, for pieces that would evict what is still needed.
///
/// # Safety
/// Every pointer is aligned to 64 bytes and valid for `len` floats, reads for `ins`, writes for
/// `outs`; no output overlaps another output, nor an input but one that it equals: each element is read
/// from all inputs before it is written; `isa` came from [`Isa::detect`]. Other
/// writers to this memory can at worst change the values summed.
pub(super) unsafe fn sum_into(
    isa: Isa,
    ins: &[*const f32],
    outs: &[*mut f32],
    len: usize,
    stream: bool,
) {
    debug_assert!(ins.iter().all(|p| p.addr() % 64 == 0));
    debug_assert!(outs.iter().all(|p| p.addr() % 64 == 0));
    // SAFETY: the caller's promises are the callees'.
    unsafe {
        match (isa, stream) {
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512, true) => sum_avx512::<true>(ins, outs, len),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512, false) => sum_avx512::<false>(ins, outs, len),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, true) => sum_avx2::<true>(ins, outs, len),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, false) => sum_avx2::<false>(ins, outs, len),
            (Isa::Portable, _) => sum_portable(ins, outs, len),
        }
    }
}

/// # Safety
/// As [`sum_into`], and AVX-512F is there.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn sum_avx512<const STREAM: bool>(ins: &[*const f32], outs: &[*mut f32], len: usize) {
    use std::arch::x86_64::{
        _mm_sfence, _mm512_add_ps, _mm512_load_ps, _mm512_setzero_ps, _mm512_store_ps,
        _mm512_stream_ps,
    };
    const STEP: usize = 4 * LINE_FLOATS;
    let Some((&first, rest)) = ins.split_first() else {
        return;
    };
    let whole = len - len % STEP;
    // SAFETY: `i + STEP <= whole <= len`; alignment and validity are the caller's promise.
    unsafe {
        for i in (0..whole).step_by(STEP) {
            let mut sum = [_mm512_setzero_ps(); 4];
            for (k, s) in sum.iter_mut().enumerate() {
                *s = _mm512_load_ps(first.add(i + k * LINE_FLOATS));
            }
            for input in rest {
                for (k, s) in sum.iter_mut().enumerate() {
                    *s = _mm512_add_ps(*s, _mm512_load_ps(input.add(i + k * LINE_FLOATS)));
                }
            }
            for output in outs {
                for (k, &s) in sum.iter().enumerate() {
                    let to = output.add(i + k * LINE_FLOATS);
                    if STREAM {
                        _mm512_stream_ps(to, s);
                    } else {
                        _mm512_store_ps(to, s);
                    }
                }
            }
        }
        sum_scalar(ins, outs, whole, len);
        if STREAM {
            // Streaming stores are weakly ordered: without the fence the flag that publishes this
            // piece could be seen before the piece.
            _mm_sfence();
        }
    }
}

/// # Safety
/// As [`sum_into`], and AVX2 is there.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn sum_avx2<const STREAM: bool>(ins: &[*const f32], outs: &[*mut f32], len: usize) {
    use std::arch::x86_64::{
        _mm_sfence, _mm256_add_ps, _mm256_load_ps, _mm256_setzero_ps, _mm256_store_ps,
        _mm256_stream_ps,
    };
    const WIDTH: usize = 8;
    const STEP: usize = 4 * WIDTH;
    let Some((&first, rest)) = ins.split_first() else {
        return;
    };
    let whole = len - len % STEP;
    // SAFETY: `i + STEP <= whole <= len`; alignment and validity are the caller's promise.
    unsafe {
        for i in (0..whole).step_by(STEP) {
            let mut sum = [_mm256_setzero_ps(); 4];
            for (k, s) in sum.iter_mut().enumerate() {
                *s = _mm256_load_ps(first.add(i + k * WIDTH));
            }
            for input in rest {
                for (k, s) in sum.iter_mut().enumerate() {
                    *s = _mm256_add_ps(*s, _mm256_load_ps(input.add(i + k * WIDTH)));
                }
            }
            for output in outs {
                for (k, &s) in sum.iter().enumerate() {
                    let to = output.add(i + k * WIDTH);
                    if STREAM {
                        _mm256_stream_ps(to, s);
                    } else {
                        _mm256_store_ps(to, s);
                    }
                }
            }
        }
        sum_scalar(ins, outs, whole, len);
        if STREAM {
            // As above: order the streaming stores before the flag.
            _mm_sfence();
        }
    }
}

/// # Safety
/// As [`sum_into`].
unsafe fn sum_portable(ins: &[*const f32], outs: &[*mut f32], len: usize) {
    /// Floats of an array that the compiler keeps in registers, whatever their width.
    const STEP: usize = 2 * LINE_FLOATS;
    let Some((&first, rest)) = ins.split_first() else {
        return;
    };
    let whole = len - len % STEP;
    for i in (0..whole).step_by(STEP) {
        // SAFETY: `i + STEP <= whole <= len` of the caller's promise; arrays of floats need its alignment.
        unsafe {
            let mut sum: [f32; STEP] = first.add(i).cast::<[f32; STEP]>().read();
            for input in rest {
                let addend: [f32; STEP] = input.add(i).cast::<[f32; STEP]>().read();
                for (s, a) in sum.iter_mut().zip(addend) {
                    *s += a;
                }
            }
            for output in outs {
                output.add(i).cast::<[f32; STEP]>().write(sum);
            }
        }
    }
    // SAFETY: as the caller's.
    unsafe { sum_scalar(ins, outs, whole, len) };
}

/// # Safety
/// As [`sum_into`], for the elements `from..to`.
unsafe fn sum_scalar(ins: &[*const f32], outs: &[*mut f32], from: usize, to: usize) {
    let Some((&first, rest)) = ins.split_first() else {
        return;
    };
    for i in from..to {
        // SAFETY: `i < len` of the caller's promise.
        unsafe {
            let sum = rest.iter().fold(*first.add(i), |sum, p| sum + *p.add(i));
            for output in outs {
                *output.add(i) = sum;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collective::exact::{Digest, digest, expected_digest, fill_exact};

    #[derive(Clone)]
    #[repr(C, align(64))]
    struct Line([f32; LINE_FLOATS]);

    fn floats(lines: &mut [Line]) -> *mut f32 {
        lines.as_mut_ptr().cast()
    }

    fn run(isa: Isa, ranks: u32, len: usize, stream: bool) -> Vec<Digest> {
        let lines = len.div_ceil(LINE_FLOATS) + 1;
        let zero = Line([0.0; LINE_FLOATS]);
        let mut ins = vec![vec![zero.clone(); lines]; ranks as usize];
        let mut outs = vec![vec![zero; lines]; ranks as usize];
        for (rank, input) in (0..).zip(&mut ins) {
            // SAFETY: `lines` lines hold at least `len` floats.
            let slice = unsafe { std::slice::from_raw_parts_mut(floats(input), len) };
            fill_exact(slice, 5, rank, 0);
        }
        let from: Vec<_> = ins.iter_mut().map(|x| floats(x).cast_const()).collect();
        let to: Vec<_> = outs.iter_mut().map(|x| floats(x)).collect();
        // SAFETY: separate line-aligned vectors of at least `len` floats.
        unsafe { sum_into(isa, &from, &to, len, stream) };
        outs.iter()
            .map(|o| {
                let flat: Vec<f32> = o.iter().flat_map(|line| line.0).collect();
                assert!(
                    flat[len..].iter().all(|x| x.to_bits() == 0),
                    "wrote past {len}"
                );
                digest(&flat[..len])
            })
            .collect()
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits_at_every_length() {
        let mut sets = vec![Isa::Portable, Isa::detect()];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            sets.push(Isa::Avx2);
        }
        for isa in sets {
            for ranks in [1, 2, 3, 8] {
                for len in [0, 1, 3, 15, 16, 17, 63, 64, 65, 1000, 4099] {
                    let members: Vec<u32> = (0..ranks).collect();
                    let expected = expected_digest(5, &members, len, 0).unwrap();
                    for stream in [false, true] {
                        for got in run(isa, ranks, len, stream) {
                            assert_eq!(got, expected, "{isa:?} {ranks} ranks {len}");
                        }
                    }
                }
            }
        }
    }
}
