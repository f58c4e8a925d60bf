//! Decides that the CUDA kernels' indices, edges, layouts and barrier phases are right, by running their own sources on
//! fibers of a processor (`tests/emulation`), and that they agree bit by bit with `audit.rs` and `collective/exact.rs`.
//!
//! A stand-in: instructions of a device are emulated by their documentation, so nothing here is a measurement, and a
//! device that departs from its documentation is not seen. `tests/gpu` is the proof on a device.
#![expect(
    clippy::expect_used,
    reason = "a test, and what it is built of, fails by a panic"
)]

use hallmark_kernels::audit::{self, Expected, Stream};
use hallmark_kernels::collective::exact;
use hallmark_profiles::workload::{AuditSeed, Gemm};
use hallmark_tests::Component;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

#[path = "cuda_emulation/all_reduce.rs"]
mod all_reduce;

fn build(compiler: &Path, source: &Path, program: &Path) {
    let options = ["-std=c++17", "-Wno-unknown-pragmas", "-Wno-psabi"];
    let built = Command::new(compiler)
        .args(options)
        .arg("-O1")
        .arg("-o")
        .arg(program)
        .arg(source)
        .output()
        .expect("the compiler runs");
    let complaint = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{complaint}");
}

/// The emulation, built once for all tests; `None` where there is no compiler.
fn proof() -> Option<&'static Path> {
    static PROOF: OnceLock<PathBuf> = OnceLock::new();
    let compiler = Component::Compiler.or_skip()?;
    Some(PROOF.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("emulation/proof.cpp");
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cuda-emulation");
        build(&compiler, &source, &program);
        program
    }))
}

fn run(proof: &Path, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(proof)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the emulation runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    // An entry that reads nothing may have closed its end.
    let _unread = stdin.write_all(input);
    drop(stdin);
    let done = child.wait_with_output().expect("the emulation ends");
    let complaint = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "{arguments:?}: {} {complaint}",
        done.status
    );
    done.stdout
}

/// Runs each of `kernels` on each shape, and has every element of C compared.
fn right(kernels: &[&str], shapes: &[[u32; 3]]) {
    let Some(proof) = proof() else { return };
    for (seed, kernel) in (1..).zip(kernels) {
        for shape in shapes {
            let [m, n, k] = shape.map(|length| length.to_string());
            let said = run(
                proof,
                &["matmul", kernel, &m, &n, &k, &format!("{seed}")],
                &[],
            );
            assert_eq!(said, b"right\n", "{kernel} {shape:?} seed {seed}");
        }
    }
}

#[test]
fn tensor_core_matmuls_are_right_where_tiles_and_stages_end_early() {
    right(
        &["matmul_bf16", "matmul_f16", "matmul_tf32"],
        &[[1, 8, 8], [130, 136, 104], [65, 8, 264]],
    );
    right(
        &["matmul_i8", "matmul_e4m3", "matmul_e5m2"],
        &[[1, 1, 16], [130, 131, 208], [65, 7, 528]],
    );
}

#[test]
fn matmuls_for_any_shape_are_right_on_shapes_that_nothing_divides() {
    right(
        &[
            "matmul_bf16_any",
            "matmul_f16_any",
            "matmul_tf32_any",
            "matmul_i8_any",
            "matmul_e4m3_any",
            "matmul_e5m2_any",
            "matmul_f32",
            "matmul_f64",
        ],
        &[[1, 1, 1], [17, 33, 65], [131, 129, 71]],
    );
}

#[test]
fn blocks_walk_every_tile_of_c_once_where_bands_end_early() {
    // Nine tiles of m are a band and one; two of n make the walk turn.
    right(&["matmul_bf16_any", "matmul_f32"], &[[9 * 128 - 5, 130, 2]]);
}

