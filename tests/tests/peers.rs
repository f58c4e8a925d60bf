//! Defects that other acceptance tools have, each as a promise that hallmark keeps.
//!
//! The judge, the fold, the audits, the exit codes and the profiles' reader are the real ones; records are
//! invented ([`hallmark_tests::synthetic`]). A promise that another test holds already is named here and
//! not tested twice.
//!
//! | others | the promise is held by |
//! |---|---|
//! | two throttle reasons at once count as none | `nvml::two_reasons_at_once_are_both_seen`, `view/plain::every_reason_that_holds_is_told` |
//! | seconds without work are skipped; a dead task is no fault | `stats/blocks::a_stall_and_a_silent_device_show_as_zero`, `simulated::a_hung_rank_is_found_within_five_seconds_and_the_others_go_on`, `simulated::a_run_whose_devices_are_all_dead_is_rejected_at_once`, `faults::a_stalled_device_is_silent_within_seconds_and_rejects_the_run` |
//! | launches are counted, a tick is taken for a second | `stats/blocks::every_block_holds_what_a_nanosecond_by_nanosecond_count_gives` |
//! | operands all positive, all alike, saturated | `audit::operands_fill_their_range_evenly`, `audit::no_partial_sum_can_leave_the_exact_integers_of_f32` |
//! | results are not checked | `audit::a_right_product_passes_and_any_single_flipped_bit_is_seen`, `faults::one_bit_flipped_in_an_operand_is_caught_by_an_audit_and_rejects_the_run`; here `numbers` |
//! | telemetry of another device than the one under load | `nvml::a_device_is_found_by_uuid_or_pci_and_an_unknown_one_says_what_to_do`, `topology::one_physical_device_is_loaded_by_one_engine` |
//! | the best device is the bar | here `whole` |
//! | minutes until a run has ended | `simulated::a_second_interrupt_cuts_at_once`, `faults::workers_do_not_outlive_a_run_that_was_killed` |
//! | exit code 0 whatever happened, a failed start prints OK | here `ending` |
//! | throttling looked at only after a failure; best interval; cumulative mean; zero turns a limit off | here `whole` |
//! | a SKU limit mistyped 950 times too low | `sku/file::a_limit_mistyped_950_times_too_low_is_refused` |
//! | rules are evaluated code | here `numbers` |
//! | an unknown dtype becomes float | `profile::bad_input_gets_one_line_with_file_line_and_what_is_known` |
//! | a rank stands twice, a rank is short | `collective/host::a_rank_is_taken_once`, `collective/host::an_absent_rank_is_named_within_the_limit_and_survivors_go_on_without_it` |
//! | a missing host, a parse error, an error becomes PASS | `criteria::no_criterion_of_any_profile_is_decided_without_its_evidence`, `report::junit_counts_what_is_not_shown_as_an_error_never_as_green`, `record::a_sealed_record_changed_at_any_byte_or_cut_is_refused`; here `ending` |
//! | the first repeat that passes wins | here `ending` |
//! | GB/s is 2³⁰ in one place and 10⁹ in another | `units/render::gigabytes_and_gibibytes_are_never_confused`, `quantity/bounded::a_size_is_whole_bytes_and_gib_is_not_gb`; here `numbers` |
//! | no NVML is healthy | `nvml/faults::a_library_that_does_not_start_is_absent_with_its_reason`; here `ending` |
//! | gaps, logs sent twice, windows without length | `criteria` (telemetry, telemetry-gap); here `numbers` |
//!
//! Not covered, because hallmark does not have them yet: ranks of several nodes that register with a
//! controller, NCCL (its ids, its errors, its rates over NVLink), CUDA's own memory at teardown.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test, and what it is built of, fails by a panic"
)]

#[path = "peers/ending.rs"]
mod ending;
#[path = "peers/numbers.rs"]
mod numbers;
#[path = "peers/whole.rs"]
mod whole;

use hallmark_profiles::profile::{self, Loaded};

/// A built-in profile with one place of its text changed.
fn changed(name: &str, from: &str, to: &str) -> Loaded {
    let text = profile::load(name).expect("a built-in profile").text;
    assert!(text.contains(from), "{name} has no `{from}`");
    profile::parse(&text.replacen(from, to, 1), "changed.toml").unwrap_or_else(|e| panic!("{e}"))
}
