//! Evidence that is not there.

use super::{changed, judged, not_passed, samples};
use hallmark_profiles::metric::Metric;
use hallmark_profiles::profile;
use hallmark_results::frame::{Event, Frame, Table, What};
use hallmark_results::verdict::{Outcome, judge};
use hallmark_tests::synthetic::{Place, finding, fold, of, record};

#[test]
fn a_device_without_the_sensor_that_its_peers_have_passes_no_gate_that_rests_on_it() {
    for (metric, gate) in [(Metric::ThrottleFrac, "throttling"), (Metric::Ecc, "ecc")] {
        let verdict = record("burn-in").without(metric, &Place::Device(3)).judge();
        not_passed(&verdict, &[gate]);
        assert_ne!(verdict.outcome, Outcome::Passed, "{metric}");
    }
}

#[test]
fn a_counter_that_was_read_once_shows_no_growth() {
    let once = record("burn-in").series(Metric::Ecc, Place::Device(3), |m| {
        // The only reading of the phase, at its end: whatever was counted before is in it.
        if m.phase == "train" && m.progress > 0.998 {
            9.0
        } else {
            f64::NAN
        }
    });
    not_passed(&once.judge(), &["ecc"]);
}

#[test]
fn errors_between_the_last_reading_before_a_phase_and_the_first_inside_it_are_not_lost() {
    let jump = record("burn-in").series(Metric::Ecc, Place::Device(3), |m| {
        if m.phase == "train" || m.phase == "steady" {
            9.0
        } else {
            7.0
        }
    });
    not_passed(&jump.judge(), &["ecc"]);
}

#[test]
fn where_nothing_was_audited_the_integrity_of_the_site_is_unknown() {
    let text = "name = \"integrity\"\nmetric = \"audit_errors\"\nscope = \"gpu\"";
    let site = changed("burn-in", text, &text.replace("gpu", "site"));
    let verdict = of(&site, 8)
        .steps(|_, _, row| {
            row.audited = 0;
            row.audited_flop = 0.0;
            true
        })
        .judge();
    not_passed(&verdict, &["integrity"]);
}

#[test]
fn devices_that_all_did_nothing_pass_no_gate_that_compares_them() {
    let verdict = record("burn-in")
        .steps(|m, _, _| m.phase != "steady")
        .judge();
    not_passed(&verdict, &["throughput", "floor"]);
}

#[test]
fn a_device_that_did_nothing_leaves_the_figures_of_the_site_unknown() {
    let silent = record("soak")
        .hours(2.0)
        .steps(|m, d, _| m.phase != "train" || d != 3);
    not_passed(&silent.judge(), &["variation", "stability"]);
}

#[test]
fn a_device_that_cannot_be_compared_is_not_among_those_that_may_miss() {
    let share = changed("burn-in", "allowed_share = 0.01", "allowed_share = 0.5");
    let verdict = of(&share, 8).named(3, "some other model").judge();
    not_passed(&verdict, &["throughput"]);
}

#[test]
fn a_warm_up_that_ended_without_a_word_is_not_steady() {
    let silent = record("burn-in").keep(|f| {
        !matches!(
            f,
            Frame::Event(Event {
                what: What::Steady,
                ..
            })
        )
    });
    assert_ne!(silent.judge().outcome, Outcome::Passed);
}

#[test]
fn a_phase_without_length_shows_nothing() {
    // Without its steps, which would contradict themselves.
    let run = record("burn-in").steps(|m, _, _| m.phase != "train");
    let mut frames = run.frames();
    let begins = |f: &Frame, wanted: u32| match f {
        Frame::Event(Event {
            at_ns,
            what: What::Segment { index },
            ..
        }) if *index == wanted => Some(*at_ns),
        _ => None,
    };
    let Some(Frame::Opened(opened)) = frames.first() else {
        panic!("no opening frame");
    };
    let schedule = &opened.plan.schedule;
    let train = schedule
        .iter()
        .position(|s| s.name == "train")
        .expect("a phase") as u32;
    let next = frames
        .iter()
        .find_map(|f| begins(f, train + 1))
        .expect("a phase");
    for frame in &mut frames {
        if begins(frame, train).is_some()
            && let Frame::Event(event) = frame
        {
            event.at_ns = next;
        }
    }
    let standing = fold(&frames);
    assert_eq!(standing.oddities(), 0);
    let verdict = judge(&standing);
    let of_train = [
        "duration",
        "telemetry",
        "telemetry-gap",
        "variation",
        "throttling",
        "ecc",
        "idle-gap",
        "stragglers",
    ];
    not_passed(&verdict, &of_train);
}

