//! A sweep: all-reduces of one size after the other, out of place and in place, each result checked exactly.
//!
//! A step of a sweep is a visit to one size. Its warm-up tells how long an operation with its check takes, the ranks
//! agree on a pace by summing that, and from then on every operation has a due time that never moves: a rank that
//! comes late is late in the record. Every operation has data of its own, so that no earlier total can pass. The first
//! visit counts the ranks by a sum of ones and flips one bit of a total, which the check must see. Refuses to
//! leave a result unchecked, and to run without a group.

use crate::audit::{self, Stream};
use crate::backend::SelfTest;
use crate::collective::exact::{fill_exact, wrong_elements};
use crate::collective::{Collective, CollectiveError, Reduced};
use crate::timer::now_ns;
use crate::work::{Span, Trial, Work};
use hallmark_profiles::workload::{AuditSeed, StepSpec, Trials};
use std::time::Duration;

/// Payload that one visit moves at most, but for its first operation: steps stay short, so that a hang shows soon.
const VISIT_BYTES: u64 = 256 << 20;
/// Due times are this much further apart than the warm-up's operations took with their checks.
const SLACK: f32 = 1.5;
/// Least distance of due times, in ns.
const PACE_MIN: f32 = 20_000.0;
/// Waits longer than this sleep, shorter ones only give the core away.
const SLEEP_NS: u64 = 300_000;
/// Trials of one step have numbers below this.
const TRIALS_OF_STEP: u64 = 1 << 20;

/// A sweep over the buckets of a step, which are its sizes.
pub struct Sweep {
    visits: Vec<Visit>,
    seed: u64,
    audits: AuditSeed,
}

/// One size, on one way, so many times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Visit {
    bucket: usize,
    in_place: bool,
    /// At least one, which tells the pace.
    warm_up: u32,
    iterations: u32,
}

/// What a visit came to.
#[derive(Default)]
pub struct Visited {
    pub spans: Vec<Span>,
    pub mismatches: Vec<String>,
    pub skew_ns: u64,
    pub self_test: Option<SelfTest>,
}

/// An operation that is to be done.
#[derive(Clone, Copy)]
struct Asked {
    visit: Visit,
    /// Number of its data.
    data: u64,
    /// `None` for one of the warm-up.
    due_ns: Option<u64>,
    index: u32,
}

impl Sweep {
    /// The sweep of a step that is one.
    pub fn of(spec: &StepSpec) -> Option<Self> {
        let Trials {
            warm_up,
            iterations,
        } = spec.sweep?;
        let sizes = spec.buckets.iter().map(|b| b.bytes.0).enumerate();
        let visits = sizes.flat_map(|(bucket, bytes)| {
            [false, true].into_iter().flat_map(move |in_place| {
                let parts = parts(iterations, bytes).enumerate();
                parts.map(move |(part, iterations)| Visit {
                    bucket,
                    in_place,
                    // What is visited again at once is warm.
                    warm_up: if part == 0 { warm_up.max(1) } else { 1 },
                    iterations,
                })
            })
        });
        Some(Self {
            visits: visits.collect(),
            seed: spec.seed,
            audits: spec.audits(),
        })
    }

