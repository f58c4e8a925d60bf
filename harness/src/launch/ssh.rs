//! Agents over the system's `ssh`, one connection for each node: for halls without a scheduler.
//!
//! It decides how `ssh` is called: without a prompt, with a deadline, and so that it notices a network that is gone. The
//! program must lie under the same path on every node. The agent ends with its connection.

use super::Invitation;
use super::agents::Agents;
use crate::controller::{Controller, desk};
use crate::exit::Failure;
use crate::plan::changes::EVERY_DEVICE;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Never a question, ten seconds to connect, fifteen until a dead network is noticed.
const OPTIONS: [&str; 4] = [
    "BatchMode=yes",
    "ConnectTimeout=10",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
];

/// Starts one agent on each node; what `ssh` says is kept in a folder of the node's name in `folder`.
///
/// # Errors
/// [`Failure`]: there is no `ssh`, or a folder cannot be made.
pub fn start(controller: &Controller, nodes: &[&str], folder: &Path) -> Result<Agents, Failure> {
    let program = std::env::current_exe().map_err(Failure::broken)?;
    let mut agents = Agents::default();
    for (index, node) in nodes.iter().enumerate() {
        let (credentials, token) = controller.invite(index)?;
        let invitation = Invitation {
            address: controller.address().to_string(),
            node: (*node).to_owned(),
            credentials,
            token,
            // Nobody on the node can have prepared a name that is drawn now.
            folder: PathBuf::from("/tmp").join(format!("hallmark-{}", desk::session())),
            devices: vec![EVERY_DEVICE.to_owned()],
            cores: Vec::new(),
        };
        agents.start(command(node, &program), &invitation, &folder.join(node))?;
    }
    Ok(agents)
}

fn command(node: &str, program: &Path) -> Command {
    let mut command = Command::new("ssh");
    command.arg("-T");
    for option in OPTIONS {
        command.args(["-o", option]);
    }
    // A shell on the node reads what follows the host.
    let quoted = program.to_string_lossy().replace('\'', r"'\''");
    command.args(["--", node, &format!("exec '{quoted}' agent")]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_no_option_and_a_path_is_one_word() {
        let command = command("-oProxyCommand=x", Path::new("/opt/it's here/hallmark"));
        let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
        let at = arguments.iter().position(|a| a == "--").unwrap();
        assert_eq!(
            arguments[at + 1..],
            [
                "-oProxyCommand=x",
                r"exec '/opt/it'\''s here/hallmark' agent"
            ]
        );
    }
}
