//! Decides that the all-reduce of `kernels/cuda/all_reduce.cu` is right with several ranks, at every odd end, in turn
//! after turn, and that a rank that never comes ends it; and that faults put into it are seen.

use super::{build, copy, decode, little, proof, run, words};
use hallmark_kernels::collective::exact;
use hallmark_tests::Component;
use std::path::Path;
use std::process::Command;

/// Ranks, blocks of each, bytes.
type Group = [u32; 3];

fn ask(entry: &str, [ranks, blocks, bytes]: Group) -> Vec<String> {
    let numbers = [ranks, blocks, bytes].map(|n| n.to_string());
    [&[entry.to_owned()], &numbers[..]].concat()
}

/// Three reductions in turn, twice, in place and out of it.
fn right(entry: &str, group: Group) {
    let Some(proof) = proof() else { return };
    for (seed, place) in [("1", "in"), ("2", "out")] {
        let asked = ask(entry, group);
        let mut arguments = vec!["reduce"];
        arguments.extend(asked.iter().map(String::as_str));
        arguments.extend([place, seed]);
        let said = run(proof, &arguments, &[]);
        assert_eq!(said, b"right\n", "{entry} {group:?} {place}");
    }
}

#[test]
fn one_shot_totals_are_right_for_odd_sizes_and_numbers_of_ranks() {
    right("all_reduce_one_f32", [1, 1, 4]);
    right("all_reduce_one_f32", [3, 2, 3012]);
    right("all_reduce_one_bf16", [3, 1, 2054]);
    right("all_reduce_one_f16", [2, 2, 2]);
    // More ranks than are asked for at once.
    right("all_reduce_one_i32", [9, 1, 20]);
}

#[test]
fn two_shot_totals_are_right_for_odd_sizes_and_numbers_of_ranks() {
    right("all_reduce_two_f32", [1, 1, 4]);
    right("all_reduce_two_i32", [3, 2, 12_300]);
    right("all_reduce_two_bf16", [3, 1, 2054]);
    // Fewer lines than ranks: some have nothing to sum.
    right("all_reduce_two_f16", [4, 2, 46]);
    right("all_reduce_two_f32", [9, 1, 188]);
}

#[test]
fn a_rank_that_never_comes_ends_the_reduction_and_is_named_by_every_other() {
    let Some(proof) = proof() else { return };
    for entry in ["all_reduce_one_f32", "all_reduce_two_f32"] {
        let asked = ask(entry, [4, 2, 1000]);
        let mut arguments = vec!["absent"];
        arguments.extend(asked.iter().map(String::as_str));
        let said = run(proof, &arguments, &[]);
        assert_eq!(said, b"8\n8\n8\n", "{entry}: bit 3 of three ranks");
    }
}

#[test]
fn a_barrier_left_out_a_stage_used_twice_and_a_part_cut_short_are_never_called_right() {
    let Some(compiler) = Component::Compiler.or_skip() else {
        return;
    };
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (entry, right, wrong) in [
        (
            "all_reduce_two_f32",
            "    meet(group, rank, block, 2 * turn);\n",
            "",
        ),
        (
            "all_reduce_two_f32",
            "if (!meet(group, rank, block, 2 * turn - 1)) {",
            "if (false) {",
        ),
        (
            "all_reduce_one_f32",
            "(u64)(turn & 1) * ranks",
            "(u64)0 * ranks",
        ),
        (
            "all_reduce_two_f32",
            "end = lines * (rank + 1) / ranks",
            "end = lines * (rank + 1) / ranks - (rank == 1)",
        ),
    ] {
        let root = tempfile::TempDir::new().expect("a folder");
        let (emulation, kernels) = (
            root.path().join("tests/emulation"),
            root.path().join("kernels/cuda"),
        );
        copy(&tests.join("emulation"), &emulation);
        copy(&tests.join("../kernels/cuda"), &kernels);
        let source = kernels.join("all_reduce.cu");
        let text = std::fs::read_to_string(&source).expect("a source");
        assert!(text.contains(right), "the source no longer holds {right:?}");
        std::fs::write(&source, text.replace(right, wrong)).expect("a source");
        let program = root.path().join("proof");
        build(&compiler, &emulation.join("proof.cpp"), &program);
        let done = Command::new(&program)
            .arg("reduce")
            .args(ask(entry, [3, 2, 2100]))
            .args(["in", "1"])
            .output()
            .expect("the emulation runs");
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(
            !done.status.success() && said.is_empty(),
            "{wrong:?}: {said}"
        );
    }
}

const TYPES: [(&str, usize); 4] = [("f32", 4), ("bf16", 2), ("f16", 2), ("i32", 4)];

fn value(dtype: &str, bits: u64) -> f64 {
    match dtype {
        "f32" => f64::from(f32::from_bits(bits as u32)),
        "bf16" => decode(bits, 8, 7),
        "f16" => decode(bits, 5, 10),
        _ => f64::from(bits as u32 as i32),
    }
}

#[test]
fn addends_of_a_rank_are_the_exact_ones_in_every_type() {
    let Some(proof) = proof() else { return };
    let key = 0x9ABC_DEF1_u32;
    for (dtype, bytes) in TYPES {
        for shift in [0_u32, 15, 26]
            .into_iter()
            .filter(|s| dtype == "i32" || *s > 0)
        {
            // Beyond what the type holds exactly.
            if bytes == 2 && shift < 26 {
                continue;
            }
            let entry = format!("rank_fill_{dtype}");
            let arguments = ["bits", &entry, "1500", &key.to_string(), &shift.to_string()];
            let found = run(proof, &arguments, &[]);
            for (index, element) in (0_u32..).zip(found.chunks_exact(bytes)) {
                let hashed = hallmark_kernels::audit::mix(index.wrapping_mul(0x9E37_79B1) ^ key);
                let wanted = (hashed >> shift).wrapping_sub(1 << (31 - shift)) as i32;
                let found = value(dtype, little(element)) as i64;
                assert_eq!(found, i64::from(wanted), "{dtype} shift {shift}");
            }
        }
    }
    let mut wanted = vec![0.0; 1500];
    exact::fill_exact(&mut wanted, 7, 2, 9);
    let key = exact::key(7, 2, 9).to_string();
    let found = words(&run(
        proof,
        &["bits", "rank_fill_f32", "1500", &key, "15"],
        &[],
    ));
    let wanted: Vec<_> = wanted.iter().map(|x| x.to_bits()).collect();
    assert_eq!(found, wanted);
}

#[test]
fn the_check_of_totals_finds_each_flipped_bit_its_rank_and_place_and_nothing_else() {
    let Some(proof) = proof() else { return };
    for (dtype, _) in TYPES {
        let found = |wrong: &str, first: &str| {
            let arguments = ["bits", "rank_check", "700", dtype, wrong, first];
            words(&run(proof, &arguments, &[]))
        };
        assert_eq!(found("0", "0"), [0; 12], "{dtype}");
        let three = found("3", "0");
        assert_eq!(three[0], 3, "{dtype}: all are counted, beyond the room too");
        for fault in three[4..].chunks_exact(4) {
            let rank = fault[1] >> 16;
            assert_eq!(fault[0], 3 * rank, "{dtype}");
            assert_eq!(fault[2] ^ fault[3], 1, "{dtype}");
        }
        // Only those ranks that this device holds.
        let last = found("3", "2");
        assert_eq!((last[0], last[4], last[5]), (1, 6, 2 << 16), "{dtype}");
    }
}
