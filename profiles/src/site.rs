//! Sites: where a hall is, which racks and nodes it has, what each node must hold, and how its nodes are reached.
//!
//! It decides what a site file means and refuses one that contradicts itself: a node that stands twice, an exception
//! for a node that no rack has, a rack without power or nodes. It knows no network; what is really there is the
//! harness's to find.

use crate::error::SiteError;
use crate::inventory::{DEVICES_MAX, Inventory};
use crate::profile::{digest, line_at, plainly};
use crate::quantity::{Quantity, Time};
use crate::sku::Skus;
use crate::units::Unit;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

mod kubernetes;
mod nodes;

pub use kubernetes::{Effect, Kubernetes, Toleration};
pub use nodes::rows;

/// The version of the site format that this build reads.
pub const SCHEMA_VERSION: u32 = 1;
/// Most racks of one hall.
const RACKS_MAX: usize = 10_000;
/// Most nodes of one hall.
pub const NODES_MAX: usize = 20_000;
/// Longest name of a place.
const NAME_MAX: usize = 64;

/// A site, checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// Version of this format; 1.
    pub schema_version: u32,
    /// The site's name, as contracts call it.
    pub name: String,
    /// Two capital letters of ISO 3166-1, e.g. "NO".
    pub country: String,
    /// The region within the country or the operator's own, e.g. "eu-north".
    pub region: String,
    /// The hall within the site.
    pub hall: String,
    /// What starts the agents on the nodes.
    pub launcher: Launcher,
    /// How jobs are asked for, with the launcher `slurm`.
    #[serde(default)]
    pub slurm: Slurm,
    /// How pods are asked for, with the launcher `kubernetes`, which needs it.
    #[serde(default)]
    pub kubernetes: Option<Kubernetes>,
    /// Address that the controller listens at and the nodes reach it by, e.g. "10.0.0.5:7400"; port 0 takes a free one,
    /// and 0.0.0.0 stands for its machine's host name, which is what `slurm`, `ssh` and `manual` take by themselves.
    /// The launcher `kubernetes` needs one that pods reach.
    #[serde(default)]
    pub address: Option<String>,
    /// What every node must hold that has no exception of its own.
    pub devices: Expected,
    #[serde(rename = "rack")]
    pub racks: Vec<Rack>,
    /// Nodes that hold something else.
    #[serde(default, rename = "node")]
    pub exceptions: Vec<Exception>,
}

/// What starts the agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Launcher {
    /// As processes of the controller's own machine, which divide its processor cores: to rehearse a hall.
    Local,
    /// Slurm: `srun` inside an allocation, and a job that is submitted with `sbatch` outside.
    Slurm,
    /// Kubernetes: a Job with a pod on each node, by the system's `kubectl`.
    Kubernetes,
    /// The system's `ssh`, one connection for each node.
    Ssh,
    /// The operator, e.g. with `mpirun`: the run says how, and waits for agents to join.
    Manual,
}

/// How a job is asked for; what is not said is left to the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slurm {
    /// Partition that holds all nodes of the hall.
    #[serde(default)]
    pub partition: Option<String>,
    /// Account that the job is charged to.
    #[serde(default)]
    pub account: Option<String>,
    /// The job's time limit, at least 10 min; two minutes before it the run is ended in good order.
    #[serde(default)]
    pub time_limit: Option<Time>,
}

/// The devices of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    #[schemars(range(min = 1, max = 1024))]
    pub count: u32,
    /// Their model by its name in the SKU files, e.g. "H100 SXM".
    #[serde(default)]
    pub sku: Option<String>,
    /// Lanes of each device's host link, e.g. 16; held against what its sensor tells when the run begins.
    #[serde(default)]
    #[schemars(range(min = 1, max = 32))]
    pub link_width: Option<u32>,
    /// Firmware (VBIOS) as the driver tells it, e.g. "96.00.74.00.01"; held likewise.
    #[serde(default)]
    pub firmware: Option<String>,
}

