//! The thread that all-reduces buckets beside the matmuls, and audits a share of them; in a sweep it has the device to itself.

use crate::audit;
use crate::backend::SelfTest;
use crate::collective::exact::{digest, expected_digest, fill_exact, first_mismatch};
use crate::collective::sweep::Sweep;
use crate::collective::{Collective, CollectiveError, FORMING, LEAST_PATIENCE};
use crate::timer::now_ns;
use crate::work::{Span, Work};
use hallmark_profiles::workload::{AuditSeed, StepSpec};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// What the reducing thread is asked to do.
pub enum Ask {
    Reduce {
        bucket: usize,
        seq: u64,
    },
    /// Whether the step's buckets are summed by this node alone.
    Within {
        node: bool,
    },
    /// The step's part of a sweep.
    Sweep {
        seq: u64,
    },
    /// Ends a step: the votes to stop, and an answer with everything since the last one.
    Vote {
        stop: bool,
    },
    Regroup {
        generation: u32,
        members: Vec<u32>,
        patience: Duration,
    },
}

/// All reductions of one step.
#[derive(Default)]
pub struct Reduced {
    pub spans: Vec<Span>,
    pub mismatches: Vec<String>,
    pub skew_ns: u64,
    pub stop_votes: u32,
    pub fault: Option<(String, Vec<u32>)>,
    pub self_test: Option<SelfTest>,
}

/// The thread, spoken to through channels.
pub struct Reducer {
    asks: Option<Sender<Ask>>,
    answers: Receiver<Reduced>,
    thread: Option<JoinHandle<()>>,
}

impl Reducer {
    /// `spec`: whose seeds choose gradients and audited buckets; the same on all ranks.
    pub fn start(collective: Box<dyn Collective>, spec: &StepSpec) -> Self {
        let (seed, audits, share) = (spec.seed, spec.audits(), spec.audit_share);
        let sweep = Sweep::of(spec);
        let (asks, inbox) = channel();
        let (outbox, answers) = channel();
        let thread = std::thread::spawn(move || {
            let mut rank = Rank {
                collective,
                seed,
                audits,
                share,
                patience: LEAST_PATIENCE,
                sweep,
                step: Reduced::default(),
            };
            rank.fill_all();
            for ask in inbox {
                if let Some(answer) = rank.serve(ask)
                    && outbox.send(answer).is_err()
                {
                    return;
                }
            }
        });
        Self {
            asks: Some(asks),
            answers,
            thread: Some(thread),
        }
    }

    pub fn ask(&self, ask: Ask) {
        if let Some(asks) = &self.asks {
            // A thread that is gone shows at the next answer.
            let _ = asks.send(ask);
        }
    }

    /// The answer to the last vote or regroup.
    pub fn answer(&self) -> Reduced {
        self.answers.recv().unwrap_or_else(|_| Reduced {
            fault: Some(("the reducing thread ended".to_owned(), Vec::new())),
            ..Reduced::default()
        })
    }
}

