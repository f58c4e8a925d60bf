//! A sweep of all-reduces as a phase of a real run on the processor: every size, both ways, every result checked, and
//! what it came to in the record and in each report; and what a rank that dies in the middle of one leaves.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use hallmark_results::frame::{FaultKind, Frame, TrialRow, What};
use hallmark_results::store::journal::JournalReader;
use hallmark_results::store::read;
use hallmark_results::verdict::Outcome;
use hallmark_tests::judged::{outcome, standing, standing_but};
use hallmark_tests::swept::{ITERATIONS, LARGEST, profile};
use hallmark_tests::{RunFolder, finish, hallmark};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A run of some seconds on a machine that does other things too.
const LIMIT: Duration = Duration::from_secs(240);

fn trials(folder: &Path) -> Vec<(u32, TrialRow)> {
    let record = read::open_any(folder).unwrap();
    let steps = record.frames().unwrap().filter_map(|f| match f.unwrap() {
        Frame::Steps(steps) => Some(steps),
        _ => None,
    });
    steps
        .flat_map(|s| s.trials.into_iter().map(move |t| (s.device, t)))
        .collect()
}

fn finding<'a>(report: &'a Value, name: &str) -> &'a Value {
    let findings = report["findings"].as_array().unwrap();
    findings
        .iter()
        .find(|f| f["criterion"]["name"] == name)
        .unwrap()
}

#[test]
fn a_sweep_measures_every_size_on_both_ways_and_every_report_tells_it() {
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() < 2) {
        return; // One core is one device, which has nobody to reduce with.
    }
    let folder = RunFolder::new();
    let profile = profile(&folder, 4);
    let out = folder.run();
    let mut command = hallmark(["run", &profile, "--ui", "plain", "--devices", "cpu"]);
    command.arg("--out").arg(&out);
    let done = finish(command, LIMIT);
    assert!(matches!(done.code, Some(0 | 3)), "{done}");

    let mut counted: BTreeMap<(u32, u64, bool), u64> = BTreeMap::new();
    for (device, trial) in trials(&out) {
        assert_eq!(trial.wrong, 0, "{trial:?}");
        assert!(trial.due_ns <= trial.start_ns && trial.start_ns <= trial.arrived_ns);
        assert!(trial.arrived_ns <= trial.end_ns, "{trial:?}");
        if !trial.warm_up {
            *counted
                .entry((device, trial.bytes, trial.in_place))
                .or_default() += 1;
        }
    }
    for device in [0, 1] {
        for power in 3..=LARGEST.ilog2() {
            for in_place in [false, true] {
                let count = counted.get(&(device, 1 << power, in_place));
                assert!(
                    count.is_some_and(|c| *c >= ITERATIONS),
                    "2^{power} {in_place}: {count:?}"
                );
            }
        }
    }

    let standing = standing(&out);
    let flips = standing.events().iter().filter(|e| {
        matches!(&e.what, What::SelfTest { passed: true, detail } if detail.contains("all-reduced total"))
    });
    assert_eq!(flips.count(), 2, "each rank tries its check at the start");
    let report: Value =
        serde_json::from_str(&std::fs::read_to_string(out.join("report.json")).unwrap()).unwrap();
    for name in ["self-test", "integrity", "latency", "bandwidth"] {
        assert_eq!(
            finding(&report, name)["outcome"],
            "passed",
            "{name}: {report}"
        );
    }
    every_report(&out, &report);
    a_rank_that_hides_operations_shows_nothing(&out);
}

/// The slow operations of a sweep cannot be left out by one rank: without all ranks' word there is no figure to pass by.
fn a_rank_that_hides_operations_shows_nothing(out: &Path) {
    let hidden = |keep: fn(&TrialRow) -> bool| {
        standing_but(out, |frame| match frame {
            Frame::Steps(steps) if steps.device == 1 => steps.trials.retain(keep),
            _ => {}
        })
    };
    let whole = hidden(|_| true);
    let every_second = hidden(|t| t.index % 2 == 0);
    let no_largest = hidden(|t| t.bytes < LARGEST);
    for gate in ["latency", "bandwidth"] {
        assert_eq!(outcome(&whole, gate), Outcome::Passed, "{gate}");
        for hidden in [&every_second, &no_largest] {
            assert_eq!(outcome(hidden, gate), Outcome::Inconclusive, "{gate}");
        }
    }
}