/// Nodes that share a power feed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rack {
    pub name: String,
    /// Power that the contract gives this rack, e.g. "40.8 kW".
    pub contract_power: Quantity,
    /// Host names; "n[01-16]" stands for n01 to n16.
    pub nodes: Vec<String>,
}

/// A node that holds something else than the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    pub name: String,
    pub devices: Expected,
}

/// One node in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node<'a> {
    pub name: &'a str,
    pub rack: &'a str,
    pub devices: &'a Expected,
}

/// A site with the text it was read from, and its nodes in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedSite {
    pub site: Site,
    pub origin: String,
    pub text: String,
    /// Name, and the index of its rack.
    nodes: Vec<(String, usize)>,
}

impl Site {
    /// Where the controller listens, host:port: on this machine alone unless the file or the launcher say otherwise.
    #[must_use]
    pub fn address(&self) -> &str {
        let usual = match self.launcher {
            Launcher::Slurm | Launcher::Ssh | Launcher::Manual => "0.0.0.0:0",
            Launcher::Local | Launcher::Kubernetes => "127.0.0.1:0",
        };
        self.address.as_deref().unwrap_or(usual)
    }
}

impl LoadedSite {
    /// SHA-256 of the text, in hexadecimal.
    #[must_use]
    pub fn digest(&self) -> String {
        digest(&self.text)
    }

    /// Every node with its rack and what it must hold.
    pub fn nodes(&self) -> impl Iterator<Item = Node<'_>> {
        self.nodes.iter().map(|(name, rack)| {
            let exception = self.site.exceptions.iter().find(|e| e.name == *name);
            Node {
                name,
                rack: &self.site.racks[*rack].name,
                devices: exception.map_or(&self.site.devices, |e| &e.devices),
            }
        })
    }

    /// What the site as a whole is declared to have; its model where all nodes have the same.
    #[must_use]
    pub fn inventory(&self) -> Inventory {
        let mut skus = self.nodes().map(|n| n.devices.sku.clone());
        let first = skus.next().flatten();
        let same = skus.all(|sku| sku == first);
        Inventory {
            devices: self.nodes().map(|n| n.devices.count).sum(),
            sku: first.filter(|_| same),
            uuids: Vec::new(),
        }
    }
}

/// Reads a site file.
///
/// # Errors
/// [`SiteError`], with file and line where there is one.
pub fn load(path: &str) -> Result<LoadedSite, SiteError> {
    let text = std::fs::read_to_string(path).map_err(|e| SiteError::Unreadable {
        file: path.to_owned(),
        why: e.to_string(),
    })?;
    parse(&text, path)
}

/// Reads and checks a site's text; `origin` names it in errors.
///
/// # Errors
/// [`SiteError::Syntax`].
pub fn parse(text: &str, origin: &str) -> Result<LoadedSite, SiteError> {
    let wrong = |line: usize, what: String| SiteError::Syntax {
        file: origin.to_owned(),
        line,
        what,
    };
    let site: Site = toml::from_str(text).map_err(|e| {
        let line = line_at(text, e.span().map_or(0, |span| span.start));
        let what = plainly(e.message(), text.lines().nth(line - 1).unwrap_or_default());
        wrong(line, what)
    })?;
    let nodes = check(&site).map_err(|fault| wrong(fault.line(text), fault.what))?;
    Ok(LoadedSite {
        site,
        origin: origin.to_owned(),
        text: text.to_owned(),
        nodes,
    })
}

