//! The nodes that a launcher reports: as a site file, and against one.
//!
//! It decides which words of a file follow from them: rows of names, the usual number of devices, exceptions. It refuses
//! to name a model, of which a launcher knows no more than somebody's word, and a draft that would be no sound site file.

use crate::cli::{Asked, SiteInit};
use crate::exit::Failure;
use crate::launch::slurm::nodes::Node;
use hallmark_profiles::site::{self, LoadedSite, rows};
use std::collections::BTreeMap;

/// Devices that a node has for hallmark without a GPU: its processor.
const PROCESSOR: u32 = 1;
/// A rack that no launcher names.
const NAMELESS: &str = "rack-1";

/// One node, as it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub name: String,
    pub rack: Option<String>,
    pub devices: u32,
    /// What its launcher calls the devices.
    pub model: Option<String>,
    /// Why it can take no work, where it cannot.
    pub unfit: Option<String>,
}

impl Found {
    /// A node of the launcher `local`: a share of this machine's processor.
    pub fn this_machine(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            rack: None,
            devices: PROCESSOR,
            model: None,
            unfit: None,
        }
    }
}

impl From<Node> for Found {
    fn from(node: Node) -> Self {
        let unfit = (!node.is_up()).then(|| node.state.clone());
        Self {
            name: node.name,
            rack: node.rack,
            devices: node.gpus.max(PROCESSOR),
            model: node.gpu_type,
            unfit,
        }
    }
}

/// The text of a site file; what a launcher does not report comes from the command line.
///
/// # Errors
/// [`Failure`] with exit 2: there is no node, or what was said makes no sound site file.
pub fn draft(args: &SiteInit, found: &[Found]) -> Result<String, Failure> {
    if found.is_empty() {
        return Err(Failure::usage("the launcher reports no node"));
    }
    let word = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let (launcher, source) = match args.launcher {
        Asked::Local => ("local", "this machine"),
        Asked::Slurm => ("slurm", "sinfo"),
    };
    let mut text = format!(
        "# Written by hallmark {} from what {source} reports; read it before it binds anybody.\n\
         schema_version = 1\nname = {}\ncountry = {}\nregion = {}\nhall = {}\nlauncher = \"{launcher}\"\n",
        env!("CARGO_PKG_VERSION"),
        word(&args.name),
        word(&args.country),
        word(&args.region),
        word(&args.hall)
    );
    if let Some(partition) = &args.partition {
        text.push_str(&format!("\n[slurm]\npartition = {}\n", word(partition)));
    }
    let usual = usual(found);
    text.push_str(&format!("\n[devices]\ncount = {usual}\n"));
    let mut models: Vec<&str> = found.iter().filter_map(|f| f.model.as_deref()).collect();
    models.sort_unstable();
    models.dedup();
    if !models.is_empty() {
        let called: String = models
            .join(", ")
            .chars()
            .filter(|c| !c.is_control())
            .collect();
        text.push_str(&format!(
            "# The scheduler calls them {called}; declare their model, e.g. sku = \"H100 SXM\".\n"
        ));
    }
    let mut racks: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in found {
        let rack = node.rack.as_deref().unwrap_or(NAMELESS);
        racks.entry(rack).or_default().push(&node.name);
    }
    for (rack, names) in racks {
        let names: Vec<String> = rows(&names).iter().map(|r| word(r)).collect();
        text.push_str(&format!(
            "\n[[rack]]\nname = {}\ncontract_power = {}\nnodes = [{}]\n",
            word(rack),
            word(&args.contract_power),
            names.join(", ")
        ));
    }
    for node in found.iter().filter(|f| f.devices != usual) {
        text.push_str(&format!(
            "\n[[node]]\nname = {}\ndevices = {{ count = {} }}\n",
            word(&node.name),
            node.devices
        ));
    }
    site::parse(&text, "the draft").map_err(Failure::usage)?;
    Ok(text)
}