    /// Does the visit that is due in step `seq`; all ranks do the same one. `patience`: the longest wait for the others.
    ///
    /// # Errors
    /// As [`Collective::all_reduce`].
    pub fn visit(
        &self,
        group: &mut dyn Collective,
        seq: u64,
        patience: Duration,
    ) -> Result<Visited, CollectiveError> {
        let mut done = Visited::default();
        let step = seq & u64::from(u32::MAX);
        let count = self.visits.len().max(1) as u64;
        let Some(&visit) = self.visits.get((step % count) as usize) else {
            return Ok(done);
        };
        if step == 0 {
            count_ranks(group, patience, &mut done)?;
        }
        let first = seq.wrapping_mul(TRIALS_OF_STEP);
        let ask = |index: u32, due_ns| Asked {
            visit,
            data: first.wrapping_add(index.into()),
            due_ns,
            index,
        };
        let mut longest_ns = 0;
        for index in 0..visit.warm_up {
            let began_ns = now_ns();
            self.trial(group, ask(index, None), patience, &mut done)?;
            // The first operation touches memory that may be cold.
            if index > 0 || visit.warm_up == 1 {
                longest_ns = longest_ns.max(now_ns().saturating_sub(began_ns));
            }
            if step == 0 && index == 0 {
                let data = ask(index, None).data;
                done.self_test = Some(self.self_test(group, visit, data)?);
            }
        }
        let (start_ns, pace_ns) = agree(group, longest_ns, patience)?;
        for iteration in 0..visit.iterations {
            let due_ns = start_ns.saturating_add(pace_ns.saturating_mul(u64::from(iteration) + 1));
            let asked = ask(visit.warm_up + iteration, Some(due_ns));
            self.trial(group, asked, patience, &mut done)?;
        }
        Ok(done)
    }

    fn trial(
        &self,
        group: &mut dyn Collective,
        asked: Asked,
        patience: Duration,
        done: &mut Visited,
    ) -> Result<(), CollectiveError> {
        let Visit {
            bucket, in_place, ..
        } = asked.visit;
        let rank = group.rank();
        fill_exact(group.input(bucket)?, self.seed, rank, asked.data);
        if let Some(due_ns) = asked.due_ns {
            wait_until(due_ns);
        }
        let reduced = if in_place {
            group.all_reduce_in_place(bucket, patience)?
        } else {
            group.all_reduce(bucket, patience)?
        };
        let Reduced {
            started_ns,
            arrived_last_ns,
            ended_ns,
            bytes,
            ..
        } = reduced;
        let (wrong, why) = self.wrong(group, asked.visit, asked.data)?;
        if let Some(why) = why {
            let place = if in_place { "in place" } else { "out of place" };
            done.mismatches
                .push(format!("all-reduce of {bytes} B {place}: {why}"));
        }
        done.skew_ns += reduced.waited_ns();
        done.spans.push(Span {
            work: Work::Trial(Trial {
                index: asked.index,
                in_place,
                warm_up: asked.due_ns.is_none(),
                due_ns: asked.due_ns.unwrap_or(started_ns),
                arrived_ns: arrived_last_ns,
                wrong,
            }),
            start_ns: started_ns,
            end_ns: ended_ns,
            amount: bytes as f64,
        });
        Ok(())
    }

    /// Elements of this rank's total that are wrong, and what is to be said of them.
    fn wrong(
        &self,
        group: &mut dyn Collective,
        visit: Visit,
        data: u64,
    ) -> Result<(u64, Option<String>), CollectiveError> {
        let members = group.members().to_vec();
        let total = total(group, visit)?;
        let count = total.len() as u64;
        Ok(match wrong_elements(total, self.seed, &members, data) {
            Ok(0) => (0, None),
            Ok(wrong) => {
                let why = format!("{wrong} of {count} elements are not the exact sum");
                (wrong, Some(why))
            }
            // A total that cannot be checked is not right.
            Err(error) => (count, Some(error.to_string())),
        })
    }

    /// Flips one bit of the total that is there, and says whether the check that passed it sees it.
    fn self_test(
        &self,
        group: &mut dyn Collective,
        visit: Visit,
        data: u64,
    ) -> Result<SelfTest, CollectiveError> {
        let (wrong, _) = self.wrong(group, visit, data)?;
        let members = group.members().to_vec();
        let mut copy = total(group, visit)?.to_vec();
        let element = audit::hash(self.audits.0, Stream::Flip, 2, 0) as usize % copy.len().max(1);
        let bit = audit::hash(self.audits.0, Stream::Flip, 3, 0) % 32;
        if let Some(value) = copy.get_mut(element) {
            *value = f32::from_bits(value.to_bits() ^ (1 << bit));
        }
        let seen = wrong_elements(&copy, self.seed, &members, data);
        let flip_caught = seen.is_ok_and(|found| found == 1);
        let outcome = if flip_caught {
            "the check saw it"
        } else {
            "the check did not see it"
        };
        Ok(SelfTest {
            clean_passed: wrong == 0,
            flip_caught,
            detail: format!(
                "bit {bit} of element {element} of an all-reduced total was flipped; {outcome}"
            ),
        })
    }
}

