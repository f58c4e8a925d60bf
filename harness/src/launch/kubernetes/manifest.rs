//! What is created in a cluster for one run: a Job with a pod on each node, its Service, and the invitations.
//!
//! Pure: the same site, name and invitations give the same text. It decides that a pod stands on exactly one node of the
//! site, asks for its devices and for nothing else; it refuses nothing. Types of the API's oldest version that is still
//! served anywhere, so that no field is named which a cluster lacks; printed as JSON, which kubectl reads as it does YAML.
//!
//! A pod does not run as another user than its image says: some sensors of the host (energy counters, for one) are
//! read by root alone, and devices of some vendors are opened by it alone. It has none of root's capabilities.

use super::jobset;
use hallmark_profiles::site::{Kubernetes, LoadedSite, Toleration};
use k8s_openapi::Resource;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// The label that all of a run's objects bear, and no other run's.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// Labels by which the scheduler knows nodes, and Kueue its queues.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
const QUEUE: &str = "kueue.x-k8s.io/queue-name";
/// Where the pod finds the invitation of its node, and of no other.
pub const INVITATION: &str = "/run/hallmark/invitation";
/// Names the pod's node to its container.
const NODE: &str = "HALLMARK_NODE";
/// Invitations in one Secret: each is about 3 KiB, and a Secret holds 1 MiB.
const SECRET_NODES: usize = 200;
/// Shared memory for each device of a node.
const SHARED_GIB: u32 = 1;
/// A Job that has ended, and all that is its, is removed after this.
const KEEP_S: i32 = 3_600;
/// An agent that is told to end has this long before it is killed.
const GRACE_S: i64 = 10;
/// What a run takes beside its schedule: memory tests, warm engines, the end.
const SLACK: Duration = Duration::from_secs(3_600);

/// One run in a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// Of all objects; no other run has it.
    pub name: &'a str,
    /// The run's own name, that of its folder.
    pub run: &'a str,
    pub site: &'a LoadedSite,
    pub asked: &'a Kubernetes,
    /// What the program is to do in a pod: `agent`, and its options.
    pub arguments: &'a [String],
    /// How long the run's schedule is.
    pub planned: Duration,
}

/// All objects of a run; `text` gives the invitation of a node, by its index and name.
///
/// # Errors
/// What `text` or the writer of JSON says.
pub fn all<E: From<serde_json::Error>>(
    order: &Order,
    text: impl FnMut(usize, &str) -> Result<String, E>,
) -> Result<Vec<Value>, E> {
    let mut objects = beside(order, None, text)?;
    objects.push(workload(order)?);
    Ok(objects)
}

/// As `kubectl` takes several objects.
pub fn list(objects: &[Value]) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "items": objects })
}

/// The Job, or the JobSet around it.
///
/// # Errors
/// What the writer of JSON says.
pub fn workload(order: &Order) -> Result<Value, serde_json::Error> {
    match order.asked.jobset {
        true => serde_json::to_value(jobset::wrap(job(order))),
        false => serde_json::to_value(job(order)),
    }
}

/// The Secrets with the invitations, and the Service where nobody else makes it; they go with their owner.
///
/// # Errors
/// What `text` or the writer of JSON says.
pub fn beside<E: From<serde_json::Error>>(
    order: &Order,
    owner: Option<&OwnerReference>,
    mut text: impl FnMut(usize, &str) -> Result<String, E>,
) -> Result<Vec<Value>, E> {
    let owned = |name: &str| ObjectMeta {
        owner_references: owner.map(|o| vec![o.clone()]),
        ..metadata(order, name)
    };
    let mut objects = Vec::new();
    if !order.asked.jobset {
        objects.push(value(&core::Service {
            metadata: owned(order.name),
            spec: Some(core::ServiceSpec {
                cluster_ip: Some("None".to_owned()),
                publish_not_ready_addresses: Some(true),
                selector: Some(selected(order)),
                ..core::ServiceSpec::default()
            }),
            ..core::Service::default()
        })?);
    }
    let nodes: Vec<(usize, &str)> = order.site.nodes().map(|n| n.name).enumerate().collect();
    for (chunk, name) in nodes.chunks(SECRET_NODES).zip(secrets(order)) {
        let mut invitations = BTreeMap::new();
        for (index, node) in chunk {
            invitations.insert((*node).to_owned(), text(*index, node)?);
        }
        objects.push(value(&core::Secret {
            metadata: owned(&name),
            immutable: Some(true),
            string_data: Some(invitations),
            type_: Some("Opaque".to_owned()),
            ..core::Secret::default()
        })?);
    }
    Ok(objects)
}