/// The number of devices that most nodes have; of several such the largest.
fn usual(found: &[Found]) -> u32 {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for node in found {
        *counts.entry(node.devices).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, nodes)| *nodes);
    most.map_or(PROCESSOR, |(devices, _)| devices)
}

/// What differs, one sentence each. `whole`: the launcher reports all nodes that there are.
pub fn differences(site: &LoadedSite, found: &[Found], whole: bool) -> Vec<String> {
    let there: BTreeMap<&str, &Found> = found.iter().map(|f| (f.name.as_str(), f)).collect();
    let mut differences = Vec::new();
    let mut named = std::collections::BTreeSet::new();
    for node in site.nodes() {
        named.insert(node.name);
        let name = node.name;
        let Some(found) = there.get(name) else {
            differences.push(format!("node `{name}` is declared, and not reported"));
            continue;
        };
        if found.devices != node.devices.count {
            differences.push(format!(
                "node `{name}` is declared with {} devices, and {} are reported",
                node.devices.count, found.devices
            ));
        }
        if let Some(state) = &found.unfit {
            differences.push(format!("node `{name}` can take no work: {state}"));
        }
        if let Some(rack) = found.rack.as_deref().filter(|r| *r != node.rack) {
            differences.push(format!(
                "node `{name}` is declared in rack `{}`, and reported in `{rack}`",
                node.rack
            ));
        }
    }
    let unnamed = found
        .iter()
        .filter(|f| whole && !named.contains(f.name.as_str()));
    differences.extend(unnamed.map(|f| format!("node `{}` is reported, and not declared", f.name)));
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> SiteInit {
        SiteInit {
            launcher: Asked::Slurm,
            name: "Fjord \"2\"".to_owned(),
            country: "NO".to_owned(),
            region: "north".to_owned(),
            hall: "H1".to_owned(),
            contract_power: "40.8 kW".to_owned(),
            partition: Some("gpu".to_owned()),
            output: None,
        }
    }

    fn node(name: &str, rack: Option<&str>, devices: u32) -> Found {
        Found {
            rack: rack.map(str::to_owned),
            devices,
            model: Some("h100".to_owned()),
            ..Found::this_machine(name)
        }
    }

    fn hall() -> Vec<Found> {
        vec![
            node("n01", Some("rackA"), 8),
            node("n02", Some("rackA"), 8),
            node("n03", None, 4),
        ]
    }

    #[test]
    fn a_draft_says_what_was_found_and_differs_in_nothing_from_it() {
        let text = draft(&args(), &hall()).unwrap();
        let loaded = site::parse(&text, "x").unwrap();
        let nodes: Vec<_> = loaded
            .nodes()
            .map(|n| (n.name, n.rack, n.devices.count))
            .collect();
        assert_eq!(
            nodes,
            [
                ("n03", "rack-1", 4),
                ("n01", "rackA", 8),
                ("n02", "rackA", 8)
            ]
        );
        assert!(text.contains("n[01-02]") && text.contains("h100"), "{text}");
        assert_eq!(loaded.site.devices.sku, None);
        assert_eq!(differences(&loaded, &hall(), true), [] as [&str; 0]);
    }

    #[test]
    fn each_difference_is_told_by_name() {
        let loaded = site::parse(&draft(&args(), &hall()).unwrap(), "x").unwrap();
        let mut now = hall();
        now[0].devices = 7;
        now[1].unfit = Some("down*".to_owned());
        now[2] = node("n04", Some("rackB"), 8);
        assert_eq!(
            differences(&loaded, &now, true),
            [
                "node `n03` is declared, and not reported",
                "node `n01` is declared with 8 devices, and 7 are reported",
                "node `n02` can take no work: down*",
                "node `n04` is reported, and not declared",
            ]
        );
    }

    #[test]
    fn what_makes_no_site_file_is_refused() {
        let mut args = args();
        args.country = "Norway".to_owned();
        let told = draft(&args, &hall()).unwrap_err().message;
        assert!(told.contains("two capital letters"), "{told}");
        assert!(draft(&args, &[]).is_err());
    }
}
