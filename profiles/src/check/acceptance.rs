//! What a profile must judge before its ACCEPTED may accept a site: the gates without which a run shows nothing.
//!
//! It decides only that each of these gates is there and is more than a name; the limits themselves are the profile's.
//! The floors are proposed. Counts may be no weaker than what every run is judged by anyway: a stated criterion
//! stands in the place of the implied one.

use super::statistic::is_median;
use crate::criterion::{Criterion, Reference, Scope, Statistic};
use crate::metric::Metric;
use crate::profile::{Pattern, Profile};
use crate::units::Unit;
use std::time::Duration;

/// Lowest share of a SKU's reference that is a gate; references themselves are held to 40 % of their datasheet.
const RATE_LEAST: f64 = 0.4;
const DUTY_LEAST: f64 = 0.9;
const AUDIT_LEAST: f64 = 0.01;
const COVERAGE_LEAST_PERCENT: f64 = 90.0;
/// Largest share of places that may miss a gate on rates, duty or coverage.
const MISSES_MOST: f64 = 0.1;
/// Largest share of the declared devices that may fail: a good hall of 1,024 loses about one in three days.
const FAILURES_MOST: f64 = 0.01;

/// One gate: what it must say, and whether a criterion says it.
struct Gate {
    says: &'static str,
    holds: fn(&Profile, &Criterion) -> bool,
}

const GATES: [Gate; 7] = [
    Gate {
        says: "matmul_rate (median, mean, min or a lower quantile) at_least 40 % relative_to sku_reference, or in FLOP/s",
        holds: rate,
    },
    Gate {
        says: "duty at_least 90 %",
        holds: |p, c| share(p, c, Metric::Duty, DUTY_LEAST, Unit::One),
    },
    Gate {
        says: "audit_share at_least 1 %",
        holds: |p, c| share(p, c, Metric::AuditShare, AUDIT_LEAST, Unit::One),
    },
    Gate {
        says: "audit_errors of each gpu at_most 0",
        holds: |_, c| c.scope == Scope::Gpu && count(c, Metric::AuditErrors, 0.0),
    },
    Gate {
        says: "telemetry_coverage at_least 90 %",
        holds: |p, c| {
            let metric = Metric::TelemetryCoverage;
            share(p, c, metric, COVERAGE_LEAST_PERCENT, Unit::Percent)
        },
    },
    Gate {
        says: "inventory at_most 0",
        holds: |_, c| count(c, Metric::Inventory, 0.0),
    },
    Gate {
        says: "failures at_most 0, or 1 % of the devices that [inventory] declares",
        holds: |p, c| {
            let devices = p.inventory.as_ref().map_or(0, |i| i.devices);
            let most = (f64::from(devices) * FAILURES_MOST).floor();
            count(c, Metric::Failures, most)
        },
    },
];

/// Why ACCEPTED by this profile would accept nothing; `None` where the profile accepts no site or all gates are there.
pub fn fault(profile: &Profile) -> Option<String> {
    if !profile.accepts_site {
        return None;
    }
    let stated = |gate: &&Gate| !profile.criteria.iter().any(|c| (gate.holds)(profile, c));
    let mut missing: Vec<&str> = GATES.iter().filter(stated).map(|g| g.says).collect();
    // Every run is judged by its self-tests; a profile may say so again, and not weaken it.
    let tests = |c: &&Criterion| c.metric == Metric::SelfTest;
    let mut tests = profile.criteria.iter().filter(tests).peekable();
    if tests.peek().is_some() && !tests.any(self_test) {
        missing.push("self_test at_least 1");
    }
    (!missing.is_empty()).then(|| {
        format!(
            "accepts_site = true needs gates that this profile lacks, each for the main phase and for 90 % of its places \
             or more: {}",
            missing.join("; ")
        )
    })
}

/// A phase of matmuls back to back says nothing of sustained load below this.
const STEADY_LEAST: Duration = Duration::from_secs(600);

