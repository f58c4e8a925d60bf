//! Whether the least rate that a criterion asks for can be meant, held against what the device is sold as.
//!
//! A limit mistyped by a unit's prefix, or `95` for `95 %`, passes every device or none. Refuses limits outside of
//! 40–100 % of a reference or of the datasheet of the declared model; says nothing where no model is declared.

use crate::criterion::{Criterion, Reference, Statistic};
use crate::profile::Profile;
use crate::quantity::Quantity;
use crate::sku::{BAND, Of, Skus};
use crate::units::Unit;

/// What is wrong with a criterion's least rate, if anything.
pub fn fault(profile: &Profile, criterion: &Criterion) -> Option<String> {
    let least = criterion.at_least?;
    if matches!(
        criterion.statistic,
        Statistic::Slope | Statistic::Variation | Statistic::Spread
    ) {
        return None;
    }
    match criterion.relative_to {
        Reference::SkuReference | Reference::SkuDatasheet | Reference::PowerLimit => {
            of_reference(criterion, least)
        }
        Reference::Absolute => of_datasheet(profile, criterion, least),
        Reference::PeerMedian | Reference::OwnMedian | Reference::FirstTenth => None,
    }
}

fn of_reference(criterion: &Criterion, least: Quantity) -> Option<String> {
    let share = match least.unit {
        Unit::Percent => least.value / 100.0,
        _ => least.value,
    };
    (!BAND.contains(&share)).then(|| {
        format!(
            "criterion `{}`: at_least {least} of what the device is known for; 40 to 100 % is believable: write `95 %` or `0.95`",
            criterion.name
        )
    })
}

fn of_datasheet(profile: &Profile, criterion: &Criterion, least: Quantity) -> Option<String> {
    let model = profile.inventory.as_ref()?.sku.as_deref()?;
    let sku = Skus::built_in().ok()?.iter().find(|s| s.name == model)?;
    // A load of several types may be held by the fastest of them, and must not be below the slowest.
    let of = Of::metric(criterion.metric);
    let dtypes = profile.load.dtype.iter().map(|dtype| of.dtype(*dtype));
    let rated: Vec<f64> = dtypes
        .filter_map(|of| Some(sku.datasheet(&of)?.value))
        .collect();
    let slowest = rated.iter().copied().reduce(f64::min)?;
    let fastest = rated.iter().copied().reduce(f64::max)?;
    let believable = BAND.start() * slowest..=BAND.end() * fastest;
    (!believable.contains(&least.value)).then(|| {
        let figure = Quantity::new(fastest, least.unit);
        format!(
            "criterion `{}`: at_least {least} is {:.3} % of the datasheet's {figure} of a {model}; 40 to 100 % is \
             believable: check the unit's prefix, and dense against sparse",
            criterion.name,
            100.0 * least.value / fastest
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::profile::parse;

    fn said(limit: &str) -> String {
        let text = format!(
            r#"
schema_version = 1
name = "held"
summary = "A limit against a datasheet."
[load]
dtype = ["bf16"]
bucket = "25 MiB"
audit_share = 0.1
matmul = {{ m = 64, n = 64, k = 64 }}
[load.ramp]
levels = [0.25, 0.5, 0.75, 1.0]
hold = "10 s"
[load.warmup]
least = "20 s"
limit = "2 min"
window = "20 s"
rate_tolerance = 0.02
temperature_tolerance = "2 K"
[[load.phase]]
name = "steady"
pattern = "steady"
duration = "1 min"
[telemetry]
period = "100 ms"
block = "10 s"
[inventory]
devices = 8
sku = "H100 SXM"
[[criterion]]
name = "rate"
metric = "matmul_rate"
scope = "gpu"
statistic = "median"
{limit}
"#
        );
        parse(&text, "held.toml").map_or_else(|e| e.to_string(), |_| "read".to_owned())
    }

    #[test]
    fn a_rate_is_held_against_the_datasheet_of_the_declared_model() {
        assert_eq!(said(r#"at_least = "650 TFLOP/s""#), "read");
        for wrong in ["650 GFLOP/s", "300 TFLOP/s", "1979 TFLOP/s"] {
            let said = said(&format!("at_least = \"{wrong}\""));
            assert!(
                said.starts_with("held.toml:29: criterion `rate`: at_least ")
                    && said.contains("H100 SXM"),
                "{wrong}: {said}"
            );
        }
    }

    #[test]
    fn a_share_of_a_reference_is_a_share() {
        let relative = |limit: &str| {
            said(&format!(
                "relative_to = \"sku_reference\"\nat_least = {limit}"
            ))
        };
        assert_eq!(relative("\"95 %\""), "read");
        assert_eq!(relative("0.95"), "read");
        for wrong in ["95", "\"9.5 %\"", "\"120 %\""] {
            let said = relative(wrong);
            assert!(
                said.contains("40 to 100 % is believable"),
                "{wrong}: {said}"
            );
        }
    }
}
