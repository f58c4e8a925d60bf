//! Sensor threads: each reads its sensor at a dithered period and hands over batches of rows.
//!
//! The dither keeps a sampler from locking to a periodic load. A read that hangs keeps only its own
//! thread; the missing rows then count against coverage.

use crate::clock::{self, RunClock};
use crate::run::Input;
use crate::sensor::{Description, Reading, Sensor, Trouble};
use crate::shell::inbox::Inlet;
use hallmark_results::frame::{Samples, What};
use hallmark_results::stats::bootstrap::SplitMix64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Rows are handed over at least this often.
const BATCH_NS: u64 = 400_000_000;

/// The sensors while a run lasts.
pub struct Probes {
    stop: Arc<AtomicBool>,
}

/// A sensor and the table it fills.
pub struct Probe {
    pub table: u32,
    /// The planned device that the table belongs to; its events are that device's.
    pub device: Option<u32>,
    pub period_ns: u64,
    pub description: Description,
    pub sensor: Box<dyn Sensor>,
}

impl Probes {
    /// Starts one thread for each probe.
    pub fn start(probes: Vec<Probe>, clock: RunClock, seed: u64, inputs: &Inlet) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        for probe in probes {
            let stop = Arc::clone(&stop);
            let inputs = inputs.clone();
            let random = SplitMix64::new(seed ^ u64::from(probe.table).rotate_left(40));
            // Not joined: a driver call that never returns must not keep the run from ending.
            std::thread::spawn(move || {
                sample(probe, clock, random, &stop, &inputs);
            });
        }
        Self { stop }
    }

    /// Asks all threads to end after their current read.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Rows of one table that have not been handed over.
pub struct Batch {
    samples: Samples,
    begun_ns: u64,
    /// When reads began to fail, and why.
    trouble: Option<(u64, String)>,
    /// Rows that the run had no room for since then.
    refused: Option<(u64, usize)>,
}

impl Batch {
    pub fn new(table: u32, columns: usize) -> Self {
        Self {
            samples: Samples {
                table,
                at_ns: Vec::new(),
                columns: vec![Vec::new(); columns],
            },
            begun_ns: 0,
            trouble: None,
            refused: None,
        }
    }

    /// Offers rows to a run that may be too busy to take them; gives the gap that ends when it takes rows again.
    fn hand_over(&mut self, samples: Samples, inputs: &Inlet) -> Option<What> {
        let rows = samples.at_ns.len();
        let from_ns = samples.at_ns.first().copied().unwrap_or(0);
        let table = samples.table;
        if !inputs.offer(Input::Samples(samples)) {
            self.refused.get_or_insert((from_ns, 0)).1 += rows;
            return None;
        }
        let (from_ns, rows) = self.refused.take()?;
        let reason = format!("the run was too busy to take {rows} rows");
        Some(What::Gap {
            table,
            from_ns,
            reason,
        })
    }

    /// Takes a reading; gives events to journal.
    pub fn add(&mut self, at_ns: u64, reading: Reading) -> Vec<What> {
        let mut events = reading.events;
        match (reading.trouble, self.trouble.take()) {
            (Some(trouble), before) => {
                let (Trouble::Failed(why) | Trouble::Lost(why)) = trouble;
                self.trouble = Some(before.unwrap_or((at_ns, why)));
            }
            (None, Some((from_ns, reason))) => events.push(What::Gap {
                table: self.samples.table,
                from_ns,
                reason,
            }),
            (None, None) => {}
        }
        if self.samples.at_ns.is_empty() {
            self.begun_ns = at_ns;
        }
        self.samples.at_ns.push(at_ns);
        let values = reading
            .values
            .into_iter()
            .chain(std::iter::repeat(f64::NAN));
        for (column, value) in self.samples.columns.iter_mut().zip(values) {
            column.push(value);
        }
        events
    }

    /// The rows so far, if it is time to hand them over.
    pub fn take(&mut self, now_ns: u64, all: bool) -> Option<Samples> {
        let due = all || now_ns.saturating_sub(self.begun_ns) >= BATCH_NS;
        if self.samples.at_ns.is_empty() || !due {
            return None;
        }
        let empty = Self::new(self.samples.table, self.samples.columns.len()).samples;
        Some(std::mem::replace(&mut self.samples, empty))
    }

    /// The gap that is still open at the end.
    pub fn open_gap(&mut self) -> Option<What> {
        let (from_ns, reason) = self.trouble.take()?;
        Some(What::Gap {
            table: self.samples.table,
            from_ns,
            reason,
        })
    }
}

/// When the next sample is due: the period, dithered by ±10 %.
pub fn next_due(due_ns: u64, now_ns: u64, period_ns: u64, random: &mut SplitMix64) -> u64 {
    let dithered = (period_ns as f64 * (0.9 + 0.2 * random.unit())) as u64;
    // A sensor slower than its period skips samples rather than piling them up; coverage shows it.
    (due_ns + dithered).max(now_ns)
}

fn sample(
    mut probe: Probe,
    clock: RunClock,
    mut random: SplitMix64,
    stop: &AtomicBool,
    inputs: &Inlet,
) {
    let mut batch = Batch::new(probe.table, probe.description.series.len());
    let mut due = clock.now_ns();
    while !stop.load(Ordering::Relaxed) {
        let now = clock.now_ns();
        if now < due {
            clock::sleep(Duration::from_nanos((due - now).min(100_000_000)));
            continue;
        }
        let reading = probe.sensor.read(now);
        let after = clock.now_ns();
        // The middle of the read is the best single instant for values fetched one after the other.
        for what in batch.add(now + (after - now) / 2, reading) {
            if inputs.send(Input::Event(what, probe.device)).is_err() {
                return;
            }
        }
        let rows = batch.take(after, false);
        if let Some(gap) = rows.and_then(|rows| batch.hand_over(rows, inputs)) {
            // Where there is no room for it, coverage still shows the rows that are missing.
            let _ = inputs.offer(Input::Event(gap, None));
        }
        due = next_due(due, after, probe.period_ns, &mut random);
    }
    if let Some(samples) = batch.take(u64::MAX, true) {
        let _ = inputs.send(Input::Samples(samples));
    }
    if let Some(gap) = batch.open_gap() {
        let _ = inputs.send(Input::Event(gap, probe.device));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::inbox::{self, INPUTS_MAX};

    #[test]
    fn rows_that_a_busy_run_had_no_room_for_are_counted_and_told_as_a_gap() {
        let (inlet, run) = inbox::open();
        while inlet.offer(Input::Interrupt) {}
        let mut batch = Batch::new(3, 1);
        let rows = |batch: &mut Batch, at_ns: u64| {
            batch.add(at_ns, Reading::default());
            let rows = batch.take(u64::MAX, true).unwrap();
            batch.hand_over(rows, &inlet)
        };
        assert_eq!(rows(&mut batch, 10), None);
        assert_eq!(rows(&mut batch, 20), None);
        assert_eq!(run.try_iter().take(INPUTS_MAX).count(), INPUTS_MAX);
        let gap = What::Gap {
            table: 3,
            from_ns: 10,
            reason: "the run was too busy to take 2 rows".to_owned(),
        };
        assert_eq!(rows(&mut batch, 30), Some(gap));
        assert_eq!(rows(&mut batch, 40), None);
    }
}
