//! The load driver of one device: decides at each instant whether to queue, to retire or to wait.
//!
//! A state machine without a clock: time comes in as an argument, and its answer is the next act.
//! A closed loop keeps a fixed number of steps queued. In an open loop (a pulse) the due times come
//! from the order and never move. Ranks that belong together stop after the same step: each rank's
//! wish to stop travels with the steps, and the step that first carries one fixes the last for all.

use crate::protocol::Order;
use hallmark_kernels::work::{StepDone, Submission, Work};
use hallmark_results::frame::{OpRow, StepRow, TrialRow};

/// Steps that carry a wish to stop and bring no vote back, not even this rank's own, before it stops alone.
const ALONE: u64 = 16;

/// What the shell has to do next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Act {
    /// Queue this step.
    Submit(Submission),
    /// Wait for the oldest step in flight.
    Retire,
    /// Do nothing until then, or until a message comes.
    Wait { until_ns: u64 },
    /// The order is done: report it. Said once.
    Done {
        segment: u32,
        next_seq: u64,
        broken: bool,
    },
}

/// The driver's state.
pub struct Driver {
    depth: u64,
    active: Option<Active>,
}

struct Active {
    order: Order,
    /// Number of the next step to queue.
    next: u64,
    /// Steps queued and not retired.
    in_flight: u64,
    /// Last step of the group, once it is known.
    last: Option<u64>,
    stop: bool,
    /// First step that carries this rank's own wish to stop.
    wished: Option<u64>,
    broken: bool,
    /// End of the latest step, and so the due time of its successor in closed loop.
    predecessor_end_ns: Option<u64>,
    started_ns: u64,
    pulse: Option<Wave>,
}

/// A square wave of load on the run clock.
struct Wave {
    period_ns: u64,
    high_ns: u64,
    depth: f64,
    /// Length of the latest step, for the share of time that the low part works.
    step_ns: u64,
    /// In the low part: no step before this.
    rest_until_ns: u64,
    /// Cycle whose first step has been queued.
    begun_cycle: Option<u64>,
    /// Due times of the steps in flight that begin a cycle.
    due: std::collections::VecDeque<(u64, u64)>,
}

impl Driver {
    /// `depth`: steps kept queued.
    pub fn new(depth: u32) -> Self {
        Self {
            depth: u64::from(depth.max(1)),
            active: None,
        }
    }

    /// Begins an order; the previous one must be done.
    pub fn start(&mut self, order: Order, now_ns: u64) {
        let pulse = order.pulse.map(|p| {
            let period = 1e9 / p.frequency.value.max(1e-6);
            Wave {
                period_ns: period as u64,
                high_ns: (period * p.duty) as u64,
                depth: p.depth,
                step_ns: 0,
                rest_until_ns: 0,
                begun_cycle: None,
                due: std::collections::VecDeque::new(),
            }
        });
        self.active = Some(Active {
            next: order.first_seq,
            in_flight: 0,
            last: None,
            stop: false,
            wished: None,
            broken: false,
            predecessor_end_ns: None,
            started_ns: now_ns.max(order.from_ns),
            pulse,
            order,
        });
    }

    /// Asks to end the current order in good order.
    pub fn stop(&mut self) {
        if let Some(active) = &mut self.active {
            active.stop = true;
        }
    }

    /// The current order's segment.
    pub fn segment(&self) -> Option<u32> {
        self.active.as_ref().map(|a| a.order.segment)
    }

    /// Index of the step of the current order.
    pub fn step(&self) -> Option<usize> {
        self.active.as_ref().map(|a| a.order.step)
    }

    /// What to do now.
    pub fn poll(&mut self, now_ns: u64) -> Act {
        let depth = self.depth;
        let Some(active) = &mut self.active else {
            return Act::Wait { until_ns: u64::MAX };
        };
        let finished = active.finished(now_ns);
        if finished && active.in_flight == 0 {
            let done = Act::Done {
                segment: active.order.segment,
                next_seq: active.next,
                broken: active.broken,
            };
            self.active = None;
            return done;
        }
        let rest = active.rest(now_ns);
        if !finished && active.in_flight < depth && rest.is_none() {
            return active.submit(now_ns);
        }
        match rest {
            Some(until_ns) if active.in_flight == 0 => Act::Wait {
                until_ns: until_ns.min(active.order.until_ns),
            },
            _ => Act::Retire,
        }
    }

