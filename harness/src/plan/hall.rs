//! What a site brings to the plan of its run: which device is on which node, what every node must hold, and what this
//! run is not.
//!
//! It decides which devices are missing, node by node: one too many on a node takes no other's place. It refuses
//! nothing itself; a run that is another than the site file promises accepts no site.

use hallmark_kernels::device::DeviceInfo;
use hallmark_profiles::inventory::Inventory;
use hallmark_profiles::profile::{Profile, Reach};
use hallmark_profiles::site::{Expected, Launcher, LoadedSite};
use hallmark_profiles::sku;
use hallmark_results::plan::PlannedDevice;
use std::collections::BTreeSet;

/// How the change begins by which nodes may be processes of one machine.
const REHEARSAL: &str = "--rehearsal";

/// A hall as the plan needs it.
#[derive(Clone, Debug)]
pub struct Hall {
    pub inventory: Inventory,
    /// Node and rack of each device, in the devices' order.
    pub places: Vec<(String, String)>,
    /// What the site's file promises of each device's settings, in the devices' order.
    pub promised: Vec<Vec<(String, String)>>,
    /// What makes this run another than its site file promises, one sentence each.
    pub changes: Vec<String>,
    /// The library by which all nodes' devices reduce together, or why they do not.
    pub reduces: Result<String, String>,
}

impl Hall {
    /// `rehearsal`: asked for on the command line. `joined`: for each node of the site the devices that came with its
    /// agent.
    /// `reduces`: the library by which all devices reduce together, or why they do not.
    pub fn new(
        site: &LoadedSite,
        rehearsal: bool,
        joined: &[Vec<DeviceInfo>],
        reduces: Result<String, String>,
    ) -> Self {
        let nodes = site.nodes().zip(joined);
        let places = nodes.flat_map(|(node, devices)| {
            devices
                .iter()
                .map(move |_| (node.name.to_owned(), node.rack.to_owned()))
        });
        let mut changes = Vec::new();
        if site.site.launcher == Launcher::Local {
            changes.push(format!(
                "{}: launcher local: the nodes are processes of one machine, which is a rehearsal",
                site.origin
            ));
        }
        if rehearsal {
            changes.push(format!(
                "{REHEARSAL}: nodes of {} may be processes of one machine, which is a rehearsal",
                site.origin
            ));
        }
        let of_nodes = site.nodes().zip(joined).flat_map(|(node, devices)| {
            let of = promised(node.devices);
            devices.iter().map(move |_| of.clone())
        });
        Self {
            inventory: site.inventory(),
            places: places.collect(),
            promised: of_nodes.collect(),
            changes,
            reduces,
        }
    }

    /// Devices that reduce together, of so many.
    pub(super) fn ranks(&self, devices: usize) -> usize {
        if self.reduces.is_ok() { devices } else { 1 }
    }

    /// Nodes that bring devices.
    pub(super) fn nodes(&self) -> usize {
        let names: BTreeSet<&str> = self.places.iter().map(|(node, _)| &**node).collect();
        names.len()
    }

    /// What a report has to say of links and switches.
    pub(super) fn limit(&self) -> String {
        match &self.reduces {
            Ok(library) => format!(
                "gradients go from device to host memory, and between nodes through {library}: no link between devices of a node is loaded"
            ),
            Err(why) => format!(
                "every device works by itself: nothing is all-reduced within a node or between nodes, so neither links nor switches are loaded ({why})"
            ),
        }
    }

    /// Says of each planned device where it is.
    pub(super) fn place(&self, devices: &mut [PlannedDevice]) {
        for (device, (node, rack)) in devices.iter_mut().zip(&self.places) {
            device.node.clone_from(node);
            device.facts.push(("rack".to_owned(), rack.clone()));
        }
        for (device, promised) in devices.iter_mut().zip(&self.promised) {
            device.promised.clone_from(promised);
        }
    }
}

/// What so many nodes cannot show.
pub(super) fn left_out(profile: &Profile, nodes: usize) -> impl Iterator<Item = String> {
    let phases = profile.load.phases.iter();
    let alone = phases.filter(move |p| p.reach == Reach::Node && nodes < 2);
    alone.map(|phase| {
        format!(
            "phase `{}` was left out: it compares nodes by themselves with all together, and there is one node",
            phase.name
        )
    })
}

