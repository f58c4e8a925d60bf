//! How the pods of a run fare, node by node, from what kubectl says of them.
//!
//! A state machine without clock or process: time is an argument. It decides which node a pod stands for, when one has
//! not started in time, why that may be, and that a pod which was there and is gone has ended. It refuses an answer that
//! is no list of pods.

use serde_json::Value;
use std::collections::BTreeMap;

/// Of a reason so many characters are told, and so many nodes by name.
const REASON_CHARS: usize = 200;
const NAMED: usize = 4;
/// Where the cluster has made no pod at all, it says why elsewhere.
const NO_POD: &str = "no pod was placed on it: a queue that has not admitted the run, a quota, or a Job that the \
                      cluster refuses; `kubectl describe` of the Job tells which";

/// One pod, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pod {
    name: String,
    /// Where it was placed.
    node: Option<String>,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Why it has not started.
    Waits(String),
    Runs,
    /// How it ended.
    Ended(String),
}

/// What is known of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    name: String,
    /// The name of its pod.
    pod: Option<String>,
    waits: Option<String>,
    started: bool,
    /// Nothing more is said of it.
    over: bool,
}

/// The pods of a run.
#[derive(Debug)]
pub struct Pods {
    nodes: Vec<Node>,
    /// Pods have to run by then.
    until_ns: u64,
    limit_s: u64,
    told: String,
}

/// What has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Nodes whose pod has ended or not started in time, and how or why.
    pub ended: Vec<(usize, String)>,
    /// What the operator may want to know meanwhile.
    pub told: Option<String>,
}

impl Pods {
    /// None of which is there yet. They have `limit_s` to start, from `now_ns` on.
    pub fn new<'a>(nodes: impl IntoIterator<Item = &'a str>, now_ns: u64, limit_s: u64) -> Self {
        let node = |name: &str| Node {
            name: name.to_owned(),
            ..Node::default()
        };
        Self {
            nodes: nodes.into_iter().map(node).collect(),
            until_ns: now_ns + limit_s * 1_000_000_000,
            limit_s,
            told: String::new(),
        }
    }

    /// Takes an answer of `kubectl get pods -o json`.
    ///
    /// # Errors
    /// One sentence: it is no list of pods.
    pub fn take(&mut self, answer: &str, now_ns: u64) -> Result<News, String> {
        let no_list = || "no list of pods in its answer".to_owned();
        let answer: Value = serde_json::from_str(answer).map_err(|_| no_list())?;
        let pods = answer["items"].as_array().ok_or_else(no_list)?;
        let pods: Vec<Pod> = pods.iter().filter_map(Pod::read).collect();
        let mut news = News::default();
        let unplaced = pods.iter().find_map(|p| match (&p.node, &p.state) {
            (None, State::Waits(why)) => Some(why.as_str()),
            _ => None,
        });
        let placed: BTreeMap<&str, &Pod> = pods
            .iter()
            .filter_map(|p| Some((p.node.as_deref()?, p)))
            .collect();
        for (index, node) in self.nodes.iter_mut().enumerate() {
            if node.over {
                continue;
            }
            if let Some(how) = node.follow(placed.get(node.name.as_str()).copied(), unplaced) {
                node.over = true;
                news.ended.push((index, how));
            }
        }
        news.ended.extend(self.late(now_ns));
        news.told = self.summary();
        Ok(news)
    }

    /// Nodes whose pod has not started in time; also where kubectl has no answer.
    pub fn late(&mut self, now_ns: u64) -> Vec<(usize, String)> {
        if now_ns < self.until_ns {
            return Vec::new();
        }
        let limit_s = self.limit_s;
        let nodes = self.nodes.iter_mut().enumerate();
        let late = nodes.filter(|(_, n)| !n.over && !n.started);
        late.map(|(index, node)| {
            node.over = true;
            let why = node.waits.as_deref().unwrap_or(NO_POD);
            (
                index,
                format!("its pod did not start within {limit_s} s: {why}"),
            )
        })
        .collect()
    }

    /// What pods wait for, where that is something else than the last time.
    fn summary(&mut self) -> Option<String> {
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for node in self.nodes.iter().filter(|n| !n.over && !n.started) {
            let why = node.waits.as_deref().unwrap_or("no pod yet");
            reasons.entry(why).or_default().push(&node.name);
        }
        let told: Vec<String> = reasons
            .iter()
            .map(|(why, nodes)| {
                let more = match nodes.len().saturating_sub(NAMED) {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                let names: Vec<&str> = nodes.iter().take(NAMED).copied().collect();
                format!("{}{more}: {why}", names.join(", "))
            })
            .collect();
        let told = told.join("; ");
        let is_news = told != self.told;
        told.clone_into(&mut self.told);
        (is_news && !told.is_empty()).then(|| format!("pods wait: {told}"))
    }
}

