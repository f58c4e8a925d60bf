//! Agents as processes of this machine, which divide its processor cores: to rehearse a hall.
//!
//! It decides nothing but that; more nodes than cores share them. The kernel kills the agents with the controller.

use super::Hall;
use super::agents::{Agents, Seat};
use crate::controller::Launched;
use crate::exit::Failure;
use crate::topology;
use std::path::Path;
use std::process::Command;

/// Starts one agent for each node, whose log is kept beside what it says.
///
/// # Errors
/// [`Failure`]: a process cannot be started, or its folder cannot be made.
pub fn start(hall: &Hall) -> Result<Box<dyn Launched>, Failure> {
    let cores = topology::cores();
    let agents = Agents::start_all(hall, |index, node| {
        let folder = hall.logs.join(node);
        (
            command(hall.program, hall.arguments),
            Seat::share(folder, &cores, hall.nodes.len(), index),
        )
    })?;
    Ok(Box::new(agents))
}

/// The agent of any node.
pub fn command(program: &Path, arguments: &[String]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}
