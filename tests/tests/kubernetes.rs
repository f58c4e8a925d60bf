//! A hall by Kubernetes: manifests that its schemas hold, and the course of a run with a stand-in for the cluster.
//!
//! No cluster is here. What one would be asked for is held against Kubernetes' own schemas, strictly; how a run is
//! controlled is tried with a stand-in for `kubectl`, which runs each pod's container as a process of this machine. All
//! such runs are rehearsals, which accept no site.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use hallmark_results::frame::{Ending, FaultKind, What};
use hallmark_results::standing::Standing;
use hallmark_results::verdict::{Outcome, judge};
use hallmark_tests::agents::{HallRun, Setup, signal};
use hallmark_tests::cluster::{self, Cluster};
use hallmark_tests::judged::outcome;
use hallmark_tests::program::{Finished, RunFolder, finish, hallmark};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const HALL: &str = r#"schema_version = 1
name = "Fjord 2"
country = "NO"
region = "eu-north"
hall = "H1"
launcher = "kubernetes"
address = "10.0.0.5:7400"

[kubernetes]
image = "registry.example/hallmark:0.1"
MORE
[devices]
count = 8

[[rack]]
name = "A01"
contract_power = "40.8 kW"
nodes = ["n[01-03]", "gpu-7.hall.example"]
"#;
/// Every wish that a site file can have.
const WISHES: &str = r#"context = "hall-1"
namespace = "acceptance"
service_account = "hallmark"
priority_class = "acceptance"
runtime_class = "nvidia"
queue = "halls"
gpu = "amd.com/gpu"
start_limit = "20 min"

[[kubernetes.toleration]]
key = "nvidia.com/gpu"
effect = "NoSchedule"

[[kubernetes.toleration]]
key = "dedicated"
value = "acceptance"
"#;
/// For a hall whose nodes are processes of this machine.
const REHEARSAL: &str = "address = \"127.0.0.1:0\"\n[kubernetes]\nimage = \"registry.example/hallmark:0.1\"\n\
                         namespace = \"acceptance\"\ngpu = \"none\"\nstart_limit = \"15 s\"\n";
const SECRETS: [&str; 3] = ["PRIVATE KEY", "BEGIN CERTIFICATE", "\"token\""];

fn preview(site: &str, arguments: &[&str]) -> Finished {
    let folder = RunFolder::new();
    let path = folder.write("hall.toml", site);
    let mut command = hallmark(["run", "hall-acceptance", "--dry-run", "--site"]);
    command.arg(path).args(arguments).current_dir(folder.path());
    command.env_remove("SLURM_JOB_ID");
    let finished = finish(command, Duration::from_secs(60));
    let left: Vec<PathBuf> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| !p.ends_with("hall.toml"))
        .collect();
    assert_eq!(left, [] as [PathBuf; 0], "a dry run writes nothing");
    finished
}

fn manifest(more: &str) -> String {
    preview(&HALL.replace("MORE\n", more), &[])
        .expect_code(0)
        .stdout
}

#[test]
fn a_dry_run_prints_what_kubernetes_schemas_hold_without_a_secret_and_the_same_each_time() {
    let sites = [
        "",
        "gpu = \"none\"\n",
        WISHES,
        "jobset = true\n",
        &format!("jobset = true\n{WISHES}"),
    ];
    for more in sites {
        let text = manifest(more);
        let Some(complaints) = cluster::complaints(&text) else {
            return;
        };
        assert_eq!(complaints, [] as [&str; 0], "{more}: {text}");
        assert_eq!(text, manifest(more));
        assert!(SECRETS.iter().all(|s| !text.contains(s)), "{text}");
        let list: Value = serde_json::from_str(&text).unwrap();
        let kinds: Vec<&str> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["kind"].as_str().unwrap())
            .collect();
        match more.contains("jobset") {
            true => assert_eq!(kinds, ["Secret", "JobSet"]),
            false => assert_eq!(kinds, ["Service", "Secret", "Job"]),
        }
    }
}