#[test]
fn hopper_matmuls_are_right_alone_and_in_pairs_at_every_edge() {
    right(
        &["hopper_bf16", "hopper_bf16_pair", "hopper_f16_pair"],
        &[[1, 8, 8], [130, 264, 72], [400, 520, 328]],
    );
    right(
        &["hopper_e4m3", "hopper_e4m3_pair", "hopper_e5m2_pair"],
        &[[1, 1, 16], [130, 257, 144], [300, 259, 656]],
    );
    right(&["hopper_f16", "hopper_e5m2"], &[[130, 264, 80]]);
}

#[test]
fn hopper_bands_end_early_where_m_is_no_multiple_of_them() {
    right(
        &["hopper_bf16", "hopper_bf16_pair"],
        &[[2048 + 130, 264, 8]],
    );
}

/// Copies the text files of a folder.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            let name = path.file_name().expect("a file has a name");
            std::fs::copy(&path, to.join(name)).expect("a copy");
        }
    }
}

#[test]
fn a_kernel_with_a_fault_put_into_it_is_never_called_right() {
    let Some(compiler) = Component::Compiler.or_skip() else {
        return;
    };
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    // A stage released before its products have ended; a wrong distance in a descriptor; a barrier left out.
    for (file, right, wrong, run_it) in [
        (
            "hopper.cu",
            "        last = turn.stage;\n",
            "        last = turn.stage;\n        release<PAIR>(ring, last);\n",
            ["hopper_bf16", "130", "264", "1000"],
        ),
        (
            "hopper.cu",
            "PART_A, 64 * LINE, 8 * LINE",
            "PART_A, 32 * LINE, 8 * LINE",
            ["hopper_f16_pair", "1", "264", "72"],
        ),
        (
            "matmul.cu",
            "stage that is brought next.\n        __syncthreads();\n",
            "stage that is brought next.\n",
            ["matmul_bf16", "130", "136", "104"],
        ),
    ] {
        let root = tempfile::TempDir::new().expect("a folder");
        let (emulation, kernels) = (
            root.path().join("tests/emulation"),
            root.path().join("kernels/cuda"),
        );
        copy(&tests.join("emulation"), &emulation);
        copy(&tests.join("../kernels/cuda"), &kernels);
        let text = std::fs::read_to_string(kernels.join(file)).expect("a source");
        assert!(text.contains(right), "{file} no longer holds {right:?}");
        std::fs::write(kernels.join(file), text.replace(right, wrong)).expect("a source");
        let program = root.path().join("proof");
        build(&compiler, &emulation.join("proof.cpp"), &program);
        let done = Command::new(&program)
            .arg("matmul")
            .args(run_it)
            .arg("1")
            .output()
            .expect("the emulation runs");
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(
            !done.status.success() && said.is_empty(),
            "{wrong:?}: {said}"
        );
    }
}

const RANGE: u32 = 8;

/// Bytes of `count` elements by the kernel `fill_…` of this type.
fn filled(proof: &Path, dtype: &str, count: u32, key: u32, range: u32) -> Vec<u8> {
    let [count, key, range] = [count, key, range].map(|word| word.to_string());
    run(
        proof,
        &["bits", &format!("fill_{dtype}"), &count, &key, &range],
        &[],
    )
}

