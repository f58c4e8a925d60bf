//! What goes into the record: checked against the same shape as the journal's, numbered, and counted
//! where it happens over and over.
//!
//! A sensor or worker that contradicts itself is a fault of its own, told once and set aside: it keeps no
//! later frame out. Nothing is put right silently.

use super::{Output, Run};
use hallmark_results::frame::{Event, FaultKind, Frame, Samples, Table, What};
use hallmark_results::standing::Standing;
use hallmark_results::store::shape::{NAME_MAX, Shape};
use std::collections::BTreeMap;

/// The declarations that an account holds already.
pub fn shape(standing: &Standing) -> Shape {
    let mut shape = Shape::default();
    let opened = Frame::Opened(Box::new(standing.opened().clone()));
    let tables = standing
        .tables()
        .iter()
        .map(|t| Frame::Table(t.table.clone()));
    for frame in std::iter::once(opened).chain(tables) {
        // The account holds nothing that was not checked when it was made.
        let _ = shape.check(&frame);
    }
    shape
}

/// Numbers of the tables, by name, that a run had before it was cut off.
pub fn before(standing: &Standing) -> BTreeMap<String, u32> {
    let tables = standing.tables().iter();
    tables.map(|t| (t.table.name.clone(), t.table.id)).collect()
}

impl Run {
    /// Takes a frame into account and has it journalled; false where it is refused, which is then a fault in the record.
    pub(super) fn push(&mut self, frame: Frame, now_ns: u64) -> bool {
        let checked = self.shape.check(&frame).map_err(|e| e.to_string());
        let taken = checked.and_then(|()| self.standing.push(&frame).map_err(|e| e.to_string()));
        match taken {
            Ok(()) => {
                self.outputs.push(Output::Journal(frame));
                true
            }
            Err(detail) => {
                let kind = FaultKind::Sensor;
                self.event(now_ns, None, What::Fault { kind, detail });
                false
            }
        }
    }

    pub(super) fn event(&mut self, at_ns: u64, device: Option<u32>, what: What) {
        let event = Event {
            at_ns,
            device,
            what,
        };
        if let Some(event) = self.tally.take(event, at_ns) {
            self.tell(event);
        }
    }

    /// Tells what was counted meanwhile, where it is due.
    pub(super) fn tell_counts(&mut self, now_ns: u64, all: bool) {
        for event in self.tally.due(now_ns, all) {
            self.tell(event);
        }
    }

    fn tell(&mut self, event: Event) {
        let frame = Frame::Event(event);
        if self.shape.check(&frame).is_ok() && self.standing.push(&frame).is_ok() {
            self.outputs.push(Output::Journal(frame));
        }
    }

    /// Declares a table under the next free number; one that the run had before it was cut off under that of then. Where
    /// it has changed its form since, it gets a name of its own: a sealed record has one file for each.
    pub(super) fn table(&mut self, mut table: Table, now_ns: u64) {
        let asked = table.id;
        let free = self.standing.tables().len() as u32;
        let before = self.before.remove(&table.name);
        table.id = before.unwrap_or(free);
        let before = before.and_then(|id| self.standing.tables().get(id as usize));
        if before.is_some_and(|t| t.table != table) {
            table.id = free;
            let ending = format!("-{free}");
            let kept = NAME_MAX.saturating_sub(ending.len());
            table.name = table
                .name
                .chars()
                .take(kept)
                .chain(ending.chars())
                .collect();
        }
        let id = table.id;
        let taken = self.push(Frame::Table(table), now_ns);
        self.tables.insert(asked, taken.then_some(id));
    }

    /// Takes rows; those of a table that was refused have nowhere to go, and the record says so once.
    pub(super) fn samples(&mut self, mut samples: Samples, now_ns: u64) {
        match self.tables.get(&samples.table) {
            Some(None) => return,
            Some(Some(id)) => samples.table = *id,
            // Not declared: the shape refuses it, and says so.
            None => {}
        }
        self.push(Frame::Samples(samples), now_ns);
    }

    /// Takes what a sensor tells beside its rows.
    pub(super) fn sensed(&mut self, mut what: What, device: Option<u32>, now_ns: u64) {
        if let What::Gap { table, .. } = &mut what {
            match self.tables.get(table) {
                Some(None) => return,
                Some(Some(id)) => *table = *id,
                None => {}
            }
        }
        self.event(now_ns, device, what);
    }
}