impl Node {
    /// Takes what its pod has come to; gives how that ended.
    fn follow(&mut self, pod: Option<&Pod>, unplaced: Option<&str>) -> Option<String> {
        let Some(pod) = pod else {
            self.waits = unplaced.map(str::to_owned);
            // One that was placed and never ran may be placed elsewhere; one that ran took the node's load along.
            let gone = self.pod.take().filter(|_| self.started)?;
            return Some(format!("its pod `{gone}` was removed"));
        };
        self.pod = Some(pod.name.clone());
        match &pod.state {
            State::Waits(why) => self.waits = Some(why.clone()),
            State::Runs => self.started = true,
            State::Ended(how) => return Some(format!("its pod `{}` {how}", pod.name)),
        }
        None
    }
}

impl Pod {
    /// `None` for what has no name.
    fn read(pod: &Value) -> Option<Self> {
        let status = &pod["status"];
        let container = &status["containerStatuses"][0]["state"];
        let state = match status["phase"].as_str().unwrap_or_default() {
            "Running" => State::Runs,
            "Succeeded" => State::Ended("has ended".to_owned()),
            "Failed" => State::Ended(failure(status, &container["terminated"])),
            _ => State::Waits(waits(status, &container["waiting"])),
        };
        Some(Self {
            name: pod["metadata"]["name"].as_str()?.to_owned(),
            node: pod["spec"]["nodeName"].as_str().map(str::to_owned),
            state,
        })
    }
}

/// Why a pod has not started: what its container waits for, else what the scheduler says.
fn waits(status: &Value, waiting: &Value) -> String {
    if waiting.is_object() {
        return reason(waiting);
    }
    let conditions = status["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    match conditions.find(|c| c["type"] == "PodScheduled" && c["status"] == "False") {
        Some(unscheduled) => reason(unscheduled),
        None => "it was placed and has not started".to_owned(),
    }
}

fn failure(status: &Value, terminated: &Value) -> String {
    if !terminated.is_object() {
        return format!("failed: {}", reason(status));
    }
    let code = terminated["exitCode"].as_i64().unwrap_or(-1);
    // What it said last stands at the end of its message.
    let said = terminated["message"].as_str().unwrap_or_default();
    let last = said.lines().rev().map(str::trim).find(|l| !l.is_empty());
    match last {
        Some(last) => format!("ended with code {code}: {}", shown(last)),
        None => format!("ended with code {code} ({})", reason(terminated)),
    }
}

/// `reason: message`, of which the cluster says both, one or none.
fn reason(said: &Value) -> String {
    let word = |key: &str| said[key].as_str().filter(|s| !s.is_empty());
    match (word("reason"), word("message")) {
        (Some(reason), Some(message)) => shown(&format!("{reason}: {message}")),
        (Some(one), None) | (None, Some(one)) => shown(one),
        (None, None) => "no reason was given".to_owned(),
    }
}