fn little(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// A float of so many bits of exponent and significand, by its definition.
fn decode(bits: u64, exponent_bits: u32, significand_bits: u32) -> f64 {
    let bias = (1_i32 << (exponent_bits - 1)) - 1;
    let exponent = (bits >> significand_bits & ((1 << exponent_bits) - 1)) as i32;
    let fraction =
        (bits & ((1 << significand_bits) - 1)) as f64 / (1_u64 << significand_bits) as f64;
    let magnitude = if exponent == 0 {
        fraction * 2_f64.powi(1 - bias)
    } else {
        (1.0 + fraction) * 2_f64.powi(exponent - bias)
    };
    if bits >> (exponent_bits + significand_bits) & 1 == 1 {
        -magnitude
    } else {
        magnitude
    }
}

#[test]
fn operands_are_those_of_the_audit_in_every_type_to_the_end_of_its_range() {
    let Some(proof) = proof() else { return };
    for (dtype, exponent, significand, largest) in [
        ("f64", 11, 52, 128),
        ("f32", 8, 23, 2048),
        ("f16", 5, 10, 2048),
        ("bf16", 8, 7, 256),
        ("e4m3", 4, 3, 16),
        ("e5m2", 5, 2, 8),
    ] {
        for range in [1, RANGE.min(largest), largest] {
            let count = 5000;
            let key = audit::key(7, Stream::B, 3);
            let bytes = filled(proof, dtype, count, key, range);
            let size = bytes.len() / count as usize;
            assert_eq!(size as u32 * 8, 1 + exponent + significand, "{dtype}");
            let mut wanted = vec![0.0; count as usize];
            audit::fill(&mut wanted, 7, Stream::B, 3, range);
            let found = bytes
                .chunks_exact(size)
                .map(|element| decode(little(element), exponent, significand));
            for (index, (found, wanted)) in found.zip(&wanted).enumerate() {
                let same = found.to_bits() == (f64::from(*wanted) + 0.0).to_bits();
                assert!(
                    same,
                    "{dtype} range {range} at {index}: {found}, not {wanted}"
                );
            }
        }
    }
}

#[test]
fn operands_of_8_and_of_4_bits_are_those_of_the_audit() {
    let Some(proof) = proof() else { return };
    let key = audit::key(9, Stream::A, 1);
    let wanted = |count: usize, range| {
        let mut values = vec![0.0; count];
        audit::fill(&mut values, 9, Stream::A, 1, range);
        values
    };
    let bytes = filled(proof, "i8", 999, key, 127);
    let found: Vec<_> = bytes.iter().map(|b| f32::from(*b as i8)).collect();
    assert_eq!(found, wanted(999, 127));
    let bytes = filled(proof, "e2m1", 999, key, 4);
    assert_eq!(bytes.len(), 500);
    assert_eq!(bytes[499] >> 4, 0, "beyond the last element there is zero");
    let nibbles = bytes.iter().flat_map(|b| [b & 15, b >> 4]).take(999);
    let found: Vec<_> = nibbles
        .map(|bits| decode(u64::from(bits), 2, 1) as f32)
        .collect();
    assert_eq!(found, wanted(999, 4));
}

#[test]
fn noise_is_finite_neither_large_nor_small_and_uses_its_whole_significand() {
    let Some(proof) = proof() else { return };
    for (dtype, exponent, significand) in [
        ("f32", 8, 23),
        ("bf16", 8, 7),
        ("f16", 5, 10),
        ("e4m3", 4, 3),
        ("e5m2", 5, 2),
    ] {
        let bytes = run(
            proof,
            &["bits", &format!("noise_{dtype}"), "4000", "77"],
            &[],
        );
        let values: Vec<_> = bytes
            .chunks_exact(bytes.len() / 4000)
            .map(|e| decode(little(e), exponent, significand))
            .collect();
        assert!(
            values.iter().all(|v| (0.5..2.0).contains(&v.abs())),
            "{dtype}"
        );
        let (low, high) = (
            values.iter().any(|v| *v <= -1.5),
            values.iter().any(|v| *v >= 1.5),
        );
        assert!(low && high, "{dtype}");
        let mean = values.iter().sum::<f64>() / 4000.0;
        assert!(mean.abs() < 0.1, "{dtype}: {mean}");
    }
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|b| little(b) as u32).collect()
}

/// Row sums of C as the kernel `audit_…` gives them.
fn audited(proof: &Path, entry: &str, c: &[u8], [m, n]: [u32; 2], key: u32) -> Vec<u32> {
    let [m, n, key] = [m, n, key].map(|word| word.to_string());
    words(&run(proof, &["bits", entry, &m, &n, &key], c))
}

