//! Agents over the system's `ssh`, one connection for each node: for halls without a scheduler.
//!
//! It decides how `ssh` is called: without a prompt, with a deadline, and so that it notices a network that is gone. The
//! program must lie under the same path on every node. The agent ends with its connection.

use super::agents::{Agents, Seat};
use super::{Hall, quoted};
use crate::controller::Launched;
use crate::exit::Failure;
use std::path::Path;
use std::process::Command;

/// Never a question, ten seconds to connect, fifteen until a dead network is noticed.
const OPTIONS: [&str; 4] = [
    "BatchMode=yes",
    "ConnectTimeout=10",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
];

/// Starts one agent on each node.
///
/// # Errors
/// [`Failure`]: there is no `ssh`, or a folder cannot be made.
pub fn start(hall: &Hall) -> Result<Box<dyn Launched>, Failure> {
    let agents = Agents::start_all(hall, |_, node| {
        let command = command(node, hall.program, hall.arguments);
        (command, Seat::own_machine())
    })?;
    Ok(Box::new(agents))
}

/// A shell on the node reads what follows the host.
pub fn command(node: &str, program: &Path, arguments: &[String]) -> Command {
    let words = std::iter::once(program.as_os_str()).chain(arguments.iter().map(AsRef::as_ref));
    let words: Vec<String> = words.map(|w| quoted(&w.to_string_lossy())).collect();
    let mut command = Command::new("ssh");
    command.arg("-T");
    for option in OPTIONS {
        command.args(["-o", option]);
    }
    command.args(["--", node, &format!("exec {}", words.join(" "))]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_no_option_and_a_path_is_one_word() {
        let program = Path::new("/opt/it's here/hallmark");
        let command = command("-oProxyCommand=x", program, &["agent".to_owned()]);
        let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
        let at = arguments.iter().position(|a| a == "--").unwrap();
        assert_eq!(
            arguments[at + 1..],
            [
                "-oProxyCommand=x",
                r"exec '/opt/it'\''s here/hallmark' 'agent'"
            ]
        );
    }
}
