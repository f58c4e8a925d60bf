//! The controller of a hall: it lets agents in, hands what they report to the run, and what the run decides to them.
//!
//! It decides nothing about the load: that is [`crate::run::Run`]'s, as on one machine. To the run a device of another
//! node is a worker whose reports come over a network. A node that is silent on both its connections is given up, and
//! all its devices with it; what it had reported before comes when it is reached again, and is taken once.

mod crossing;
pub mod desk;
pub mod hall;
mod sensed;
mod tables;
mod trial;

use crate::clock;
use crate::exit::Failure;
use crate::protocol::authority::{Authority, Credentials};
use crate::protocol::link::{Claim, Task};
use crate::protocol::{Beyond, FromWorker, Group, ToWorker};
use crate::run::Input;
use crate::shell::fleet::{self, Origin, Progress, Workers};
use crate::shell::inbox::Inlet;
use crate::topology;
use desk::Desk;
use hall::{Hall, Line, NODE_SILENCE_NS, REACHED_NS};
use hallmark_kernels::collective::CollectiveError;
use hallmark_profiles::site::LoadedSite;
use hallmark_results::frame::{FaultKind, Samples, Table, What};
use hallmark_results::plan::Plan;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Time that agents have, at the end, to hand over what is still in their logs.
const LAST_REPORTS_NS: u64 = 30_000_000_000;
/// A stretch without a turn in which this process stood still; there are ten turns a second.
const STILL_NS: u64 = 1_000_000_000;
/// Between two rows of how far the nodes' clocks are off; an older comparison is none.
const COMPARED_NS: u64 = 1_000_000_000;
const COMPARISON_NS: u64 = 5_000_000_000;
/// Between two looks at whether an agent has left, or at what came of a trial.
const LOOK: Duration = Duration::from_millis(20);

/// What ends the processes that a launcher has started.
pub trait Launched {
    /// Nodes whose agent has ended since the last call, and how.
    fn ended(&mut self) -> Vec<(usize, String)>;

    /// Starts the agent of a node, which has ended, once more under a new invitation; whether it could.
    fn again(&mut self, node: usize, credentials: Credentials, token: String) -> bool;

    /// What the operator may want to know while agents are waited for, one sentence each, since the last call.
    fn told(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// Waits up to `patience` for all to end, then kills what is left; whether nothing was.
    fn end(&mut self, patience: Duration) -> bool;
}

/// The agents of a run, as whoever drives its devices.
pub struct Controller {
    desk: Arc<Desk>,
    authority: Authority,
    address: SocketAddr,
    stop: Arc<Notify>,
    names: Vec<String>,
    launched: Option<Box<dyn Launched>>,
    /// Device ranges by node, and nodes by device.
    devices: Vec<Range<u32>>,
    nodes_of: Vec<Option<usize>>,
    nodes: Vec<State>,
    /// Reports that have led to all frames up to a number.
    waiting: VecDeque<(Origin, u64)>,
    /// When the nodes' clocks are next put on record, on the run's clock.
    compare_ns: u64,
    /// The latest turn, and the first after this process itself had stood still.
    turned_ns: u64,
    awake_ns: u64,
    /// What the nodes summed per second in the trial; `None` where they reduce nothing.
    bytes_per_s: Option<f64>,
    /// Bridges find each other through this program, so that they can do it again.
    forms_again: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    /// Its agent has ended, or was never heard again.
    given_up: bool,
    /// Its agent was started once more.
    again: bool,
}

impl Controller {
    /// Listens for the agents of a site.
    ///
    /// # Errors
    /// [`Failure`]: no keys can be made, or the site's address cannot be listened at.
    pub fn start(
        site: &LoadedSite,
        run: &str,
        rehearsal: bool,
        inputs: &Inlet,
    ) -> Result<Self, Failure> {
        let names: Vec<String> = site.nodes().map(|n| n.name.to_owned()).collect();
        let hall = Hall::new(names.iter().map(String::as_str), rehearsal);
        let desk = Arc::new(Desk::new(hall, inputs.clone()));
        let authority = Authority::new(run).map_err(Failure::broken)?;
        let credentials = authority.controller().map_err(Failure::broken)?;
        let stop = Arc::new(Notify::new());
        let address = desk::serve(&desk, site.site.address(), &credentials, Arc::clone(&stop))
            .map_err(Failure::usage)?;
        Ok(Self {
            desk,
            authority,
            address,
            stop,
            devices: vec![0..0; names.len()],
            nodes_of: Vec::new(),
            nodes: vec![State::default(); names.len()],
            names,
            launched: None,
            waiting: VecDeque::new(),
            compare_ns: 0,
            turned_ns: clock::monotonic_ns(),
            awake_ns: 0,
            bytes_per_s: None,
            forms_again: false,
        })
    }

