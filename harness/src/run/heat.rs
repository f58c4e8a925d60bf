//! How hot a device's core was when a result of it was wrong, in words for the record.
//!
//! The latest sample that the run holds, with its age against the wrong result: a sensor that is slow or gone shows.
//! Refuses to stand another sensor in: where the device has none of its own, that is said.

use super::Run;
use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::{Unit, human};
use hallmark_results::frame::What;
use hallmark_results::standing::Standing;

impl Run {
    /// A result of a device was wrong.
    pub(super) fn wrong(&mut self, device: u32, at_ns: u64, why: &str) {
        let heat = at(&self.standing, device, at_ns);
        let detail = format!("{why}; {heat}");
        self.event(at_ns, Some(device), What::Mismatch { detail });
    }
}

/// The core's temperature by its sensor's latest sample, around `at_ns`.
fn at(standing: &Standing, device: u32, at_ns: u64) -> String {
    let sampled = standing.tables_of(device).flat_map(|t| {
        let columns = t.table.series.iter().enumerate();
        let cores = columns.filter(|(_, s)| s.metric == Metric::TempCore);
        cores.map(|(column, _)| (t.latest[column], t.valued_ns[column]))
    });
    let seconds = |ns: u64| human(ns as f64 / 1e9, Unit::Second);
    // Of several, the one that was read last.
    match sampled.max_by_key(|(_, valued_ns)| *valued_ns) {
        None => "no sensor gives its core's temperature".to_owned(),
        Some((_, None)) => "its core's temperature has not been read yet".to_owned(),
        Some((value, Some(sample_ns))) if value.is_nan() => {
            let age = seconds(at_ns.saturating_sub(sample_ns));
            format!("its core's temperature gave no value, the latest {age} before")
        }
        Some((value, Some(sample_ns))) => {
            let value = human(value, Unit::Celsius);
            if sample_ns <= at_ns {
                format!("core at {value} {} before", seconds(at_ns - sample_ns))
            } else {
                format!("core at {value} {} after", seconds(sample_ns - at_ns))
            }
        }
    }
}
