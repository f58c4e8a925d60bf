//! A site file that is right, and each way in which one is wrong, with its line.

use super::*;

const HALL: &str = r#"schema_version = 1
name = "Fjord 2"
country = "NO"
region = "eu-north"
hall = "H1"
launcher = "slurm"
address = "10.0.0.5:7400"

[slurm]
partition = "gpu"
time_limit = "80 h"

[devices]
count = 8
sku = "H100 SXM"
link_width = 16

[[rack]]
name = "A01"
contract_power = "40.8 kW"
nodes = ["n[01-03]"]

[[rack]]
name = "A02"
contract_power = "40.8 kW"
nodes = ["n04"]

[[node]]
name = "n04"
devices = { count = 4, sku = "H100 SXM" }
"#;

#[test]
fn a_site_gives_every_node_its_rack_and_what_it_must_hold() {
    let loaded = parse(HALL, "hall.toml").unwrap();
    let nodes: Vec<_> = loaded
        .nodes()
        .map(|n| (n.name, n.rack, n.devices.count))
        .collect();
    let wanted = [
        ("n01", "A01", 8),
        ("n02", "A01", 8),
        ("n03", "A01", 8),
        ("n04", "A02", 4),
    ];
    assert_eq!(nodes, wanted);
    let inventory = loaded.inventory();
    assert_eq!(inventory.devices, 28);
    assert_eq!(inventory.sku.as_deref(), Some("H100 SXM"));
    assert_eq!(loaded.digest().len(), 64);
}

#[test]
fn a_site_with_several_models_declares_none_for_all() {
    let text = HALL.replace(
        "devices = { count = 4, sku = \"H100 SXM\" }",
        "devices = { count = 4 }",
    );
    assert_eq!(parse(&text, "hall.toml").unwrap().inventory().sku, None);
}

#[test]
fn an_address_that_is_not_given_is_the_launchers_own() {
    let usual = HALL.replace("address = \"10.0.0.5:7400\"\n", "");
    assert_eq!(
        parse(&usual, "hall.toml").unwrap().site.address(),
        "0.0.0.0:0"
    );
    let text = usual
        .replace("launcher = \"slurm\"", "launcher = \"local\"")
        .replace("[slurm]\npartition = \"gpu\"\ntime_limit = \"80 h\"\n", "");
    assert_eq!(
        parse(&text, "hall.toml").unwrap().site.address(),
        "127.0.0.1:0"
    );
}

/// Words of the file, what stands there instead, the line that is told and words of what is.
const WRONG: [(&str, &str, usize, &str); 17] = [
    (
        "schema_version = 1",
        "schema_version = 9",
        1,
        "this build reads 1",
    ),
    (
        "country = \"NO\"",
        "country = \"Norway\"",
        3,
        "two capital letters",
    ),
    ("hall = \"H1\"", "hall = \"\"", 5, "hall must be"),
    (
        "launcher = \"slurm\"",
        "launcher = \"pbs\"",
        6,
        "unknown launcher `pbs`; known: `local`",
    ),
    (
        "address = \"10.0.0.5:7400\"",
        "address = \"nowhere\"",
        7,
        "host:port",
    ),
    (
        "launcher = \"slurm\"",
        "launcher = \"ssh\"",
        9,
        "for the launcher `slurm` alone",
    ),
    (
        "partition = \"gpu\"",
        "partition = \"gpu\\n#SBATCH\"",
        9,
        "partition must be",
    ),
    (
        "time_limit = \"80 h\"",
        "time_limit = \"9 min\"",
        9,
        "at least 10 min",
    ),
    ("count = 8", "cuont = 8", 14, "unknown key `cuont`; known: "),
    ("count = 8\n", "count = 0\n", 13, "1 to 1024"),
    (
        "sku = \"H100 SXM\"\nlink",
        "sku = \"H1000\"\nlink",
        13,
        "unknown sku `H1000`; known: ",
    ),
    (
        "contract_power = \"40.8 kW\"",
        "contract_power = \"40 K\"",
        20,
        "must be a power",
    ),
    (
        "name = \"A02\"",
        "name = \"A01\"",
        24,
        "rack `A01` stands twice",
    ),
    (
        "nodes = [\"n04\"]",
        "nodes = [\"n02\"]",
        26,
        "node `n02` stands twice: in rack `A01`",
    ),
    ("nodes = [\"n04\"]", "nodes = []", 26, "has no node"),
    ("nodes = [\"n04\"]", "nodes = [\"n[9-1]\"]", 26, "backwards"),
    (
        "name = \"n04\"",
        "name = \"n05\"",
        29,
        "node `n05` is in no rack; known: n01",
    ),
];

#[test]
fn what_is_wrong_is_told_with_its_line() {
    for (from, to, line, what) in WRONG {
        assert!(HALL.contains(from), "{from}");
        let error = parse(&HALL.replacen(from, to, 1), "hall.toml").unwrap_err();
        let error = error.to_string();
        assert!(
            error.starts_with(&format!("hall.toml:{line}: ")),
            "{to}: {error}"
        );
        assert!(
            error.contains(what) && !error.contains('\n'),
            "{to}: {error}"
        );
    }
}

#[test]
fn the_committed_schema_is_the_generated_one() {
    let committed = include_str!("../../schema/site.schema.json");
    let generated = serde_json::to_string_pretty(&schema()).unwrap();
    assert_eq!(
        committed.trim(),
        generated.trim(),
        "run `hallmark site schema > profiles/schema/site.schema.json`"
    );
}