    /// Where agents reach it: by the machine's name where it listens at all addresses.
    pub fn address(&self) -> String {
        match self.address.ip().is_unspecified() {
            true => format!("{}:{}", topology::host().name, self.address.port()),
            false => self.address.to_string(),
        }
    }

    /// What one agent of a node needs to join: credentials and a token of its own.
    ///
    /// # Errors
    /// [`Failure`] for a name that no certificate can hold.
    pub fn invite(&self, node: usize) -> Result<(Credentials, String), Failure> {
        let credentials = self
            .authority
            .node(&self.names[node])
            .map_err(Failure::usage)?;
        let token = desk::session();
        self.desk.hall().let_in(node, token.clone());
        Ok((credentials, token))
    }

    /// Takes charge of the processes that a launcher has started.
    pub fn attend(&mut self, launched: Box<dyn Launched>) {
        self.launched = Some(launched);
    }

    /// Waits until every node has joined, or its agent has ended, or `patience_ns` has passed.
    ///
    /// `interrupted`: whether the operator wants to end. `note`: tells what the launcher has to say meanwhile.
    ///
    /// # Errors
    /// [`Failure`] when the operator interrupts.
    pub fn gather(
        &mut self,
        patience_ns: u64,
        mut interrupted: impl FnMut() -> bool,
        mut note: impl FnMut(&str),
    ) -> Result<(), Failure> {
        let begun_ns = clock::monotonic_ns();
        loop {
            if interrupted() {
                return Err(Failure::broken(
                    "interrupted before the load began; nothing was measured",
                ));
            }
            let mut why = Vec::new();
            if let Some(launched) = &mut self.launched {
                why = launched.ended();
                launched.told().iter().for_each(|told| note(told));
            }
            for (node, why) in why {
                self.nodes[node].given_up = true;
                let mut places = self.desk.places();
                // What the controller said to it is the better reason.
                places[node].refused.get_or_insert(why);
            }
            let waited_ns = clock::monotonic_ns().saturating_sub(begun_ns);
            let waiting = {
                let hall = self.desk.hall();
                (0..self.names.len()).any(|n| hall.claim(n).is_none() && !self.nodes[n].given_up)
            };
            if !waiting || waited_ns > patience_ns {
                return Ok(());
            }
            clock::sleep(LOOK);
        }
    }

    /// What a node said when it joined; or why it has not.
    ///
    /// # Errors
    /// One sentence.
    pub fn claim(&self, node: usize) -> Result<Claim, String> {
        // One that was given up meanwhile is told nothing any more, whatever it said before or says yet.
        if let Some(claim) = self
            .desk
            .hall()
            .claim(node)
            .filter(|_| !self.nodes[node].given_up)
        {
            return Ok(claim.clone());
        }
        let refused = self.desk.places()[node].refused.clone();
        let why = refused.unwrap_or_else(|| "nothing was heard of it".to_owned());
        Err(format!("node `{}` has not joined: {why}", self.names[node]))
    }

    /// Numbers the nodes' devices in the plan, and has their workers started.
    pub fn muster(&mut self, devices: Vec<Range<u32>>) {
        self.nodes_of = hall::nodes_of(&devices);
        self.devices = devices;
        for (node, range) in self.devices.clone().into_iter().enumerate() {
            self.desk.places()[node].devices = range.clone();
            if !range.is_empty() {
                let first = range.start;
                self.task(node, Task::Muster { first });
            }
        }
    }

    /// What can still be asked of it once it drives a crew.
    pub fn handle(&self) -> Handle {
        Handle {
            desk: Arc::clone(&self.desk),
            names: self.names.clone(),
            devices: self.devices.clone(),
        }
    }

    fn task(&self, node: usize, task: Task) {
        if !self.nodes[node].given_up {
            self.desk.hall().task(node, task);
            self.desk.wake(node);
        }
    }

    fn node_of(&self, device: u32) -> Option<usize> {
        self.nodes_of.get(device as usize).copied().flatten()
    }

    /// Nodes that take part.
    fn present(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.names.len()).filter(|n| !self.devices[*n].is_empty())
    }

    /// Puts on record how far the nodes' clocks are off, where a heartbeat has told it lately.
    fn compare(&mut self, run_ns: u64, now_ns: u64, inputs: &mut Vec<Input>) {
        if run_ns < self.compare_ns {
            return;
        }
        self.compare_ns = (run_ns / COMPARED_NS + 1) * COMPARED_NS;
        let places = self.desk.places();
        for node in self.present() {
            if let Some([most_s, least_s]) = places[node].off_s(now_ns, COMPARISON_NS) {
                inputs.push(Input::Samples(Samples {
                    table: tables::clock_number(node),
                    at_ns: vec![run_ns],
                    columns: vec![vec![most_s], vec![least_s]],
                }));
            }
        }
    }

