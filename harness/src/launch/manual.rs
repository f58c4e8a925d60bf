//! Agents that somebody else starts, e.g. `mpirun`, `torchrun` or `srun`: invitations lie in a folder, one for each node.
//!
//! It decides which invitation is whose: by the name of the machine, which must be a node's. In a rehearsal, where one
//! machine is several nodes, by the rank that the environment tells. It refuses a machine that is no node; two agents of
//! one node are the controller's to refuse, since an invitation is good for one of them.

use super::Hall;
use super::agents::{Agents, Seat};
use crate::controller::Launched;
use crate::exit::Failure;
use crate::launch::Invitation;
use crate::protocol::authority::Credentials;
use crate::rank::Rank;
use crate::topology;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Largest invitation, B.
const INVITATION_MAX: u64 = 1 << 20;
/// Stands in the folder where nodes may be processes of one machine.
const REHEARSAL: &str = "rehearsal";

/// Writes the invitations into a folder that nobody else may read; it goes with what is returned.
///
/// # Errors
/// [`Failure`]: the folder is there already, or cannot be written.
pub fn start(hall: &Hall, folder: &Path) -> Result<Box<dyn Launched>, Failure> {
    let fail = |e: std::io::Error| Failure::broken(format!("{}: {e}", folder.display()));
    let mut builder = std::fs::DirBuilder::new();
    private(&mut builder);
    builder.create(folder).map_err(fail)?;
    // From here on it is removed whatever happens.
    let invited = Invited(folder.to_owned());
    if hall.rehearsal {
        std::fs::write(folder.join(REHEARSAL), "").map_err(fail)?;
    }
    let cores = topology::cores();
    for (index, node) in hall.nodes.iter().enumerate() {
        let own = Seat::own_machine();
        let seat = match hall.rehearsal {
            true => Seat::share(own.folder, &cores, hall.nodes.len(), index),
            false => own,
        };
        let invitation = Agents::invitation(hall, index, seat)?;
        let text = serde_json::to_vec(&invitation).map_err(Failure::broken)?;
        let mut file = std::fs::File::create_new(folder.join(name(index, node))).map_err(fail)?;
        file.write_all(&text).map_err(fail)?;
    }
    Ok(Box::new(invited))
}

#[cfg(unix)]
fn private(builder: &mut std::fs::DirBuilder) {
    use std::os::unix::fs::DirBuilderExt;
    builder.mode(0o700);
}

#[cfg(not(unix))]
fn private(_builder: &mut std::fs::DirBuilder) {}

/// The file of a node's invitation: its place in the site file, and its name.
fn name(index: usize, node: &str) -> String {
    format!("{index}.{node}")
}

/// The invitation in `folder` that is for this process, on the machine `host`.
///
/// # Errors
/// [`Failure`] with exit 2: there is none, by name.
pub fn choose(folder: &Path, host: &str, rank: Option<&Rank>) -> Result<Invitation, Failure> {
    let fail = |e: std::io::Error| Failure::usage(format!("{}: {e}", folder.display()));
    let mut nodes: Vec<(usize, String)> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        let known = name.to_str().and_then(|n| n.split_once('.'));
        if let Some((index, node)) = known
            && let Ok(index) = index.parse()
        {
            nodes.push((index, node.to_owned()));
        }
    }
    nodes.sort_unstable();
    let rehearsal = folder.join(REHEARSAL).exists();
    let short = |name: &str| name.split('.').next().map(str::to_owned);
    let is_it = |(index, node): &&(usize, String)| match rehearsal {
        true => rank.is_some_and(|r| r.rank as usize == *index),
        false => node == host || short(node) == short(host),
    };
    let mut mine = nodes.iter().filter(is_it);
    let (Some((index, node)), None) = (mine.next(), mine.next()) else {
        let known: Vec<&str> = nodes.iter().take(8).map(|(_, n)| n.as_str()).collect();
        let what = match (rehearsal, rank) {
            (true, None) => {
                "the environment tells no rank, by which a rehearsal knows its nodes".to_owned()
            }
            (true, Some(rank)) => format!("rank {} of {} is no node's", rank.rank, rank.launcher),
            _ => format!("this machine, `{host}`, is no one node of the run"),
        };
        return Err(Failure::usage(format!(
            "{what}; known: {}",
            known.join(", ")
        )));
    };
    let path = folder.join(name(*index, node));
    let length = std::fs::metadata(&path).map_err(fail)?.len();
    if length > INVITATION_MAX {
        return Err(Failure::usage(format!(
            "{} is no invitation",
            path.display()
        )));
    }
    let text = std::fs::read(&path).map_err(fail)?;
    serde_json::from_slice(&text)
        .map_err(|e| Failure::usage(format!("{} is no invitation: {e}", path.display())))
}

/// The folder of the invitations.
struct Invited(PathBuf);

impl Launched for Invited {
    /// Whoever started them knows; the controller hears whether they live.
    fn ended(&mut self) -> Vec<(usize, String)> {
        Vec::new()
    }

    fn again(&mut self, _node: usize, _credentials: Credentials, _token: String) -> bool {
        false
    }

    fn end(&mut self, _patience: Duration) -> bool {
        true
    }
}

impl Drop for Invited {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(rehearsal: bool) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (index, node) in ["n1.hall", "n2.hall", "n10.hall"].iter().enumerate() {
            let credentials = Credentials {
                authority: String::new(),
                certificate: String::new(),
                key: String::new(),
            };
            let invitation = Invitation {
                address: "127.0.0.1:1".to_owned(),
                node: (*node).to_owned(),
                credentials,
                token: String::new(),
                folder: PathBuf::new(),
                devices: Vec::new(),
                cores: Vec::new(),
            };
            let text = serde_json::to_vec(&invitation).unwrap();
            std::fs::write(folder.path().join(name(index, node)), text).unwrap();
        }
        if rehearsal {
            std::fs::write(folder.path().join(REHEARSAL), "").unwrap();
        }
        folder
    }

    fn rank(rank: u32) -> Rank {
        Rank {
            rank,
            world: Some(3),
            launcher: "Open MPI".to_owned(),
        }
    }

    #[test]
    fn a_machine_gets_its_own_invitation_whatever_rank_it_is_told() {
        let folder = folder(false);
        for host in ["n10", "n10.hall"] {
            let chosen = choose(folder.path(), host, Some(&rank(0))).unwrap();
            assert_eq!(chosen.node, "n10.hall");
        }
        let told = choose(folder.path(), "n3", Some(&rank(0)))
            .unwrap_err()
            .message;
        assert_eq!(
            told,
            "this machine, `n3`, is no one node of the run; known: n1.hall, n2.hall, n10.hall"
        );
    }

    #[test]
    fn a_rehearsal_goes_by_ranks_and_refuses_one_that_is_no_nodes() {
        let folder = folder(true);
        let chosen = choose(folder.path(), "n1", Some(&rank(2))).unwrap();
        assert_eq!(chosen.node, "n10.hall");
        let told = choose(folder.path(), "n1", Some(&rank(3)))
            .unwrap_err()
            .message;
        assert!(
            told.starts_with("rank 3 of Open MPI is no node's"),
            "{told}"
        );
        assert!(choose(folder.path(), "n1", None).is_err());
    }
}
