//! Agents as processes of this machine, which divide its processor cores: to rehearse a hall.
//!
//! It decides which cores are which node's, and nothing else; more nodes than cores share them. Devices other than the
//! processor are left out, since two nodes cannot have one of them. The kernel kills the agents with the controller.

use super::Invitation;
use crate::controller::{Controller, Launched};
use crate::exit::Failure;
use crate::shell::fleet::own_group;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Between two looks at whether an agent has ended.
const LOOK: Duration = Duration::from_millis(20);

/// The agents that were started.
pub struct Local {
    agents: Vec<Option<Child>>,
}

/// Starts one agent for each node, whose log is kept in a folder of its name in `folder`.
///
/// # Errors
/// [`Failure`]: a process cannot be started, or its folder cannot be made.
pub fn start(
    controller: &Controller,
    nodes: &[&str],
    cores: &[usize],
    folder: &Path,
) -> Result<Local, Failure> {
    let mut local = Local { agents: Vec::new() };
    for (index, node) in nodes.iter().enumerate() {
        let (credentials, token) = controller.invite(index)?;
        let invitation = Invitation {
            address: controller.address().to_string(),
            node: (*node).to_owned(),
            credentials,
            token,
            folder: folder.join(node),
            devices: vec!["cpu".to_owned()],
            cores: share(cores, nodes.len(), index),
        };
        let started = agent(&invitation);
        let started = started.map_err(|e| {
            Failure::broken(format!("cannot start the agent of node `{node}`: {e}"))
        })?;
        local.agents.push(Some(started));
    }
    Ok(local)
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

fn agent(invitation: &Invitation) -> std::io::Result<Child> {
    std::fs::create_dir_all(&invitation.folder)?;
    let said = File::create(invitation.folder.join("agent.log"))?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("agent")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(said);
    own_group(&mut command);
    let mut child = command.spawn()?;
    if let Some(stdin) = &mut child.stdin {
        let mut line = serde_json::to_vec(invitation)?;
        line.push(b'\n');
        stdin.write_all(&line)?;
    }
    Ok(child)
}

impl Launched for Local {
    fn ended(&mut self) -> Vec<(usize, String)> {
        let mut ended = Vec::new();
        for (node, agent) in self.agents.iter_mut().enumerate() {
            let Some(child) = agent else { continue };
            let how = match child.try_wait() {
                Ok(None) => continue,
                Ok(Some(status)) => status.to_string(),
                Err(error) => error.to_string(),
            };
            *agent = None;
            ended.push((node, how));
        }
        ended
    }

    fn end(&mut self, patience: Duration) {
        let looks = patience.as_millis() / LOOK.as_millis();
        for _ in 0..looks {
            self.ended();
            if self.agents.iter().all(Option::is_none) {
                return;
            }
            crate::clock::sleep(LOOK);
        }
        for child in self.agents.iter_mut().flatten() {
            // Its workers are killed by the kernel as soon as it is gone.
            let _ = child.kill();
            let _ = child.wait();
        }
        self.agents.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::share;

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
}