/// What is wrong, and the words whose line it is on.
struct Fault {
    /// Text that stands on the line, e.g. a quoted name; searched from the n-th `header` on.
    at: String,
    header: Option<(&'static str, usize)>,
    what: String,
}

impl Fault {
    fn line(&self, text: &str) -> usize {
        let lines: Vec<&str> = text.lines().collect();
        let headers = |h: &str| {
            let at = lines.iter().enumerate().filter(|(_, l)| l.trim() == h);
            at.map(|(i, _)| i).collect::<Vec<_>>()
        };
        let from = self
            .header
            .and_then(|(h, nth)| headers(h).get(nth).copied());
        let from = from.unwrap_or(0);
        let holds = |l: &&str| l.contains(&self.at);
        let found = lines.iter().skip(from).position(holds);
        1 + from + found.unwrap_or(0)
    }
}

fn fault(at: &str, what: String) -> Fault {
    Fault {
        at: at.to_owned(),
        header: None,
        what,
    }
}

fn within(header: &'static str, nth: usize, at: &str, what: String) -> Fault {
    Fault {
        header: Some((header, nth)),
        ..fault(at, what)
    }
}

fn is_name(name: &str) -> bool {
    !name.trim().is_empty()
        && name.chars().count() <= NAME_MAX
        && !name.chars().any(char::is_control)
}

fn check(site: &Site) -> Result<Vec<(String, usize)>, Fault> {
    whereabouts(site)?;
    if let Some(what) = wrong_devices(&site.devices) {
        return Err(within("[devices]", 0, "", what));
    }
    let nodes = racks(site)?;
    exceptions(site, &nodes)?;
    if let Some(what) = kubernetes::wrong_nodes(site, &nodes) {
        return Err(within(PODS, 0, "", what));
    }
    let ordinary = (nodes.len() - site.exceptions.len()) as u64 * u64::from(site.devices.count);
    let others = site.exceptions.iter().map(|e| u64::from(e.devices.count));
    let total = ordinary + others.sum::<u64>();
    if total > u64::from(DEVICES_MAX) {
        let what = format!("{total} devices in all; a site has at most {DEVICES_MAX}");
        return Err(within("[devices]", 0, "count", what));
    }
    Ok(nodes)
}

/// Version, names and address.
fn whereabouts(site: &Site) -> Result<(), Fault> {
    let version = site.schema_version;
    if version != SCHEMA_VERSION {
        let what =
            format!("schema_version {version} is not known; this build reads {SCHEMA_VERSION}");
        return Err(fault("schema_version", what));
    }
    for (key, name) in [
        ("name", &site.name),
        ("region", &site.region),
        ("hall", &site.hall),
    ] {
        if !is_name(name) {
            let what = format!("{key} must be 1 to {NAME_MAX} visible characters");
            return Err(fault(key, what));
        }
    }
    if site.country.len() != 2 || !site.country.bytes().all(|b| b.is_ascii_uppercase()) {
        let what = format!(
            "country `{}` must be two capital letters of ISO 3166-1, e.g. \"NO\"",
            site.country
        );
        return Err(fault("country", what));
    }
    let port = site.address().rsplit_once(':');
    if port.is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()) {
        let what = format!(
            "address `{}` must be host:port, e.g. \"10.0.0.5:7400\"",
            site.address()
        );
        return Err(fault("address", what));
    }
    if let Some(what) = wrong_job(site) {
        return Err(within("[slurm]", 0, "", what));
    }
    match kubernetes::wrong(site) {
        Some(what) if site.kubernetes.is_none() => Err(fault("launcher", what)),
        Some(what) => Err(within(PODS, 0, "", what)),
        None => Ok(()),
    }
}

/// Where it is said how pods are asked for.
const PODS: &str = "[kubernetes]";

/// What of `[slurm]` cannot be.
fn wrong_job(site: &Site) -> Option<String> {
    /// Less leaves no run before it is ended in good order.
    const SHORTEST: Duration = Duration::from_secs(600);
    let Slurm {
        partition,
        account,
        time_limit,
    } = &site.slurm;
    if site.launcher != Launcher::Slurm && site.slurm != Slurm::default() {
        return Some("these are for the launcher `slurm` alone".to_owned());
    }
    for (key, value) in [("partition", partition), ("account", account)] {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        // They stand in lines that a shell and Slurm read.
        let is_word = |v: &String| {
            !v.is_empty() && v.len() <= NAME_MAX && !v.starts_with('-') && v.bytes().all(plain)
        };
        if value.as_ref().is_some_and(|v| !is_word(v)) {
            return Some(format!(
                "{key} must be 1 to {NAME_MAX} letters, digits, `-`, `_` and `.`"
            ));
        }
    }
    if time_limit.is_some_and(|t| t.duration() < SHORTEST) {
        return Some("time_limit must be at least 10 min".to_owned());
    }
    None
}

