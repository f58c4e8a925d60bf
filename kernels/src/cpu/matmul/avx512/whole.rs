//! The inner loop of a whole 9×48 tile of f32, in assembly.
//!
//! Four steps of depth share one loop end, and B is asked for eight steps ahead, since a panel of it is
//! larger than the L1 cache: on Zen 5 that is worth 6 %. Each value of A is broadcast once; reading it
//! within each multiply-add saves instructions and was 2 % slower there.

use super::super::Tile;
use std::arch::{asm, x86_64::*};

/// One row of the tile: its value of A, broadcast, times the three vectors of B.
macro_rules! row {
    ($u:literal, $i:literal, $x:literal, $y:literal, $z:literal) => {
        concat!(
            "vbroadcastss zmm30, dword ptr [{a} + 36*",
            $u,
            " + 4*",
            $i,
            "]\n",
            "vfmadd231ps zmm",
            $x,
            ", zmm27, zmm30\n",
            "vfmadd231ps zmm",
            $y,
            ", zmm28, zmm30\n",
            "vfmadd231ps zmm",
            $z,
            ", zmm29, zmm30\n",
        )
    };
}

/// Step `u` of depth: 3 vectors of B times 9 values of A.
macro_rules! step {
    ($u:literal) => {
        concat!(
            "vmovups zmm27, zmmword ptr [{b} + 192*",
            $u,
            "]\n",
            "vmovups zmm28, zmmword ptr [{b} + 192*",
            $u,
            " + 64]\n",
            "vmovups zmm29, zmmword ptr [{b} + 192*",
            $u,
            " + 128]\n",
            "prefetcht0 byte ptr [{b} + 192*",
            $u,
            " + 1536]\n",
            "prefetcht0 byte ptr [{b} + 192*",
            $u,
            " + 1600]\n",
            "prefetcht0 byte ptr [{b} + 192*",
            $u,
            " + 1664]\n",
            row!($u, 0, 0, 1, 2),
            row!($u, 1, 3, 4, 5),
            row!($u, 2, 6, 7, 8),
            row!($u, 3, 9, 10, 11),
            row!($u, 4, 12, 13, 14),
            row!($u, 5, 15, 16, 17),
            row!($u, 6, 18, 19, 20),
            row!($u, 7, 21, 22, 23),
            row!($u, 8, 24, 25, 26),
        )
    };
}

/// The sums of a tile of 9 rows and 3 vectors.
///
/// # Safety
/// The processor has AVX-512F; panels hold `depth` times 9 and 48 values.
#[target_feature(enable = "avx512f")]
#[inline]
pub unsafe fn sums(tile: &Tile<f32>) -> [[__m512; 3]; 9] {
    let mut s = [[_mm512_setzero_ps(); 3]; 9];
    // SAFETY: reads exactly the two panels, writes registers only, all of them declared.
    unsafe {
        asm!(
            "test {fours}, {fours}", "jz 3f",
            "2:", step!(0), step!(1), step!(2), step!(3),
            "add {a}, 144", "add {b}, 768", "dec {fours}", "jnz 2b",
            "3:", "test {ones}, {ones}", "jz 5f",
            "4:", step!(0),
            "add {a}, 36", "add {b}, 192", "dec {ones}", "jnz 4b",
            "5:",
            a = inout(reg) tile.a => _, b = inout(reg) tile.b => _,
            fours = inout(reg) tile.depth / 4 => _, ones = inout(reg) tile.depth % 4 => _,
            inout("zmm0") s[0][0], inout("zmm1") s[0][1], inout("zmm2") s[0][2],
            inout("zmm3") s[1][0], inout("zmm4") s[1][1], inout("zmm5") s[1][2],
            inout("zmm6") s[2][0], inout("zmm7") s[2][1], inout("zmm8") s[2][2],
            inout("zmm9") s[3][0], inout("zmm10") s[3][1], inout("zmm11") s[3][2],
            inout("zmm12") s[4][0], inout("zmm13") s[4][1], inout("zmm14") s[4][2],
            inout("zmm15") s[5][0], inout("zmm16") s[5][1], inout("zmm17") s[5][2],
            inout("zmm18") s[6][0], inout("zmm19") s[6][1], inout("zmm20") s[6][2],
            inout("zmm21") s[7][0], inout("zmm22") s[7][1], inout("zmm23") s[7][2],
            inout("zmm24") s[8][0], inout("zmm25") s[8][1], inout("zmm26") s[8][2],
            out("zmm27") _, out("zmm28") _, out("zmm29") _, out("zmm30") _,
            options(readonly, nostack),
        );
    }
    s
}