/// So many iterations in parts whose payload stays below the most of one visit.
fn parts(iterations: u32, bytes: u64) -> impl Iterator<Item = u32> {
    let most = (VISIT_BYTES / bytes.max(1)).clamp(1, u64::from(u32::MAX)) as u32;
    let starts = (0..iterations).step_by(most as usize);
    starts.map(move |from| most.min(iterations - from))
}

fn total(group: &mut dyn Collective, visit: Visit) -> Result<&[f32], CollectiveError> {
    if visit.in_place {
        return group.input(visit.bucket).map(|total| &*total);
    }
    group.output(visit.bucket)
}

/// The sum of one number of each rank, by the bucket that carries votes.
fn sum(
    group: &mut dyn Collective,
    value: f32,
    patience: Duration,
) -> Result<(f32, Reduced), CollectiveError> {
    let bucket = group.buckets().saturating_sub(1);
    if let Some(first) = group.input(bucket)?.first_mut() {
        *first = value;
    }
    let reduced = group.all_reduce(bucket, patience)?;
    let total = group.output(bucket)?.first().copied();
    Ok((total.unwrap_or(f32::NAN), reduced))
}

/// Every rank adds one: fewer or more than the group has is a group that is not what it says.
fn count_ranks(
    group: &mut dyn Collective,
    patience: Duration,
    done: &mut Visited,
) -> Result<(), CollectiveError> {
    let (ones, _) = sum(group, 1.0, patience)?;
    let ranks = group.ranks();
    if ones.to_bits() != (ranks as f32).to_bits() {
        done.mismatches.push(format!(
            "an all-reduce of ones over {ranks} ranks gave {ones}"
        ));
    }
    Ok(())
}

/// When the first due time is counted from, and how far due times are apart: the same on every rank, as the total is.
fn agree(
    group: &mut dyn Collective,
    longest_ns: u64,
    patience: Duration,
) -> Result<(u64, u64), CollectiveError> {
    let (total, reduced) = sum(group, longest_ns as f32, patience)?;
    let mean = total / group.ranks().max(1) as f32;
    // A rank that tells nonsense makes nobody sleep for ever: no operation is waited for longer than that.
    let pace = (mean * SLACK).max(PACE_MIN).min(patience.as_nanos() as f32);
    Ok((reduced.arrived_last_ns, pace as u64))
}

