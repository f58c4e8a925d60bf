//! Manifests of invented halls: what a cluster refuses only when it is asked, and what a hall of many nodes comes to.

use super::*;
use crate::launch::Invitation;
use crate::protocol::authority::Authority;
use hallmark_profiles::site;
use std::path::PathBuf;

fn hall(nodes: &str, more: &str) -> LoadedSite {
    let text = format!(
        "schema_version = 1\nname = \"S\"\ncountry = \"NO\"\nregion = \"r\"\nhall = \"A\"\nlauncher = \"kubernetes\"\n\
         address = \"10.0.0.5:7400\"\n[kubernetes]\nimage = \"registry.example/hallmark:0.1\"\n{more}\
         [devices]\ncount = 8\n[[rack]]\nname = \"R\"\ncontract_power = \"1 kW\"\nnodes = [\"{nodes}\"]\n"
    );
    site::parse(&text, "site.toml").unwrap()
}

/// A writer of JSON that fails is a test's failure.
struct Told(String);

impl From<serde_json::Error> for Told {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

fn objects(site: &LoadedSite, text: &str) -> Vec<Value> {
    let order = Order {
        name: "hallmark-0123456789ab",
        run: "20261123-094316-smoke",
        site,
        asked: site.site.kubernetes.as_ref().unwrap(),
        arguments: &["agent".to_owned()],
        planned: Duration::from_secs(600),
    };
    let all = all(&order, |_, _| Ok::<String, Told>(text.to_owned()));
    all.map_err(|told| told.0).unwrap()
}

#[test]
fn what_names_something_else_in_the_manifest_names_something_that_is_there() {
    for more in ["", "jobset = true\n"] {
        let objects = objects(&hall("n[1-3]", more), "x");
        let workload = objects.last().unwrap();
        let job = match more.is_empty() {
            true => &workload["spec"],
            false => &workload["spec"]["replicatedJobs"][0]["template"]["spec"],
        };
        let (template, pod) = (&job["template"], &job["template"]["spec"]);
        // Retries for each index are for pods that are never restarted in place, of Indexed Jobs alone.
        assert_eq!(job["completionMode"], "Indexed");
        assert_eq!(job["backoffLimitPerIndex"], 0);
        assert_eq!(pod["restartPolicy"], "Never");
        let volumes: Vec<&Value> = pod["volumes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| &v["name"])
            .collect();
        let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
        assert!(
            mounts.iter().all(|m| volumes.contains(&&m["name"])),
            "{mounts:?}"
        );
        let apart = &pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            [0];
        let wanted = &apart["labelSelector"]["matchLabels"][INSTANCE];
        assert_eq!(&template["metadata"]["labels"][INSTANCE], wanted);
        assert!(
            objects
                .iter()
                .all(|o| &o["metadata"]["labels"][INSTANCE] == wanted)
        );
        let secret = objects.iter().find(|o| o["kind"] == "Secret").unwrap();
        let mounted = &pod["volumes"][0]["projected"]["sources"][0]["secret"]["name"];
        assert_eq!(&secret["metadata"]["name"], mounted);
        // The pods' host names are this and a number, and no longer than a label.
        let name = format!(
            "{}-nodes-0-19999",
            workload["metadata"]["name"].as_str().unwrap()
        );
        assert!(name.len() <= 63, "{name}");
    }
}

#[test]
fn invitations_of_a_large_hall_fit_into_their_secrets_each_once() {
    const SECRET_BYTES_MAX: usize = 1 << 20;
    let site = hall("n[0001-0450]", "");
    let authority = Authority::new("r").unwrap();
    let invitation = Invitation {
        address: "controller.hall.example:7400".to_owned(),
        node: "n0001".to_owned(),
        credentials: authority.node(&"n".repeat(60)).unwrap(),
        token: "0".repeat(64),
        folder: PathBuf::from("/tmp/hallmark-0123456789abcdef"),
        devices: vec!["auto".to_owned()],
        cores: Vec::new(),
    };
    let text = serde_json::to_string(&invitation).unwrap();
    let objects = objects(&site, &text);
    let secrets: Vec<&Value> = objects.iter().filter(|o| o["kind"] == "Secret").collect();
    let sizes: Vec<usize> = secrets
        .iter()
        .map(|s| s["stringData"].as_object().unwrap().len())
        .collect();
    assert_eq!(sizes, [200, 200, 50]);
    // The cluster keeps them in base64.
    assert!(
        200 * (text.len() + 64) * 4 / 3 < SECRET_BYTES_MAX,
        "{} B each",
        text.len()
    );
    let job = objects.last().unwrap();
    let sources = &job["spec"]["template"]["spec"]["volumes"][0]["projected"]["sources"];
    assert_eq!(sources.as_array().unwrap().len(), 3);
}
