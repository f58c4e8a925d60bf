//! `smoke` as a newcomer runs it, on the processor, on lavapipe and on both together: every criterion is
//! judged on real samples, and a record that lost a sensor's series afterwards shows nothing any more.
//!
//! What a busy machine does to rates and percentiles is not held here; that they were measured is.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use hallmark_results::frame::{Frame, Samples, Table};
use hallmark_results::store::journal::JournalWriter;
use hallmark_results::store::read;
use hallmark_tests::{Component, RunFolder, finish, hallmark, json_lines};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// A run of some seconds on a machine that does other things too.
const LIMIT: Duration = Duration::from_secs(240);

/// Runs smoke and returns its last line and its report.
fn smoke(folder: &RunFolder, devices: &str, profile: &str) -> (i32, Value, Value) {
    let out = folder.run();
    let mut command = hallmark(["run", profile, "--ui", "json", "--devices", devices]);
    command.args(["--duration", "12s", "--out"]).arg(&out);
    let done = finish(command, LIMIT);
    let code = done.code.unwrap_or(-1);
    assert!(matches!(code, 0 | 1 | 3), "{done}");
    let last = json_lines(&done.stdout).pop().unwrap();
    let report = std::fs::read_to_string(out.join("report.json")).unwrap();
    (code, last, serde_json::from_str(&report).unwrap())
}

/// Every place of every finding has an estimate from samples.
fn every_criterion_is_judged(report: &Value) {
    let findings = report["findings"].as_array().unwrap();
    assert!(findings.len() >= 9, "{report}");
    for finding in findings {
        let name = &finding["criterion"]["name"];
        assert_ne!(name, "evidence", "{finding}");
        let places = finding["places"].as_array().unwrap();
        assert!(!places.is_empty(), "{finding}");
        for place in places {
            let samples = place["estimate"]["samples"].as_u64();
            assert!(samples.is_some_and(|n| n > 0), "{name}: {place}");
        }
    }
}

fn outcome<'a>(report: &'a Value, name: &str) -> &'a str {
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|f| f["criterion"]["name"] == name);
    found.unwrap()["outcome"].as_str().unwrap()
}

/// What must hold whatever else the machine does.
fn sound(report: &Value, devices: usize) {
    every_criterion_is_judged(report);
    for name in ["self-test", "inventory", "failures", "integrity", "audited"] {
        assert_eq!(outcome(report, name), "passed", "{name}: {report}");
    }
    let rows = report["devices"].as_array().unwrap();
    assert_eq!(rows.len(), devices, "{report}");
}

#[test]
fn smoke_on_the_processor_judges_every_criterion_on_real_samples() {
    let folder = RunFolder::new();
    let (_, last, report) = smoke(&folder, "cpu", "smoke");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    sound(&report, cores.min(2));
    assert!(last.to_string().contains("verdict"), "{last}");
}

#[test]
fn smoke_on_a_vulkan_device_judges_every_criterion_on_real_samples() {
    if Component::Vulkan.or_skip().is_none() {
        return;
    }
    let folder = RunFolder::new();
    let (_, _, report) = smoke(&folder, "wgpu0", "smoke");
    sound(&report, 1);
}

#[test]
fn smoke_on_both_together_reduces_between_them_and_judges_every_criterion() {
    if Component::Vulkan.or_skip().is_none() {
        return;
    }
    let folder = RunFolder::new();
    let (_, _, report) = smoke(&folder, "cpu0,wgpu0", "smoke");
    sound(&report, 2);
    let record = read::open_any(&folder.run()).unwrap();
    let reduced = record.frames().unwrap().any(|frame| match frame.unwrap() {
        Frame::Steps(steps) => !steps.ops.is_empty(),
        _ => false,
    });
    assert!(reduced, "nothing was all-reduced between the two engines");
}

/// Smoke without the gates that other work on the machine can miss.
fn calm(folder: &RunFolder) -> String {
    let text = hallmark_profiles::profile::load("smoke").unwrap().text;
    let mut gates = text.split("[[criterion]]");
    let head = gates.next().unwrap().replace("\"smoke\"", "\"calm\"");
    let head = head.replace("rate_tolerance = 0.03", "rate_tolerance = 0.5");
    let timing = ["telemetry", "step-time", "idle-gap", "completion"];
    let kept = gates.filter(|g| {
        let named = |name: &&str| g.contains(&format!("name = \"{name}\""));
        !timing.iter().any(named)
    });
    let text = kept.fold(head, |all, gate| format!("{all}[[criterion]]{gate}"));
    let path = folder.write("calm.toml", &text);
    path.to_str().unwrap().to_owned()
}