fn wait_until(due_ns: u64) {
    loop {
        let left_ns = due_ns.saturating_sub(now_ns());
        if left_ns == 0 {
            return;
        }
        if left_ns > SLEEP_NS {
            std::thread::sleep(Duration::from_nanos(left_ns - SLEEP_NS / 2));
        } else {
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collective::host::{HostCollective, Region};
    use crate::work::bucket_layout;
    use hallmark_profiles::units::Bytes;
    use hallmark_profiles::workload::{Bucket, Dtype};
    use std::sync::Arc;

    const LIMIT: Duration = Duration::from_secs(20);

    fn spec(sizes: &[u64], iterations: u32) -> StepSpec {
        let bucket = |bytes: &u64| Bucket {
            bytes: Bytes(*bytes),
            after: 0,
        };
        StepSpec {
            dtype: Dtype::F32,
            gemms: Vec::new(),
            buckets: sizes.iter().map(bucket).collect(),
            parameters: 0,
            memory: Bytes(0),
            audit_share: 1.0,
            operand_pairs: 16,
            seed: 5,
            audit_seed: Some(AuditSeed(9)),
            sweep: Some(Trials {
                warm_up: 2,
                iterations,
            }),
        }
    }

    /// What each rank came to in each step.
    fn swept(spec: &StepSpec, ranks: u32, steps: u64) -> Vec<Vec<Visited>> {
        let region = Arc::new(Region::create(ranks, &bucket_layout(spec)).unwrap());
        let rank = |rank| {
            let (region, spec) = (region.clone(), spec.clone());
            std::thread::spawn(move || {
                let mut group = HostCollective::join(region, rank, now_ns, LIMIT).unwrap();
                let sweep = Sweep::of(&spec).unwrap();
                let step = |seq| sweep.visit(&mut group, 7 << 32 | seq, LIMIT).unwrap();
                (0..steps).map(step).collect::<Vec<_>>()
            })
        };
        let ranks: Vec<_> = (0..ranks).map(rank).collect();
        ranks.into_iter().map(|r| r.join().unwrap()).collect()
    }

    fn trials(visited: &Visited) -> Vec<(Trial, Span)> {
        let trial = |s: &Span| match s.work {
            Work::Trial(trial) => (trial, *s),
            _ => panic!("{s:?}"),
        };
        visited.spans.iter().map(trial).collect()
    }

    #[test]
    fn every_size_is_reduced_so_many_times_on_both_ways_and_every_total_is_right() {
        let spec = spec(&[8, 16, 4096], 10);
        for of_rank in swept(&spec, 3, 6) {
            for (step, visited) in of_rank.iter().enumerate() {
                assert_eq!(visited.mismatches, Vec::<String>::new());
                let trials = trials(visited);
                assert_eq!(trials.len(), 12);
                for (index, (trial, span)) in trials.iter().enumerate() {
                    assert_eq!(trial.index as usize, index);
                    assert_eq!((trial.warm_up, trial.wrong), (index < 2, 0));
                    assert_eq!(trial.in_place, step % 2 == 1);
                    let bytes = spec.buckets[step / 2].bytes.0;
                    assert_eq!(span.amount as u64, bytes);
                    assert!(span.start_ns <= trial.arrived_ns && trial.arrived_ns <= span.end_ns);
                    assert!(trial.due_ns <= span.start_ns, "begun before it was due");
                }
            }
        }
    }

    #[test]
    fn due_times_are_the_same_on_all_ranks_equally_far_apart_and_decided_beforehand() {
        let all = swept(&spec(&[64], 20), 2, 1);
        let due = |of_rank: &[Visited]| -> Vec<u64> {
            let counted = trials(&of_rank[0]).into_iter().filter(|t| !t.0.warm_up);
            counted.map(|t| t.0.due_ns).collect()
        };
        let (one, other) = (due(&all[0]), due(&all[1]));
        assert_eq!(one, other);
        let pace = one[1] - one[0];
        assert!(pace >= PACE_MIN as u64);
        assert!(one.windows(2).all(|w| w[1] - w[0] == pace), "{one:?}");
    }

    #[test]
    fn the_first_visit_tries_its_check_on_a_flipped_bit_and_later_ones_do_not() {
        for of_rank in swept(&spec(&[8, 256], 3), 2, 4) {
            let test = of_rank[0].self_test.as_ref().unwrap();
            assert!(test.clean_passed && test.flip_caught, "{}", test.detail);
            assert!(of_rank[1..].iter().all(|v| v.self_test.is_none()));
        }
    }

    /// A group whose totals are wrong in one element from some operation on.
    struct Liar {
        group: HostCollective,
        operations: u32,
        from: u32,
    }

    impl Liar {
        fn spoil(&mut self, bucket: usize, in_place: bool) -> Result<(), CollectiveError> {
            self.operations += 1;
            if self.operations <= self.from || bucket + 1 == self.group.buckets() {
                return Ok(());
            }
            // Out of place the next sum would heal it: reduce what is spoilt again, alone.
            let input = self.group.input(bucket)?;
            input[1] += 1.0;
            if !in_place {
                self.group.all_reduce(bucket, LIMIT)?;
            }
            Ok(())
        }
    }

    impl Collective for Liar {
        fn rank(&self) -> u32 {
            self.group.rank()
        }

        fn members(&self) -> &[u32] {
            self.group.members()
        }

        fn within_node(&mut self, only: bool) {
            self.group.within_node(only);
        }

        fn generation(&self) -> u32 {
            self.group.generation()
        }

        fn transport(&self) -> &str {
            self.group.transport()
        }

        fn buckets(&self) -> usize {
            self.group.buckets()
        }

        fn input(&mut self, bucket: usize) -> Result<&mut [f32], CollectiveError> {
            self.group.input(bucket)
        }

        fn output(&self, bucket: usize) -> Result<&[f32], CollectiveError> {
            self.group.output(bucket)
        }

        fn all_reduce(
            &mut self,
            bucket: usize,
            limit: Duration,
        ) -> Result<Reduced, CollectiveError> {
            let reduced = self.group.all_reduce(bucket, limit)?;
            self.spoil(bucket, false).map(|()| reduced)
        }

        fn all_reduce_in_place(
            &mut self,
            bucket: usize,
            limit: Duration,
        ) -> Result<Reduced, CollectiveError> {
            let reduced = self.group.all_reduce_in_place(bucket, limit)?;
            self.spoil(bucket, true).map(|()| reduced)
        }

        fn barrier(&mut self, limit: Duration) -> Result<Reduced, CollectiveError> {
            self.group.barrier(limit)
        }

        fn regroup(
            &mut self,
            generation: u32,
            members: &[u32],
            limit: Duration,
        ) -> Result<(), CollectiveError> {
            self.group.regroup(generation, members, limit)
        }
    }

    #[test]
    fn one_wrong_element_is_told_with_its_size_and_way_and_counted() {
        let spec = spec(&[64], 4);
        let region = Arc::new(Region::create(1, &bucket_layout(&spec)).unwrap());
        let group = HostCollective::join(region, 0, now_ns, LIMIT).unwrap();
        let mut liar = Liar {
            group,
            operations: 0,
            // A sum of ones, two of the warm-up, one to agree on the pace, and two right ones.
            from: 6,
        };
        let sweep = Sweep::of(&spec).unwrap();
        for (seq, place) in [(0, "out of place"), (1, "in place")] {
            let visited = sweep.visit(&mut liar, seq, LIMIT).unwrap();
            let wrong: Vec<u64> = trials(&visited).iter().map(|t| t.0.wrong).collect();
            let expected: &[u64] = if seq == 0 {
                &[0, 0, 0, 0, 1, 1]
            } else {
                &[1; 6]
            };
            assert_eq!(wrong, expected, "{place}");
            let told =
                format!("all-reduce of 64 B {place}: 1 of 16 elements are not the exact sum");
            assert!(
                visited.mismatches.iter().all(|m| *m == told),
                "{:?}",
                visited.mismatches
            );
            assert_eq!(
                visited.mismatches.len(),
                expected.iter().sum::<u64>() as usize
            );
        }
    }

    #[test]
    fn a_size_that_takes_many_visits_is_warmed_up_once_and_reduced_as_often_as_asked_for() {
        let sweep = Sweep::of(&spec(&[64 << 20], 10)).unwrap();
        let visits = |in_place: bool| {
            let of = sweep.visits.iter().filter(move |v| v.in_place == in_place);
            of.map(|v| (v.warm_up, v.iterations)).collect::<Vec<_>>()
        };
        assert_eq!(visits(false), [(2, 4), (1, 4), (1, 2)]);
        assert_eq!(visits(true), visits(false));
    }

    #[test]
    fn a_visit_moves_a_bounded_payload_however_many_iterations_are_asked_for() {
        assert_eq!(parts(20, 8).collect::<Vec<_>>(), [20]);
        assert_eq!(parts(10, 64 << 20).collect::<Vec<_>>(), [4, 4, 2]);
        assert_eq!(parts(3, 16 << 30).collect::<Vec<_>>(), [1, 1, 1]);
        assert_eq!(parts(0, 8).count(), 0);
    }
}