#[test]
fn a_burst_of_samples_does_not_make_up_for_a_silence() {
    let verdict = judged(&record("smoke"), |frame| {
        if let Some(samples) = samples(frame)
            && let (Some(first), Some(last)) =
                (samples.at_ns.first().copied(), samples.at_ns.last())
        {
            // All that a segment has to tell, told in its first tenth.
            let from = first;
            assert!(*last >= from);
            for at in &mut samples.at_ns {
                *at = from + (*at - from) / 10;
            }
        }
    });
    not_passed(&verdict, &["telemetry"]);
}

#[test]
fn a_device_of_which_it_is_said_that_it_is_read_each_hour_is_silent_in_between() {
    for (seldom, silent) in [(15, true), (1, false)] {
        let mut apart = Vec::new();
        let verdict = judged(&record("burn-in"), |frame| match frame {
            Frame::Table(table) if table.device == Some(3) => {
                table.period_ns = 3_600_000_000_000;
                apart.push(table.id);
            }
            Frame::Samples(samples) if apart.contains(&samples.table) => {
                let thin = |of: &mut Vec<_>| *of = of.iter().step_by(seldom).copied().collect();
                thin(&mut samples.at_ns);
                for column in &mut samples.columns {
                    *column = column.iter().step_by(seldom).copied().collect();
                }
            }
            _ => {}
        });
        let gates = ["telemetry", "telemetry-gap", "throttling", "ecc"];
        if silent {
            not_passed(&verdict, &gates);
        } else {
            for gate in gates {
                let found = finding(&verdict, gate);
                assert_eq!(found.outcome, Outcome::Passed, "{gate}: {}", found.why);
            }
        }
    }
}

#[test]
fn a_lost_power_sensor_is_inconclusive_never_rejected() {
    let lost = record("burn-in").hide(Metric::PowerDraw, |m| {
        m.phase == "train" && (0.2..0.5).contains(&m.progress)
    });
    let verdict = lost.judge();
    let telemetry = finding(&verdict, "telemetry");
    assert_eq!(
        (verdict.outcome, telemetry.outcome),
        (Outcome::Inconclusive, Outcome::Inconclusive),
        "{}",
        telemetry.why
    );
}

#[test]
fn a_run_whose_devices_were_all_missing_fails_its_inventory() {
    use hallmark_results::frame::{Event, FaultKind, What};
    let frames = record("burn-in").frames();
    let is_end = |f: &&Frame| matches!(f, Frame::Closed(_));
    let end = frames.iter().find(is_end).expect("a run that ended");
    let lost = |device| {
        Frame::Event(Event {
            at_ns: 0,
            device: Some(device),
            what: What::Fault {
                kind: FaultKind::Missing,
                detail: "it is not there".to_owned(),
            },
        })
    };
    let mut all = vec![frames[0].clone()];
    all.extend((0..8).map(lost));
    all.push(end.clone());
    let verdict = judge(&fold(&all));
    assert_eq!(finding(&verdict, "inventory").outcome, Outcome::Failed);
    assert_eq!(verdict.outcome, Outcome::Failed, "{}", verdict.sentence);
}

#[test]
fn a_temperature_that_never_moves_from_idle_to_load_is_a_stuck_sensor_s() {
    let gate = "[[criterion]]\nname = \"heat\"\nmetric = \"temp_core\"\nscope = \"gpu\"\nstatistic = \"p99\"\n\
                at_most = \"95 °C\"\n\n[[criterion]]\nname = \"self-test\"";
    let with_heat = changed("burn-in", "[[criterion]]\nname = \"self-test\"", gate);
    let moving = of(&with_heat, 8).judge();
    assert_eq!(finding(&moving, "heat").outcome, Outcome::Passed);
    let stuck = of(&with_heat, 8).series(Metric::TempCore, Place::Device(3), |_| 40.0);
    let verdict = stuck.judge();
    let heat = finding(&verdict, "heat");
    assert_eq!(heat.outcome, Outcome::Inconclusive, "{}", heat.why);
    assert!(heat.why.contains("a stuck sensor?"), "{}", heat.why);
}

