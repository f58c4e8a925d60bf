//! Who has joined a run, what each node may say next, and who is silent: the controller's account of its nodes.
//!
//! A state machine without clock, file or network. It refuses by name: a node that the site does not have, a
//! certificate of another node, a token that was used, a second agent under one name, a device or a machine that two
//! nodes claim, agents that believe in different worlds. A report is taken once, in the order of its number.

use crate::protocol::link::{Claim, Pass, Task, VERSION};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// A node that was heard on neither connection for this long is a fault; with the look at the clock it is found within 10 s.
pub const NODE_SILENCE_NS: u64 = 8_000_000_000;
/// Nodes by device, of the devices by node: one that has not come back leaves a hole among the numbers.
pub fn nodes_of(devices: &[Range<u32>]) -> Vec<Option<usize>> {
    let all = devices.iter().map(|own| own.end).max().unwrap_or(0);
    let mut nodes = vec![None; all as usize];
    for (node, own) in devices.iter().enumerate() {
        let own = nodes.get_mut(own.start as usize..own.end as usize);
        own.into_iter().for_each(|places| places.fill(Some(node)));
    }
    nodes
}

/// What is told of such a node.
pub fn silence(node: &str, quiet_ns: u64) -> String {
    format!(
        "node `{node}` was silent on both its connections for {:.1} s",
        quiet_ns as f64 / 1e9
    )
}

/// What is told of a node whose agent has ended.
pub fn ended(node: &str, how: &str) -> String {
    format!("the agent of node `{node}` ended: {how}")
}

/// A node heard within this time is there: nothing is said of its devices' silence after it. Nor where its heartbeats come
/// and its reports do not, which the network may hold up for as long as [`NODE_SILENCE_NS`].
pub const REACHED_NS: u64 = 2_000_000_000;
/// An agent that was heard this lately is alive, and no other may take its place.
const ALIVE_NS: u64 = 3_000_000_000;

/// Why an agent may not join, or go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "this controller speaks version {VERSION} of the protocol, the agent of `{node}` version {theirs}"
    )]
    Version { node: String, theirs: u32 },
    #[error("node `{node}` is not in this run's site; known: {known}")]
    Unknown { node: String, known: String },
    #[error("the certificate is not for node `{node}`: a node speaks for itself alone")]
    Certificate { node: String },
    #[error("the join token of node `{node}` was used already; a token is good for one agent")]
    Replayed { node: String },
    #[error("this is no join token of node `{node}`")]
    Token { node: String },
    #[error("node `{node}` has no such session")]
    Session { node: String },
    #[error(
        "node `{node}` has joined already, as process {there} of machine {machine}; process {here} may not join under its name"
    )]
    Twice {
        node: String,
        there: u32,
        here: u32,
        machine: String,
    },
    #[error("node `{node}` and node `{other}` are one machine, {machine}: each node joins once")]
    OneMachine {
        node: String,
        other: String,
        machine: String,
    },
    #[error(
        "device {device} is on node `{node}` and on node `{other}`: one of them is not what it says"
    )]
    OneDevice {
        node: String,
        other: String,
        device: String,
    },
    #[error(
        "node `{node}` believes in {here}, node `{other}` in {there}: they were started as two worlds"
    )]
    Worlds {
        node: String,
        other: String,
        here: String,
        there: String,
    },
    #[error("node `{node}` and node `{other}` are both rank {rank}")]
    OneRank {
        node: String,
        other: String,
        rank: u32,
    },
    #[error("node `{node}` came back with other devices than it joined with")]
    Changed { node: String },
    #[error(
        "the log of node `{node}` ends at report {last}, and {taken} were taken of it: it was cut"
    )]
    Cut { node: String, last: u64, taken: u64 },
    #[error("node `{node}` said report {said} where {due} was due")]
    Order { node: String, said: u64, due: u64 },
}

/// What a join comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Index of the node in the site.
    pub node: usize,
    /// Names this link: what comes over an older one is not heard any more.
    pub link: u64,
    /// Its log's id.
    pub log: u64,
    /// Reports up to this number are on disk.
    pub kept: u64,
    /// Another process than before: its workers are gone.
    pub restarted: bool,
    /// Its log is another than before, so what the old one still held will never come.
    pub log_lost: bool,
}