/// One line that a terminal shows as it is.
fn shown(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(plain).take(REASON_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SECOND: u64 = 1_000_000_000;

    fn pod(name: &str, node: Option<&str>, status: Value) -> Value {
        json!({ "metadata": { "name": name }, "spec": { "nodeName": node }, "status": status })
    }

    fn waiting(reason: &str, message: &str) -> Value {
        json!({ "phase": "Pending", "containerStatuses": [
            { "state": { "waiting": { "reason": reason, "message": message } } }
        ] })
    }

    fn unscheduled() -> Value {
        json!({ "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "0/2 nodes are available:\n1 cordoned" }] })
    }

    fn answer(pods: &[Value]) -> String {
        json!({ "items": pods }).to_string()
    }

    fn running() -> Value {
        json!({ "phase": "Running" })
    }

    fn pods() -> Pods {
        Pods::new(["n1", "n2"], 5 * SECOND, 60)
    }

    #[test]
    fn a_pod_that_does_not_start_is_its_nodes_with_the_clusters_reason_once() {
        let mut pods = pods();
        let now = answer(&[
            pod(
                "a",
                Some("n1"),
                waiting("ImagePullBackOff", "no such image"),
            ),
            pod("b", None, unscheduled()),
        ]);
        let news = pods.take(&now, 6 * SECOND).unwrap();
        assert_eq!(news.ended, []);
        assert_eq!(
            news.told.unwrap(),
            "pods wait: n1: ImagePullBackOff: no such image; \
             n2: Unschedulable: 0/2 nodes are available: 1 cordoned"
        );
        assert_eq!(pods.take(&now, 64 * SECOND).unwrap(), News::default());
        let late = pods.take(&now, 65 * SECOND).unwrap().ended;
        let told = |node, why: &str| (node, format!("its pod did not start within 60 s: {why}"));
        assert_eq!(
            late,
            [
                told(0, "ImagePullBackOff: no such image"),
                told(1, "Unschedulable: 0/2 nodes are available: 1 cordoned")
            ]
        );
        assert_eq!(pods.take(&now, 66 * SECOND).unwrap(), News::default());
    }

    #[test]
    fn a_pod_that_ended_or_was_removed_has_ended_and_one_that_runs_is_never_late() {
        let mut pods = pods();
        let now = answer(&[
            pod("a", Some("n1"), running()),
            pod("b", Some("n2"), running()),
        ]);
        assert_eq!(pods.take(&now, 6 * SECOND).unwrap().ended, []);
        assert_eq!(pods.take(&now, 600 * SECOND).unwrap().ended, []);
        let failed = json!({ "phase": "Failed", "containerStatuses": [{ "state": { "terminated": {
            "exitCode": 4, "reason": "Error", "message": "x\nhallmark: the log is full\n" } } }] });
        let now = answer(&[pod("b", Some("n2"), failed)]);
        assert_eq!(
            pods.take(&now, 601 * SECOND).unwrap().ended,
            [
                (0, "its pod `a` was removed".to_owned()),
                (
                    1,
                    "its pod `b` ended with code 4: hallmark: the log is full".to_owned()
                ),
            ]
        );
        let evicted = json!({ "phase": "Failed", "reason": "Evicted", "message": "disk pressure" });
        assert_eq!(
            Pod::read(&pod("c", Some("n1"), evicted)).unwrap().state,
            State::Ended("failed: Evicted: disk pressure".to_owned())
        );
    }

    #[test]
    fn a_cluster_that_makes_no_pod_and_one_that_does_not_answer_are_late_too() {
        let mut pods = pods();
        assert!(pods.take("{}", 6 * SECOND).is_err());
        assert!(pods.take("error", 6 * SECOND).is_err());
        assert_eq!(pods.late(64 * SECOND), []);
        let late = pods.late(65 * SECOND);
        assert_eq!(late.len(), 2);
        assert!(late[0].1.contains("no pod was placed on it"), "{late:?}");
    }

    #[test]
    fn many_nodes_that_wait_for_one_thing_are_one_line() {
        let names: Vec<String> = (1..=9).map(|n| format!("n{n}")).collect();
        let mut pods = Pods::new(names.iter().map(String::as_str), 0, 60);
        let told = pods.take(&answer(&[]), 1).unwrap().told;
        assert_eq!(
            told.unwrap(),
            "pods wait: n1, n2, n3, n4 and 5 more: no pod yet"
        );
    }
}