#[test]
fn a_field_that_kubernetes_or_jobset_does_not_know_is_found() {
    for (more, from, to) in [
        ("", "\"completionMode\"", "\"completionMood\""),
        ("", "\"parallelism\": 4", "\"parallelism\": \"4\""),
        ("", "\"subPathExpr\"", "\"subPathExpression\""),
        ("", "\"clusterIP\"", "\"clusterIp\""),
        ("", "\"stringData\"", "\"strings\""),
        (
            "jobset = true\n",
            "\"enableDNSHostnames\"",
            "\"enableDnsHostnames\"",
        ),
        ("jobset = true\n", "\"replicas\": 1", "\"replicas\": \"1\""),
        ("jobset = true\n", "\"topologyKey\"", "\"topology\""),
        (
            "jobset = true\n",
            "\"ttlSecondsAfterFinished\"",
            "\"ttlSeconds\"",
        ),
    ] {
        let text = manifest(more);
        assert!(text.contains(from), "{from}: {text}");
        let Some(complaints) = cluster::complaints(&text.replace(from, to)) else {
            return;
        };
        assert!(!complaints.is_empty(), "{to} passes");
    }
}

#[test]
fn the_manifest_says_what_the_site_file_asks_for() {
    let list: Value = serde_json::from_str(&manifest(WISHES)).unwrap();
    let job = &list["items"][2];
    let (spec, pod) = (&job["spec"], &job["spec"]["template"]["spec"]);
    let nodes = json!(["n01", "n02", "n03", "gpu-7.hall.example"]);
    assert_eq!(
        (&spec["completions"], &spec["parallelism"]),
        (&json!(4), &json!(4))
    );
    let asked = &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    assert_eq!(
        asked["nodeSelectorTerms"][0]["matchExpressions"][0]["values"],
        nodes
    );
    let keys = list["items"][1]["stringData"].as_object().unwrap().keys();
    assert_eq!(keys.len(), 4);
    assert_eq!(job["metadata"]["namespace"], "acceptance");
    assert_eq!(
        job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"],
        "halls"
    );
    let limits = &pod["containers"][0]["resources"]["limits"];
    assert_eq!(limits, &json!({ "amd.com/gpu": "8" }));
    assert_eq!(pod["priorityClassName"], "acceptance");
    assert_eq!(pod["runtimeClassName"], "nvidia");
    assert_eq!(pod["serviceAccountName"], "hallmark");
    assert_eq!(pod["automountServiceAccountToken"], false);
    let tolerations = json!([
        { "key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule" },
        { "key": "dedicated", "operator": "Equal", "value": "acceptance" },
    ]);
    assert_eq!(pod["tolerations"], tolerations);
    // 72 h of the profile, and what a run takes beside them.
    let limit_s = spec["activeDeadlineSeconds"].as_i64().unwrap();
    assert!((72 * 3_600..100 * 3_600).contains(&limit_s), "{limit_s} s");
    let list: Value = serde_json::from_str(&manifest("gpu = \"none\"\n")).unwrap();
    let container = &list["items"][2]["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["resources"], Value::Null);
}

#[test]
fn a_dry_run_of_another_launcher_prints_what_it_would_be_given_too() {
    let site = |launcher: &str| {
        let head = HALL.split_once("\n[kubernetes]").unwrap().0;
        let tail = HALL.split_once("MORE\n").unwrap().1;
        format!("{head}\n{tail}").replace("\"kubernetes\"", &format!("\"{launcher}\""))
    };
    for (launcher, said) in [
        ("slurm", "#SBATCH --nodelist=n[01-03],gpu-7.hall.example"),
        ("ssh", "-- gpu-7.hall.example 'exec "),
        ("local", "hallmark agent --cuda-matmul=auto"),
        ("manual", "hallmark agent --join "),
    ] {
        let told = preview(&site(launcher), &[]).expect_code(0);
        assert!(told.stdout.contains(said), "{launcher}: {told}");
    }
    let told = preview(&site("ssh"), &["--expect-devices=8"]).expect_code(2);
    assert!(
        told.stderr.contains("the site file declares the devices"),
        "{told}"
    );
    let alone = finish(hallmark(["run", "--dry-run"]), Duration::from_secs(60)).expect_code(2);
    assert!(alone.stderr.contains("--site"), "{alone}");
}

#[test]
fn an_agent_takes_its_invitation_from_a_file_that_nobody_else_may_read_or_says_in_one_line_why_not()
{
    use std::os::unix::fs::PermissionsExt;
    let folder = RunFolder::new();
    let refused = |path: &Path, why: &str| {
        let told = cluster::agent_with(path).expect_code(2).stderr;
        assert!(told.contains(why) && told.lines().count() == 1, "{told}");
        assert!(!told.contains("of-a-test"), "{told}");
    };
    refused(&folder.path().join("none"), "No such file");
    refused(folder.path(), "it is no file");
    let path = folder.write(
        "invitation",
        "{\"address\": \"secret-of-a-test\", \"node\": 7}\n",
    );
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    refused(&path, "(mode 644)");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    refused(&path, "line 1, column ");
}

fn launch(cluster: &Cluster, setup: Setup) -> HallRun {
    let environment = cluster.environment();
    let environment: Vec<(&str, &Path)> =
        environment.iter().map(|(k, v)| (*k, v.as_path())).collect();
    HallRun::launched(&Setup {
        launcher: "kubernetes",
        programs: Some(&cluster.programs()),
        environment: &environment,
        arguments: &["--rehearsal"],
        nodes: 2,
        ..setup
    })
}

fn faults(standing: &Standing) -> Vec<(FaultKind, String)> {
    let told = |e: &hallmark_results::frame::Event| match &e.what {
        What::Fault { kind, detail } => Some((*kind, detail.clone())),
        _ => None,
    };
    standing.events().iter().filter_map(told).collect()
}

/// Whether a secret is in a file of a folder, by name.
fn hold_secrets(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(hold_secrets(&path));
        } else {
            let bytes = std::fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            found.extend(SECRETS.iter().any(|s| text.contains(s)).then_some(path));
        }
    }
    found
}

