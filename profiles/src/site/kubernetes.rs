//! How pods are asked for, with the launcher `kubernetes`.
//!
//! It decides which names Kubernetes can hold. It refuses what only the cluster would refuse, later and in more words: a
//! node's name in capitals, nodes of one hall that are to hold different numbers of devices, a controller without an
//! address that pods reach.

use super::{Launcher, NAME_MAX, Site, is_name};
use crate::quantity::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The resource by which NVIDIA's device plugin hands out GPUs.
pub const NVIDIA: &str = "nvidia.com/gpu";
/// Instead of a resource: pods ask for no device, as in a hall of processors.
pub const NO_DEVICE: &str = "none";
/// Time for pods to start where the site file does not say it.
const START_LIMIT: Duration = Duration::from_secs(600);
const START_LIMITS: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(86_400)];
/// Longest label, subdomain and image (RFC 1123, and twice the longest name of an image).
const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;
const IMAGE_MAX: usize = 512;

/// How pods are asked for; what is not said is left to the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kubernetes {
    /// Image that holds the program `hallmark` on its PATH, of the controller's own version.
    pub image: String,
    /// Context of kubectl's configuration; its current one unless given.
    #[serde(default)]
    pub context: Option<String>,
    /// Namespace of all that is created; the context's unless given.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Service account of the pods, whose token they do not get.
    #[serde(default)]
    pub service_account: Option<String>,
    /// Priority class of the pods.
    #[serde(default)]
    pub priority_class: Option<String>,
    /// Run-time class of the pods, e.g. "nvidia".
    #[serde(default)]
    pub runtime_class: Option<String>,
    /// Local queue of Kueue that admits the run.
    #[serde(default)]
    pub queue: Option<String>,
    /// Resource by which a pod asks for its node's devices, as many as `devices.count` says; "none" asks for none, as in
    /// a hall of processors.
    #[serde(default = "nvidia")]
    pub gpu: String,
    /// Wrap the Job into a JobSet, whose controller the cluster must then have.
    #[serde(default)]
    pub jobset: bool,
    /// Time for pods to be placed and started, images pulled, e.g. "10 min", which it is unless given; a queue's wait
    /// counts too.
    #[serde(default)]
    pub start_limit: Option<Time>,
    /// Taints of the nodes that pods tolerate.
    #[serde(default, rename = "toleration")]
    pub tolerations: Vec<Toleration>,
}

/// Taints that are tolerated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Toleration {
    /// The taint's key, e.g. "nvidia.com/gpu".
    pub key: String,
    /// The taint's value; any unless given.
    #[serde(default)]
    pub value: Option<String>,
    /// The taint's effect; any unless given.
    #[serde(default)]
    pub effect: Option<Effect>,
}

/// What a taint does to pods that do not tolerate it, in Kubernetes' own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Effect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

impl Effect {
    /// As Kubernetes writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoSchedule => "NoSchedule",
            Self::PreferNoSchedule => "PreferNoSchedule",
            Self::NoExecute => "NoExecute",
        }
    }
}

impl Kubernetes {
    /// The resource that a pod asks for; `None` in a hall of processors.
    #[must_use]
    pub fn resource(&self) -> Option<&str> {
        Some(self.gpu.as_str()).filter(|gpu| *gpu != NO_DEVICE)
    }

    /// Time for pods to start.
    #[must_use]
    pub fn start_limit(&self) -> Duration {
        self.start_limit.map_or(START_LIMIT, Time::duration)
    }
}

fn nvidia() -> String {
    NVIDIA.to_owned()
}

/// What of `[kubernetes]` cannot be, or is missing of it.
pub(super) fn wrong(site: &Site) -> Option<String> {
    let chosen = site.launcher == Launcher::Kubernetes;
    let Some(asked) = &site.kubernetes else {
        return chosen.then(|| {
            "the launcher `kubernetes` needs a table [kubernetes] with an image, e.g. image = \
             \"registry.example/hallmark:0.1\""
                .to_owned()
        });
    };
    if !chosen {
        return Some("these are for the launcher `kubernetes` alone".to_owned());
    }
    if site.address.is_none() {
        return Some(
            "the launcher `kubernetes` needs `address`: where pods reach this controller, e.g. \"10.0.0.5:7400\""
                .to_owned(),
        );
    }
    wrong_words(asked).or_else(|| wrong_limits(asked))
}