fn value<E: From<serde_json::Error>>(object: &impl Serialize) -> Result<Value, E> {
    Ok(serde_json::to_value(object)?)
}

/// Names of the Secrets.
fn secrets(order: &Order) -> Vec<String> {
    let secrets = order.site.nodes().count().div_ceil(SECRET_NODES);
    (0..secrets)
        .map(|n| format!("{}-invitations-{n}", order.name))
        .collect()
}

/// What a selector of this run's pods asks for.
fn selected(order: &Order) -> BTreeMap<String, String> {
    BTreeMap::from([(INSTANCE.to_owned(), order.name.to_owned())])
}

fn labels(order: &Order) -> BTreeMap<String, String> {
    let mut labels = selected(order);
    for (key, value) in [
        ("app.kubernetes.io/name", "hallmark"),
        ("app.kubernetes.io/component", "agent"),
        ("app.kubernetes.io/managed-by", "hallmark"),
        ("app.kubernetes.io/version", env!("CARGO_PKG_VERSION")),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    labels
}

fn metadata(order: &Order, name: &str) -> ObjectMeta {
    let annotations = [
        ("hallmark-run", order.run.to_owned()),
        ("hallmark-site-digest", order.site.digest()),
    ];
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: order.asked.namespace.clone(),
        labels: Some(labels(order)),
        annotations: Some(annotations.map(|(k, v)| (k.to_owned(), v)).into()),
        ..ObjectMeta::default()
    }
}

/// A pod for each node. One that has ended is not made anew: its log has gone with it, and its devices stay lost to the
/// run in any case; the others go on, whichever way it ended.
fn job(order: &Order) -> Job {
    let nodes = i32::try_from(order.site.nodes().count()).unwrap_or(i32::MAX);
    let mut metadata = metadata(order, order.name);
    if let (Some(queue), Some(labels)) = (&order.asked.queue, &mut metadata.labels) {
        labels.insert(QUEUE.to_owned(), queue.clone());
    }
    let limit = order.planned.mul_f64(1.1) + SLACK + order.asked.start_limit();
    Job {
        metadata,
        spec: Some(JobSpec {
            completions: Some(nodes),
            parallelism: Some(nodes),
            completion_mode: Some("Indexed".to_owned()),
            backoff_limit_per_index: Some(0),
            active_deadline_seconds: Some(i64::try_from(limit.as_secs()).unwrap_or(i64::MAX)),
            ttl_seconds_after_finished: Some(KEEP_S),
            template: core::PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels(order)),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(order)),
            },
            ..JobSpec::default()
        }),
        ..Job::default()
    }
}

fn pod(order: &Order) -> core::PodSpec {
    let asked = order.asked;
    let tolerations: Vec<core::Toleration> = asked.tolerations.iter().map(toleration).collect();
    core::PodSpec {
        affinity: Some(places(order)),
        automount_service_account_token: Some(false),
        containers: vec![container(order)],
        enable_service_links: Some(false),
        priority_class_name: asked.priority_class.clone(),
        restart_policy: Some("Never".to_owned()),
        runtime_class_name: asked.runtime_class.clone(),
        service_account_name: asked.service_account.clone(),
        subdomain: Some(order.name.to_owned()),
        termination_grace_period_seconds: Some(GRACE_S),
        tolerations: Some(tolerations).filter(|t| !t.is_empty()),
        volumes: Some(volumes(order)),
        ..core::PodSpec::default()
    }
}

fn toleration(asked: &Toleration) -> core::Toleration {
    let operator = match asked.value {
        Some(_) => "Equal",
        None => "Exists",
    };
    core::Toleration {
        key: Some(asked.key.clone()),
        operator: Some(operator.to_owned()),
        value: asked.value.clone(),
        effect: asked.effect.map(|e| e.name().to_owned()),
        ..core::Toleration::default()
    }
}

/// On the nodes of the site alone, and no two on one.
fn places(order: &Order) -> core::Affinity {
    let nodes = order.site.nodes().map(|n| n.name.to_owned()).collect();
    let on_site = core::NodeSelectorTerm {
        match_expressions: Some(vec![core::NodeSelectorRequirement {
            key: HOSTNAME.to_owned(),
            operator: "In".to_owned(),
            values: Some(nodes),
        }]),
        match_fields: None,
    };
    let apart = core::PodAffinityTerm {
        label_selector: Some(LabelSelector {
            match_labels: Some(selected(order)),
            match_expressions: None,
        }),
        topology_key: HOSTNAME.to_owned(),
        ..core::PodAffinityTerm::default()
    };
    core::Affinity {
        node_affinity: Some(core::NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(core::NodeSelector {
                node_selector_terms: vec![on_site],
            }),
            preferred_during_scheduling_ignored_during_execution: None,
        }),
        pod_anti_affinity: Some(core::PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: Some(vec![apart]),
            preferred_during_scheduling_ignored_during_execution: None,
        }),
        pod_affinity: None,
    }
}

