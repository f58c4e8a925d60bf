//! Nodes' tables in the record of all: their numbers and names, and the controller's own table of each node's clock.

use hallmark_profiles::metric::Metric;
use hallmark_results::frame::{AT_LEAST, Provenance, Series, SeriesKind, Table};

/// Tables of one node.
const TABLES: u32 = 1 << 16;
/// Of these the last, which is the controller's own: how far the node's clock is off.
const CLOCK: u32 = TABLES - 1;

/// The number in the run of a node's own table; `None` beyond what a node may have.
pub const fn number(node: usize, id: u32) -> Option<u32> {
    if id < CLOCK {
        Some((node as u32 + 1) * TABLES + id)
    } else {
        None
    }
}

/// The number of [`clock`].
pub const fn clock_number(node: usize) -> u32 {
    (node as u32 + 1) * TABLES + CLOCK
}

/// The table of how far a node's clock is off the controller's since the run began: at most, and at least.
pub fn clock(node: usize, host: &str, period_ns: u64) -> Table {
    Table {
        id: clock_number(node),
        name: name(node, host, "clock"),
        source: "heartbeats".to_owned(),
        provenance: Provenance::Measured,
        device: None,
        place: host.to_owned(),
        period_ns,
        series: ["", AT_LEAST].map(bound).to_vec(),
    }
}

fn bound(label: &str) -> Series {
    Series {
        metric: Metric::ClockOffset,
        label: label.to_owned(),
        unit: Metric::ClockOffset.spec().unit,
        kind: SeriesKind::Gauge,
        averaging_ns: None,
        accuracy: None,
    }
}

/// The name of a node's table in the record of all: unique by the node's number, whatever the nodes are called.
pub fn name(node: usize, host: &str, table: &str) -> String {
    const LONGEST: usize = 64;
    let plain = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_lowercase() || c.is_ascii_digit() => c,
        _ => '-',
    };
    let number = format!("{}-", node + 1);
    // What a sensor is called tells more than the end of a long host name.
    let left = LONGEST.saturating_sub(number.len() + table.len() + 1);
    let host: String = host.chars().take(left).map(plain).collect();
    let text = format!("{number}{host}-{table}");
    text.chars().map(plain).take(LONGEST).collect()
}
