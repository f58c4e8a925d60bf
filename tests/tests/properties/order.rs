//! The order of devices, and the way of the frames to the judge, change nothing.

use super::{good, rounds};
use hallmark_results::frame::{Frame, Opened};
use hallmark_results::standing::Standing;
use hallmark_results::stats::bootstrap::SplitMix64;
use hallmark_results::store::{JournalWriter, Record as Sealed, seal};
use hallmark_results::verdict::{Outcome, Verdict, judge};
use hallmark_tests::synthetic::{Record, fold};
use tempfile::TempDir;

/// The same run with its devices in another order: device `i` stands at `to[i]`.
fn reordered(frames: &[Frame], to: &[u32]) -> Vec<Frame> {
    let device = |d: u32| to[d as usize];
    let moved = |frame: &Frame| match frame.clone() {
        Frame::Opened(opened) => {
            let mut plan = opened.plan.clone();
            for (from, planned) in opened.plan.devices.iter().enumerate() {
                plan.devices[to[from] as usize] = planned.clone();
            }
            Frame::Opened(Box::new(Opened {
                plan_digest: plan.digest(),
                plan,
                ..*opened
            }))
        }
        Frame::Table(mut table) => {
            table.device = table.device.map(device);
            Frame::Table(table)
        }
        Frame::Steps(mut steps) => {
            steps.device = device(steps.device);
            Frame::Steps(steps)
        }
        Frame::Event(mut event) => {
            event.device = event.device.map(device);
            Frame::Event(event)
        }
        other => other,
    };
    frames.iter().map(moved).collect()
}

/// Everything that a criterion came to, places by their names.
fn told(verdict: &Verdict) -> Vec<String> {
    let mut all: Vec<String> = verdict
        .findings
        .iter()
        .map(|f| {
            let mut places: Vec<_> = f
                .places
                .iter()
                .map(|p| {
                    let figures = p.estimate.map(|e| {
                        // Sums over devices differ in their last digits with the order of the terms.
                        [e.value, e.low, e.high].map(|v| format!("{v:.9e}"))
                    });
                    format!("{} {:?} {figures:?}", p.place, p.outcome)
                })
                .collect();
            places.sort();
            format!("{} {:?} {places:?}", f.criterion.name, f.outcome)
        })
        .collect();
    all.sort();
    all
}

fn shuffled(chance: &mut SplitMix64, count: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count as u32).collect();
    for i in (1..count).rev() {
        order.swap(i, chance.below(i as u64 + 1) as usize);
    }
    order
}

fn some_runs() -> [Record; 3] {
    [
        good("burn-in"),
        good("burn-in").rates(|_, d| 1.0 - 0.02 * f64::from(d)),
        good("burn-in")
            .fault(3, hallmark_results::frame::FaultKind::Silent)
            .steps(|m, d, _| d != 3 || m.progress < 0.5),
    ]
}

#[test]
fn the_order_of_the_devices_changes_nothing_but_their_order() {
    let runs = some_runs().map(|run| run.frames());
    let before = runs.clone().map(|frames| told(&judge(&fold(&frames))));
    rounds(20_260_303, |chance| {
        let which = chance.below(runs.len() as u64) as usize;
        let to = shuffled(chance, 8);
        let after = judge(&fold(&reordered(&runs[which], &to)));
        assert_eq!(
            told(&after),
            before[which],
            "run {which} in the order {to:?}"
        );
    });
}

#[test]
fn the_verdict_of_a_running_account_is_the_verdict_of_its_sealed_record() {
    for (index, run) in some_runs().into_iter().enumerate() {
        let frames = run.frames();
        let (first, rest) = frames.split_first().expect("frames");
        let mut live = Standing::open(first).expect("an opening frame");
        for (count, frame) in rest.iter().enumerate() {
            live.push(frame).expect("a frame of this run");
            if count.is_multiple_of(20) {
                // To look at it while it runs changes nothing, and decides nothing that is not over.
                assert_ne!(judge(&live).outcome, Outcome::Passed, "frame {count}");
                live.latest(0, hallmark_profiles::metric::Metric::TempCore);
            }
            if matches!(frame, Frame::Closed(_)) {
                break;
            }
        }
        let folder = TempDir::new().expect("a folder");
        let mut writer = JournalWriter::create(folder.path()).expect("a journal");
        for frame in &frames {
            writer.append(frame).expect("a sound frame");
        }
        writer.close().expect("a whole journal");
        seal(folder.path()).expect("a sealed record");
        let sealed = Sealed::open(folder.path()).expect("a record");
        let back: Vec<Frame> = sealed.frames().map(|f| f.expect("a frame")).collect();
        assert_eq!(judge(&live), judge(&fold(&back)), "run {index}");
    }
}