fn container(order: &Order) -> core::Container {
    let mut arguments = order.arguments.to_vec();
    arguments.push(format!("--invitation={INVITATION}"));
    let field = core::EnvVarSource {
        field_ref: Some(core::ObjectFieldSelector {
            api_version: None,
            field_path: "spec.nodeName".to_owned(),
        }),
        ..core::EnvVarSource::default()
    };
    let devices = Quantity(order.site.site.devices.count.to_string());
    let limits = order
        .asked
        .resource()
        .map(|r| BTreeMap::from([(r.to_owned(), devices)]));
    core::Container {
        name: "agent".to_owned(),
        image: Some(order.asked.image.clone()),
        command: Some(vec!["hallmark".to_owned()]),
        args: Some(arguments),
        env: Some(vec![
            core::EnvVar {
                name: NODE.to_owned(),
                value_from: Some(field),
                value: None,
            },
            // Drivers keep what they compile below it.
            core::EnvVar {
                name: "HOME".to_owned(),
                value: Some("/tmp".to_owned()),
                value_from: None,
            },
        ]),
        resources: limits.map(|limits| core::ResourceRequirements {
            limits: Some(limits),
            ..core::ResourceRequirements::default()
        }),
        security_context: Some(core::SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(core::Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                add: None,
            }),
            privileged: Some(false),
            read_only_root_filesystem: Some(true),
            seccomp_profile: Some(core::SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..core::SecurityContext::default()
        }),
        // The last lines that an agent has said tell why it ended.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(mounts()),
        ..core::Container::default()
    }
}

/// Of the invitations the container sees that of its node alone.
fn mounts() -> Vec<core::VolumeMount> {
    let mount = |name: &str, path: &str| core::VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        ..core::VolumeMount::default()
    };
    vec![
        core::VolumeMount {
            read_only: Some(true),
            sub_path_expr: Some(format!("$({NODE})")),
            ..mount("invitations", INVITATION)
        },
        mount("shared-memory", "/dev/shm"),
        mount("work", "/tmp"),
    ]
}

fn volumes(order: &Order) -> Vec<core::Volume> {
    let secret = |name: String| core::VolumeProjection {
        secret: Some(core::SecretProjection {
            name,
            ..core::SecretProjection::default()
        }),
        ..core::VolumeProjection::default()
    };
    let shared_gib = order.site.site.devices.count * SHARED_GIB;
    let named = |name: &str| core::Volume {
        name: name.to_owned(),
        ..core::Volume::default()
    };
    vec![
        core::Volume {
            projected: Some(core::ProjectedVolumeSource {
                default_mode: Some(0o400),
                sources: Some(secrets(order).into_iter().map(secret).collect()),
            }),
            ..named("invitations")
        },
        core::Volume {
            empty_dir: Some(core::EmptyDirVolumeSource {
                medium: Some("Memory".to_owned()),
                size_limit: Some(Quantity(format!("{shared_gib}Gi"))),
            }),
            ..named("shared-memory")
        },
        core::Volume {
            empty_dir: Some(core::EmptyDirVolumeSource::default()),
            ..named("work")
        },
    ]
}

/// A Job or JobSet, as what is to go with it names it; from what kubectl says of one that it has created.
pub fn owner(created: &Value) -> Option<OwnerReference> {
    let word = |value: &Value| value.as_str().map(str::to_owned);
    Some(OwnerReference {
        api_version: word(&created["apiVersion"])?,
        kind: word(&created["kind"])?,
        name: word(&created["metadata"]["name"])?,
        uid: word(&created["metadata"]["uid"])?,
        ..OwnerReference::default()
    })
}

/// What of the run kubectl is to ask for or to remove.
pub fn kinds(asked: &Kubernetes) -> String {
    let workload = match asked.jobset {
        true => jobset::RESOURCE,
        false => <Job as Resource>::URL_PATH_SEGMENT,
    };
    format!("{workload},secrets,services")
}

#[cfg(test)]
mod tests;
