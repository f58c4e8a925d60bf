//! What pairs of nodes measured before the load and after it, as every format tells it.

use super::escape::clean;
use super::words;
use crate::diagnosis::pairs::{When, median};
use crate::frame::PairRow;
use hallmark_profiles::units::{Unit, human};

/// The worst of what two nodes measured with each other.
#[derive(Clone, Debug)]
pub struct Way<'a> {
    pub nodes: &'a [String; 2],
    pub bytes_per_s: f64,
    pub latency_s: f64,
    /// Over the median of all.
    pub share: f64,
    pub times: usize,
    pub wrong: u64,
}

/// Each two nodes that met, the slowest first.
pub fn ways(rows: &[PairRow]) -> Vec<Way<'_>> {
    let middle = median(rows.iter().map(|r| r.bytes_per_s)).unwrap_or(f64::NAN);
    let mut ways: Vec<Way<'_>> = Vec::new();
    let mut sorted: Vec<&PairRow> = rows.iter().collect();
    sorted.sort_by(|a, b| a.nodes.cmp(&b.nodes));
    for row in sorted {
        match ways.last_mut().filter(|w| *w.nodes == row.nodes) {
            Some(way) => {
                way.bytes_per_s = way.bytes_per_s.min(row.bytes_per_s);
                way.latency_s = way.latency_s.max(row.latency_s);
                way.share = way.bytes_per_s / middle;
                way.times += 1;
                way.wrong = way.wrong.saturating_add(row.wrong);
            }
            None => ways.push(Way {
                nodes: &row.nodes,
                bytes_per_s: row.bytes_per_s,
                latency_s: row.latency_s,
                share: row.bytes_per_s / middle,
                times: 1,
                wrong: row.wrong,
            }),
        }
    }
    ways.sort_by(|a, b| a.bytes_per_s.total_cmp(&b.bytes_per_s));
    ways
}

/// All of it in one sentence, with when it was where no time stands beside it.
pub fn sentence(when: Option<When>, rows: &[PairRow]) -> String {
    let ways = ways(rows);
    let Some(slowest) = ways.first() else {
        return "no two nodes were measured with each other".to_owned();
    };
    let rate = |rate| human(rate, Unit::BytePerSecond);
    let middle = median(rows.iter().map(|r| r.bytes_per_s)).unwrap_or(f64::NAN);
    let latency = median(rows.iter().map(|r| r.latency_s)).unwrap_or(f64::NAN);
    let wrong = rows.iter().filter(|r| r.wrong > 0).count();
    let wrong = match wrong {
        0 => String::new(),
        some => format!(
            "; {} got floats otherwise than they were sent",
            words::counted(some, "pair", "pairs")
        ),
    };
    let when = when.map_or_else(String::new, |when| format!(" {when}"));
    format!(
        "{} measured{when}: median {} each way and {}; the slowest, {} with {}, {} ({:.2} × the median){wrong}",
        words::counted(ways.len(), "pair of nodes", "pairs of nodes"),
        rate(middle),
        human(latency, Unit::Second),
        clean(&slowest.nodes[0]),
        clean(&slowest.nodes[1]),
        rate(slowest.bytes_per_s),
        slowest.share
    )
}
