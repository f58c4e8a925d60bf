//! The processes by which a launcher has started agents: invited over their standard input, watched, and ended.
//!
//! An agent whose standard input closes ends by itself, wherever it runs; so whatever ends one of these processes ends the
//! agent behind it. How an agent ended is told with the last line that it, or the program that leads to it, has said.

use super::{Hall, Invitation};
use crate::controller::{Launched, desk};
use crate::exit::Failure;
use crate::plan::changes::EVERY_DEVICE;
use crate::protocol::authority::Credentials;
use crate::shell::fleet::own_group;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Between two looks at whether an agent has ended.
const LOOK: Duration = Duration::from_millis(20);
/// Longest wait for the end of what was killed.
const KILLED: Duration = Duration::from_secs(1);
/// What an agent and the program that leads to it say on standard error.
const SAID: &str = "agent.log";
/// Of which this much is looked at for the last line, B, and so many characters of that are told.
const TAIL: u64 = 4_096;
const LINE_CHARS: usize = 200;

/// The processes, by node.
#[derive(Default)]
pub struct Agents {
    agents: Vec<Agent>,
}

/// One of them, and how it was started.
struct Agent {
    command: Command,
    invitation: Invitation,
    /// Holds what it says.
    folder: PathBuf,
    /// `None` once it has ended.
    child: Option<Child>,
}

/// Where on its node an agent works, and with what.
pub struct Seat {
    /// Where the node's log is kept.
    pub folder: PathBuf,
    pub devices: Vec<String>,
    pub cores: Vec<usize>,
}

impl Seat {
    /// A machine of its own, with all that it has.
    pub fn own_machine() -> Self {
        Self {
            // Nobody on the node can have prepared a name that is drawn now.
            folder: PathBuf::from("/tmp").join(format!("hallmark-{}", desk::session())),
            devices: vec![EVERY_DEVICE.to_owned()],
            cores: Vec::new(),
        }
    }

    /// A share of this machine's processor; its other devices are left out, since two nodes cannot have one of them.
    pub fn share(folder: PathBuf, cores: &[usize], nodes: usize, index: usize) -> Self {
        Self {
            folder,
            devices: vec!["cpu".to_owned()],
            cores: share(cores, nodes, index),
        }
    }
}

impl Agents {
    /// Starts the agents of all nodes; what is said of each goes to a folder of its name in the hall's.
    ///
    /// `seat`: the command that leads to the agent of a node, by index and name, and where it works there.
    ///
    /// # Errors
    /// [`Failure`]: a process cannot be started, or a folder cannot be made.
    pub fn start_all(
        hall: &Hall,
        seat: impl Fn(usize, &str) -> (Command, Seat),
    ) -> Result<Self, Failure> {
        let mut agents = Self::default();
        for (index, node) in hall.nodes.iter().enumerate() {
            let (command, seat) = seat(index, node);
            let invitation = Self::invitation(hall, index, seat)?;
            let mut agent = Agent {
                command,
                invitation,
                folder: hall.logs.join(node),
                child: None,
            };
            agent.start()?;
            agents.agents.push(agent);
        }
        Ok(agents)
    }
}

impl Agents {
    /// What the agent of a node needs to join from its seat.
    ///
    /// # Errors
    /// [`Failure`] for a name that no certificate can hold.
    pub fn invitation(hall: &Hall, index: usize, seat: Seat) -> Result<Invitation, Failure> {
        let (credentials, token) = hall.controller.invite(index)?;
        Ok(Invitation {
            address: hall.controller.address(),
            node: hall.nodes[index].to_owned(),
            credentials,
            token,
            folder: seat.folder,
            devices: seat.devices,
            cores: seat.cores,
        })
    }
}

impl Agent {
    fn start(&mut self) -> Result<(), Failure> {
        let started = spawn(&mut self.command, &self.invitation, &self.folder);
        let node = &self.invitation.node;
        let fail = |e| Failure::broken(format!("cannot start the agent of node `{node}`: {e}"));
        self.child = Some(started.map_err(fail)?);
        Ok(())
    }
}

