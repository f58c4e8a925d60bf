//! What a cluster says of its nodes, from `kubectl get nodes`.
//!
//! It decides why a node would get no pod of a run: not ready, cordoned, tainted by what the site file does not tolerate, or
//! labelled with another host name than its own. It refuses an answer that is no list of nodes.

use super::kubectl::Kubectl;
use super::manifest::HOSTNAME;
use crate::launch::ask::AskError;
use hallmark_profiles::site::{Kubernetes, Toleration};
use serde_json::Value;

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    /// Devices that pods may ask for, where the site file says by which resource.
    pub devices: Option<u32>,
    /// Why it would get no pod, where it would not.
    pub unfit: Option<String>,
}

/// All nodes of the cluster, in its order.
///
/// # Errors
/// [`AskError`]: kubectl is not here, does not answer, or says something that is no list of nodes.
pub fn all(asked: &Kubernetes) -> Result<Vec<Node>, AskError> {
    let told = Kubectl::of_cluster(asked).nodes()?;
    parse(&told, asked).ok_or_else(|| AskError::Failed {
        program: "kubectl".to_owned(),
        why: "no list of nodes in its answer".to_owned(),
    })
}

fn parse(told: &str, asked: &Kubernetes) -> Option<Vec<Node>> {
    let told: Value = serde_json::from_str(told).ok()?;
    let nodes = told["items"].as_array()?;
    nodes.iter().map(|n| one(n, asked)).collect()
}

fn one(node: &Value, asked: &Kubernetes) -> Option<Node> {
    let name = node["metadata"]["name"].as_str()?;
    // A node without the resource has none of it; extended resources are whole numbers.
    let count = |resource: &str| {
        let there = node["status"]["allocatable"][resource].as_str();
        there.and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    Some(Node {
        name: name.to_owned(),
        devices: asked.resource().map(count),
        unfit: unfit(name, node, &asked.tolerations),
    })
}

fn unfit(name: &str, node: &Value, tolerations: &[Toleration]) -> Option<String> {
    let conditions = node["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let ready = conditions.find(|c| c["type"] == "Ready");
    if ready.is_none_or(|c| c["status"] != "True") {
        return Some("it is not ready".to_owned());
    }
    if node["spec"]["unschedulable"] == true {
        return Some("it is cordoned".to_owned());
    }
    let label = node["metadata"]["labels"][HOSTNAME]
        .as_str()
        .unwrap_or_default();
    if label != name {
        return Some(format!(
            "its label {HOSTNAME}, by which pods are placed, is `{label}`"
        ));
    }
    let taints = node["spec"]["taints"].as_array();
    let mut taints = taints.into_iter().flatten();
    let taint =
        taints.find(|t| t["effect"] != "PreferNoSchedule" && !is_tolerated(t, tolerations))?;
    let word = |key: &str| taint[key].as_str().unwrap_or_default();
    Some(format!(
        "its taint {}={}:{} is not tolerated",
        word("key"),
        word("value"),
        word("effect")
    ))
}

fn is_tolerated(taint: &Value, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|t| {
        let value = t.value.as_deref();
        taint["key"] == *t.key
            && value.is_none_or(|v| taint["value"].as_str().unwrap_or_default() == v)
            && t.effect.is_none_or(|e| taint["effect"] == e.name())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hallmark_profiles::site;
    use serde_json::json;

    fn asked(more: &str) -> Kubernetes {
        let text = format!(
            "schema_version = 1\nname = \"S\"\ncountry = \"NO\"\nregion = \"r\"\nhall = \"A\"\n\
             launcher = \"kubernetes\"\naddress = \"10.0.0.5:7400\"\n[kubernetes]\nimage = \"i\"\n{more}\
             [devices]\ncount = 8\n[[rack]]\nname = \"R\"\ncontract_power = \"1 kW\"\nnodes = [\"n1\"]\n"
        );
        site::parse(&text, "x").unwrap().site.kubernetes.unwrap()
    }

    fn node(change: impl Fn(&mut Value)) -> Value {
        let mut node = json!({
            "metadata": { "name": "n1", "labels": { HOSTNAME: "n1" } },
            "spec": {},
            "status": {
                "allocatable": { "cpu": "96", "nvidia.com/gpu": "8" },
                "conditions": [{ "type": "DiskPressure", "status": "False" }, { "type": "Ready", "status": "True" }],
            },
        });
        change(&mut node);
        node
    }

    #[test]
    fn a_node_that_would_get_no_pod_says_why() {
        let taint = |effect: &str| json!([{ "key": "nvidia.com/gpu", "value": "present", "effect": effect }]);
        let told = |change: &dyn Fn(&mut Value), more: &str| {
            one(&node(change), &asked(more)).unwrap().unfit
        };
        let tainted = |n: &mut Value| n["spec"]["taints"] = taint("NoSchedule");
        assert_eq!(told(&|_| (), ""), None);
        assert_eq!(
            told(&|n| n["spec"]["taints"] = taint("PreferNoSchedule"), ""),
            None
        );
        let tolerates =
            |more: &str| format!("[[kubernetes.toleration]]\nkey = \"nvidia.com/gpu\"\n{more}");
        assert_eq!(told(&tainted, &tolerates("")), None);
        assert_eq!(
            told(
                &tainted,
                &tolerates("value = \"present\"\neffect = \"NoSchedule\"\n")
            ),
            None
        );
        let why = "its taint nvidia.com/gpu=present:NoSchedule is not tolerated";
        for more in [
            "",
            &tolerates("value = \"other\"\n"),
            &tolerates("effect = \"NoExecute\"\n"),
        ] {
            assert_eq!(told(&tainted, more).unwrap(), why);
        }
        let cordoned = told(&|n| n["spec"]["unschedulable"] = true.into(), "");
        assert_eq!(cordoned.unwrap(), "it is cordoned");
        let lost = told(
            &|n| n["status"]["conditions"][1]["status"] = "Unknown".into(),
            "",
        );
        assert_eq!(lost.unwrap(), "it is not ready");
        let renamed = told(&|n| n["metadata"]["labels"][HOSTNAME] = "ip-7".into(), "");
        assert!(renamed.unwrap().ends_with("is `ip-7`"));
    }

    #[test]
    fn devices_are_those_of_the_resource_that_pods_ask_for() {
        let nodes = json!({ "items": [node(|_| ())] }).to_string();
        let count = |more: &str| parse(&nodes, &asked(more)).unwrap()[0].devices;
        assert_eq!(count(""), Some(8));
        assert_eq!(count("gpu = \"amd.com/gpu\"\n"), Some(0));
        assert_eq!(count("gpu = \"none\"\n"), None);
        assert_eq!(parse("{}", &asked("")), None);
        assert_eq!(parse("error", &asked("")), None);
    }
}
