//! The tables that the meters of a simulated hall fill: what is read where, how often, in which unit.

use super::scenario::{Hall, Place};
use super::trouble::COUNTED;
use hallmark_profiles::metric::Metric;
use hallmark_results::frame::{Provenance, Series, SeriesKind, Table};

/// Counters change seldom and are asked at this period, or the tick's where that is longer.
const HEALTH_NS: u64 = 2_000_000_000;
/// Rack power is judged by means of one minute.
const MINUTE_NS: u64 = 60_000_000_000;
/// A feeder is read fast enough for a spectrum up to 20 Hz from this period on (twice the frequency, and a margin).
pub const SPECTRUM_NS: u64 = 25_000_000;

/// What a table is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Load(usize),
    Health(usize),
    Node(usize),
    /// Number of the tray in the hall.
    Tray(usize),
    Rack(usize),
    Minute(usize),
    Cdu(usize),
    Feeder(usize),
}

/// Columns of a device's load table.
pub const LOAD: [(Metric, &str); 12] = [
    (Metric::PowerDraw, "average"),
    (Metric::TempCore, ""),
    (Metric::TempMemory, ""),
    (Metric::ClockSm, ""),
    (Metric::ClockMemory, ""),
    (Metric::PowerLimit, ""),
    (Metric::ThrottleFrac, "hw_thermal"),
    (Metric::ThrottleFrac, "hw_slowdown"),
    (Metric::ThrottleFrac, "hw_power_brake"),
    (Metric::PowerCapFrac, "sw_power_cap"),
    (Metric::Energy, ""),
    (Metric::Utilisation, ""),
];

const NODE: [(Metric, &str); 3] = [
    (Metric::PowerDraw, ""),
    (Metric::CpuLoad, ""),
    (Metric::ClockOffset, ""),
];
const TRAY: [(Metric, &str); 1] = [(Metric::Flow, "")];
const RACK: [(Metric, &str); 5] = [
    (Metric::PowerDraw, ""),
    (Metric::PowerRecon, ""),
    (Metric::Flow, ""),
    (Metric::FlowPerKw, ""),
    (Metric::CoolantRise, ""),
];
const MINUTE: [(Metric, &str); 1] = [(Metric::RackDensity, "")];
const CDU: [(Metric, &str); 7] = [
    (Metric::CoolantSupply, ""),
    (Metric::CoolantReturn, ""),
    (Metric::Flow, ""),
    (Metric::PumpSpeed, ""),
    (Metric::Approach, ""),
    (Metric::DewMargin, ""),
    (Metric::HeatBalance, ""),
];
const FEEDER: [(Metric, &str); 2] = [(Metric::PowerDraw, ""), (Metric::BandEnergy, "")];

fn columns(source: Source, spectrum: bool) -> Vec<(Metric, &'static str)> {
    match source {
        Source::Load(_) => LOAD.to_vec(),
        Source::Health(_) => {
            let counted = COUNTED.iter().map(|m| (*m, ""));
            counted.chain([(Metric::RTh, "")]).collect()
        }
        Source::Node(_) => NODE.to_vec(),
        Source::Tray(_) => TRAY.to_vec(),
        Source::Rack(_) => RACK.to_vec(),
        Source::Minute(_) => MINUTE.to_vec(),
        Source::Cdu(_) => CDU.to_vec(),
        Source::Feeder(_) if spectrum => FEEDER.to_vec(),
        Source::Feeder(_) => FEEDER[..1].to_vec(),
    }
}

fn series((metric, label): (Metric, &str), period_ns: u64) -> Series {
    let counts = COUNTED.contains(&metric) || metric == Metric::Energy;
    let averaged = matches!(metric, Metric::PowerDraw | Metric::RackDensity);
    Series {
        metric,
        label: label.to_owned(),
        unit: metric.spec().unit,
        kind: if counts {
            SeriesKind::Counter
        } else {
            SeriesKind::Gauge
        },
        averaging_ns: averaged.then_some(period_ns),
        accuracy: None,
    }
}

/// Every table of the hall, numbered from 0, and what it is read from.
#[must_use]
pub fn all(hall: &Hall, tick_ns: u64, feeder_ns: u64) -> Vec<(Source, Table)> {
    let gpus = hall.gpus() as usize;
    let trays = hall.racks * hall.trays_per_rack;
    let count = |n: u32| 0..n as usize;
    let sources = (0..gpus)
        .map(Source::Load)
        .chain((0..gpus).map(Source::Health))
        .chain(count(hall.nodes()).map(Source::Node))
        .chain(count(trays).map(Source::Tray))
        .chain(count(hall.racks).map(Source::Rack))
        .chain(count(hall.racks).map(Source::Minute))
        .chain(count(hall.cdus).map(Source::Cdu))
        .chain(count(hall.feeders).map(Source::Feeder));
    let table = |(id, source): (usize, Source)| {
        let period_ns = match source {
            Source::Health(_) => HEALTH_NS.max(tick_ns),
            Source::Minute(_) => MINUTE_NS.max(tick_ns),
            Source::Feeder(_) => feeder_ns,
            _ => tick_ns,
        };
        let columns = columns(source, feeder_ns <= SPECTRUM_NS);
        let (name, place, device) = named(source, hall);
        let table = Table {
            id: id as u32,
            name,
            source: "the simulated hall".to_owned(),
            provenance: Provenance::Simulated,
            device,
            place,
            period_ns,
            series: columns.into_iter().map(|c| series(c, period_ns)).collect(),
        };
        (source, table)
    };
    sources.enumerate().map(table).collect()
}

/// Name, place and device of a table.
fn named(source: Source, hall: &Hall) -> (String, String, Option<u32>) {
    let of_node = |node: u32| {
        let place = hall.gpu(node * hall.gpus_per_node);
        place
            .at(super::scenario::Level::Node, hall)
            .unwrap_or(place)
    };
    match source {
        Source::Load(i) => (
            format!("gpu-{i}"),
            hall.gpu(i as u32).to_string(),
            Some(i as u32),
        ),
        Source::Health(i) => (
            format!("health-{i}"),
            hall.gpu(i as u32).to_string(),
            Some(i as u32),
        ),
        Source::Node(i) => (format!("node-{i}"), of_node(i as u32).to_string(), None),
        Source::Tray(i) => {
            let (rack, tray) = (
                i as u32 / hall.trays_per_rack,
                i as u32 % hall.trays_per_rack,
            );
            (
                format!("tray-{i}"),
                Place::Tray(rack, tray).to_string(),
                None,
            )
        }
        Source::Rack(i) => (format!("rack-{i}"), Place::Rack(i as u32).to_string(), None),
        Source::Minute(i) => (
            format!("rack-{i}-minute"),
            Place::Rack(i as u32).to_string(),
            None,
        ),
        Source::Cdu(i) => (format!("cdu-{i}"), Place::Cdu(i as u32).to_string(), None),
        Source::Feeder(i) => (
            format!("feeder-{i}"),
            Place::Feeder(i as u32).to_string(),
            None,
        ),
    }
}