/// Writes a record again without the series of one metric, and seals it.
fn without(metric: &str, from: &Path, to: &Path) {
    let record = read::open_any(from).unwrap();
    std::fs::create_dir_all(to).unwrap();
    let mut journal = JournalWriter::create(to).unwrap();
    let mut kept: Vec<Vec<usize>> = Vec::new();
    for frame in record.frames().unwrap() {
        let frame = match frame.unwrap() {
            Frame::Table(table) => {
                let keep = |i: &usize| table.series[*i].metric.id() != metric;
                let columns: Vec<usize> = (0..table.series.len()).filter(keep).collect();
                let series = columns.iter().map(|c| table.series[*c].clone()).collect();
                kept.push(columns);
                Frame::Table(Table { series, ..table })
            }
            Frame::Samples(samples) => {
                let keep = &kept[samples.table as usize];
                let columns = keep.iter().map(|c| samples.columns[*c].clone());
                Frame::Samples(Samples {
                    columns: columns.collect(),
                    ..samples
                })
            }
            other => other,
        };
        journal.append(&frame).unwrap();
    }
    journal.sync().unwrap();
    drop(journal);
    let sealed = hallmark_results::store::seal::seal(to);
    assert!(sealed.is_ok(), "{sealed:?}");
}

#[test]
fn a_record_without_a_declared_sensors_series_is_inconclusive_though_all_else_passes() {
    let folder = RunFolder::new();
    let profile = calm(&folder);
    let (code, _, report) = smoke(&folder, "cpu", &profile);
    assert_eq!(code, 0, "{}", report["verdict"]);
    let cut = folder.path().join("cut");
    without("cpu_load", &folder.run(), &cut);
    let mut judge = hallmark(["judge"]);
    judge.arg(&cut);
    let judged = finish(judge, LIMIT).expect_code(3);
    assert!(judged.stdout.contains("INCONCLUSIVE"), "{judged}");
    assert!(judged.stdout.contains("cpu_load"), "{judged}");
}

#[test]
fn a_pulse_rises_and_falls_when_the_plan_says_and_its_rest_is_no_silence() {
    let folder = RunFolder::new();
    let text = hallmark_profiles::profile::load("smoke").unwrap().text;
    let head = text.split("[[load.phase]]").next().unwrap();
    let head = head
        .replace(
            "[load]\n",
            "[load]\ntransients = true\nmatmul = { m = 512, n = 512, k = 512 }\n",
        )
        .replace("rate_tolerance = 0.03", "rate_tolerance = 0.5")
        .replace("\"smoke\"", "\"pulse\"");
    let tail = text.split("[telemetry]").nth(1).unwrap();
    let gates: Vec<&str> = tail.split("[[criterion]]").collect();
    let kept = gates.iter().filter(|g| {
        let timing = [
            "telemetry",
            "step-time",
            "idle-gap",
            "completion",
            "audited",
        ];
        !timing
            .iter()
            .any(|name| g.contains(&format!("name = \"{name}\"")))
    });
    let tail = kept.copied().collect::<Vec<_>>().join("[[criterion]]");
    let phase = "[[load.phase]]\nname = \"square\"\npattern = \"pulse\"\nduration = \"12 s\"\n\
                 pulse = { frequency = \"0.5 Hz\", duty = 0.5, depth = 1.0 }\n\n[telemetry]";
    let path = folder.write("pulse.toml", &format!("{head}{phase}{tail}"));
    let (code, _, report) = smoke(&folder, "cpu", path.to_str().unwrap());
    assert_eq!(code, 0, "{}", report["verdict"]);
    let record = read::open_any(&folder.run()).unwrap();
    let mut starts: Vec<u64> = Vec::new();
    let mut pulse_ns = 0;
    for frame in record.frames().unwrap() {
        match frame.unwrap() {
            Frame::Event(e) if matches!(e.what, hallmark_results::frame::What::Segment { .. }) => {
                pulse_ns = if pulse_ns == 0 { e.at_ns } else { pulse_ns };
            }
            Frame::Steps(steps) if steps.device == 0 => {
                let plan_rows = steps.rows.iter().filter(|r| r.gemms > 0);
                starts.extend(plan_rows.map(|r| r.due_ns));
            }
            _ => {}
        }
    }
    // Open loop: due times are the plan's; between two crests there is a rest of a second.
    let rests = starts.windows(2).filter(|w| w[1] - w[0] > 500_000_000);
    assert!(
        rests.count() >= 4,
        "no square wave in {} steps",
        starts.len()
    );
}
