//! Which crate may know which: read from the manifests, so that a wrong arrow fails before it is used.

use super::Complaint;
use toml::{Table, Value};

/// Folder, and the siblings that it may depend on.
const KNOWS: [(&str, &[&str]); 4] = [
    ("profiles", &[]),
    ("kernels", &["hallmark-profiles"]),
    ("results", &["hallmark-profiles"]),
    (
        "harness",
        &["hallmark-profiles", "hallmark-kernels", "hallmark-results"],
    ),
];

/// What only one crate may depend on: devices are the kernels', the world is the harness'.
const KEPT: [(&str, &[&str]); 2] = [
    ("kernels", &["wgpu", "cudarc"]),
    (
        "harness",
        &[
            "nvml-wrapper",
            "nvml-wrapper-sys",
            "clap",
            "ratatui",
            "tokio",
            "tonic",
            "signal-hook",
        ],
    ),
];

/// Judges one crate's manifest; `folder` is its place in the repository.
#[must_use]
pub fn directions(folder: &str, manifest: &str) -> Vec<Complaint> {
    let path = format!("{folder}/Cargo.toml");
    let complaint = |what: String| Complaint {
        path: path.clone(),
        line: 1,
        what,
    };
    let table: Table = match manifest.parse() {
        Ok(table) => table,
        Err(e) => return vec![complaint(format!("no TOML: {}", e.message()))],
    };
    let Some((_, known)) = KNOWS.iter().find(|(name, _)| *name == folder) else {
        return vec![complaint(
            "a crate that the plan of the house does not name".to_owned(),
        )];
    };
    let mut complaints = Vec::new();
    for name in dependencies(&table) {
        let is_sibling = name == "hallmark" || name.starts_with("hallmark-");
        if is_sibling && !known.contains(&name.as_str()) {
            let allowed = if known.is_empty() {
                "no sibling".to_owned()
            } else {
                known.join(", ")
            };
            complaints.push(complaint(format!(
                "depends on {name}; {folder} may know {allowed}"
            )));
        }
        let keeper = KEPT.iter().find(|(_, kept)| kept.contains(&name.as_str()));
        if let Some((keeper, _)) = keeper.filter(|(keeper, _)| *keeper != folder) {
            complaints.push(complaint(format!(
                "depends on {name}, which only {keeper} may"
            )));
        }
    }
    complaints
}

/// Packages of all kinds of dependency, for every target, by their real names.
fn dependencies(table: &Table) -> Vec<String> {
    let mut names = Vec::new();
    for (key, value) in table {
        let Value::Table(inner) = value else { continue };
        match key.as_str() {
            "dependencies" | "dev-dependencies" | "build-dependencies" => {
                names.extend(inner.iter().map(|(alias, about)| {
                    let package = about.get("package").and_then(Value::as_str);
                    package.unwrap_or(alias).to_owned()
                }));
            }
            "target" => {
                let targets = inner.values().filter_map(Value::as_table);
                names.extend(targets.flat_map(dependencies));
            }
            _ => {}
        }
    }
    names
}