/// Settings by the keys of the sensors that tell them.
fn promised(devices: &Expected) -> Vec<(String, String)> {
    let width = devices
        .link_width
        .map(|lanes| ("pcie_width", lanes.to_string()));
    let firmware = devices.firmware.clone().map(|text| ("vbios", text));
    let all = width.into_iter().chain(firmware);
    all.map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Whether nodes may be processes of one machine in a run that was changed by this.
pub fn is_rehearsal(site: &LoadedSite, overrides: &[String]) -> bool {
    site.site.launcher == Launcher::Local || overrides.iter().any(|o| o.starts_with(REHEARSAL))
}

/// The device's name among those of all nodes.
pub fn name(node: &str, device: &str) -> String {
    format!("{node}/{device}")
}

/// What the site declares and no agent brought, one sentence for each device.
///
/// `joined`: for each node its devices, or why it has not joined.
pub fn missing(site: &LoadedSite, joined: &[Result<Vec<DeviceInfo>, String>]) -> Vec<String> {
    let mut missing = Vec::new();
    for (node, joined) in site.nodes().zip(joined) {
        let wanted = node.devices.count as usize;
        let place = format!("node `{}` of rack `{}`", node.name, node.rack);
        let devices = match joined {
            Ok(devices) => devices,
            Err(why) => {
                let of = |n| format!("device {n} of {wanted} of {place} is missing: {why}");
                missing.extend((1..=wanted).map(of));
                continue;
            }
        };
        let is_other = |d: &&DeviceInfo| {
            let known = sku::find(&d.name).ok().flatten().map(|s| s.name.clone());
            node.devices.sku.is_some() && known != node.devices.sku
        };
        let model = node.devices.sku.as_deref().unwrap_or_default();
        let others = devices.iter().filter(is_other);
        let others: Vec<String> = others
            .map(|d| {
                format!(
                    "{} of {place} is `{}`, not the {model} declared",
                    d.id, d.name
                )
            })
            .collect();
        let right = devices.len() - others.len();
        let found = devices.len();
        let short = (found..wanted).map(|n| {
            format!(
                "device {} of {wanted} of {place} was not found; it has {found}",
                n + 1
            )
        });
        missing.extend(
            others
                .into_iter()
                .chain(short)
                .take(wanted.saturating_sub(right)),
        );
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::device;
    use hallmark_profiles::site;

    fn hall() -> LoadedSite {
        let text = r#"
            schema_version = 1
            name = "S"
            country = "NO"
            region = "north"
            hall = "1"
            launcher = "ssh"
            [devices]
            count = 2
            [[rack]]
            name = "R1"
            contract_power = "40 kW"
            nodes = ["n[1-3]"]
        "#;
        site::parse(text, "hall.toml").unwrap()
    }

    #[test]
    fn a_surplus_on_one_node_takes_no_missing_devices_place_on_another() {
        let three = ["cpu0", "cpu1", "cpu2"].map(device).to_vec();
        let one = vec![device("cpu0")];
        let absent = Err("node `n3` has not joined: nothing was heard of it".to_owned());
        let found = missing(&hall(), &[Ok(three), Ok(one), absent]);
        assert_eq!(
            found,
            [
                "device 2 of 2 of node `n2` of rack `R1` was not found; it has 1",
                "device 1 of 2 of node `n3` of rack `R1` is missing: node `n3` has not joined: nothing was heard of it",
                "device 2 of 2 of node `n3` of rack `R1` is missing: node `n3` has not joined: nothing was heard of it",
            ]
        );
    }

    #[test]
    fn what_a_node_promises_of_its_devices_is_held_against_each_of_them() {
        let mut site = hall();
        site.site.devices.link_width = Some(16);
        site.site.devices.firmware = Some("96.00".to_owned());
        let joined = [vec![device("cpu0"), device("cpu1")], Vec::new(), Vec::new()];
        let hall = Hall::new(&site, false, &joined, Err(String::new()));
        let both = [("pcie_width", "16"), ("vbios", "96.00")];
        let both = both.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(hall.promised, [both.to_vec(), both.to_vec()]);
        assert!(hall.changes.is_empty(), "{:?}", hall.changes);
    }

    #[test]
    fn a_rehearsal_on_one_machine_is_another_run_than_the_site_promises() {
        let mut site = hall();
        let changes =
            |site: &_, rehearsal| Hall::new(site, rehearsal, &[], Err(String::new())).changes;
        assert!(changes(&site, false).is_empty());
        let told = changes(&site, true);
        assert!(told[0].contains("rehearsal"), "{told:?}");
        site.site.launcher = Launcher::Local;
        let told = changes(&site, false);
        assert!(told[0].contains("rehearsal"), "{told:?}");
    }

    #[test]
    fn devices_reduce_together_or_the_report_says_why_not() {
        let reducing = Hall::new(&hall(), false, &[], Ok("MPICH 5".to_owned()));
        assert_eq!(reducing.ranks(16), 16);
        assert!(reducing.limit().contains("between nodes through MPICH 5"));
        let alone = Hall::new(&hall(), false, &[], Err("n2 has none".to_owned()));
        assert_eq!(alone.ranks(16), 1);
        let limit = alone.limit();
        assert!(limit.contains("nothing is all-reduced") && limit.contains("(n2 has none)"));
    }
}
