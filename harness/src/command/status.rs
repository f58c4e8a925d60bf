//! `hallmark status`: how a run fares, or how it ended, from its folder: the hall, its racks, their nodes.
//!
//! It reads what is on disk, also while the run goes on, on any machine that sees the folder. It decides only what is
//! said of a place: how many of its devices work, and the first fault of each node. It judges nothing for good while the
//! run goes on.

use super::{record, say};
use crate::clock;
use crate::exit::{Exit, Failure};
use crate::view::plain::words;
use hallmark_results::frame::{Ending, FaultKind, What};
use hallmark_results::standing::Standing;
use hallmark_results::store::journal;
use hallmark_results::verdict::{Outcome, judge};
use std::collections::BTreeMap;
use std::path::Path;

/// With more nodes than this only those with a fault are listed.
const LISTED: usize = 64;

/// Shows a run.
///
/// # Errors
/// [`Failure`]: exit 2 where there is no run, 3 where its record does not verify.
pub fn status(folder: &Path) -> Result<Exit, Failure> {
    // Asked first: a run that ends in between is then told as one that has.
    let goes_on = journal::is_written(folder);
    let standing = record::account(folder)?;
    say(&text(&standing, goes_on));
    Ok(Exit::Accepted)
}

/// One node, in its place.
#[derive(Default)]
struct Node<'a> {
    name: &'a str,
    rack: &'a str,
    devices: usize,
    well: usize,
    steps: u64,
    fault: Option<String>,
}

fn text(standing: &Standing, goes_on: bool) -> String {
    let nodes = nodes(standing);
    let mut lines = heading(standing, goes_on);
    let mut racks: BTreeMap<&str, Vec<&Node>> = BTreeMap::new();
    for node in &nodes {
        racks.entry(node.rack).or_default().push(node);
    }
    for (rack, nodes_of) in &racks {
        let well = nodes_of.iter().filter(|n| n.fault.is_none()).count();
        let devices: usize = nodes_of.iter().map(|n| n.devices).sum();
        let sound: usize = nodes_of.iter().map(|n| n.well).sum();
        let place = if rack.is_empty() {
            "this machine".to_owned()
        } else {
            format!("rack {}", words::clean(rack))
        };
        lines.push(format!(
            "{place}: {well} of {} without a fault, {sound} of {} without one",
            words::counted(nodes_of.len(), "node", "nodes"),
            words::counted(devices, "device", "devices")
        ));
        let shown = |n: &&&Node| nodes.len() <= LISTED || n.fault.is_some();
        lines.extend(nodes_of.iter().filter(shown).map(|n| line(n)));
    }
    let missing = standing.events().iter().filter_map(|e| match &e.what {
        What::Fault { kind, detail } if *kind == FaultKind::Missing && e.device.is_none() => {
            Some(format!("missing: {}", words::clean(detail)))
        }
        _ => None,
    });
    let missing: Vec<String> = missing.collect();
    let more = missing.len().saturating_sub(LISTED);
    lines.extend(missing.into_iter().take(LISTED));
    if more > 0 {
        lines.push(format!(
            "… and {} more missing",
            words::counted(more, "device", "devices")
        ));
    }
    lines.join("\n")
}

fn line(node: &Node) -> String {
    let state = match &node.fault {
        None => "no fault".to_owned(),
        Some(why) => why.clone(),
    };
    format!(
        "  {}  {} of {} without a fault, {}: {state}",
        words::clean(node.name),
        node.well,
        words::counted(node.devices, "device", "devices"),
        words::counted(node.steps as usize, "step", "steps")
    )
}

/// What run this is, where, and how far.
fn heading(standing: &Standing, goes_on: bool) -> Vec<String> {
    let opened = standing.opened();
    let site = standing.events().iter().find_map(|e| match &e.what {
        What::AsFound { key, value } if key == "site" => Some(value.as_str()),
        _ => None,
    });
    let place = site.unwrap_or(&opened.host.name);
    let at = words::clock(standing.last_ns());
    let segment = standing.windows().last();
    let segment = segment.map(|w| words::segment(standing, w.segment as usize));
    let state = match (standing.closed().map(|c| &c.ending), goes_on) {
        (Some(Ending::Complete), _) => format!("ended after {at}, all of its schedule done"),
        (Some(Ending::Stopped { why }), _) => {
            format!("ended after {at}: {}", words::clean(why))
        }
        (Some(Ending::SealedAfterCrash), _) => format!("cut off after {at}, and sealed as it was"),
        (None, true) => {
            let now_ns = clock::since_utc_ns(&opened.utc_start).unwrap_or(0);
            let behind = words::duration(now_ns.saturating_sub(standing.last_ns()));
            let segment = segment.unwrap_or_else(|| "not under load yet".to_owned());
            format!("goes on: {segment}, {at} (the record ends {behind} ago)")
        }
        (None, false) => format!(
            "cut off after {at}: nobody drives it; `hallmark resume` goes on with it, `hallmark seal` closes it"
        ),
    };
    let verdict = judge(standing);
    let mut lines = vec![
        format!("{}: {}", words::clean(&opened.run_id), words::clean(place)),
        state,
    ];
    if standing.closed().is_some() {
        lines.push(verdict.sentence);
    } else {
        let failed = verdict.findings.iter();
        let failed = failed.filter(|f| f.outcome == Outcome::Failed);
        let mut names: Vec<String> = failed.map(|f| words::clean(&f.criterion.name)).collect();
        names.dedup();
        lines.push(match names.as_slice() {
            [] => "so far nothing has failed; what is not measured yet is not judged".to_owned(),
            names => format!("so far failed: {}", names.join(", ")),
        });
    }
    lines
}

fn nodes(standing: &Standing) -> Vec<Node<'_>> {
    let mut nodes: Vec<Node> = Vec::new();
    let planned = &standing.opened().plan.devices;
    for (index, (device, run)) in planned.iter().zip(standing.devices()).enumerate() {
        let known = nodes.iter().position(|n| n.name == device.node);
        let known = known.unwrap_or_else(|| {
            let rack = device.facts.iter().find(|(key, _)| key == "rack");
            nodes.push(Node {
                name: &device.node,
                rack: rack.map_or("", |(_, rack)| rack),
                ..Node::default()
            });
            nodes.len() - 1
        });
        let node = &mut nodes[known];
        let fault = run.faults.iter().find_map(|e| match &e.what {
            What::Fault { kind, detail } => Some(format!(
                "{} at {}: {}",
                words::fault(*kind),
                words::clock(e.at_ns),
                words::clean(detail)
            )),
            _ => None,
        });
        node.devices += 1;
        node.steps += run.steps;
        node.well += usize::from(fault.is_none());
        let named = |why| format!("{}: {why}", words::device(standing, Some(index as u32)));
        if node.fault.is_none() {
            node.fault = fault.map(named);
        }
    }
    nodes
}