    fn give_up(&mut self, node: usize, kind: FaultKind, why: &str, inputs: &mut Vec<Input>) {
        if std::mem::replace(&mut self.nodes[node].given_up, true) {
            return;
        }
        for device in self.devices[node].clone() {
            let detail = why.to_owned();
            inputs.push(Input::Worker(device, FromWorker::Fault { kind, detail }));
        }
    }

    /// An agent that ended under load is started once more, for what its log still holds and for its sensors; what it
    /// drove stays lost.
    fn start_again(&mut self, node: usize, inputs: &mut Vec<Input>) {
        let ended = self.desk.is_finishing() || self.devices[node].is_empty();
        if ended || std::mem::replace(&mut self.nodes[node].again, true) {
            return;
        }
        let Ok((credentials, token)) = self.invite(node) else {
            return;
        };
        let launched = self.launched.as_mut();
        if launched.is_some_and(|l| l.again(node, credentials, token)) {
            let what = format!(
                "the agent of node `{}` is started once more: its log and its sensors go on, its devices stay lost",
                self.names[node]
            );
            inputs.push(Input::Event(What::Decision { what }, None));
        }
    }

    /// What the record now holds for good is acknowledged.
    fn acknowledge(&mut self, durable: u64) {
        let mut newest = BTreeMap::new();
        while let Some((origin, _)) = self.waiting.pop_front_if(|(_, mark)| *mark <= durable) {
            newest.insert((origin.node as usize, origin.log), origin.number);
        }
        for ((node, log), number) in newest {
            self.desk.hall().keep(node, log, number);
            self.desk.wake(node);
        }
    }
}

/// A hold on the agents beside the crew's.
pub struct Handle {
    desk: Arc<Desk>,
    names: Vec<String>,
    devices: Vec<Range<u32>>,
}

impl Handle {
    /// How far each node's clock is behind the controller's, as it measured it.
    pub fn clocks(&self) -> Vec<(String, String)> {
        let places = self.desk.places();
        let told = |(name, place): (&String, &desk::Place)| {
            let ahead = place.ahead?;
            let value = format!(
                "{:+.3} ms to the controller's, at most {:.3} ms off",
                ahead.ns as f64 / 1e6,
                ahead.error_ns as f64 / 1e6
            );
            Some((format!("{name}: clock offset"), value))
        };
        self.names
            .iter()
            .zip(places.iter())
            .filter_map(told)
            .collect()
    }

    /// The tables of the nodes' clocks.
    pub fn clock_tables(&self) -> Vec<Table> {
        let nodes = self.names.iter().zip(&self.devices).enumerate();
        let there = nodes.filter(|(_, (_, devices))| !devices.is_empty());
        there
            .map(|(node, (name, _))| tables::clock(node, name, COMPARED_NS))
            .collect()
    }

    /// Has all nodes read their sensors; `epoch_ns` is the run's start on this machine's clock.
    pub fn sense(&self, plan: &Plan, epoch_ns: u64) {
        let mut without = plan.clone();
        let all = std::mem::take(&mut without.devices);
        for (node, range) in self.devices.iter().enumerate() {
            if range.is_empty() {
                continue;
            }
            let own = range.start as usize..range.end as usize;
            let mut plan = Box::new(without.clone());
            plan.devices = all.get(own).unwrap_or_default().to_vec();
            let task = Task::Sense {
                first: range.start,
                plan,
                epoch_ns,
            };
            self.desk.places()[node].sense = Some(task.clone());
            self.desk.hall().task(node, task);
            self.desk.wake(node);
        }
    }
}

impl Workers for Controller {
    fn tell(&mut self, device: u32, order: &ToWorker) {
        if let (
            ToWorker::Regroup {
                generation,
                members,
                ..
            },
            Some(_),
        ) = (order, self.bytes_per_s)
        {
            // Before the first rank of the formation is told of it.
            let tasks = self
                .desk
                .crossing()
                .begin(*generation, &self.devices, members);
            for (node, task) in tasks {
                self.task(node, task);
            }
        }
        if let Some(node) = self.node_of(device) {
            let order = Box::new(order.clone());
            self.task(node, Task::Drive { device, order });
        }
    }

    fn kill(&mut self, device: u32) {
        if let Some(node) = self.node_of(device) {
            // Also where the node was given up: it may be reached again, with the device still at work.
            self.desk.hall().task(node, Task::Kill { device });
            self.desk.wake(node);
        }
    }

