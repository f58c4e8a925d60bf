//! What a simulated device is doing: the step in hand, and how busy it was since the last look.
//!
//! A step's own work is known when it starts; when it ends may only be known once all ranks have come. Until then
//! a rank that is done waits, which is what a collective's kernel does: it spins.

use super::device::{Busy, REDUCING, STREAMING};

/// The step in hand.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub start_ns: u64,
    /// Its kernels begin this much later: a late launch.
    pub delay_ns: u64,
    /// End of matmuls, or of copies where it has none.
    pub compute_ns: u64,
    /// End of its own work, an optimizer of its own included.
    pub own_ns: u64,
    /// It only copies.
    pub copies: bool,
    /// Optimizer at its end, ns.
    pub optimizer_ns: u64,
}

/// A device's work.
#[derive(Clone, Copy, Debug, Default)]
pub struct Task {
    pub step: Option<Step>,
    /// What was before this has been credited.
    credited_ns: u64,
    compute_ns: u64,
    reduce_ns: u64,
    stream_ns: u64,
}

impl Task {
    pub fn begin(&mut self, step: Step) {
        self.credited_ns = self.credited_ns.max(step.start_ns);
        self.step = Some(step);
    }

    /// The step in hand is over.
    pub fn end(&mut self, end_ns: u64) {
        self.credit(end_ns, Some(end_ns));
        self.step = None;
    }

    fn credit(&mut self, to_ns: u64, end_ns: Option<u64>) {
        let from_ns = self.credited_ns;
        let Some(step) = self.step.filter(|_| to_ns > from_ns) else {
            return;
        };
        let within = |a: u64, b: u64| b.min(to_ns).saturating_sub(a.max(from_ns));
        let first = within(step.start_ns + step.delay_ns, step.compute_ns);
        if step.copies {
            self.stream_ns += first;
        } else {
            self.compute_ns += first;
        }
        // An optimizer of its own ends the step; that of a group comes after its all-reduce.
        let own = step.own_ns.saturating_sub(step.compute_ns);
        let last_ns = end_ns.map_or(u64::MAX, |e| {
            e.saturating_sub(step.optimizer_ns - own.min(step.optimizer_ns))
        });
        self.stream_ns += within(step.compute_ns, step.own_ns);
        self.reduce_ns += within(step.own_ns, last_ns.max(step.own_ns));
        self.stream_ns += end_ns.map_or(0, |end| within(last_ns.max(step.own_ns), end));
        self.credited_ns = to_ns;
    }

    /// How busy it was in the `dt_ns` until now.
    pub fn take(&mut self, now_ns: u64, dt_ns: u64) -> Busy {
        self.credit(now_ns, None);
        let share = |ns: u64| (ns as f64 / dt_ns.max(1) as f64).min(1.0);
        let busy = Busy {
            compute: share(self.compute_ns),
            reduce: share(self.reduce_ns),
            stream: share(self.stream_ns),
        };
        (self.compute_ns, self.reduce_ns, self.stream_ns) = (0, 0, 0);
        busy
    }

    /// Switching power at this instant, relative to full matmuls.
    #[must_use]
    pub fn switching(&self, now_ns: u64) -> f64 {
        match self.step {
            None => 0.0,
            Some(s) if now_ns < s.start_ns + s.delay_ns => 0.0,
            Some(s) if now_ns < s.compute_ns && s.copies => STREAMING,
            Some(s) if now_ns < s.compute_ns => 1.0,
            Some(s) if now_ns < s.own_ns => STREAMING,
            Some(_) => REDUCING,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nanosecond_of_a_step_is_credited_once_whenever_one_looks() {
        let step = Step {
            start_ns: 1_000,
            delay_ns: 100,
            compute_ns: 1_600,
            own_ns: 1_600,
            copies: false,
            optimizer_ns: 200,
        };
        for look in [1_050, 1_300, 1_700, 1_950] {
            let mut task = Task::default();
            task.begin(step);
            let first = task.take(look, 1_000);
            task.end(2_000);
            let second = task.take(2_000, 1_000);
            let sum = |part: fn(Busy) -> f64| part(first) + part(second);
            assert!((sum(|b| b.compute) - 0.5).abs() < 1e-9, "{look}");
            let rest = sum(|b| b.reduce) + sum(|b| b.stream);
            assert!((rest - 0.4).abs() < 1e-9, "{look}: {rest}");
            assert!((sum(|b| b.stream) - 0.2).abs() < 0.16, "{look}");
        }
    }

    #[test]
    fn a_device_between_steps_is_idle() {
        let mut task = Task::default();
        assert_eq!(task.take(500, 500), Busy::default());
        assert!(task.switching(500).abs() < 1e-12);
    }
}