#[test]
fn row_sums_are_those_of_the_audit_for_whole_broken_and_impossible_results() {
    let Some(proof) = proof() else { return };
    let (m, n) = (11_u32, 2100_u32);
    let mut c = vec![0.0; (m * n) as usize];
    audit::fill(&mut c, 3, Stream::A, 0, 1_000_000);
    let odd = [
        f32::NAN,
        -f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::from_bits(1),
        f32::from_bits(0x8000_0001),
        -0.0,
        0.5,
        -1.75,
        2_147_483_648.0,
        -2_147_483_648.0,
        3e38,
        16_777_217.5,
        f32::from_bits(0x7F80_0001),
    ];
    for (index, value) in odd.iter().enumerate() {
        c[index * 1601] = *value;
    }
    let challenge = audit::challenge(AuditSeed(3), 5, n);
    let mut wanted = vec![0; m as usize];
    audit::row_sums(&c, &challenge, &mut wanted);
    let bytes: Vec<u8> = c.iter().flat_map(|v| v.to_bits().to_le_bytes()).collect();
    let key = audit::key(3, Stream::R, 5);
    assert_eq!(audited(proof, "audit_f32", &bytes, [m, n], key), wanted);
}

/// The whole number `value` as C holds it: i32, f32 or f64.
fn stored(entry: &str, value: i32) -> Vec<u8> {
    match entry {
        "audit_f64" => f64::from(value).to_bits().to_le_bytes().to_vec(),
        "audit_f32" => (value as f32).to_bits().to_le_bytes().to_vec(),
        _ => value.to_le_bytes().to_vec(),
    }
}

#[test]
fn whole_results_have_the_same_row_sums_in_f32_i32_and_f64_and_any_flipped_bit_is_seen() {
    let Some(proof) = proof() else { return };
    let key = audit::key(4, Stream::R, 2);
    let row = [-4711, 0, 3, 65_536, 77];
    for entry in ["audit_f32", "audit_i32", "audit_f64"] {
        let clean: Vec<u8> = row.iter().flat_map(|v| stored(entry, *v)).collect();
        let width = clean.len() / row.len();
        // The first row is right; each further one has one bit flipped.
        let mut c = clean.clone();
        for bit in 0..clean.len() * 8 {
            let mut broken = clean.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            c.extend(broken);
        }
        let rows = (c.len() / clean.len()) as u32;
        let sums = audited(proof, entry, &c, [rows, row.len() as u32], key);
        let challenge = audit::challenge(AuditSeed(4), 2, row.len() as u32);
        let wanted = row.iter().zip(&challenge).fold(0_u32, |sum, (v, r)| {
            sum.wrapping_add((*v as u32).wrapping_mul(*r))
        });
        assert_eq!(sums[0], wanted, "{entry}");
        for (bit, sum) in sums[1..].iter().enumerate() {
            // Only the sign of a zero is not told apart.
            let harmless = entry != "audit_i32" && bit == 2 * width * 8 - 1;
            assert_eq!(*sum == wanted, harmless, "{entry}, bit {bit}");
        }
    }
}

