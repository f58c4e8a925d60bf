//! Agents as processes of this machine, which divide its processor cores: to rehearse a hall.
//!
//! It decides which cores are which node's, and nothing else; more nodes than cores share them. Devices other than the
//! processor are left out, since two nodes cannot have one of them. The kernel kills the agents with the controller.

use super::Invitation;
use super::agents::Agents;
use crate::controller::Controller;
use crate::exit::Failure;
use std::path::Path;
use std::process::Command;

/// Starts one agent for each node, whose log is kept in a folder of its name in `folder`.
///
/// # Errors
/// [`Failure`]: a process cannot be started, or its folder cannot be made.
pub fn start(
    controller: &Controller,
    nodes: &[&str],
    cores: &[usize],
    folder: &Path,
) -> Result<Agents, Failure> {
    let program = std::env::current_exe().map_err(Failure::broken)?;
    let mut agents = Agents::default();
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
        let mut command = Command::new(&program);
        command.arg("agent");
        agents.start(command, &invitation, &folder.join(node))?;
    }
    Ok(agents)
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
