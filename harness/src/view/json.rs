//! One JSON object a line for machines; the verdict is the last line.
//!
//! Every object has a `type`; every number's unit is in its name; what is not known is null or left out, never
//! zero. Times are seconds of the run clock.
//!
//! | type | when | fields |
//! |---|---|---|
//! | `opened` | the plan is fixed, no load is on yet | `run_id`, `hallmark_version`, `utc_start`, `host`, `profile`, `profile_digest`, `plan_digest`, `folder`, `duration_s_at_most`, `devices`, `schedule`, `overrides`, `limits`, `figures` (null or what is not measured) |
//! | `note` | before and after the load | `text` |
//! | `segment` | a segment begins | `at_s`, `index`, `name`, `kind`, `duration_s`, `active_devices` |
//! | `event` | anything else happens | `at_s`, `device` (id or null), `event`, `weight`, `text`, `detail` (as in the record) |
//! | `progress` | each second | `at_s`, `share`, `left_s_at_most`, `segment`, `stopping` (null or why), `audited`, `matmuls`, `wrong`, `bus_byte_per_s`, `devices` |
//! | `verdict` | last | `outcome`, `word`, `sentence`, `failed`, `inconclusive`, `passed`, `folder`, `head`, `verdict` (whole, as in the report) |

use super::View;
use super::plain::outlet::Outlet;
use super::plain::reading::{DeviceReading, Reading, State};
use super::plain::words::{self, Weight};
use crate::run::Run;
use hallmark_results::frame::{Event, Frame, What};
use hallmark_results::plan::SegmentKind;
use hallmark_results::standing::Standing;
use hallmark_results::verdict::{Outcome, Verdict};
use serde_json::{Value, json};
use std::path::Path;

/// Distance of progress objects.
const PERIOD_NS: u64 = 1_000_000_000;

/// The view.
pub struct Json {
    out: Outlet,
    next_ns: u64,
}

impl Default for Json {
    fn default() -> Self {
        Self::new()
    }
}

impl Json {
    /// Writes to standard output.
    pub fn new() -> Self {
        Self::writing_to(Outlet::stdout())
    }

    fn writing_to(out: Outlet) -> Self {
        Self { out, next_ns: 0 }
    }

    fn put(&mut self, object: &Value) {
        self.out.send(format!("{object}\n").into_bytes());
    }
}

impl View for Json {
    fn opened(&mut self, standing: &Standing, folder: &Path) {
        self.put(&opened(standing, folder));
    }

    fn note(&mut self, text: &str) {
        self.put(&json!({ "type": "note", "text": text }));
    }

    fn frame(&mut self, frame: &Frame, run: &Run, _now_ns: u64) {
        if let Frame::Event(e) = frame {
            self.put(&event(run.standing(), e));
        }
    }

    fn tick(&mut self, run: &Run, now_ns: u64) {
        if now_ns < self.next_ns || run.current().is_none() {
            return;
        }
        self.next_ns = (now_ns / PERIOD_NS + 1) * PERIOD_NS;
        self.put(&progress(&Reading {
            standing: run.standing(),
            current: run.current(),
            now_ns,
        }));
    }