#[test]
fn row_sums_from_the_generator_alone_are_those_that_the_audit_expects() {
    let Some(proof) = proof() else { return };
    let gemm = Gemm::new(9, 300, 21);
    let (seed, pair) = (6, 1);
    let wanted = Expected::new(gemm, seed, AuditSeed(seed), pair, RANGE);
    let keys = [Stream::A, Stream::B, Stream::R].map(|s| audit::key(seed, s, pair).to_string());
    let shape = [gemm.m, gemm.n, gemm.k].map(|length| length.to_string());
    let sums = |turned: &str| {
        let mut arguments = vec!["bits", "expected"];
        arguments.extend(shape.iter().map(String::as_str));
        arguments.extend(keys.iter().map(String::as_str));
        arguments.extend(["8", turned]);
        words(&run(proof, &arguments, &[]))
    };
    assert_eq!(sums("0"), wanted.rows);
    assert_ne!(sums("1"), wanted.rows);
    let mut a = vec![0.0; 9 * 21];
    let mut b = vec![0.0; 21 * 300];
    audit::fill(&mut a, seed, Stream::A, pair, RANGE);
    audit::fill(&mut b, seed, Stream::B, pair, RANGE);
    for turned in [false, true] {
        let product = |row: usize, column: usize| -> i32 {
            let at = |l: usize| {
                if turned {
                    b[column * 21 + l]
                } else {
                    b[l * 300 + column]
                }
            };
            (0..21).map(|l| a[row * 21 + l] as i32 * at(l) as i32).sum()
        };
        let flag = if turned { "1" } else { "0" };
        let row = run(
            proof,
            &[
                "bits",
                "expect_row",
                "4",
                "300",
                "21",
                &keys[0],
                &keys[1],
                "8",
                flag,
            ],
            &[],
        );
        let wanted: Vec<_> = (0..300).map(|column| product(4, column) as u32).collect();
        assert_eq!(words(&row), wanted);
        let challenge = audit::challenge(AuditSeed(seed), pair, 300);
        let weighed: Vec<_> = (0..9)
            .map(|row| {
                (0..300).fold(0_u32, |sum, column| {
                    sum.wrapping_add((product(row, column) as u32).wrapping_mul(challenge[column]))
                })
            })
            .collect();
        assert_eq!(sums(flag), weighed);
    }
}

#[test]
fn addends_and_digests_are_those_of_the_exact_all_reduce() {
    let Some(proof) = proof() else { return };
    let key = exact::key(7, 2, 9).to_string();
    let mut wanted = vec![0.0; 3001];
    exact::fill_exact(&mut wanted, 7, 2, 9);
    let bytes = run(proof, &["bits", "addend", "3001", &key], &[]);
    let found: Vec<_> = words(&bytes).into_iter().map(f32::from_bits).collect();
    assert_eq!(found, wanted);
    let sums = run(proof, &["bits", "digest", "17"], &bytes);
    let sums: Vec<_> = sums.chunks_exact(8).map(little).collect();
    assert_eq!(sums, exact::digest_at(&wanted, 17).0);
}

#[test]
fn a_memory_pattern_that_holds_has_no_fault_and_each_flipped_bit_is_named() {
    let Some(proof) = proof() else { return };
    let flip = u32::MAX.to_string();
    let ones = u32::MAX.to_string();
    for (mask, flip) in [
        (ones.as_str(), "0"),
        (ones.as_str(), flip.as_str()),
        ("0", "2863311530"),
    ] {
        let clean = words(&run(
            proof,
            &["bits", "pattern", "900", "5", mask, flip, "0"],
            &[],
        ));
        assert_eq!(clean, [0; 12]);
        let broken = words(&run(
            proof,
            &["bits", "pattern", "900", "5", mask, flip, "3"],
            &[],
        ));
        assert_eq!(broken[0], 3, "all are counted, beyond the room as well");
        for fault in broken[4..].chunks_exact(4) {
            assert_eq!(fault[1], 0);
            assert!([5, 9, 13].contains(&fault[0]), "{}", fault[0]);
            assert_eq!(fault[2] ^ fault[3], 1 << 7, "the bit that was flipped");
            let hashed = audit::mix(audit::mix(fault[0] ^ 5).wrapping_add(5));
            let mask: u32 = mask.parse().expect("a number");
            let flip: u32 = flip.parse().expect("a number");
            assert_eq!(fault[2], hashed & mask ^ flip);
        }
    }
}

#[test]
fn copy_and_triad_reach_every_element() {
    let Some(proof) = proof() else { return };
    let x: Vec<f32> = (0..16_404_u16).map(f32::from).collect();
    let bytes: Vec<u8> = x.iter().flat_map(|v| v.to_le_bytes()).collect();
    let z = words(&run(proof, &["bits", "streams", "3.0"], &bytes));
    let wanted: Vec<_> = x.iter().map(|v| (v + 3.0 * v).to_bits()).collect();
    assert_eq!(z, wanted);
}