fn exceptions(site: &Site, nodes: &[(String, usize)]) -> Result<(), Fault> {
    for (i, exception) in site.exceptions.iter().enumerate() {
        let here = |what: String| within("[[node]]", i, "name", what);
        if !nodes.iter().any(|(name, _)| *name == exception.name) {
            return Err(here(format!(
                "node `{}` is in no rack; known: {}",
                exception.name,
                first_few(nodes)
            )));
        }
        if site.exceptions[..i]
            .iter()
            .any(|e| e.name == exception.name)
        {
            return Err(here(format!(
                "node `{}` has two exceptions",
                exception.name
            )));
        }
        if let Some(what) = wrong_devices(&exception.devices) {
            return Err(here(what));
        }
    }
    Ok(())
}

fn first_few(nodes: &[(String, usize)]) -> String {
    const SHOWN: usize = 8;
    let names: Vec<&str> = nodes.iter().take(SHOWN).map(|(n, _)| n.as_str()).collect();
    let more = if nodes.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", names.join(", "))
}

/// All nodes with the index of their rack.
fn racks(site: &Site) -> Result<Vec<(String, usize)>, Fault> {
    if site.racks.is_empty() || site.racks.len() > RACKS_MAX {
        let what = format!(
            "a hall has 1 to {RACKS_MAX} racks; this one has {}",
            site.racks.len()
        );
        return Err(fault("[[rack]]", what));
    }
    let mut nodes: Vec<(String, usize)> = Vec::new();
    let mut seen = std::collections::BTreeMap::new();
    for (i, rack) in site.racks.iter().enumerate() {
        let here = |at: &str, what: String| within("[[rack]]", i, at, what);
        if !is_name(&rack.name) {
            let what = format!("name must be 1 to {NAME_MAX} visible characters");
            return Err(here("name", what));
        }
        if site.racks[..i].iter().any(|r| r.name == rack.name) {
            return Err(here("name", format!("rack `{}` stands twice", rack.name)));
        }
        let power = rack.contract_power;
        if power.unit != Unit::Watt || !power.value.is_finite() || power.value <= 0.0 {
            let what = format!("contract_power {power} must be a power above zero, e.g. \"40 kW\"");
            return Err(here("contract_power", what));
        }
        if rack.nodes.is_empty() {
            return Err(here("nodes", format!("rack `{}` has no node", rack.name)));
        }
        for text in &rack.nodes {
            let names = nodes::expand(text).map_err(|what| here("nodes", what))?;
            for name in names {
                if let Some(before) = seen.insert(name.clone(), i) {
                    let other = &site.racks[before].name;
                    let what = format!(
                        "node `{name}` stands twice: in rack `{other}` and in rack `{}`",
                        rack.name
                    );
                    return Err(here("nodes", what));
                }
                nodes.push((name, i));
            }
            if nodes.len() > NODES_MAX {
                let what = format!("more than {NODES_MAX} nodes");
                return Err(here("nodes", what));
            }
        }
    }
    Ok(nodes)
}

fn wrong_devices(devices: &Expected) -> Option<String> {
    if !(1..=1024).contains(&devices.count) {
        return Some(format!(
            "{} devices on one node; there may be 1 to 1024",
            devices.count
        ));
    }
    if devices.link_width.is_some_and(|w| !(1..=32).contains(&w)) {
        return Some("link_width must be 1 to 32 lanes".to_owned());
    }
    if devices.firmware.as_ref().is_some_and(|f| !is_name(f)) {
        return Some(format!(
            "firmware must be 1 to {NAME_MAX} visible characters"
        ));
    }
    let (sku, skus) = (devices.sku.as_ref()?, Skus::built_in().ok()?);
    if skus.iter().any(|s| s.name == *sku) {
        return None;
    }
    let known: Vec<_> = skus.iter().map(|s| s.name.as_str()).collect();
    Some(format!("unknown sku `{sku}`; known: {}", known.join(", ")))
}

/// The JSON Schema of sites, for editors.
#[must_use]
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(Site)
}

#[cfg(test)]
mod tests;
