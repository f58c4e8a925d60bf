//! What starts the agents of a hall, and what an agent is told when it is started.
//!
//! An invitation goes to an agent over its standard input, never by a command line that everybody on the node can read.

pub mod agents;
pub mod ask;
pub mod kubernetes;
pub mod local;
pub mod manual;
pub mod slurm;
pub mod ssh;

use crate::controller::Controller;
use crate::protocol::authority::Credentials;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What every launcher works from.
pub struct Hall<'a> {
    pub controller: &'a Controller,
    pub nodes: &'a [&'a str],
    /// Gets a folder for each node.
    pub logs: &'a Path,
    /// This program, which lies under the same path on every node.
    pub program: &'a Path,
    /// What it is to do there: `agent`, and its options.
    pub arguments: &'a [String],
    /// Nodes may be processes of one machine.
    pub rehearsal: bool,
}

/// One word to a shell, whatever is in it.
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A command as a shell takes it, with what is set in its environment.
pub fn line(command: &Command) -> String {
    let word = |w: &OsStr| {
        let w = w.to_string_lossy();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./=:,@+%".contains(&b);
        match !w.is_empty() && w.bytes().all(plain) {
            true => w.into_owned(),
            false => quoted(&w),
        }
    };
    let set = command.get_envs();
    let set = set.filter_map(|(k, v)| Some(format!("{}={}", word(k), word(v?))));
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let all: Vec<String> = set.chain(words.map(word)).collect();
    all.join(" ")
}

/// What an agent needs to join a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Invitation {
    /// Where the controller listens, host:port.
    pub address: String,
    /// The node's name in the site file.
    pub node: String,
    pub credentials: Credentials,
    /// Good for one agent.
    pub token: String,
    /// Where the node's log is kept.
    pub folder: PathBuf,
    /// Devices or engines to load, as `--devices` takes them.
    pub devices: Vec<String>,
    /// Processor cores that are this node's; empty for all of the machine.
    pub cores: Vec<usize>,
}