    /// Takes a completed step into account and gives its row, with times on the run clock.
    pub fn retired(
        &mut self,
        done: &StepDone,
        at: impl Fn(u64) -> u64,
    ) -> Option<(StepRow, Vec<OpRow>, Vec<TrialRow>)> {
        let depth = self.depth;
        let active = self.active.as_mut()?;
        active.in_flight = active.in_flight.saturating_sub(1);
        let (start_ns, end_ns) = (at(done.start_ns), at(done.end_ns));
        if done.stop_votes > 0 && active.last.is_none() {
            active.last = Some(done.seq + depth);
        }
        if done.stop_votes == 0 && active.wished.is_some_and(|first| done.seq >= first + ALONE) {
            // Not even its own vote is counted: there is no group to finish together with.
            active.last.get_or_insert(active.next.saturating_sub(1));
        }
        if done.collective_fault.is_some() {
            active.broken = true;
        }
        // The fit of a device's clock may put the predecessor's end a little late; no step ends before it is due.
        let due_ns = active.due(done.seq, start_ns).min(end_ns);
        active.predecessor_end_ns = Some(end_ns);
        if let Some(wave) = &mut active.pulse {
            wave.step_ns = end_ns.saturating_sub(start_ns);
            let share = wave.depth / (1.0 - wave.depth).max(1e-3);
            wave.rest_until_ns = end_ns + (wave.step_ns as f64 * share) as u64;
        }
        let mut row = StepRow {
            seq: done.seq,
            segment: active.order.segment,
            due_ns,
            start_ns,
            end_ns,
            audited: done.audited,
            audited_flop: done.audited_flop,
            skew_ns: done.arrival_skew_ns,
            ..StepRow::default()
        };
        let (ops, trials) = add_spans(&mut row, done, at);
        Some((row, ops, trials))
    }
}

/// Sums the spans of a step into its row and lists its all-reduces, those of a sweep apart.
fn add_spans(
    row: &mut StepRow,
    done: &StepDone,
    at: impl Fn(u64) -> u64,
) -> (Vec<OpRow>, Vec<TrialRow>) {
    let (mut ops, mut trials) = (Vec::new(), Vec::new());
    for span in &done.spans {
        let length = span.end_ns.saturating_sub(span.start_ns);
        match span.work {
            Work::Matmul => {
                row.compute_ns += length;
                row.flop += span.amount;
            }
            Work::AllReduce => {
                row.reduce_ns += length;
                row.reduced_bytes += span.amount as u64;
                ops.push(OpRow {
                    seq: done.seq,
                    start_ns: at(span.start_ns),
                    end_ns: at(span.end_ns),
                    bytes: span.amount as u64,
                });
            }
            Work::Optimizer => row.optimizer_ns += length,
            Work::Copy | Work::Triad => {
                row.memory_ns += length;
                row.memory_bytes += span.amount as u64;
            }
            Work::Trial(trial) => {
                row.reduce_ns += length;
                row.reduced_bytes += span.amount as u64;
                trials.push(TrialRow {
                    seq: done.seq,
                    index: trial.index,
                    bytes: span.amount as u64,
                    in_place: trial.in_place,
                    warm_up: trial.warm_up,
                    due_ns: at(trial.due_ns),
                    start_ns: at(span.start_ns),
                    arrived_ns: at(trial.arrived_ns),
                    end_ns: at(span.end_ns),
                    wrong: trial.wrong,
                });
            }
            Work::Audit => {}
        }
    }
    row.gemms = done.gemms;
    (ops, trials)
}

impl Active {
    /// Nothing more is to be queued.
    fn finished(&self, now_ns: u64) -> bool {
        let over = self.stop || now_ns >= self.order.until_ns;
        match self.last {
            _ if self.broken => true,
            Some(last) => self.next > last,
            None => over && !self.order.coupled,
        }
    }

    fn submit(&mut self, now_ns: u64) -> Act {
        let seq = self.next;
        self.next += 1;
        self.in_flight += 1;
        let stop = self.stop || now_ns >= self.order.until_ns;
        if stop {
            self.wished.get_or_insert(seq);
        }
        if let Some(wave) = &mut self.pulse {
            let since = now_ns.saturating_sub(self.started_ns);
            let cycle = since / wave.period_ns.max(1);
            if wave.begun_cycle != Some(cycle) {
                wave.begun_cycle = Some(cycle);
                wave.due
                    .push_back((seq, self.started_ns + cycle * wave.period_ns));
            }
        }
        Act::Submit(Submission {
            seq,
            parts: self.order.parts,
            stop,
        })
    }