fn wrong_words(asked: &Kubernetes) -> Option<String> {
    let is_image =
        |i: &str| !i.is_empty() && i.len() <= IMAGE_MAX && i.bytes().all(|b| b.is_ascii_graphic());
    if !is_image(&asked.image) {
        return Some(format!(
            "image must be 1 to {IMAGE_MAX} letters, digits and signs without a blank"
        ));
    }
    if asked.context.as_ref().is_some_and(|c| !is_name(c)) {
        return Some(format!(
            "context must be 1 to {NAME_MAX} visible characters"
        ));
    }
    for (key, value, longest) in [
        ("namespace", &asked.namespace, LABEL_MAX),
        ("queue", &asked.queue, LABEL_MAX),
        ("service_account", &asked.service_account, SUBDOMAIN_MAX),
        ("priority_class", &asked.priority_class, SUBDOMAIN_MAX),
        ("runtime_class", &asked.runtime_class, SUBDOMAIN_MAX),
    ] {
        if value.as_ref().is_some_and(|v| !is_subdomain(v, longest)) {
            return Some(format!(
                "{key} must be 1 to {longest} small letters, digits, `-` and `.`, a letter or digit first and last"
            ));
        }
    }
    if asked.gpu != NO_DEVICE && !(asked.gpu.contains('/') && is_qualified(&asked.gpu)) {
        return Some(format!(
            "gpu `{}` must be a resource, e.g. \"{NVIDIA}\", or \"{NO_DEVICE}\"",
            asked.gpu
        ));
    }
    let mut keys = asked.tolerations.iter().map(|t| t.key.as_str());
    if let Some(key) = keys.find(|k| !is_qualified(k)) {
        return Some(format!("`{key}` is no key of a taint, e.g. \"{NVIDIA}\""));
    }
    let mut values = asked.tolerations.iter().filter_map(|t| t.value.as_deref());
    let value = values.find(|v| !v.is_empty() && !is_label(v));
    value.map(|v| {
        format!("`{v}` is no value of a taint: up to {LABEL_MAX} letters, digits, `-`, `_` and `.`")
    })
}

fn wrong_limits(asked: &Kubernetes) -> Option<String> {
    let [least, most] = START_LIMITS;
    let limit = asked.start_limit();
    (limit < least || limit > most).then(|| "start_limit must be 10 s to 24 h".to_owned())
}

/// What of the nodes pods cannot be asked for.
pub(super) fn wrong_nodes(site: &Site, names: &[(String, usize)]) -> Option<String> {
    let asked = site.kubernetes.as_ref()?;
    if let Some((name, _)) = names.iter().find(|(n, _)| !is_subdomain(n, SUBDOMAIN_MAX)) {
        return Some(format!(
            "node `{name}` is no name that Kubernetes gives a node: small letters, digits, `-` and `.`"
        ));
    }
    let usual = site.devices.count;
    let other = site.exceptions.iter().find(|e| e.devices.count != usual)?;
    asked.resource().map(|resource| {
        format!(
            "node `{}` is to hold {} devices and others {usual}: all pods of a Job ask for as many {resource}; give such \
             nodes a site file of their own",
            other.name, other.devices.count
        )
    })
}

fn is_subdomain(text: &str, longest: usize) -> bool {
    let ends = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let is_part = |part: &str| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        ends(part.bytes().next()) && ends(part.bytes().last()) && part.bytes().all(plain)
    };
    text.len() <= longest && text.split('.').all(is_part)
}

/// A label's value, and the name within a key.
fn is_label(text: &str) -> bool {
    let ends = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    text.len() <= LABEL_MAX
        && ends(text.bytes().next())
        && ends(text.bytes().last())
        && text.bytes().all(plain)
}

/// A name with or without a domain before it, e.g. nvidia.com/gpu.
fn is_qualified(text: &str) -> bool {
    match text.split_once('/') {
        Some((domain, name)) => is_subdomain(domain, SUBDOMAIN_MAX) && is_label(name),
        None => is_label(text),
    }
}

#[cfg(test)]
mod tests {
    use crate::site::{self, Launcher};
    use std::time::Duration;

    const HALL: &str = r#"schema_version = 1
name = "Fjord 2"
country = "NO"
region = "eu-north"
hall = "H1"
launcher = "kubernetes"
address = "10.0.0.5:7400"

[kubernetes]
image = "registry.example/hallmark:0.1"
namespace = "acceptance"
queue = "halls"

[[kubernetes.toleration]]
key = "nvidia.com/gpu"

[devices]
count = 8

[[rack]]
name = "A01"
contract_power = "40.8 kW"
nodes = ["n[01-03]"]

[[node]]
name = "n03"
devices = { count = 8, sku = "H100 SXM" }
"#;

