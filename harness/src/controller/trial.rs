//! What nodes try with each other: before the load whether they sum, and how fast pairs of them exchange; and pairs once
//! more when all is over, idle as before.
//!
//! Refuses to put a rate on record that not both ends told.

use super::{Controller, LOOK, crossing};
use crate::clock;
use crate::exit::Failure;
use crate::protocol::link::{AGAIN, Claim, TRIAL, World};
use hallmark_kernels::collective::pairs::{NODES_MIN, Pair};
use hallmark_results::frame::{PairRow, What};

/// Longest wait for all nodes to sum a little together, and for pairs of them after it.
const TRIAL_NS: u64 = 120_000_000_000;
/// The same when the run is over: nobody waits long for what decides little.
const AGAIN_NS: u64 = 60_000_000_000;
/// What is done then.
const MEASURING: &str = "the load is over; measuring once more how fast pairs of nodes exchange";

impl Controller {
    /// Has all nodes sum a little together across each other, through MPI; gives the library that they share.
    ///
    /// # Errors
    /// `Ok(Err(why))` where they cannot, and [`Failure`] when the operator interrupts.
    pub fn try_reducing(
        &mut self,
        claims: &[Claim],
        mut interrupted: impl FnMut() -> bool,
    ) -> Result<Result<String, String>, Failure> {
        let library = match crossing::possible(claims) {
            Ok(library) => library,
            Err(why) => return Ok(Err(why)),
        };
        let of_launcher = |c: &Claim| !matches!(&c.mpi, Ok(mpi) if mpi.world == World::Own);
        self.forms_again = !claims.iter().any(of_launcher);
        self.begin_trial(TRIAL);
        Ok(match self.outcome(TRIAL_NS, &mut || !interrupted()) {
            Outcome::Told(bytes_per_s) => {
                self.bytes_per_s = Some(bytes_per_s);
                Ok(library)
            }
            Outcome::Failed(why) => Err(format!("{library} does not sum across the nodes: {why}")),
            Outcome::Late(why) => Err(format!("{library} has not summed across the nodes {why}")),
            Outcome::Interrupted => {
                return Err(Failure::broken(
                    "interrupted before the load began; nothing was measured",
                ));
            }
        })
    }

    /// Has pairs of the nodes that are left measure once more, where their bridges can find each other once more.
    pub(super) fn pairs_again(&mut self, goes_on: &mut dyn FnMut(&str) -> bool) -> Vec<What> {
        let left = self.present().filter(|n| !self.nodes[*n].given_up).count();
        if self.bytes_per_s.is_none() || !self.forms_again || left < NODES_MIN {
            return Vec::new();
        }
        self.begin_trial(AGAIN);
        let why = match self.outcome(AGAIN_NS, &mut || goes_on(MEASURING)) {
            Outcome::Told(_) => return vec![What::Pairs { rows: self.pairs() }],
            Outcome::Failed(why) => why,
            Outcome::Late(why) => format!("the nodes have not met {why}"),
            Outcome::Interrupted => "the operator did not wait for it".to_owned(),
        };
        vec![What::Absent {
            what: "pairs of nodes after the load".to_owned(),
            why,
            remedy: String::new(),
        }]
    }

    fn begin_trial(&self, generation: u32) {
        let devices = self.devices.iter().zip(&self.nodes);
        let left = |(range, node): (&std::ops::Range<u32>, &super::State)| match node.given_up {
            true => range.start..range.start,
            false => range.clone(),
        };
        let left: Vec<_> = devices.map(left).collect();
        for (node, task) in self.desk.crossing().begin(generation, &left, &[]) {
            self.task(node, task);
        }
    }

    /// Waits for what came of a trial.
    fn outcome(&self, limit_ns: u64, goes_on: &mut dyn FnMut() -> bool) -> Outcome {
        let begun_ns = clock::monotonic_ns();
        loop {
            if !goes_on() {
                return Outcome::Interrupted;
            }
            let (outcome, waiting) = {
                let crossing = self.desk.crossing();
                (crossing.outcome(), crossing.waiting())
            };
            match outcome {
                Some(Ok(bytes_per_s)) => return Outcome::Told(bytes_per_s),
                Some(Err((node, why))) => {
                    return Outcome::Failed(format!("node `{}`: {why}", self.names[node]));
                }
                None => {}
            }
            if clock::monotonic_ns().saturating_sub(begun_ns) > limit_ns {
                let silent: Vec<&str> = waiting.iter().map(|n| self.names[*n].as_str()).collect();
                return Outcome::Late(format!(
                    "within {} s; without an answer: {}",
                    limit_ns / 1_000_000_000,
                    silent.join(", ")
                ));
            }
            clock::sleep(LOOK);
        }
    }

    /// What pairs of nodes measured with each other in the latest trial.
    pub fn pairs(&self) -> Vec<PairRow> {
        let pairs = self.desk.crossing().pairs().into_iter();
        let row = |(nodes, pair): ([usize; 2], Pair)| PairRow {
            round: pair.round,
            nodes: nodes.map(|n| self.names[n].clone()),
            bytes: pair.bytes,
            bytes_per_s: pair.bytes_per_s,
            latency_s: pair.latency_s,
            wrong: pair.wrong,
        };
        pairs.map(row).collect()
    }
}

/// What came of a trial.
enum Outcome {
    /// B/s of the slowest node.
    Told(f64),
    Failed(String),
    /// Within which time it was to come, and who said nothing.
    Late(String),
    Interrupted,
}