#[test]
fn two_nodes_are_one_run_with_one_verdict_and_nothing_is_left_in_the_cluster_or_secret_anywhere_else()
 {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let mut run = launch(
        &cluster,
        Setup {
            site: REHEARSAL,
            seconds: 4,
            ..Setup::default()
        },
    );
    let (code, standing) = run.end();
    let account = format!("{}\n{}", run.stderr(), cluster.account());
    assert!(matches!(code, 0 | 3), "code {code}: {account}");
    let plan = &standing.opened().plan;
    let nodes: Vec<&str> = plan.devices.iter().map(|d| d.node.as_str()).collect();
    assert_eq!(nodes, ["n1", "n2"], "{account}");
    assert_eq!(faults(&standing), [], "{account}");
    for criterion in ["inventory", "failures", "integrity"] {
        assert_eq!(
            outcome(&standing, criterion),
            Outcome::Passed,
            "{criterion}"
        );
    }
    assert!(!judge(&standing).accepts_site);
    cluster.wait_until_empty();
    let created = cluster.created();
    let kinds: Vec<&str> = created.keys().map(String::as_str).collect();
    assert_eq!(kinds, ["Job", "Secret", "Service"]);
    assert_eq!(created["Secret"]["stringData"], json!(["n1", "n2"]));
    // What is kept beside the record is what the cluster was given, less its secrets.
    let kept = std::fs::read_to_string(run.folder.with_extension("k8s.json")).unwrap();
    let kept: Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(kept["items"][2]["spec"], created["Job"]["spec"]);
    let secret = hold_secrets(run.folder.parent().unwrap());
    assert_eq!(secret, [] as [PathBuf; 0], "secrets are in files");
    let said = format!(
        "{}{}{}",
        run.stdout(),
        run.stderr(),
        cluster.calls().concat()
    );
    assert!(SECRETS.iter().all(|s| !said.contains(s)), "{said}");
}