    #[test]
    fn what_is_not_said_of_pods_is_the_usual() {
        let site = site::parse(HALL, "hall.toml").unwrap().site;
        assert_eq!(site.launcher, Launcher::Kubernetes);
        let asked = site.kubernetes.unwrap();
        assert_eq!(asked.resource(), Some("nvidia.com/gpu"));
        assert_eq!(asked.start_limit(), Duration::from_secs(600));
        assert!(!asked.jobset);
        let text = HALL.replace("queue =", "gpu = \"none\"\nqueue =");
        let site = site::parse(&text, "hall.toml").unwrap().site;
        assert_eq!(site.kubernetes.unwrap().resource(), None);
    }

    #[test]
    fn a_hall_whose_nodes_differ_in_number_is_fit_for_pods_that_ask_for_none() {
        let text = HALL.replace("{ count = 8,", "{ count = 4,");
        let told = site::parse(&text, "hall.toml").unwrap_err().to_string();
        assert!(
            told.contains("node `n03` is to hold 4 devices and others 8"),
            "{told}"
        );
        let text = text.replace("queue =", "gpu = \"none\"\nqueue =");
        assert!(site::parse(&text, "hall.toml").is_ok());
    }

    /// Words of the file, what stands there instead, the line that is told and words of what is.
    const WRONG: [(&str, &str, usize, &str); 15] = [
        (
            "image = \"registry.example/hallmark:0.1\"\n",
            "",
            9,
            "missing field `image`",
        ),
        (
            "image = \"registry.example/hallmark:0.1\"",
            "image = \"a b\"",
            9,
            "image must be",
        ),
        (
            "image = \"registry.example/hallmark:0.1\"",
            "image = \"\"",
            9,
            "image must be",
        ),
        (
            "namespace =",
            "name_space =",
            11,
            "unknown key `name_space`",
        ),
        ("\"acceptance\"", "\"Acceptance\"", 9, "namespace must be"),
        ("\"halls\"", "\"-halls\"", 9, "queue must be"),
        (
            "queue =",
            "service_account = \"a..b\"\nqueue =",
            9,
            "service_account must be",
        ),
        ("queue =", "context = \"\"\nqueue =", 9, "context must be"),
        (
            "queue =",
            "gpu = \"gpu\"\nqueue =",
            9,
            "must be a resource, e.g. \"nvidia.com/gpu\", or \"none\"",
        ),
        (
            "queue =",
            "start_limit = \"5 s\"\nqueue =",
            9,
            "10 s to 24 h",
        ),
        (
            "key = \"nvidia.com/gpu\"",
            "key = \"nvidia.com/\"",
            9,
            "is no key of a taint",
        ),
        (
            "key = \"nvidia.com/gpu\"",
            "key = \"a\"\nvalue = \"b c\"",
            9,
            "is no value of a taint",
        ),
        (
            "key = \"nvidia.com/gpu\"",
            "key = \"a\"\neffect = \"Never\"",
            16,
            "Never",
        ),
        ("address = \"10.0.0.5:7400\"\n", "", 8, "needs `address`"),
        (
            "\"n[01-03]\"",
            "\"N[01-03]\", \"n03\"",
            9,
            "node `N01` is no name that Kubernetes gives",
        ),
    ];

    #[test]
    fn what_pods_cannot_be_asked_for_is_told_with_its_line() {
        for (from, to, line, what) in WRONG {
            assert!(HALL.contains(from), "{from}");
            let error = site::parse(&HALL.replacen(from, to, 1), "hall.toml").unwrap_err();
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
    fn the_table_and_the_launcher_want_each_other() {
        let table = "[kubernetes]\nimage = \"registry.example/hallmark:0.1\"\nnamespace = \"acceptance\"\nqueue = \"halls\"\n\n\
                     [[kubernetes.toleration]]\nkey = \"nvidia.com/gpu\"\n";
        assert!(HALL.contains(table));
        let told = site::parse(&HALL.replace(table, ""), "x")
            .unwrap_err()
            .to_string();
        assert!(
            told.starts_with("x:6: ") && told.contains("needs a table [kubernetes] with an image"),
            "{told}"
        );
        let told = site::parse(&HALL.replace("\"kubernetes\"", "\"ssh\""), "x").unwrap_err();
        assert!(
            told.to_string()
                .contains("for the launcher `kubernetes` alone"),
            "{told}"
        );
    }
}
