//! Agents by Slurm: one job step for each node of an allocation, by `srun`.
//!
//! A step for each node, so that a node that dies takes no other's agent along. It decides how `srun` is called: with a
//! deadline, with all that the allocation has on the node, and with the agent's rank in the environment, since every step
//! counts its own ranks from 0. The invitation goes over standard input. Outside an allocation: [`batch`].

use super::Hall;
use super::agents::{Agents, Seat};
use crate::controller::Launched;
use crate::exit::Failure;
use crate::protocol::authority::Credentials;
use crate::topology;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

pub mod ask;
pub mod batch;
pub mod nodes;

/// Every step bears this name, by which it is found again when it has to be ended.
const STEP: &str = "hallmark-agent";
/// `--kill-on-bad-exit`: whatever a step has left ends with its agent. `--immediate`: seconds to wait for the node.
const OPTIONS: [&str; 10] = [
    "--nodes=1",
    "--ntasks=1",
    "--overlap",
    "--mem=0",
    "--cpu-bind=none",
    "--mpi=none",
    "--immediate=60",
    "--kill-on-bad-exit=1",
    "--input=all",
    "--export=ALL",
];

/// The allocation that this process is in.
pub fn allocation() -> Option<String> {
    std::env::var("SLURM_JOB_ID").ok()
}

/// Starts one agent on each node of the allocation.
///
/// # Errors
/// [`Failure`]: there is no `srun`, no allocation, or a folder cannot be made.
pub fn start(hall: &Hall) -> Result<Box<dyn Launched>, Failure> {
    let job = allocation().ok_or_else(|| Failure::usage("SLURM_JOB_ID is not set"))?;
    let cores = topology::cores();
    let world = hall.nodes.len();
    let agents = Agents::start_all(hall, |index, node| {
        let seat = match hall.rehearsal {
            true => {
                let folder = Seat::own_machine().folder;
                Seat::share(folder, &cores, world, index)
            }
            false => Seat::own_machine(),
        };
        let step = command(hall.program, hall.arguments, node, (index, world));
        (step, seat)
    })?;
    Ok(Box::new(Steps { agents, job }))
}

/// The step of a node, which has this index of so many.
pub fn command(
    program: &Path,
    arguments: &[String],
    node: &str,
    (index, world): (usize, usize),
) -> Command {
    let mut command = Command::new("srun");
    command.args(OPTIONS);
    command.arg(format!("--job-name={STEP}"));
    command.arg(format!("--nodelist={node}"));
    command.env("HALLMARK_RANK", index.to_string());
    command.env("HALLMARK_WORLD_SIZE", world.to_string());
    command.arg(program).args(arguments);
    command
}

/// The steps, and the `srun` of each.
struct Steps {
    agents: Agents,
    job: String,
}

impl Launched for Steps {
    fn ended(&mut self) -> Vec<(usize, String)> {
        self.agents.ended()
    }

    fn again(&mut self, node: usize, credentials: Credentials, token: String) -> bool {
        self.agents.again(node, credentials, token)
    }

    fn end(&mut self, patience: Duration) -> bool {
        if self.agents.end(patience) {
            return true;
        }
        // An agent ends when its `srun` is gone, unless it hangs; its step is what Slurm can still end.
        for step in ask::steps(&self.job, STEP) {
            let _ = ask::cancel(&[&step]);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::Controller;
    use crate::shell::inbox;
    use hallmark_profiles::site;

    #[test]
    fn a_step_names_its_node_and_its_rank_and_carries_no_secret_on_its_command_line() {
        let text = "schema_version = 1\nname = \"S\"\ncountry = \"NO\"\nregion = \"r\"\nhall = \"A\"\n\
                    launcher = \"slurm\"\n[devices]\ncount = 1\n[[rack]]\nname = \"R\"\n\
                    contract_power = \"1 kW\"\nnodes = [\"n[1-2]\"]\n";
        let site = site::parse(text, "site.toml").unwrap();
        let controller = Controller::start(&site, "r1", false, &inbox::open().0).unwrap();
        let program = Path::new("/opt/hall mark");
        let command = command(program, &["agent".to_owned()], "n2", (1, 2));
        let words: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
        assert_eq!(words[words.len() - 2..], ["/opt/hall mark", "agent"]);
        assert!(words.contains(&"--nodelist=n2".into()), "{words:?}");
        assert!(words.contains(&"--kill-on-bad-exit=1".into()), "{words:?}");
        let set: Vec<_> = command.get_envs().map(|(k, v)| (k, v.unwrap())).collect();
        let set: Vec<_> = set.iter().map(|(k, v)| (k.to_str(), v.to_str())).collect();
        assert_eq!(
            set,
            [
                (Some("HALLMARK_RANK"), Some("1")),
                (Some("HALLMARK_WORLD_SIZE"), Some("2"))
            ]
        );
        // Slurm's own variables of a step are inherited by nobody here; the agents' world is the controller's.
        assert!(controller.address().rsplit_once(':').unwrap().1 != "0");
        assert!(!controller.address().starts_with("0.0.0.0"));
    }
}