fn spawn(command: &mut Command, invitation: &Invitation, folder: &Path) -> std::io::Result<Child> {
    std::fs::create_dir_all(folder)?;
    let said = File::options()
        .create(true)
        .append(true)
        .open(folder.join(SAID))?;
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(said);
    own_group(command);
    let mut child = command.spawn()?;
    if let Some(stdin) = &mut child.stdin {
        let mut line = serde_json::to_vec(invitation)?;
        line.push(b'\n');
        stdin.write_all(&line)?;
    }
    Ok(child)
}

impl Agents {
    /// Whether all have ended, waited for as long as that.
    fn are_gone(&mut self, patience: Duration) -> bool {
        let looks = patience.as_millis() / LOOK.as_millis();
        for look in 0..=looks {
            self.ended();
            if self.agents.iter().all(|a| a.child.is_none()) {
                return true;
            }
            if look < looks {
                crate::clock::sleep(LOOK);
            }
        }
        false
    }
}

impl Launched for Agents {
    fn ended(&mut self) -> Vec<(usize, String)> {
        let mut ended = Vec::new();
        for (node, agent) in self.agents.iter_mut().enumerate() {
            let Some(child) = &mut agent.child else {
                continue;
            };
            let how = match child.try_wait() {
                Ok(None) => continue,
                Ok(Some(status)) => match last_line(&agent.folder.join(SAID)) {
                    Some(line) => format!("{status}: {line}"),
                    None => status.to_string(),
                },
                Err(error) => error.to_string(),
            };
            agent.child = None;
            ended.push((node, how));
        }
        ended
    }

    fn end(&mut self, patience: Duration) -> bool {
        if self.are_gone(patience) {
            return true;
        }
        for child in self.agents.iter_mut().filter_map(|a| a.child.as_mut()) {
            // Its workers are killed by the kernel as soon as it is gone.
            let _ = child.kill();
        }
        // One that a driver holds is gone when that lets go of it; the record is not to wait for it.
        self.are_gone(KILLED);
        self.agents.clear();
        false
    }

    fn again(&mut self, node: usize, credentials: Credentials, token: String) -> bool {
        let Some(agent) = self.agents.get_mut(node) else {
            return false;
        };
        agent.invitation.credentials = credentials;
        agent.invitation.token = token;
        agent.child.is_none() && agent.start().is_ok()
    }
}

/// The last line of a file, without control characters; `None` where there is none to read.
fn last_line(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))
        .ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rev().map(str::trim).find(|l| !l.is_empty())?;
    Some(
        line.chars()
            .filter(|c| !c.is_control())
            .take(LINE_CHARS)
            .collect(),
    )
}

/// The cores of one node of so many.
fn share(cores: &[usize], nodes: usize, index: usize) -> Vec<usize> {
    if cores.len() <= nodes {
        let one = cores.get(index % cores.len().max(1));
        return one.copied().into_iter().collect();
    }
    let (from, to) = (
        index * cores.len() / nodes,
        (index + 1) * cores.len() / nodes,
    );
    cores[from..to].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_core_has_one_node_and_every_node_a_core() {
        assert_eq!(share(&[0, 1, 2, 3, 4], 2, 0), [0, 1]);
        assert_eq!(share(&[0, 1, 2, 3, 4], 2, 1), [2, 3, 4]);
        let few = |i| share(&[4, 6], 5, i);
        assert_eq!(
            (few(0), few(1), few(2), few(4)),
            (vec![4], vec![6], vec![4], vec![4])
        );
    }

    #[test]
    fn the_last_line_is_told_whole_and_without_what_a_terminal_would_obey() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("said");
        assert_eq!(last_line(&path), None);
        let long = "x".repeat(3 * TAIL as usize);
        std::fs::write(&path, format!("{long}\n\u{1b}[2Jsrun: no such node\n\n")).unwrap();
        assert_eq!(last_line(&path).unwrap(), "[2Jsrun: no such node");
    }
}