    fn groups(&mut self, plan: &Plan, device: u32) -> Result<Vec<Group>, CollectiveError> {
        // The node's agent makes the memory, and says where it is.
        let first = self.node_of(device).map_or(0, |n| self.devices[n].start);
        let bytes_per_s = self.bytes_per_s.unwrap_or(f64::INFINITY);
        let group = |step| Group {
            step,
            path: std::path::PathBuf::new(),
            rank: device,
            ranks: plan.devices.len() as u32,
            hall: Some(Beyond { first, bytes_per_s }),
        };
        Ok(fleet::reducing(plan).map(group).collect())
    }

    fn abandon(&mut self, generation: u32, lost: &[u32]) {
        for node in self.present().collect::<Vec<_>>() {
            let lost = lost.to_vec();
            self.task(node, Task::Abandon { generation, lost });
        }
    }

    fn turn(&mut self, heard: &[Origin], progress: Progress, run_ns: u64) -> Vec<Input> {
        let mark = progress.handed;
        self.waiting
            .extend(heard.iter().map(|origin| (*origin, mark)));
        self.acknowledge(progress.durable);
        let mut inputs = Vec::new();
        let ended = self.launched.as_mut().map_or_else(Vec::new, |l| l.ended());
        for (node, how) in ended {
            let why = hall::ended(&self.names[node], &how);
            self.give_up(node, FaultKind::Agent, &why, &mut inputs);
            self.start_again(node, &mut inputs);
        }
        let now_ns = clock::monotonic_ns();
        if now_ns.saturating_sub(std::mem::replace(&mut self.turned_ns, now_ns)) > STILL_NS {
            // Nobody could be heard meanwhile.
            self.awake_ns = now_ns;
        }
        for node in self.present().collect::<Vec<_>>() {
            let (quiet_ns, reports_ns) = {
                let hall = self.desk.hall();
                let reports_ns = hall.quiet_on_ns(node, Line::Link, now_ns);
                (hall.quiet_ns(node, now_ns), reports_ns)
            };
            let awake_ns = now_ns.saturating_sub(self.awake_ns);
            let quiet_ns = quiet_ns.unwrap_or(0).min(awake_ns);
            let reports_ns = reports_ns.unwrap_or(0).min(awake_ns);
            if self.nodes[node].given_up || reports_ns <= REACHED_NS {
                continue;
            }
            if quiet_ns > NODE_SILENCE_NS {
                let why = hall::silence(&self.names[node], quiet_ns);
                self.give_up(node, FaultKind::Silent, &why, &mut inputs);
            } else if quiet_ns > REACHED_NS || reports_ns <= NODE_SILENCE_NS {
                inputs.extend(self.devices[node].clone().map(Input::Unreached));
            }
        }
        self.compare(run_ns, now_ns, &mut inputs);
        inputs
    }

    fn finish(&mut self) -> u64 {
        self.desk.finish();
        for node in 0..self.names.len() {
            // A node that was given up and is reached again is also told to end its work.
            self.desk.hall().task(node, Task::Finish);
            self.desk.wake(node);
        }
        LAST_REPORTS_NS
    }

    fn is_drained(&self) -> bool {
        let places = self.desk.places();
        let gone = |n: usize| self.nodes[n].given_up && !self.desk.hall().is_linked(n);
        self.present().all(|n| places[n].done || gone(n))
    }

    fn part(&mut self, goes_on: &mut dyn FnMut(&str) -> bool) -> Vec<What> {
        self.pairs_again(goes_on)
    }

    fn keeps_copies(&self) -> bool {
        true
    }

    fn lost(&self) -> Vec<String> {
        let places = self.desk.places();
        let silent = self.present().filter(|n| !places[*n].done);
        silent
            .map(|n| {
                let name = &self.names[n];
                format!("node `{name}` did not hand over its last reports: what it still held is not in this record")
            })
            .collect()
    }

    fn end(mut self: Box<Self>, patience_ms: u64) {
        for node in 0..self.names.len() {
            self.desk.hall().task(node, Task::Leave);
            self.desk.wake(node);
        }
        // An agent that nobody here has started learns of its end by its link alone.
        let linked = |hall: &Hall| (0..self.names.len()).any(|n| hall.is_linked(n));
        for _ in 0..u128::from(patience_ms) / LOOK.as_millis() {
            if !linked(&self.desk.hall()) {
                break;
            }
            clock::sleep(LOOK);
        }
        if let Some(launched) = &mut self.launched {
            launched.end(Duration::from_millis(patience_ms));
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        if let Some(launched) = &mut self.launched {
            launched.end(Duration::ZERO);
        }
        self.stop.notify_one();
    }
}

#[cfg(test)]
mod tests;