/// Of the phase that is judged by default, not of a short one beside it.
fn of_main_phase(profile: &Profile, criterion: &Criterion) -> bool {
    let main = profile.load.phases.get(profile.load.main_phase());
    criterion.phase.is_none() || criterion.phase.as_ref() == main.map(|p| &p.name)
}

fn at_least(criterion: &Criterion, unit: Unit) -> Option<f64> {
    criterion.at_least?.in_unit(unit).ok()
}

fn rate(profile: &Profile, criterion: &Criterion) -> bool {
    // The best stretch of a run says nothing of the rest of it.
    let whole = match criterion.statistic {
        Statistic::Mean | Statistic::Min => true,
        Statistic::Quantile(q) => q < 0.5 || is_median(criterion.statistic),
        _ => false,
    };
    let limit = match (criterion.metric, criterion.relative_to) {
        (Metric::MatmulRate, Reference::SkuReference)
        | (Metric::MatmulEfficiency, Reference::Absolute) => {
            at_least(criterion, Unit::One).is_some_and(|l| l >= RATE_LEAST)
        }
        (Metric::MatmulRate, Reference::Absolute) => {
            at_least(criterion, Unit::FlopPerSecond).is_some_and(|l| l > 0.0)
        }
        _ => false,
    };
    // A reference is that of matmuls back to back, so the phase that does just that may be judged by it.
    let steady = profile.load.phases.iter().any(|p| {
        p.pattern == Pattern::Steady
            && criterion.phase.as_ref() == Some(&p.name)
            && p.duration.duration() >= STEADY_LEAST
    });
    let counts = steady || of_main_phase(profile, criterion);
    whole && limit && criterion.allowed_share <= MISSES_MOST && counts
}

fn share(profile: &Profile, criterion: &Criterion, metric: Metric, least: f64, unit: Unit) -> bool {
    criterion.metric == metric
        && criterion.relative_to == Reference::Absolute
        && at_least(criterion, unit).is_some_and(|l| l >= least)
        && criterion.allowed_share <= MISSES_MOST
        && of_main_phase(profile, criterion)
}

fn count(criterion: &Criterion, metric: Metric, most: f64) -> bool {
    let limit = criterion.at_most.and_then(|q| q.in_unit(Unit::Count).ok());
    criterion.metric == metric
        && criterion.relative_to == Reference::Absolute
        && limit.is_some_and(|l| l <= most)
        && criterion.allowed_share <= 0.0
}

fn self_test(criterion: &Criterion) -> bool {
    criterion.relative_to == Reference::Absolute
        && at_least(criterion, Unit::One).is_some_and(|l| l >= 1.0)
        && criterion.allowed_share <= 0.0
}

#[cfg(test)]
mod tests {
    use crate::profile::{BUILT_IN, parse, recall};