#[test]
fn a_pod_that_does_not_start_is_told_within_its_time_with_its_node_and_the_clusters_reason() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    cluster.trouble(&json!({ "n2": { "reason": "ImagePullBackOff", "message": "no such image" } }));
    let begun = Instant::now();
    let mut run = launch(
        &cluster,
        Setup {
            site: REHEARSAL,
            ..Setup::default()
        },
    );
    run.wait_for("what its pods wait for", |r| {
        r.stdout()
            .contains("pods wait: n2: ImagePullBackOff: no such image")
    });
    run.wait_for_load(20);
    assert!(
        begun.elapsed() < Duration::from_secs(60),
        "{:?}",
        begun.elapsed()
    );
    let (code, standing) = run.end();
    assert_eq!(code, 1, "{}", run.stderr());
    let (kind, told) = faults(&standing).remove(0);
    assert_eq!(kind, FaultKind::Missing);
    let why = "node `n2` has not joined: its pod did not start within 15 s: ImagePullBackOff: no such image";
    assert!(told.contains(why), "{told}");
    cluster.wait_until_empty();
}

#[test]
fn a_run_none_of_whose_pods_is_placed_says_why_and_leaves_nothing() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let ill = json!({ "reason": "Unschedulable", "message": "0/2 nodes are available", "unplaced": true });
    cluster.trouble(&json!({ "n1": ill, "n2": ill }));
    let mut run = launch(
        &cluster,
        Setup {
            site: REHEARSAL,
            ..Setup::default()
        },
    );
    let status = run.child.wait().unwrap();
    assert_eq!(status.code(), Some(4), "{}", run.stderr());
    let why = "node `n1` has not joined: its pod did not start within 15 s: Unschedulable: 0/2 nodes are available";
    assert!(run.stderr().contains(why), "{}", run.stderr());
    cluster.wait_until_empty();
}

#[test]
fn a_killed_agent_is_its_nodes_fault_and_the_other_goes_on() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let mut run = launch(
        &cluster,
        Setup {
            site: REHEARSAL,
            seconds: 12,
            ..Setup::default()
        },
    );
    run.wait_for_load(30);
    signal(cluster.agent("n2"), "-KILL");
    let (code, standing) = run.end();
    assert_eq!(code, 1, "{}", judge(&standing).sentence);
    let told = faults(&standing);
    let (kind, why) = &told[0];
    assert_eq!(*kind, FaultKind::Agent);
    assert!(
        why.starts_with("the agent of node `n2` ended: its pod `hallmark-"),
        "{why}"
    );
    assert!(why.contains("ended with code 137"), "{why}");
    // The node's log has gone with its pod, and the record says so.
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[1].0, FaultKind::Journal);
    assert!(
        told[1]
            .1
            .starts_with("node `n2` did not hand over its last reports"),
        "{told:?}"
    );
    let alive = &standing.devices()[0];
    assert!(alive.last_end_ns + 3_000_000_000 > standing.last_ns());
    cluster.wait_until_empty();
}

#[test]
fn an_interrupt_ends_a_jobset_in_order_and_leaves_no_object_and_no_process() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let mut run = launch(
        &cluster,
        Setup {
            site: &format!("{REHEARSAL}jobset = true\n"),
            seconds: 120,
            ..Setup::default()
        },
    );
    run.wait_for_load(30);
    assert!(
        cluster.processes().len() >= 6,
        "two pods: {}",
        cluster.account()
    );
    let begun = Instant::now();
    signal(run.child.id(), "-INT");
    let (code, standing) = run.end();
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
    assert_ne!(code, 0);
    let ending = standing.closed().map(|c| c.ending.clone());
    assert!(matches!(ending, Some(Ending::Stopped { .. })), "{ending:?}");
    assert_eq!(faults(&standing), []);
    let kinds: Vec<String> = cluster.created().into_keys().collect();
    assert_eq!(kinds, ["JobSet", "Secret"]);
    cluster.wait_until_empty();
}

