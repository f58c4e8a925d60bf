//! `hallmark site`: init, check, schema.
//!
//! It decides what of a site is found, and what differs from its file. It refuses to overwrite a file, and to invent what
//! no launcher reports. A launcher that cannot be asked makes nothing right: it is said.

use crate::cli::{Asked, Site, SiteInit};
use crate::command::say;
use crate::exit::{Exit, Failure};
use crate::launch::ask::AskError;
use crate::launch::kubernetes;
use crate::launch::slurm::nodes;
use crate::topology;
use found::Found;
use hallmark_profiles::site::{self, Launcher, LoadedSite};
use hallmark_profiles::units::{Unit, human};
use std::io::Write;

mod found;

/// # Errors
/// [`Failure`] with exit 2 for a site file that is wrong, or a launcher that cannot be asked for nodes.
pub fn site(command: &Site) -> Result<Exit, Failure> {
    match command {
        Site::Init(args) => init(args),
        Site::Check { site } => {
            let loaded = site::load(&site.to_string_lossy()).map_err(Failure::usage)?;
            say(&sound(&loaded));
            Ok(compare(&loaded))
        }
        Site::Schema => {
            let schema = serde_json::to_string_pretty(&site::schema()).map_err(Failure::broken)?;
            say(&schema);
            Ok(Exit::Accepted)
        }
    }
}

fn init(args: &SiteInit) -> Result<Exit, Failure> {
    let found = match args.launcher {
        Asked::Local => vec![Found::this_machine(&topology::host().name)],
        Asked::Slurm => {
            let nodes = nodes::all(args.partition.as_deref()).map_err(Failure::usage)?;
            nodes.into_iter().map(Found::from).collect()
        }
    };
    let text = found::draft(args, &found)?;
    let Some(path) = &args.output else {
        say(&text);
        return Ok(Exit::Accepted);
    };
    let fail = |e: std::io::Error| Failure::usage(format!("{}: {e}", path.display()));
    let mut file = std::fs::File::create_new(path).map_err(fail)?;
    file.write_all(text.as_bytes()).map_err(fail)?;
    say(&format!(
        "{} holds {} nodes; read it before it binds anybody",
        path.display(),
        found.len()
    ));
    Ok(Exit::Accepted)
}

/// Says what differs between the file and what its launcher reports.
fn compare(loaded: &LoadedSite) -> Exit {
    let (found, whole) = match loaded.site.launcher {
        Launcher::Local => {
            let names = loaded.nodes().map(|n| Found::this_machine(n.name));
            (Ok(names.collect()), false)
        }
        Launcher::Slurm => (of_slurm(loaded), true),
        Launcher::Kubernetes => (of_kubernetes(loaded), false),
        Launcher::Ssh | Launcher::Manual => {
            say("not compared with what is there: this launcher knows no nodes before a run");
            return Exit::Accepted;
        }
    };
    let found: Vec<Found> = match found {
        Ok(found) => found,
        Err(error) => {
            say(&format!("not compared with what is there: {error}"));
            return match error {
                // A file may be written where there is no such program.
                AskError::Start { .. } => Exit::Accepted,
                _ => Exit::Inconclusive,
            };
        }
    };
    let differences: Vec<String> = found::differences(loaded, &found, whole);
    if differences.is_empty() {
        say("it is what its launcher reports");
        return Exit::Accepted;
    }
    for difference in &differences {
        say(&format!("differs: {difference}"));
    }
    Exit::Rejected
}

fn of_slurm(loaded: &LoadedSite) -> Result<Vec<Found>, AskError> {
    let nodes = nodes::all(loaded.site.slurm.partition.as_deref())?;
    Ok(nodes.into_iter().map(Found::from).collect())
}

/// Where pods ask for no devices, the cluster knows of none, and each node has what it is declared with.
fn of_kubernetes(loaded: &LoadedSite) -> Result<Vec<Found>, AskError> {
    let asked = loaded.site.kubernetes.as_ref();
    let nodes = asked.map_or(Ok(Vec::new()), kubernetes::nodes::all)?;
    let declared = |name: &str| {
        let node = loaded.nodes().find(|n| n.name == name);
        node.map_or(0, |n| n.devices.count)
    };
    let found = |node: kubernetes::nodes::Node| Found {
        devices: node.devices.unwrap_or_else(|| declared(&node.name)),
        unfit: node.unfit,
        ..Found::this_machine(&node.name)
    };
    Ok(nodes.into_iter().map(found).collect())
}

fn sound(loaded: &LoadedSite) -> String {
    let racks = &loaded.site.racks;
    let power = racks.iter().map(|r| r.contract_power.value).sum();
    format!(
        "{} is sound: hall {} of {} ({}), {} racks under {}, {} nodes, {} devices, digest {}",
        loaded.origin,
        loaded.site.hall,
        loaded.site.name,
        loaded.site.country,
        racks.len(),
        human(power, Unit::Watt),
        loaded.nodes().count(),
        loaded.inventory().devices,
        loaded.digest()
    )
}