/// The frames, and behind the table of comparisons of clocks one more; by one of them nothing is off.
fn beside(frames: Vec<Frame>, own_first: bool) -> Vec<Frame> {
    let mut of = None;
    let mut all = Vec::new();
    for mut frame in frames {
        let mut second = None;
        match &mut frame {
            Frame::Table(table) if table.series[0].metric == Metric::ClockOffset => {
                of = Some(table.id);
                let (id, name) = (table.id + 1, "another".to_owned());
                let table = table.clone();
                second = Some(Frame::Table(Table { id, name, ..table }));
            }
            Frame::Samples(first) if Some(first.table) == of => {
                let mut other = first.clone();
                other.table += 1;
                let own = if own_first { first } else { &mut other };
                own.columns[0].fill(0.0);
                second = Some(Frame::Samples(other));
            }
            Frame::Table(later) if of.is_some() => later.id += 1,
            Frame::Samples(later) if of.is_some_and(|of| later.table > of) => later.table += 1,
            _ => {}
        }
        all.push(frame);
        all.extend(second);
    }
    all
}

#[test]
fn a_node_whose_clock_nobody_compared_or_that_is_off_is_not_vouched_for_by_the_controllers() {
    let two = || {
        record("hall-acceptance").hours(2.0).plan(|plan| {
            let second = plan.devices.iter_mut().skip(4);
            second.for_each(|d| "node-2".clone_into(&mut d.node));
        })
    };
    let compared = |offset_s: f64| {
        two()
            .series(Metric::ClockOffset, Place::hall("node-2"), move |_| {
                offset_s
            })
            .judge()
    };
    not_passed(&two().judge(), &["clock"]);
    not_passed(&compared(0.2), &["clock"]);
    not_passed(&compared(-0.2), &["clock"]);
    not_passed(&compared(f64::NAN), &["clock"]);
    let held = compared(0.002);
    let found = finding(&held, "clock");
    assert_eq!(found.outcome, Outcome::Passed, "{}", found.why);
    // What a node says of its own clock hides nothing that another has measured, in whichever order they come.
    for own_first in [true, false] {
        let node = Place::hall("node-2");
        let off = two().series(Metric::ClockOffset, node, |_| 0.2);
        not_passed(&judge(&fold(&beside(off.frames(), own_first))), &["clock"]);
    }
    // A comparison that ended halfway says nothing of the rest.
    let halfway = two().series(Metric::ClockOffset, Place::hall("node-2"), |m| {
        if m.phase == "train" && m.progress > 0.5 {
            f64::NAN
        } else {
            0.002
        }
    });
    not_passed(&halfway.judge(), &["clock"]);
}

#[test]
fn a_supply_that_nobody_read_for_half_the_time_is_not_shown_to_be_steady() {
    let read = |until: f64| {
        let run = record("hall-acceptance").hours(2.0);
        let place = run.places(Metric::CoolantSupply).remove(0);
        run.series(Metric::CoolantSupply, place, move |m| {
            if m.phase == "train" && m.progress > until {
                f64::NAN
            } else {
                30.0 + 0.1 * (m.index % 3) as f64
            }
        })
        .judge()
    };
    assert_eq!(
        finding(&read(1.0), "coolant-supply").outcome,
        Outcome::Passed
    );
    not_passed(&read(0.5), &["coolant-supply"]);
    not_passed(&read(-1.0), &["coolant-supply"]);
}

#[test]
fn all_reduces_that_one_rank_does_not_tell_leave_their_gates_open() {
    let text = profile::load("burn-in").expect("a built-in profile").text;
    let gate = "[[criterion]]\nname = \"slowest\"\nmetric = \"allreduce_latency\"\nscope = \"group\"\n\
                statistic = \"p99\"\nphase = \"collective\"\nat_most = \"10 s\"\n";
    let text = format!("{text}\n{gate}").replace("name = \"burn-in\"", "name = \"reduced\"");
    let run = of(
        &profile::parse(&text, "reduced.toml").expect("a profile"),
        8,
    );
    let told = |leaves_out: bool| {
        let verdict = judged(&run, |frame| {
            if let Frame::Steps(steps) = frame
                && steps.device == 1
                && leaves_out
            {
                steps.ops.retain(|op| op.seq % 50 != 7);
            }
        });
        let found = finding(&verdict, "slowest");
        (found.outcome, found.why.clone())
    };
    assert_eq!(told(false).0, Outcome::Passed, "{}", told(false).1);
    let (outcome, why) = told(true);
    assert_eq!(outcome, Outcome::Inconclusive, "{why}");
    assert!(why.contains("not told by every rank"), "{why}");
}
