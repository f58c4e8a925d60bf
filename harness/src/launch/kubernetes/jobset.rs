//! A JobSet around the Job: the few fields that hallmark says of it, for clusters whose queues know JobSets.
//!
//! JobSets are no part of Kubernetes' own API, hence these types. The Job within is the same, word by word, but for when
//! it is removed, which is then the JobSet's to decide, as is the Service.
//!
//! Source: `jobset.x-k8s.io/v1alpha2`.

use k8s_openapi::api::batch::v1::{Job, JobTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

/// How kubectl names the kind.
pub const RESOURCE: &str = "jobsets.jobset.x-k8s.io";
/// The one group of Jobs, and so a part of the pods' names.
const GROUP: &str = "nodes";

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobSet {
    api_version: &'static str,
    kind: &'static str,
    metadata: ObjectMeta,
    spec: Spec,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    network: Network,
    replicated_jobs: Vec<ReplicatedJob>,
    ttl_seconds_after_finished: Option<i32>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Network {
    #[serde(rename = "enableDNSHostnames")]
    enable_dns_hostnames: bool,
    publish_not_ready_addresses: bool,
    /// Also the name of the headless Service that the JobSet's controller makes.
    subdomain: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct ReplicatedJob {
    name: &'static str,
    replicas: i32,
    template: JobTemplateSpec,
}

/// Wraps a Job; the JobSet has its name, labels and namespace.
pub fn wrap(job: Job) -> JobSet {
    let Job { metadata, spec, .. } = job;
    let mut spec = spec.unwrap_or_default();
    let ttl_seconds_after_finished = spec.ttl_seconds_after_finished.take();
    // The JobSet's controller says it of the pods, by its network.
    if let Some(pod) = &mut spec.template.spec {
        pod.subdomain = None;
    }
    // A queue's label is the JobSet's alone, so that nobody admits the Job a second time.
    let labels = spec.template.metadata.as_ref();
    let template = JobTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: labels.and_then(|m| m.labels.clone()),
            ..ObjectMeta::default()
        }),
        spec: Some(spec),
    };
    JobSet {
        api_version: "jobset.x-k8s.io/v1alpha2",
        kind: "JobSet",
        spec: Spec {
            network: Network {
                enable_dns_hostnames: true,
                publish_not_ready_addresses: true,
                subdomain: metadata.name.clone(),
            },
            replicated_jobs: vec![ReplicatedJob {
                name: GROUP,
                replicas: 1,
                template,
            }],
            ttl_seconds_after_finished,
        },
        metadata,
    }
}