impl Drop for Reducer {
    fn drop(&mut self) {
        self.asks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Rank {
    collective: Box<dyn Collective>,
    seed: u64,
    audits: AuditSeed,
    share: f64,
    /// A rank that waits longer for others gives its group up.
    patience: Duration,
    sweep: Option<Sweep>,
    step: Reduced,
}

impl Rank {
    /// The last bucket carries the votes.
    fn payload_buckets(&self) -> usize {
        self.collective.buckets().saturating_sub(1)
    }

    fn fill_all(&mut self) {
        let (seed, rank) = (self.seed, self.collective.rank());
        for bucket in 0..self.payload_buckets() {
            if let Ok(input) = self.collective.input(bucket) {
                fill_exact(input, seed, rank, bucket as u64);
            }
        }
    }

    fn serve(&mut self, ask: Ask) -> Option<Reduced> {
        match ask {
            Ask::Reduce { bucket, seq } => {
                if self.step.fault.is_none()
                    && let Err(error) = self.reduce(bucket, seq)
                {
                    self.fail(&error);
                }
                None
            }
            Ask::Within { node } => {
                self.collective.within_node(node);
                None
            }
            Ask::Sweep { seq } => {
                if self.step.fault.is_none()
                    && let Err(error) = self.visit(seq)
                {
                    self.fail(&error);
                }
                None
            }
            Ask::Vote { stop } => {
                if self.step.fault.is_none()
                    && let Err(error) = self.vote(stop)
                {
                    self.fail(&error);
                }
                Some(std::mem::take(&mut self.step))
            }
            Ask::Regroup {
                generation,
                members,
                patience,
            } => {
                self.step = Reduced::default();
                self.patience = patience;
                let formed = self.collective.regroup(generation, &members, FORMING);
                if let Err(error) = formed {
                    self.fail(&error);
                }
                Some(std::mem::take(&mut self.step))
            }
        }
    }

    fn fail(&mut self, error: &CollectiveError) {
        self.step.fault = Some((error.to_string(), error.silent().to_vec()));
    }

    fn reduce(&mut self, bucket: usize, seq: u64) -> Result<(), CollectiveError> {
        let audited = audit::selects(
            self.audits,
            seq,
            audit::bucket_key(bucket as u32),
            self.share,
        );
        if audited {
            // Fresh data, so that a total left over from an earlier step cannot pass.
            let (seed, rank) = (self.seed, self.collective.rank());
            fill_exact(self.collective.input(bucket)?, seed, rank, seq);
        }
        let reduced = self.collective.all_reduce(bucket, self.patience)?;
        self.step.skew_ns += reduced.waited_ns();
        self.step.spans.push(Span {
            work: Work::AllReduce,
            start_ns: reduced.started_ns,
            end_ns: reduced.ended_ns,
            amount: reduced.bytes as f64,
        });
        if audited {
            self.check(bucket, seq)?;
        }
        Ok(())
    }

    fn check(&mut self, bucket: usize, seq: u64) -> Result<(), CollectiveError> {
        let began = now_ns();
        let output = self.collective.output(bucket)?;
        let members = self.collective.members();
        let found = digest(output);
        let expected = expected_digest(self.seed, members, output.len(), seq);
        let wrong = match expected {
            Ok(expected) if expected == found => None,
            Ok(expected) => {
                let first = first_mismatch(output, self.seed, members, seq)
                    .ok()
                    .flatten();
                let at = first.map_or_else(String::new, |m| {
                    format!("; element {} is {}, not {}", m.index, m.found, m.expected)
                });
                Some(format!(
                    "all-reduce of bucket {bucket}: digest {found}, expected {expected}{at}"
                ))
            }
            Err(error) => Some(error.to_string()),
        };
        self.step.mismatches.extend(wrong);
        self.step.spans.push(Span {
            work: Work::Audit,
            start_ns: began,
            end_ns: now_ns(),
            amount: 0.0,
        });
        Ok(())
    }

    fn visit(&mut self, seq: u64) -> Result<(), CollectiveError> {
        let Some(sweep) = &self.sweep else {
            return Ok(());
        };
        let visited = sweep.visit(self.collective.as_mut(), seq, self.patience)?;
        self.step.spans.extend(visited.spans);
        self.step.mismatches.extend(visited.mismatches);
        self.step.skew_ns += visited.skew_ns;
        self.step.self_test = visited.self_test;
        Ok(())
    }

    fn vote(&mut self, stop: bool) -> Result<(), CollectiveError> {
        let bucket = self.payload_buckets();
        if let Some(vote) = self.collective.input(bucket)?.first_mut() {
            *vote = f32::from(u8::from(stop));
        }
        let reduced = self.collective.all_reduce(bucket, self.patience)?;
        self.step.skew_ns += reduced.waited_ns();
        let votes = self
            .collective
            .output(bucket)?
            .first()
            .copied()
            .unwrap_or(0.0);
        self.step.stop_votes = votes as u32;
        Ok(())
    }
}
