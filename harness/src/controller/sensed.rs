//! What a node may tell of itself beside rows: what its sensors found, lacked and saw.
//!
//! All else is the run's own to say: a node that told of segments, groups or another's faults would write the record of
//! all. It is refused, as is a word longer than any sensor's, and more of what is kept for good than any node has to tell:
//! its certificate makes no node honest, and the run has room for all of them.

use crate::protocol::FromWorker;
use hallmark_results::frame::{FaultKind, What};
use std::collections::BTreeSet;

/// Letters of one word at most.
const LETTERS_MAX: usize = 64 << 10;
/// Of what a worker says of a fault, no more is kept.
const FAULT_MAX: usize = 4 << 10;
/// Tables of one node at most; what it found or lacks; codes of errors.
pub const TABLES_MAX: usize = 4_096;
const FOUND_MAX: usize = 16_384;
const CODES_MAX: usize = 256;

/// What a node has told that is not told together with others of its kind.
#[derive(Default)]
pub struct Told {
    found: usize,
    codes: BTreeSet<u64>,
}

impl Told {
    /// Takes note of an event.
    ///
    /// # Errors
    /// One sentence, where it is one of too many.
    pub fn take(&mut self, what: &What, node: &str) -> Result<(), String> {
        match what {
            What::Xid { code, .. } => _ = self.codes.insert(*code),
            what if what.kin().is_none() => self.found += 1,
            _ => {}
        }
        if self.found > FOUND_MAX || self.codes.len() > CODES_MAX {
            return Err(format!(
                "node `{node}` tells of more than {FOUND_MAX} things that it found or lacks, or {CODES_MAX} codes of errors"
            ));
        }
        Ok(())
    }
}

/// Cuts what a worker says of what went wrong to what anybody reads.
pub fn shorten(report: &mut FromWorker) {
    match report {
        FromWorker::Mismatch { detail, .. }
        | FromWorker::SelfTest { detail, .. }
        | FromWorker::Fault { detail, .. } => cut(detail),
        FromWorker::Broken { why, .. } => cut(why),
        _ => {}
    }
}

/// Cuts a word to what anybody reads of a fault.
pub fn cut(word: &mut String) {
    word.truncate(word.floor_char_boundary(FAULT_MAX));
}

/// An event as the record of all has it; refused where it is none of a sensor.
///
/// # Errors
/// One sentence.
pub fn event(what: What, device: Option<u32>, node: &str) -> Result<What, String> {
    let long = match &what {
        What::Gap { reason, .. } => reason.len(),
        What::Xid { detail, .. } => detail.len(),
        What::AsFound { key, value } => key.len() + value.len(),
        What::Absent { what, why, remedy } => what.len() + why.len() + remedy.len(),
        What::Fault {
            kind: FaultKind::Sensor,
            detail,
        } => detail.len(),
        _ => return Err(format!("node `{node}` tells what is not a node's to tell")),
    };
    if long > LETTERS_MAX {
        return Err(format!("node `{node}` tells of a sensor in {long} letters"));
    }
    // A device says whose it is, and what is compared between devices has one name.
    Ok(match device {
        Some(_) => what,
        None => named(what, node),
    })
}

/// What a node tells of itself bears its name.
fn named(what: What, node: &str) -> What {
    match what {
        What::AsFound { key, value } => What::AsFound {
            key: format!("{node}: {key}"),
            value,
        },
        What::Absent { what, why, remedy } => What::Absent {
            what: format!("{node}: {what}"),
            why,
            remedy,
        },
        what => what,
    }
}

/// Devices that a worker's report is about, beside the one that sends it.
pub fn also_of(report: &FromWorker) -> &[u32] {
    match report {
        FromWorker::Steps(steps) => std::slice::from_ref(&steps.device),
        FromWorker::Broken { missing, .. } => missing,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hallmark_results::frame::PairRow;

    #[test]
    fn a_devices_setting_keeps_its_name_and_a_nodes_bears_the_nodes() {
        let found = || What::AsFound {
            key: "vbios".to_owned(),
            value: "96.00".to_owned(),
        };
        assert_eq!(event(found(), Some(3), "n1"), Ok(found()));
        let of_node = event(found(), None, "n1").unwrap();
        assert!(matches!(of_node, What::AsFound { key, .. } if key == "n1: vbios"));
    }

    #[test]
    fn a_node_that_never_ends_telling_is_refused_and_what_may_go_on_is_not() {
        let xid = |code| What::Xid {
            code,
            detail: String::new(),
        };
        let mut told = Told::default();
        for _ in 0..100_000 {
            told.take(&xid(79), "n1").unwrap();
        }
        let codes = (0..1_000).find(|c| told.take(&xid(*c), "n1").is_err());
        assert_eq!(codes, Some(CODES_MAX as u64));
        let mut told = Told::default();
        let found = What::AsFound {
            key: "vbios".to_owned(),
            value: String::new(),
        };
        let taken = (0..100_000).take_while(|_| told.take(&found, "n1").is_ok());
        assert_eq!(taken.count(), FOUND_MAX);
        let mut long = FromWorker::Fault {
            kind: FaultKind::Device,
            detail: "ä".repeat(FAULT_MAX),
        };
        shorten(&mut long);
        assert!(matches!(long, FromWorker::Fault { detail, .. } if detail.len() == FAULT_MAX));
    }

    #[test]
    fn what_is_the_runs_to_say_is_refused_of_a_node() {
        let nan = PairRow {
            nodes: ["n1".to_owned(), "n2".to_owned()],
            bytes: 1,
            bytes_per_s: f64::NAN,
            latency_s: 1.0,
            wrong: 0,
            round: 0,
        };
        let fault = |kind| What::Fault {
            kind,
            detail: String::new(),
        };
        for what in [
            What::Segment { index: 0 },
            What::Pairs { rows: vec![nan] },
            What::Regrouped {
                generation: 9,
                members: vec![0],
                stalled_ns: 0,
            },
            fault(FaultKind::Silent),
        ] {
            assert!(event(what.clone(), None, "n1").is_err(), "{what:?}");
        }
        assert!(event(fault(FaultKind::Sensor), None, "n1").is_ok());
        let long = What::Absent {
            what: String::new(),
            why: "w".repeat(LETTERS_MAX + 1),
            remedy: String::new(),
        };
        assert!(event(long, None, "n1").is_err());
    }
}