    fn hall() -> &'static str {
        BUILT_IN[3].1
    }

    /// The hall's profile without its criteria.
    fn bare() -> String {
        let text = hall();
        let end = text.find("[[criterion]]").unwrap();
        text[..end].to_owned()
    }

    /// The hall's profile with one criterion's lines changed.
    fn changed(criterion: &str, from: &str, to: &str) -> String {
        let (head, tail) = hall()
            .split_once(&format!("name = \"{criterion}\"\n"))
            .unwrap();
        assert!(tail.contains(from), "{from}");
        format!(
            "{head}name = \"{criterion}\"\n{}",
            tail.replacen(from, to, 1)
        )
    }

    #[test]
    fn a_profile_that_judges_nothing_accepts_no_site_and_is_told_what_it_lacks() {
        let error = parse(&bare(), "my.toml").unwrap_err().to_string();
        let line = hall().lines().position(|l| l == "accepts_site = true");
        let at = format!("my.toml:{}: ", line.unwrap() + 1);
        assert!(error.starts_with(&at), "{error}");
        for gate in [
            "matmul_rate",
            "duty at_least",
            "audit_share",
            "audit_errors of each gpu",
            "telemetry_coverage",
            "inventory at_most 0",
            "failures at_most 0",
        ] {
            assert!(error.contains(gate), "{gate}: {error}");
        }
        assert!(!error.contains('\n'));
    }

    /// A criterion of the hall, its line and what stands there instead, and the gate that is then lacking.
    const IN_NAME_ONLY: [(&str, &str, &str, &str); 16] = [
        (
            "reference",
            "at_least = \"97 %\"",
            "at_least = \"1 %\"",
            "matmul_rate",
        ),
        (
            "reference",
            "\"sku_reference\"",
            "\"peer_median\"",
            "matmul_rate",
        ),
        (
            "reference",
            "statistic = \"median\"",
            "statistic = \"max\"",
            "matmul_rate",
        ),
        (
            "reference",
            "at_least = \"97 %\"",
            "at_most = \"97 %\"",
            "matmul_rate",
        ),
        (
            "reference",
            "phase = \"steady\"",
            "phase = \"compute\"",
            "matmul_rate",
        ),
        (
            "duration",
            "at_least = \"95 %\"",
            "at_least = \"0 %\"",
            "duty",
        ),
        (
            "duration",
            "at_least = \"95 %\"",
            "at_least = \"95 %\"\nallowed_share = 1.0",
            "duty",
        ),
        (
            "duration",
            "at_least = \"95 %\"",
            "at_least = \"95 %\"\nphase = \"memory\"",
            "duty",
        ),
        (
            "audited",
            "at_least = \"10 %\"",
            "at_least = \"0 %\"",
            "audit_share",
        ),
        (
            "integrity",
            "at_most = \"0\"",
            "at_most = \"5\"",
            "audit_errors",
        ),
        (
            "integrity",
            "at_most = \"0\"",
            "at_most = \"0\"\nallowed_share = 0.9",
            "audit_errors",
        ),
        (
            "integrity",
            "scope = \"gpu\"",
            "scope = \"site\"",
            "audit_errors",
        ),
        (
            "telemetry",
            "at_least = \"99.5 %\"",
            "at_least = \"1 %\"",
            "telemetry_coverage",
        ),
        (
            "inventory",
            "at_most = \"0\"",
            "at_most = \"1\"",
            "inventory",
        ),
        ("failures", "at_most = \"0\"", "at_most = \"1\"", "failures"),
        (
            "self-test",
            "at_least = \"1\"",
            "at_least = \"0\"",
            "self_test",
        ),
    ];

    #[test]
    fn a_gate_in_name_only_is_no_gate() {
        for (criterion, from, to, wanted) in IN_NAME_ONLY {
            let text = changed(criterion, from, to);
            let error = parse(&text, "my.toml").map(|_| ()).unwrap_err().to_string();
            let lacks = error.split("or more: ").nth(1).unwrap_or_default();
            assert!(lacks.starts_with(wanted), "{criterion} {to}: {error}");
            assert!(!lacks.contains("; "), "{criterion} {to}: {error}");
        }
    }

    #[test]
    fn a_hall_that_declares_its_size_may_allow_a_hundredth_of_it_to_fail() {
        let allow = |devices: u32, failures: u32| {
            let to = format!("at_most = \"{failures}\"");
            let text = changed("failures", "at_most = \"0\"", &to);
            parse(
                &format!("{text}\n[inventory]\ndevices = {devices}\n"),
                "my.toml",
            )
            .is_ok()
        };
        assert!(allow(1024, 3));
        assert!(!allow(1024, 11));
        assert!(!allow(8, 1));
    }

    #[test]
    fn a_record_whose_profile_lacks_gates_is_still_read_and_accepts_no_site() {
        assert!(!recall(&bare(), "my.toml").unwrap().profile.accepts_site);
        assert!(recall(hall(), "my.toml").unwrap().profile.accepts_site);
        let smoke = BUILT_IN[0]
            .1
            .replace("accepts_site = false", "accepts_site = true");
        let error = parse(&smoke, "my.toml")
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(error.contains("matmul_rate"), "{error}");
    }
}