    fn verdict(&mut self, verdict: &Verdict, _summary: &str, folder: &Path, head: &str) {
        let refused = self.out.take_refused();
        if refused > 0 {
            let text = format!("{refused} lines were left out: nobody read them");
            self.out
                .insist(format!("{}\n", json!({ "type": "note", "text": text })).into_bytes());
        }
        let last = json!({
            "type": "verdict",
            "outcome": verdict.outcome,
            "word": verdict.word(),
            "sentence": verdict.sentence,
            "failed": verdict.count(Outcome::Failed),
            "inconclusive": verdict.count(Outcome::Inconclusive),
            "passed": verdict.count(Outcome::Passed),
            "folder": folder.to_string_lossy(),
            "head": head,
            "verdict": verdict,
        });
        self.out.insist(format!("{last}\n").into_bytes());
        self.out.finish();
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

const fn kind(kind: SegmentKind) -> &'static str {
    match kind {
        SegmentKind::RampUp => "ramp_up",
        SegmentKind::Warmup => "warmup",
        SegmentKind::Phase(_) => "phase",
        SegmentKind::RampDown => "ramp_down",
    }
}

fn opened(standing: &Standing, folder: &Path) -> Value {
    let opened = standing.opened();
    let plan = &opened.plan;
    let device = |d: &hallmark_results::plan::PlannedDevice| {
        json!({
            "device": d.id, "engine": d.engine, "name": d.name, "vendor": d.vendor, "driver": d.driver, "node": d.node,
            "pci": d.pci, "uuid": d.uuid, "sku": d.sku, "software": d.software, "provenance": d.provenance,
            "memory_byte": d.memory_bytes,
        })
    };
    let segment = |(index, s): (usize, &hallmark_results::plan::Segment)| {
        json!({
            "index": index, "name": s.name, "kind": kind(s.kind), "duration_s": seconds(s.duration_ns),
            "active_devices": s.active,
        })
    };
    let figures = Some(words::banner(standing)).filter(|b| !b.is_empty());
    json!({
        "type": "opened",
        "run_id": opened.run_id,
        "hallmark_version": opened.hallmark_version,
        "utc_start": opened.utc_start,
        "host": opened.host.name,
        "profile": standing.profile().name,
        "profile_digest": plan.profile_digest,
        "plan_digest": opened.plan_digest,
        "folder": folder.to_string_lossy(),
        "duration_s_at_most": seconds(plan.duration_ns()),
        "dtype": plan.dtype,
        "devices": plan.devices.iter().map(device).collect::<Vec<_>>(),
        "schedule": plan.schedule.iter().enumerate().map(segment).collect::<Vec<_>>(),
        "overrides": plan.overrides,
        "limits": plan.limits,
        "figures": figures,
    })
}

fn event(standing: &Standing, event: &Event) -> Value {
    let at_s = seconds(event.at_ns);
    let plan = &standing.opened().plan;
    if let What::Segment { index } = event.what
        && let Some(segment) = plan.schedule.get(index as usize)
    {
        return json!({
            "type": "segment", "at_s": at_s, "index": index, "name": segment.name, "kind": kind(segment.kind),
            "duration_s": seconds(segment.duration_ns), "active_devices": segment.active,
        });
    }
    let weight = match words::weight(&event.what) {
        Weight::Quiet => "quiet",
        Weight::Plain => "plain",
        Weight::Unsure => "unsure",
        Weight::Bad => "bad",
    };
    // The record's own spelling: a variant's name, alone or with its fields.
    let (name, detail) = match serde_json::to_value(&event.what) {
        Ok(Value::String(name)) => (name, Value::Null),
        Ok(Value::Object(fields)) => fields.into_iter().next().unwrap_or_default(),
        _ => (String::new(), Value::Null),
    };
    json!({
        "type": "event", "at_s": at_s, "device": event.device.and_then(|d| plan.devices.get(d as usize)).map(|d| &d.id),
        "event": snake(&name), "weight": weight, "text": words::event(standing, event), "detail": detail,
    })
}

/// `NeverSteady` as `never_steady`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    for (index, c) in name.char_indices() {
        if c.is_uppercase() && index > 0 {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

fn progress(reading: &Reading<'_>) -> Value {
    let progress = reading.progress();
    let audits = reading.audits();
    let device = |d: &DeviceReading| device(reading, d);
    json!({
        "type": "progress",
        "at_s": seconds(reading.now_ns),
        "share": progress.share,
        "left_s_at_most": seconds(progress.left_ns),
        "segment": reading.segment().map(|s| &s.name),
        "stopping": reading.stopping(),
        "audited": audits.audited,
        "matmuls": audits.gemms,
        "wrong": audits.wrong,
        "bus_byte_per_s": reading.bus_byte_per_s(),
        "devices": reading.devices().iter().map(device).collect::<Vec<_>>(),
    })
}

fn device(reading: &Reading<'_>, device: &DeviceReading) -> Value {
    let index = device.index as usize;
    let state = match device.state {
        State::Working => json!("working"),
        State::Waiting => json!("waiting"),
        State::Lost(_) => json!("lost"),
    };
    let fault = match device.state {
        State::Lost(kind) => json!(kind),
        _ => Value::Null,
    };
    let run = reading.standing.devices().get(index);
    json!({
        "device": reading.standing.opened().plan.devices.get(index).map(|d| &d.id),
        "state": state,
        "fault": fault,
        "rate_flop_per_s": device.rate_flop_per_s,
        "against_peers": device.against_peers,
        "memory_byte_per_s": device.memory_byte_per_s,
        "power_w": device.power_w,
        "temp_core_celsius": device.temp_core_c,
        "thermal_margin_kelvin": device.margin_k,
        "clock_sm_hz": device.clock_hz,
        "reasons": device.reasons,
        "steps": run.map(|r| r.steps),
        "wrong": device.mismatches,
        "faults": device.faults,
    })
}

#[cfg(test)]
mod tests {
    use super::super::plain::outlet::tests::Sink;
    use super::super::plain::sample::{SECOND_NS, Sample, TRAIN, begun};
    use super::*;
    use hallmark_results::frame::FaultKind;

    #[test]
    fn each_line_is_one_object_and_the_verdict_is_the_last() {
        let sink = Sink::default();
        let mut view = Json::writing_to(Outlet::to(sink.clone()));
        let run = begun(2, SECOND_NS);
        view.opened(run.standing(), Path::new("runs/x"));
        view.note("two\nlines");
        for event in run.standing().events() {
            view.frame(&Frame::Event(event.clone()), &run, SECOND_NS);
        }
        let fault = What::Fault {
            kind: FaultKind::WorkerDied,
            detail: "signal 9".to_owned(),
        };
        view.frame(
            &Frame::Event(Event {
                at_ns: 3 * SECOND_NS,
                device: Some(1),
                what: fault,
            }),
            &run,
            0,
        );
        for tick in 10..40_u64 {
            view.tick(&run, tick * SECOND_NS / 10);
        }
        let verdict = hallmark_results::verdict::judge(run.standing());
        view.verdict(&verdict, "text", Path::new("runs/x"), "abc");
        let text = sink.text();
        let objects: Vec<Value> = text
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        let types: Vec<&str> = objects
            .iter()
            .map(|o| o["type"].as_str().unwrap())
            .collect();
        assert_eq!(
            types,
            [
                "opened", "note", "segment", "event", "progress", "progress", "progress", "verdict"
            ]
        );
        assert_eq!(objects[0]["devices"][1]["device"], "gpu1");
        assert_eq!(objects[0]["figures"], "SIMULATED");
        assert_eq!(
            (&objects[2]["kind"], &objects[2]["duration_s"]),
            (&json!("ramp_up"), &json!(2.0))
        );
        assert_eq!(
            (&objects[3]["event"], &objects[3]["device"]),
            (&json!("fault"), &json!("gpu1"))
        );
        assert_eq!(
            objects[3]["detail"],
            json!({ "kind": "worker_died", "detail": "signal 9" })
        );
        let last = &objects[7];
        assert_eq!(
            (&last["head"], &last["folder"]),
            (&json!("abc"), &json!("runs/x"))
        );
        assert_eq!(
            last["verdict"]["findings"].as_array().unwrap().len(),
            verdict.findings.len()
        );
    }

    #[test]
    fn progress_names_its_units_and_leaves_unknown_figures_null() {
        let mut sample = Sample::training(2);
        sample.sensors(0, [612.0, 86.4, 0.6, 1.462e9, 4.0]);
        sample.event(
            Some(1),
            What::Fault {
                kind: FaultKind::Silent,
                detail: String::new(),
            },
        );
        let reading = Reading {
            standing: &sample.standing,
            current: sample.current(),
            now_ns: sample.now_ns,
        };
        let object = progress(&reading);
        assert_eq!(
            object["segment"],
            reading.standing.opened().plan.schedule[TRAIN].name
        );
        assert_eq!(object["left_s_at_most"], 72.0);
        let devices = object["devices"].as_array().unwrap();
        let rate = devices[0]["rate_flop_per_s"].as_f64().unwrap();
        assert!((rate / 100e12 - 1.0).abs() < 0.01, "{rate}");
        assert_eq!(
            (&devices[0]["power_w"], &devices[1]["power_w"]),
            (&json!(612.0), &Value::Null)
        );
        assert_eq!(devices[0]["reasons"], json!(["power cap"]));
        assert_eq!(
            (&devices[1]["state"], &devices[1]["fault"]),
            (&json!("lost"), &json!("silent"))
        );
    }
}