/// One node.
#[derive(Default)]
struct Node {
    name: String,
    /// Unused tokens.
    tokens: Vec<String>,
    used: Vec<String>,
    session: Option<String>,
    claim: Option<Claim>,
    log: u64,
    /// Number of the last report that was taken, and of the last that is on disk.
    taken: u64,
    kept: u64,
    tasks: VecDeque<(u64, Task)>,
    last_task: u64,
    link: u64,
    linked: bool,
    heard_ns: [Option<u64>; 2],
}

/// The two connections of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Link = 0,
    Beat = 1,
}

/// All nodes of a run.
#[derive(Default)]
pub struct Hall {
    nodes: Vec<Node>,
    names: BTreeMap<String, usize>,
    /// Nodes may be processes of one machine, as with the launcher `local`.
    rehearsal: bool,
    links: u64,
}

impl Hall {
    /// A hall of these nodes, none of which has joined.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>, rehearsal: bool) -> Self {
        let nodes: Vec<Node> = names
            .into_iter()
            .map(|name| Node {
                name: name.to_owned(),
                ..Node::default()
            })
            .collect();
        let names = nodes.iter().enumerate();
        Self {
            names: names.map(|(i, n)| (n.name.clone(), i)).collect(),
            nodes,
            rehearsal,
            links: 0,
        }
    }

    /// Index of a node.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// Number of nodes.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// Lets one agent of a node in by this token.
    pub fn let_in(&mut self, node: usize, token: String) {
        self.nodes[node].tokens.push(token);
    }

    /// Takes an agent in, or back in. `session` is what it is to show from now on.
    ///
    /// `is_for`: whether the certificate that came with the claim is for a name.
    ///
    /// # Errors
    /// [`Refusal`]; nothing has changed then, but that a token is spent which a wrong agent showed.
    pub fn join(
        &mut self,
        claim: Claim,
        is_for: impl Fn(&str) -> bool,
        session: &str,
        now_ns: u64,
    ) -> Result<Joined, Refusal> {
        let name = claim.node.clone();
        if claim.version != VERSION {
            let theirs = claim.version;
            return Err(Refusal::Version { node: name, theirs });
        }
        let Some(&index) = self.names.get(&name) else {
            return Err(Refusal::Unknown {
                node: name,
                known: self.first_few(),
            });
        };
        if !is_for(&name) {
            return Err(Refusal::Certificate { node: name });
        }
        let before = &self.nodes[index];
        if before.log == claim.log && claim.last < before.taken {
            // Its next reports would bear numbers that were taken, and be lost as known.
            return Err(Refusal::Cut {
                node: name,
                last: claim.last,
                taken: before.taken,
            });
        }
        let restarted = self.admit(index, &claim, now_ns)?;
        self.disagrees(index, &claim)?;
        self.links += 1;
        let link = self.links;
        let node = &mut self.nodes[index];
        let log_lost = node.log != claim.log && node.log != 0;
        if node.log != claim.log {
            (node.log, node.taken, node.kept) = (claim.log, 0, 0);
        }
        if restarted {
            // What was to be done was for a process that is no more.
            node.tasks.clear();
            node.session = None;
        }
        node.tasks.retain(|(number, _)| *number > claim.task);
        node.session.get_or_insert_with(|| session.to_owned());
        node.claim = Some(claim);
        node.link = link;
        node.linked = true;
        node.heard_ns = [Some(now_ns), Some(now_ns)];
        Ok(Joined {
            node: index,
            link,
            log: node.log,
            kept: node.kept,
            restarted,
            log_lost,
        })
    }

    /// Whether the pass is good; true for a new process in an old one's place.
    fn admit(&mut self, index: usize, claim: &Claim, now_ns: u64) -> Result<bool, Refusal> {
        let node = &mut self.nodes[index];
        let name = || claim.node.clone();
        let token = match &claim.pass {
            Pass::Session(shown) if node.session.as_ref() == Some(shown) => return Ok(false),
            Pass::Session(_) => return Err(Refusal::Session { node: name() }),
            Pass::Token(token) => token,
        };
        if node.used.contains(token) {
            // The very agent to which the answer was lost shows it again; any other has it from somewhere.
            let own = |c: &Claim| c.pass == claim.pass && c.log == claim.log && c.pid == claim.pid;
            if node.claim.as_ref().is_some_and(own) {
                return Ok(false);
            }
            return Err(Refusal::Replayed { node: name() });
        }
        let Some(at) = node.tokens.iter().position(|t| t == token) else {
            return Err(Refusal::Token { node: name() });
        };
        let heard = node.heard_ns.iter().flatten().max();
        let alive = heard.is_some_and(|at| now_ns.saturating_sub(*at) < ALIVE_NS);
        if let Some(there) = node.claim.as_ref().filter(|_| alive && node.linked) {
            return Err(Refusal::Twice {
                node: name(),
                there: there.pid,
                here: claim.pid,
                machine: there.host.boot_id.clone(),
            });
        }
        let spent = node.tokens.swap_remove(at);
        node.used.push(spent);
        Ok(node.claim.is_some())
    }

    /// What the claim says against what others said, and what the same node said before.
    fn disagrees(&self, index: usize, claim: &Claim) -> Result<(), Refusal> {
        let ids = |c: &Claim| c.devices.iter().map(|d| d.id.clone()).collect::<Vec<_>>();
        if let Some(before) = &self.nodes[index].claim
            && ids(before) != ids(claim)
        {
            return Err(Refusal::Changed {
                node: claim.node.clone(),
            });
        }
        let others = self.nodes.iter().enumerate().filter(|(i, _)| *i != index);
        for other in others.filter_map(|(_, n)| n.claim.as_ref()) {
            let (node, name) = (claim.node.clone(), other.node.clone());
            let machine = &claim.host.boot_id;
            if !self.rehearsal && !machine.is_empty() && *machine == other.host.boot_id {
                return Err(Refusal::OneMachine {
                    node,
                    other: name,
                    machine: machine.clone(),
                });
            }
            let theirs: Vec<&String> = other
                .devices
                .iter()
                .filter_map(|d| d.uuid.as_ref())
                .collect();
            let mut own = claim.devices.iter().filter_map(|d| d.uuid.as_ref());
            if let Some(device) =
                own.find(|uuid| theirs.iter().any(|t| t.eq_ignore_ascii_case(uuid)))
            {
                return Err(Refusal::OneDevice {
                    node,
                    other: name,
                    device: device.clone(),
                });
            }
            if let (Some(own), Some(their)) = (&claim.rank, &other.rank) {
                let world = |r: &crate::rank::Rank| match r.world {
                    Some(world) => format!("{world} ranks of {}", r.launcher),
                    None => format!("ranks of {}", r.launcher),
                };
                if world(own) != world(their) {
                    return Err(Refusal::Worlds {
                        node,
                        other: name,
                        here: world(own),
                        there: world(their),
                    });
                }
                if own.rank == their.rank {
                    let rank = own.rank;
                    return Err(Refusal::OneRank {
                        node,
                        other: name,
                        rank,
                    });
                }
            }
        }
        Ok(())
    }

    fn first_few(&self) -> String {
        const SHOWN: usize = 8;
        let names: Vec<&str> = self
            .nodes
            .iter()
            .take(SHOWN)
            .map(|n| n.name.as_str())
            .collect();
        let more = if self.nodes.len() > SHOWN {
            ", …"
        } else {
            ""
        };
        format!("{}{more}", names.join(", "))
    }

    /// Whether a report that came over a link is new; false for one that was taken before.
    ///
    /// # Errors
    /// [`Refusal::Order`] where reports before it are missing, [`Refusal::Session`] for a link that is not the node's
    /// latest: its agent has to link anew.
    pub fn take(&mut self, node: usize, link: u64, number: u64) -> Result<bool, Refusal> {
        let node = &mut self.nodes[node];
        if node.link != link {
            return Err(Refusal::Session {
                node: node.name.clone(),
            });
        }
        if number <= node.taken {
            return Ok(false);
        }
        if number != node.taken + 1 {
            return Err(Refusal::Order {
                node: node.name.clone(),
                said: number,
                due: node.taken + 1,
            });
        }
        node.taken = number;
        Ok(true)
    }

    /// The latest link of a node, and how many of its reports were taken.
    #[cfg(test)]
    pub fn seen(&self, node: usize) -> (u64, u64) {
        (self.nodes[node].link, self.nodes[node].taken)
    }

    /// Notes that reports up to `number` of this log are on disk.
    pub fn keep(&mut self, node: usize, log: u64, number: u64) {
        let node = &mut self.nodes[node];
        // Of one that was begun anew since, the same numbers are other reports'.
        if node.log == log {
            node.kept = node.kept.max(number.min(node.taken));
        }
    }

    /// Number of the last report on disk.
    pub fn kept(&self, node: usize) -> u64 {
        self.nodes[node].kept
    }

    /// A sign of life of the node whose session this is.
    ///
    /// # Errors
    /// [`Refusal`] for a session that is not the node's.
    pub fn beat(
        &mut self,
        name: &str,
        is_for: impl Fn(&str) -> bool,
        session: &str,
        now_ns: u64,
    ) -> Result<usize, Refusal> {
        let node = || name.to_owned();
        let unknown = Refusal::Session { node: node() };
        let index = *self.names.get(name).ok_or(unknown.clone())?;
        if !is_for(name) {
            return Err(Refusal::Certificate { node: node() });
        }
        if self.nodes[index].session.as_deref() != Some(session) {
            return Err(unknown);
        }
        self.hear(index, Line::Beat, now_ns);
        Ok(index)
    }

    /// Notes that something came from a node.
    pub fn hear(&mut self, node: usize, line: Line, now_ns: u64) {
        self.nodes[node].heard_ns[line as usize] = Some(now_ns);
    }

    /// Notes that a link ended.
    pub fn unlink(&mut self, node: usize, link: u64) {
        let node = &mut self.nodes[node];
        if node.link == link {
            node.linked = false;
        }
    }

    /// Whether the node's link is open.
    pub fn is_linked(&self, node: usize) -> bool {
        self.nodes[node].linked
    }

    /// Time since the node was last heard on either connection; `None` if it never joined.
    pub fn quiet_ns(&self, node: usize, now_ns: u64) -> Option<u64> {
        let heard = self.nodes[node].heard_ns.iter().flatten().max()?;
        Some(now_ns.saturating_sub(*heard))
    }

    /// Time since a node was last heard on one of them; `None` if it never was.
    pub fn quiet_on_ns(&self, node: usize, line: Line, now_ns: u64) -> Option<u64> {
        let heard = self.nodes[node].heard_ns[line as usize]?;
        Some(now_ns.saturating_sub(heard))
    }

    /// What the node said when it joined.
    pub fn claim(&self, node: usize) -> Option<&Claim> {
        self.nodes[node].claim.as_ref()
    }

    /// The node's name; empty before it joined.
    pub fn name(&self, node: usize) -> String {
        let claim = self.nodes[node].claim.as_ref();
        claim.map_or_else(String::new, |c| c.node.clone())
    }

    /// The session that the node has to show.
    pub fn session(&self, node: usize) -> Option<&str> {
        self.nodes[node].session.as_deref()
    }

    /// Gives a node something to do; it is kept until the node has taken it.
    pub fn task(&mut self, node: usize, task: Task) {
        let node = &mut self.nodes[node];
        node.last_task += 1;
        node.tasks.push_back((node.last_task, task));
    }

    /// Tasks after `number`, oldest first.
    pub fn tasks_after(&self, node: usize, number: u64) -> Vec<(u64, Task)> {
        let tasks = self.nodes[node].tasks.iter();
        tasks.filter(|(n, _)| *n > number).cloned().collect()
    }

    /// Notes that the node has taken its tasks up to `number`.
    pub fn took(&mut self, node: usize, number: u64) {
        self.nodes[node].tasks.retain(|(n, _)| *n > number);
    }
}

#[cfg(test)]
pub(in crate::controller) mod tests;