/// The same figures in JSON, in the columns of nccl-tests, on the page and in a line of text.
fn every_report(out: &Path, report: &Value) {
    let sizes = report["sweeps"][0]["sizes"].as_array().unwrap();
    assert_eq!(sizes.len(), 2 * 15, "8 B to 128 KiB on both ways");
    let told = finish(
        {
            let mut command = hallmark(["report", "--format", "nccl"]);
            command.arg(out);
            command
        },
        LIMIT,
    )
    .expect_code(0)
    .stdout;
    let after = told.split("# phase all reduce").nth(1).unwrap();
    let table = after.split("# phase").next().unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|l| !l.starts_with('#') && l.split_whitespace().count() == 13)
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(rows.len(), 15, "{told}");
    for (power, row) in (3_u32..).zip(&rows) {
        assert_eq!(row[0], (1_u64 << power).to_string());
        assert_eq!((row[8], row[12]), ("0", "0"), "{row:?}");
        // Of two ranks bus and algorithm bandwidth are one figure.
        assert_eq!((row[6], row[10]), (row[7], row[11]), "{row:?}");
    }
    let plateau = sizes.iter().rev().find(|s| s["in_place"] == false).unwrap();
    let busbw = plateau["busbw"].as_f64().unwrap() / 1e9;
    assert!(
        told.contains(&format!("Plateau bus bandwidth : {busbw:.2} GB/s")),
        "{told}"
    );
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("id=\"sweep-bandwidth-0\"") && page.contains("id=\"sweep-latency-0\""));
    let text = std::fs::read_to_string(out.join("report.txt")).unwrap();
    // The line is broken where it is too long.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("every total was checked and right"), "{text}");
}

#[test]
fn a_rank_that_dies_in_a_sweep_is_counted_and_the_other_goes_on_alone() {
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() < 2) {
        return;
    }
    let folder = RunFolder::new();
    let profile = profile(&folder, 12);
    let out = folder.run();
    let mut command = hallmark(["run", &profile, "--ui", "plain", "--devices", "cpu"]);
    command.arg("--out").arg(&out);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    let sweeping = || {
        let frames = JournalReader::open(&out);
        frames.is_ok_and(|r| {
            let mut whole = r.map_while(Result::ok);
            whole.any(|f| matches!(f, Frame::Steps(s) if !s.trials.is_empty()))
        })
    };
    while !sweeping() {
        assert!(began.elapsed() < LIMIT, "waited in vain for the sweep");
        assert!(
            child.try_wait().unwrap().is_none(),
            "it ended before the sweep"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    let children = tasks
        .flatten()
        .filter_map(|t| std::fs::read_to_string(t.path().join("children")).ok());
    let workers: Vec<String> = children
        .flat_map(|c| c.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let killed = Command::new("kill").args(["-KILL", &workers[0]]).status();
    assert!(killed.unwrap().success());
    while child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < LIMIT, "the run does not end");
        std::thread::sleep(Duration::from_millis(50));
    }

    let standing = standing(&out);
    let died = standing.events().iter().find_map(|e| match e.what {
        What::Fault {
            kind: FaultKind::WorkerDied,
            ..
        } => e.device,
        _ => None,
    });
    let died = died.unwrap();
    let regrouped = standing.events().iter().rev().find_map(|e| match &e.what {
        What::Regrouped { members, .. } => Some((e.at_ns, members.clone())),
        _ => None,
    });
    let (at_ns, members) = regrouped.unwrap();
    assert_eq!(members, [1 - died]);
    let alone = trials(&out);
    let alone = alone
        .iter()
        .filter(|(d, t)| *d != died && t.start_ns > at_ns);
    let (count, wrong) = alone.fold((0, 0), |(n, w), (_, t)| (n + 1, w + t.wrong));
    assert!(count > 0, "the survivor sweeps no more");
    assert_eq!(wrong, 0, "a sum over one rank is that rank's own");
}