#[test]
fn agents_of_a_killed_run_end_by_themselves_and_what_is_left_goes_with_the_job() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let mut run = launch(
        &cluster,
        Setup {
            site: REHEARSAL,
            seconds: 300,
            ..Setup::default()
        },
    );
    run.wait_for_load(30);
    assert!(cluster.processes().len() >= 6, "{}", cluster.account());
    run.child.kill().unwrap();
    run.child.wait().unwrap();
    let begun = Instant::now();
    while !cluster.processes().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(90), "still running");
        std::thread::sleep(Duration::from_millis(100));
    }
    // The cluster removes a Job that has ended, and with it what names it as its owner.
    let created = cluster.created();
    assert_eq!(created["Job"]["spec"]["ttlSecondsAfterFinished"], 3_600);
    for beside in ["Secret", "Service"] {
        let owner = &created[beside]["metadata"]["ownerReferences"][0];
        assert_eq!(owner["uid"], created["Job"]["metadata"]["uid"], "{beside}");
    }
    assert_eq!(cluster.objects().len(), 3);
}

#[test]
fn an_interrupt_while_pods_are_waited_for_removes_them() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    cluster.trouble(&json!({ "n2": { "reason": "ErrImagePull", "message": "busy" } }));
    let site = REHEARSAL.replace("15 s", "10 min");
    let mut run = launch(
        &cluster,
        Setup {
            site: &site,
            ..Setup::default()
        },
    );
    run.wait_for("a pod that waits", |r| r.stdout().contains("ErrImagePull"));
    let begun = Instant::now();
    signal(run.child.id(), "-INT");
    let status = run.child.wait().unwrap();
    assert_eq!(status.code(), Some(4), "{}", run.stderr());
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        run.stderr().contains("interrupted before the load began"),
        "{}",
        run.stderr()
    );
    cluster.wait_until_empty();
}

#[test]
fn without_kubectl_a_run_says_so_and_writes_no_record() {
    let programs = RunFolder::new();
    let mut run = HallRun::launched(&Setup {
        launcher: "kubernetes",
        environment: &[("PATH", programs.path())],
        site: REHEARSAL,
        ..Setup::default()
    });
    let status = run.child.wait().unwrap();
    assert_eq!(status.code(), Some(4));
    let told = run.stderr();
    assert!(
        told.contains("cannot start `kubectl`") && told.contains("must be on PATH"),
        "{told}"
    );
    assert_eq!(run.frames(), 0);
}

#[test]
fn a_site_file_differs_from_its_cluster_where_a_node_is_absent_lacks_devices_or_would_get_no_pod() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let folder = RunFolder::new();
    let path = folder.write("hall.toml", &HALL.replace("MORE\n", ""));
    let check = || {
        let mut command = hallmark(["site", "check"]);
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(cluster.programs()).chain(std::env::split_paths(&inherited));
        command.arg(&path).envs(cluster.environment());
        command.env("PATH", std::env::join_paths(folders).unwrap());
        finish(command, Duration::from_secs(60))
    };
    let node = |name: &str, gpus: &str| {
        json!({
            "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
            "spec": {},
            "status": {
                "allocatable": { "nvidia.com/gpu": gpus },
                "conditions": [{ "type": "Ready", "status": "True" }],
            },
        })
    };
    // One that the cluster has beside the hall's is no difference.
    let names = ["n01", "n02", "n03", "gpu-7.hall.example", "login"];
    let mut nodes = names.map(|name| node(name, "8")).to_vec();
    cluster.nodes(&json!(nodes));
    let same = check().expect_code(0);
    assert!(
        same.stdout.contains("it is what its launcher reports"),
        "{same}"
    );
    nodes[1] = node("n02", "7");
    nodes[2]["spec"]["unschedulable"] = json!(true);
    nodes.remove(0);
    cluster.nodes(&json!(nodes));
    let told = check().expect_code(1).stdout;
    for line in [
        "differs: node `n01` is declared, and not reported",
        "differs: node `n02` is declared with 8 devices, and 7 are reported",
        "differs: node `n03` can take no work: it is cordoned",
    ] {
        assert!(told.lines().any(|l| l == line), "{line}: {told}");
    }
    cluster.nodes(&json!([{}]));
    let unread = check().expect_code(3);
    assert!(
        unread.stdout.contains("not compared with what is there"),
        "{unread}"
    );
}
