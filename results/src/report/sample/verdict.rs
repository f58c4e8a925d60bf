//! The verdict of the invented run, by hand.

use super::Sample;
use crate::diagnosis::{Cause, Diagnosis, Level, Place, Sign, Size};
use crate::verdict::{Action, Estimate, Finding, NotMeasured, Observed, Outcome, Punch, Verdict};
use hallmark_profiles::criterion::Criterion;
use hallmark_profiles::metric::Metric;
use hallmark_profiles::profile;
use hallmark_profiles::units::Unit;

impl Sample {
    pub fn verdict(&self) -> Verdict {
        let criteria = profile::load("smoke").unwrap().profile.criteria;
        let mut findings: Vec<Finding> = criteria.into_iter().map(|c| self.finding(c)).collect();
        findings.sort_by_key(|f| std::cmp::Reverse(f.outcome));
        let outcome = findings
            .iter()
            .map(|f| f.outcome)
            .max()
            .unwrap_or(Outcome::Inconclusive);
        let last = format!("gpu{}", self.devices.saturating_sub(1));
        Verdict {
            outcome,
            sentence: self.named(match outcome {
                Outcome::Passed => "All nine gates hold on 2 devices.",
                Outcome::Failed => {
                    "gpu1 slowed down by 18 % at 36 s, returned one wrong result and died at 45 s."
                }
                Outcome::Inconclusive => "Nothing was measured.",
            }),
            findings,
            diagnoses: self.diagnoses(),
            punch: if self.fault {
                vec![
                    Punch {
                        action: Action::Replace,
                        place: last,
                        why: self.named("it returned a wrong result"),
                    },
                    Punch {
                        action: Action::Investigate,
                        place: "gpu0".to_owned(),
                        why: self.named("NVML lost it for 4 s"),
                    },
                ]
            } else {
                Vec::new()
            },
            not_measured: vec![NotMeasured {
                what: self.named("power of the rack"),
                why: self.named("no PDU was given"),
                remedy: self.named("name one with --pdu"),
            }],
            confidence: 0.95,
            accepts_site: false,
            remarks: vec![self.named("smoke: accepts no site")],
        }
    }

    fn diagnoses(&self) -> Vec<Diagnosis> {
        if !self.fault {
            return Vec::new();
        }
        let size = Size {
            value: -0.18,
            low: -0.19,
            high: -0.17,
            unit: Unit::One,
        };
        let what = self.named("matmul rate down 18 %");
        let evidence = vec![Sign::new(Metric::MatmulRate, what).sized(Some(size))];
        let place = Place {
            level: Level::Gpu,
            name: self.named("gpu1"),
            devices: vec![1],
        };
        let slow = Diagnosis::new(Cause::SlowSilicon, place, 0.001, (1, 2), evidence);
        vec![slow.since(Some(36_000_000_000))]
    }

    fn finding(&self, criterion: Criterion) -> Finding {
        let unit = criterion.metric.spec().unit;
        let at_least = criterion
            .at_least
            .map(|q| q.in_unit(unit).unwrap_or(q.value));
        let at_most = criterion
            .at_most
            .map(|q| q.in_unit(unit).unwrap_or(q.value));
        let exact = |value| {
            Some(Estimate {
                value,
                low: value,
                high: value,
                samples: 40,
                unit,
            })
        };
        let (estimate, outcome) = match (criterion.metric, self.fault) {
            _ if self.empty => (None, Outcome::Inconclusive),
            (Metric::AuditErrors, true) => (exact(1.0), Outcome::Failed),
            (Metric::Failures, true) => (exact(1.0), Outcome::Failed),
            (Metric::TelemetryCoverage, true) => (exact(87.5), Outcome::Inconclusive),
            (Metric::StepTime, true) => (None, Outcome::Inconclusive),
            (Metric::AuditErrors | Metric::Failures | Metric::Inventory, _) => {
                (exact(0.0), Outcome::Passed)
            }
            (Metric::TelemetryCoverage, _) => (exact(99.8), Outcome::Passed),
            (Metric::StepTime, _) => (
                Some(Estimate {
                    value: 0.1412,
                    low: 0.13,
                    high: 0.182,
                    samples: 266,
                    unit,
                }),
                Outcome::Passed,
            ),
            (Metric::IdleGap, _) => (exact(0.0004), Outcome::Passed),
            (Metric::AuditShare, _) => (exact(0.104), Outcome::Passed),
            _ => (exact(1.0), Outcome::Passed),
        };
        let at_most = if criterion.metric == Metric::StepTime {
            Some(0.242)
        } else {
            at_most
        };
        let last = self.devices.saturating_sub(1) as u32;
        let observed = Observed {
            place: format!("gpu{last}"),
            device: (self.devices > 0).then_some(last),
            estimate,
            outcome,
            why: self.named("one of 640 audited results was wrong"),
        };
        Finding {
            phase: "train".to_owned(),
            outcome,
            at_least,
            at_most,
            unit: if criterion.metric == Metric::StepTime {
                Unit::Second
            } else {
                unit
            },
            side: criterion.side,
            places: if self.devices == 0 {
                Vec::new()
            } else {
                vec![observed]
            },
            why: self.named(if outcome == Outcome::Passed {
                "shown by the whole window"
            } else {
                "seen on one device"
            }),
            remedy: criterion.remedy.clone(),
            diagnosis: None,
            criterion,
        }
    }
}