    /// Before the order's begin, and in a pulse: when the next step may be queued, if not now.
    fn rest(&self, now_ns: u64) -> Option<u64> {
        if now_ns < self.started_ns {
            return Some(self.started_ns);
        }
        let wave = self.pulse.as_ref()?;
        let since = now_ns.saturating_sub(self.started_ns);
        let in_cycle = since % wave.period_ns.max(1);
        if in_cycle < wave.high_ns {
            return None;
        }
        let next_cycle = now_ns + (wave.period_ns - in_cycle);
        if wave.depth >= 1.0 {
            return Some(next_cycle);
        }
        let rest = wave.rest_until_ns.min(next_cycle);
        // In the low part one step at a time, so that the rest between them is a rest.
        (now_ns < rest || self.in_flight > 0).then_some(rest.max(now_ns + 1))
    }

    fn due(&mut self, seq: u64, start_ns: u64) -> u64 {
        if let Some(wave) = &mut self.pulse {
            if wave.due.front().is_some_and(|(first, _)| *first == seq) {
                return wave
                    .due
                    .pop_front()
                    .map_or(start_ns, |(_, due)| due.min(start_ns));
            }
            return start_ns;
        }
        self.predecessor_end_ns.unwrap_or(start_ns).min(start_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hallmark_kernels::timer::Timer;
    use hallmark_profiles::profile::Pulse;
    use hallmark_profiles::quantity::Quantity;
    use hallmark_profiles::units::Unit;
    use hallmark_profiles::workload::Parts;

    const PARTS: Parts = Parts {
        gemms: true,
        buckets: true,
        optimizer: true,
        memory: false,
        within_node: false,
    };

    fn order(coupled: bool, until_ns: u64) -> Order {
        Order {
            segment: 3,
            step: 0,
            parts: PARTS,
            from_ns: 0,
            until_ns,
            coupled,
            first_seq: 100,
            pulse: None,
        }
    }

    fn done(seq: u64, start_ns: u64, end_ns: u64, stop_votes: u32) -> StepDone {
        StepDone {
            seq,
            start_ns,
            end_ns,
            timer: Timer::HostClock,
            spans: Vec::new(),
            gemms: 1,
            audited: 0,
            audited_flop: 0.0,
            mismatches: Vec::new(),
            stop_votes,
            collective_fault: None,
            missing_ranks: Vec::new(),
            arrival_skew_ns: 0,
            self_test: None,
        }
    }

    /// Drives a device that takes `step_ns` for each step, one at a time, and gives the steps done.
    fn simulate(
        driver: &mut Driver,
        step_ns: u64,
        votes: impl Fn(u64, bool) -> u32,
    ) -> Vec<StepRow> {
        let (mut now, mut free_at, mut rows) = (0_u64, 0_u64, Vec::new());
        let mut queue = std::collections::VecDeque::new();
        loop {
            match driver.poll(now) {
                Act::Submit(s) => {
                    let start = free_at.max(now);
                    free_at = start + step_ns;
                    queue.push_back((s, start, free_at));
                    assert!(queue.len() <= 3, "more than the depth is queued");
                }
                Act::Retire => {
                    let (s, start, end) = queue.pop_front().unwrap();
                    now = now.max(end);
                    let step = done(s.seq, start, end, votes(s.seq, s.stop));
                    rows.extend(driver.retired(&step, |t| t).map(|r| r.0));
                }
                Act::Wait { until_ns } => now = until_ns,
                Act::Done { .. } => return rows,
            }
        }
    }

    #[test]
    fn an_order_for_later_waits_for_its_time_and_a_stop_does_not() {
        let mut driver = Driver::new(2);
        let later = Order {
            from_ns: 500,
            ..order(false, 1000)
        };
        driver.start(later.clone(), 100);
        assert_eq!(driver.poll(100), Act::Wait { until_ns: 500 });
        assert!(matches!(driver.poll(500), Act::Submit(_)));
        let mut driver = Driver::new(2);
        driver.start(later, 100);
        driver.stop();
        assert!(matches!(driver.poll(101), Act::Done { .. }));
    }

    #[test]
    fn a_closed_loop_never_leaves_the_device_empty() {
        let mut driver = Driver::new(3);
        driver.start(order(false, 1_000), 0);
        let rows = simulate(&mut driver, 10, |_, _| 0);
        assert!(rows.windows(2).all(|w| w[0].end_ns == w[1].start_ns));
        assert!(rows.windows(2).all(|w| w[1].due_ns == w[0].end_ns));
        assert!((100..=103).contains(&rows.len()), "{}", rows.len());
    }

    #[test]
    fn ranks_with_different_clocks_stop_after_the_same_step() {
        // One rank wants to stop early, the other late; both see the vote in the same step.
        let first_vote = 117;
        for until in [50, 400, 1_000_000] {
            let mut driver = Driver::new(3);
            driver.start(order(true, until), 0);
            let rows = simulate(&mut driver, 10, |seq, _| u32::from(seq >= first_vote));
            assert_eq!(rows.last().unwrap().seq, first_vote + 3);
        }
    }

    #[test]
    fn a_group_that_broke_queues_nothing_more() {
        let mut driver = Driver::new(2);
        driver.start(order(true, 1_000), 0);
        assert!(matches!(driver.poll(0), Act::Submit(_)));
        let mut step = done(100, 0, 5, 0);
        step.collective_fault = Some("rank 1 is gone".to_owned());
        driver.retired(&step, |t| t);
        assert_eq!(
            driver.poll(6),
            Act::Done {
                segment: 3,
                next_seq: 101,
                broken: true
            }
        );
        assert_eq!(driver.poll(7), Act::Wait { until_ns: u64::MAX });
    }

    #[test]
    fn a_pulse_works_for_its_duty_and_its_due_times_never_move() {
        let pulse = Pulse {
            frequency: Quantity::new(1e6, Unit::Hertz), // period 1,000 ns
            duty: 0.3,
            depth: 1.0,
        };
        let mut driver = Driver::new(2);
        let mut with_pulse = order(false, 20_000);
        with_pulse.pulse = Some(pulse);
        driver.start(with_pulse, 0);
        let rows = simulate(&mut driver, 10, |_, _| 0);
        let busy: u64 = rows.iter().map(|r| r.end_ns - r.start_ns).sum();
        let duty = busy as f64 / 20_000.0;
        assert!((duty - 0.3).abs() < 0.05, "{duty}");
        let firsts: Vec<_> = rows.iter().filter(|r| r.due_ns % 1_000 == 0).collect();
        assert!(firsts.len() >= 20, "{}", firsts.len());
    }

    #[test]
    fn a_shallow_pulse_still_works_a_little_in_its_low_part() {
        let pulse = Pulse {
            frequency: Quantity::new(1e6, Unit::Hertz),
            duty: 0.5,
            depth: 0.75,
        };
        let mut driver = Driver::new(2);
        let mut with_pulse = order(false, 50_000);
        with_pulse.pulse = Some(pulse);
        driver.start(with_pulse, 0);
        let rows = simulate(&mut driver, 10, |_, _| 0);
        let low: u64 = rows
            .iter()
            .filter(|r| r.start_ns % 1_000 >= 520)
            .map(|r| r.end_ns - r.start_ns)
            .sum();
        let share = low as f64 / (50_000.0 * 0.48);
        assert!((0.15..0.35).contains(&share), "{share}");
    }

    #[test]
    fn a_rank_without_a_group_stops_all_the_same() {
        let mut driver = Driver::new(3);
        driver.start(order(true, 1_000), 0);
        let mut now = 0;
        let mut steps = 0;
        loop {
            match driver.poll(now) {
                Act::Submit(_) => {}
                Act::Retire => {
                    // Nobody counts votes: a collective that is not there.
                    let seq = 100 + steps;
                    driver.retired(&done(seq, now, now + 100, 0), |t| t);
                    now += 100;
                    steps += 1;
                }
                Act::Done { broken, .. } => {
                    assert!(!broken);
                    break;
                }
                Act::Wait { until_ns } => panic!("waits until {until_ns}"),
            }
            assert!(steps < 60, "it goes on for ever");
        }
        // Two are queued when the wish begins, and three when it ends.
        assert!((10..=10 + ALONE + 5).contains(&steps), "{steps}");
    }

    #[test]
    fn a_stop_request_ends_an_uncoupled_order_at_once() {
        let mut driver = Driver::new(3);
        driver.start(order(false, u64::MAX), 0);
        assert!(matches!(driver.poll(0), Act::Submit(_)));
        driver.stop();
        assert_eq!(driver.poll(1), Act::Retire);
        driver.retired(&done(100, 0, 5, 0), |t| t);
        assert!(matches!(driver.poll(6), Act::Done { broken: false, .. }));
    }
}
