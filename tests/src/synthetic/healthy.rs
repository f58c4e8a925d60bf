//! What sensors and meters show where all is well: one invented value for each metric, and where it is taken.
//!
//! A metric that is not here cannot be in an invented record: the test that wants it is told its name.

use super::{Moment, Place, Told};
use hallmark_profiles::metric::Metric;
use hallmark_results::frame::SeriesKind;
use hallmark_results::stats::bootstrap::SplitMix64;
use std::rc::Rc;

/// Counters grow; everything else is a reading.
pub fn kind(metric: Metric) -> SeriesKind {
    match metric {
        Metric::Ecc
        | Metric::Xid
        | Metric::RowRemap
        | Metric::PcieReplay
        | Metric::NvlinkErr
        | Metric::LinkFlaps => SeriesKind::Counter,
        _ => SeriesKind::Gauge,
    }
}

/// The series of a metric in a hall where all is well, in the metric's unit.
///
/// # Panics
/// Nobody has said what is healthy for it.
pub fn series(metric: Metric, devices: u32) -> Vec<Told> {
    let devices = || (0..devices).map(Place::Device).collect::<Vec<_>>();
    let hall = |name: &str| {
        (1..=2)
            .map(|i| Place::Hall(format!("{name}-{i}")))
            .collect()
    };
    let (places, value, spread): (Vec<Place>, f64, f64) = match metric {
        Metric::PowerDraw => (devices(), 690.0, 10.0),
        Metric::PowerLimit => (devices(), 700.0, 0.0),
        Metric::TempCore => (devices(), 62.0, 1.0),
        Metric::TempMemory => (devices(), 74.0, 1.0),
        Metric::ClockSm => (devices(), 1.7e9, 1e7),
        Metric::RTh => (devices(), 0.020, 0.0002),
        Metric::ThrottleFrac => (devices(), 0.0, 0.0),
        _ if kind(metric) == SeriesKind::Counter => (devices(), 7.0, 0.0),
        Metric::CpuLoad => (vec![Place::hall("node-1")], 40.0, 5.0),
        Metric::PowerRecon => (hall("rack"), 0.8, 0.2),
        Metric::RackDensity => (hall("rack"), 31.8e3, 300.0),
        Metric::FlowPerKw => (hall("rack"), 1.4, 0.02),
        Metric::CoolantSupply => (hall("cdu"), 30.0, 0.2),
        Metric::CoolantRise => (hall("rack"), 9.0, 0.3),
        Metric::HeatBalance => (hall("cdu"), 1.0, 0.5),
        Metric::Approach => (hall("cdu"), 3.0, 0.2),
        Metric::DewMargin => (hall("cdu"), 5.0, 0.2),
        Metric::BandEnergy => (hall("feeder"), 0.04, 0.005),
        other => panic!("nobody has said what is healthy for {other}; add a line here"),
    };
    let told = |place: Place| Told {
        metric,
        kind: kind(metric),
        value: Rc::new(move |m: &Moment<'_>| value + spread * noise(m.index ^ metric as u64)),
        place,
    };
    places.into_iter().map(told).collect()
}

/// Between −1 and 1, the same for the same number.
pub fn noise(of: u64) -> f64 {
    2.0 * SplitMix64::new(of).unit() - 1.0
}
