//! What Slurm says of its nodes, from `sinfo`.
//!
//! It decides how a line of it is read: GPUs by the node's generic resources, a rack by a feature whose name begins with
//! `rack`. It refuses a line that it cannot read, and guesses no model from Slurm's name for it.

use super::ask::{AskError, ask};
use std::collections::BTreeMap;

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub partitions: Vec<String>,
    pub gpus: u32,
    /// What Slurm calls them, e.g. `h100`.
    pub gpu_type: Option<String>,
    /// The first feature whose name begins with `rack`.
    pub rack: Option<String>,
    /// E.g. `idle`, `down*`.
    pub state: String,
}

impl Node {
    /// Whether it can take a job, now or later.
    pub fn is_up(&self) -> bool {
        let state = self
            .state
            .trim_end_matches(|c: char| !c.is_ascii_alphabetic());
        !self.state.ends_with('*') && matches!(state, "idle" | "mixed" | "allocated" | "completing")
    }
}

/// All nodes, in Slurm's order; of one partition where it is given.
///
/// # Errors
/// [`AskError`]: Slurm is not here, does not answer, or says something that is no list of nodes.
pub fn all(partition: Option<&str>) -> Result<Vec<Node>, AskError> {
    let of = partition.map(|p| format!("--partition={p}"));
    let mut arguments = vec!["--Node", "--noheader", "--format=%N|%P|%G|%f|%T"];
    arguments.extend(of.as_deref());
    let told = ask("sinfo", &arguments)?;
    parse(&told).map_err(|line| AskError::Failed {
        program: "sinfo".to_owned(),
        why: format!("`{line}` is no line about a node"),
    })
}

/// The line that cannot be read is the error.
fn parse(told: &str) -> Result<Vec<Node>, String> {
    let mut nodes: Vec<Node> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for line in told.lines().filter(|l| !l.trim().is_empty()) {
        let node = one(line).ok_or_else(|| line.chars().take(120).collect::<String>())?;
        // A node stands once for each of its partitions.
        match known.get(&node.name) {
            Some(at) => nodes[*at].partitions.extend(node.partitions),
            None => {
                known.insert(node.name.clone(), nodes.len());
                nodes.push(node);
            }
        }
    }
    Ok(nodes)
}

fn one(line: &str) -> Option<Node> {
    let fields: Vec<&str> = line.trim().split('|').collect();
    let &[name, partition, resources, features, state] = fields.as_slice() else {
        return None;
    };
    if name.is_empty() {
        return None;
    }
    let mut node = Node {
        name: name.to_owned(),
        partitions: vec![partition.trim_end_matches('*').to_owned()],
        gpus: 0,
        gpu_type: None,
        rack: features
            .split(',')
            .find(|f| f.starts_with("rack"))
            .map(str::to_owned),
        state: state.to_owned(),
    };
    for resource in resources.split(',') {
        // Which sockets they are at may follow, e.g. gpu:h100:8(S:0-1).
        let resource = resource.split('(').next().unwrap_or_default();
        let mut parts = resource.split(':');
        if parts.next() != Some("gpu") {
            continue;
        }
        let parts: Vec<&str> = parts.collect();
        let count: u32 = parts.last()?.parse().ok()?;
        node.gpus = node.gpus.checked_add(count)?;
        if let [kind, _] = parts.as_slice() {
            node.gpu_type = Some((*kind).to_owned());
        }
    }
    Some(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_of_two_partitions_is_one_with_all_its_gpus() {
        let told = "n1|hall*|gpu:h100:8(S:0-1),nvme:2|hall1,rack07|idle\n\
                    n1|debug|gpu:h100:8(S:0-1),nvme:2|hall1,rack07|idle\n\
                    n2|hall*|(null)|(null)|down*\nn3|hall*|gpu:a:4,gpu:b:4|x|mixed-\n";
        let nodes = parse(told).unwrap();
        assert_eq!(nodes.len(), 3);
        assert_eq!(nodes[0].partitions, ["hall", "debug"]);
        assert_eq!(
            (nodes[0].gpus, nodes[0].gpu_type.as_deref()),
            (8, Some("h100"))
        );
        assert_eq!(nodes[0].rack.as_deref(), Some("rack07"));
        assert_eq!((nodes[1].gpus, nodes[1].rack.as_deref()), (0, None));
        assert_eq!(nodes[2].gpus, 8);
        let up: Vec<bool> = nodes.iter().map(Node::is_up).collect();
        assert_eq!(up, [true, false, true]);
    }

    #[test]
    fn what_is_no_line_about_a_node_is_refused() {
        for line in [
            "n1",
            "n1|hall|gpu:h100:many|x|idle",
            "|hall|x|y|idle",
            "a|b|c|d|e|f",
        ] {
            assert_eq!(parse(line), Err(line.to_owned()));
        }
    }
}
