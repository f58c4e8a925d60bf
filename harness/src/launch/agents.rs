//! The processes by which a launcher has started agents: invited over their standard input, watched, and ended.
//!
//! An agent whose standard input closes ends by itself, wherever it runs; so whatever ends one of these processes ends the
//! agent behind it.

use super::Invitation;
use crate::controller::Launched;
use crate::exit::Failure;
use crate::shell::fleet::own_group;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Between two looks at whether an agent has ended.
const LOOK: Duration = Duration::from_millis(20);

/// The processes, by node; `None` once one has ended.
#[derive(Default)]
pub struct Agents {
    agents: Vec<Option<Child>>,
}

impl Agents {
    /// Starts the next node's agent by `command`; what it says goes to a file in `folder`.
    ///
    /// # Errors
    /// [`Failure`]: the process cannot be started, or the folder cannot be made.
    pub fn start(
        &mut self,
        command: Command,
        invitation: &Invitation,
        folder: &Path,
    ) -> Result<(), Failure> {
        let node = &invitation.node;
        let started = spawn(command, invitation, folder).map_err(|e| {
            Failure::broken(format!("cannot start the agent of node `{node}`: {e}"))
        })?;
        self.agents.push(Some(started));
        Ok(())
    }
}

fn spawn(mut command: Command, invitation: &Invitation, folder: &Path) -> std::io::Result<Child> {
    std::fs::create_dir_all(folder)?;
    let said = File::create(folder.join("agent.log"))?;
    command
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

impl Launched for Agents {
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
