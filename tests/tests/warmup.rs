//! A profile's warm-up is refused where the fold that ends it would refuse its parameters, and nowhere else.

use hallmark_profiles::profile;
use hallmark_results::stats::steady::{Parameters, Steady};

const SECOND_NS: u64 = 1_000_000_000;

/// The profile of that warm-up, read; and what the fold makes of it.
fn both(window_ns: u64, least_ns: u64, limit_ns: u64, kelvin: f64) -> (Result<(), String>, bool) {
    let text = format!(
        r#"
schema_version = 1
name = "warm"
summary = "Only its warm-up matters."
[load]
dtype = ["f32"]
matmul = {{ m = 64, n = 64, k = 64 }}
bucket = "1 MiB"
audit_share = 0.1
[load.ramp]
levels = [0.5, 1.0]
hold = "1 s"
[load.warmup]
least = "{least_ns} ns"
limit = "{limit_ns} ns"
window = "{window_ns} ns"
rate_tolerance = 0.02
temperature_tolerance = "{kelvin} K"
[[load.phase]]
name = "steady"
pattern = "steady"
duration = "1 min"
[telemetry]
period = "100 ms"
block = "1 s"
"#
    );
    let read = profile::parse(&text, "warm.toml").map(|_| ());
    let parameters = Parameters {
        window_ns,
        rate_tolerance: 0.02,
        temperature_tolerance_k_per_min: kelvin,
        least_ns,
        limit_ns,
    };
    (
        read.map_err(|e| e.to_string()),
        Steady::new(parameters, 0).is_ok(),
    )
}

#[test]
fn the_check_of_a_profile_and_the_fold_of_a_run_agree_on_every_warm_up() {
    let mut refused = 0;
    for window_ns in [1, 47, 48, 49, 1_000, 4 * SECOND_NS, 600 * SECOND_NS] {
        for least_ns in [1, 60, SECOND_NS, 5 * SECOND_NS, 900 * SECOND_NS] {
            let quarters = window_ns + window_ns / 4;
            for limit_ns in [1, 59, window_ns, quarters - 1, quarters, 900 * SECOND_NS] {
                for kelvin in [-1.0, 0.0, 2.0] {
                    let limit_ns = limit_ns.max(1);
                    let (read, folds) = both(window_ns, least_ns, limit_ns, kelvin);
                    assert_eq!(
                        read.is_ok(),
                        folds,
                        "window {window_ns} least {least_ns} limit {limit_ns} {kelvin} K: {read:?}"
                    );
                    refused += u32::from(!folds);
                }
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn a_warm_up_that_shows_nothing_is_refused_at_its_line() {
    let (read, _) = both(10 * SECOND_NS, SECOND_NS, 12 * SECOND_NS, 2.0);
    let error = read.err().unwrap_or_default();
    // `limit` stands in the fifteenth line of that text.
    assert!(error.starts_with("warm.toml:15: "), "{error}");
    assert!(error.contains("five quarters of its window"), "{error}");
    let (read, _) = both(10 * SECOND_NS, SECOND_NS, 60 * SECOND_NS, -2.0);
    assert!(
        read.err()
            .unwrap_or_default()
            .contains("must not be negative")
    );
}
