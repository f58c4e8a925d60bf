//! Each primitive strains what it names, by as much as it says, and nothing after it is over.

use super::*;
use crate::twin::scenario::{self, Fault, Span, Spot};
use crate::twin::task::Step;
use hallmark_profiles::units::{Celsius, Kelvin, Watts};
use hallmark_profiles::workload::Dtype;

const HALL: &str = r#"
schema_version = 1
name = "sixteen"
summary = "Two nodes of eight."
[hall]
sku = "H100 SXM"
racks = 1
trays_per_rack = 2
gpus_per_node = 8
rack_power = "24 kW"
[run]
profile = "burn-in"
"#;

/// The hall under full matmuls for ten minutes with an effect from the start, and what was told.
fn strained(effect: Option<Effect>, place: Place, lasts: Option<Duration>) -> (World, Vec<Input>) {
    let scenario = scenario::parse(HALL, "sixteen.toml").unwrap();
    let mut world = World::new(&scenario, Dtype::Bf16, 5).unwrap();
    let span = Span {
        onset: Duration::from_secs(60),
        lasts,
        every: None,
        grows_over: Duration::ZERO,
    };
    let fault = |effect| Placed {
        place,
        fault: Fault {
            spot: Spot::Here(place),
            span,
            effects: vec![effect],
            wanted: None,
        },
    };
    let mut troubles = Troubles::new(effect.into_iter().map(fault).collect());
    for task in &mut world.tasks {
        task.begin(Step {
            start_ns: 0,
            delay_ns: 0,
            compute_ns: u64::MAX / 2,
            own_ns: u64::MAX / 2,
            copies: false,
            optimizer_ns: 0,
        });
    }
    let mut told = Vec::new();
    for second in 1..=600 {
        world.advance(second * 1_000_000_000);
        troubles.strain(&mut world, second * 1_000_000_000, &mut told);
    }
    (world, told)
}

const GPU: Place = Place::Gpu(0, 1, 0, 3);
/// Its number in the hall, and its node's.
const NUMBER: usize = 11;
const NODE: usize = 1;

/// How a figure of the strained hall stands to that of the sound one.
fn ratio(effect: Effect, place: Place, figure: impl Fn(&World) -> f64) -> f64 {
    let (sound, _) = strained(None, place, None);
    let (world, _) = strained(Some(effect), place, None);
    figure(&world) / figure(&sound)
}

fn near(found: f64, wanted: f64, within: f64) {
    assert!(
        (found - wanted).abs() < within,
        "{found} instead of {wanted}"
    );
}

fn rate(world: &World) -> f64 {
    world.gpus[NUMBER].rate(&world.kind)
}

fn rise(world: &World) -> f64 {
    let one = world.loop_at(NODE);
    world.gpus[NUMBER].core_c - one.supply_c - world.branches[NODE].rise_k / 2.0
}

#[test]
fn a_slow_device_is_slow_and_neither_warmer_nor_at_another_power() {
    let effect = Effect::Rate {
        of: Part::Core,
        times: 0.95,
    };
    near(ratio(effect, GPU, rate), 0.95, 1e-9);
    near(ratio(effect, GPU, rise), 1.0, 1e-9);
    near(
        ratio(effect, GPU, |w| w.gpus[NUMBER - 1].rate(&w.kind)),
        1.0,
        1e-9,
    );
}

#[test]
fn a_worse_cold_plate_warms_its_own_device_alone() {
    let effect = Effect::ThermalResistance {
        of: Part::Core,
        times: 1.3,
    };
    near(ratio(effect, GPU, rise), 1.3, 0.01);
    near(ratio(effect, GPU, |w| w.gpus[0].core_c), 1.0, 1e-6);
}

#[test]
fn a_shut_branch_warms_its_tray_and_leaves_the_loop_as_it_is() {
    let (tray, effect) = (Place::Tray(0, 1), Effect::Flow { times: 0.7 });
    near(ratio(effect, tray, |w| w.branches[NODE].flow), 0.7, 1e-6);
    near(
        ratio(effect, tray, |w| w.branches[NODE].rise_k),
        1.0 / 0.7,
        0.03,
    );
    near(ratio(effect, tray, |w| w.branches[0].rise_k), 1.0, 1e-6);
}

#[test]
fn a_warm_supply_and_a_tripped_pump_are_the_loops() {
    let (cdu, warm) = (Place::Cdu(0), Effect::Supply { add: Kelvin(3.0) });
    near(ratio(warm, cdu, |w| w.loops[0].supply_c), 33.0 / 30.0, 0.01);
    let (world, _) = strained(Some(Effect::Pump { times: 0.1 }), cdu, None);
    assert!(world.loops[0].flow < 0.12);
    let moist = Effect::DewPoint {
        above_supply: Kelvin(1.0),
    };
    let (world, _) = strained(Some(moist), cdu, None);
    assert!(world.loops[0].dew_c > world.loops[0].supply_c);
}

#[test]
fn caps_hold_power_and_a_brake_the_clock() {
    let (world, _) = strained(Some(Effect::PowerCap { times: 0.85 }), GPU, None);
    near(world.gpus[NUMBER].power_w, 595.0, 1e-6);
    let capped = Effect::RackCap {
        at_most: Watts(12_000.0),
    };
    let (world, _) = strained(Some(capped), Place::Rack(0), None);
    near(world.rack_w[0], 12_000.0, 1.0);
    let brake = Effect::Psu { clock_times: 0.5 };
    let (world, _) = strained(Some(brake), Place::Node(0, 1, 0), None);
    assert!(world.gpus[NUMBER].clock <= 0.5 && world.gpus[0].clock > 0.6);
}

#[test]
fn a_lost_feed_takes_power_and_devices_along() {
    let (world, told) = strained(Some(Effect::FeedOff), Place::Node(0, 1, 0), None);
    near(world.node_w[NODE], 0.0, 1e-9);
    assert!(world.node_w[0] > 3_000.0);
    let gone = told.iter().filter(|i| matches!(i, Input::Gone(8..=15, _)));
    assert_eq!((gone.count(), told.len()), (8, 8));
}

#[test]
fn a_device_off_the_bus_is_told_once_with_its_xid_and_counted() {
    let (world, told) = strained(Some(Effect::Device(DeviceEnd::OffTheBus)), GPU, None);
    assert!(world.ranks[NUMBER].hung);
    near(world.ranks[NUMBER].counters[2], 1.0, 1e-9);
    assert!(matches!(
        &told[0],
        Input::Event(What::Xid { code: 79, .. }, Some(11))
    ));
    assert!(matches!(
        &told[1],
        Input::Worker(11, FromWorker::Fault { .. })
    ));
    assert_eq!(told.len(), 2);
}

#[test]
fn links_hosts_and_results_are_strained_while_the_fault_lasts_and_not_after() {
    let minute = Some(Duration::from_secs(60));
    let above = Some(Celsius(60.0));
    for effect in [
        Effect::LinkRate { times: 0.5 },
        Effect::LinkLoss { share: 0.01 },
        Effect::LinkDown,
        Effect::LinkTail {
            share: 0.002,
            times: 5.0,
        },
        Effect::HostDelay {
            share: 0.01,
            delay: Duration::from_millis(3),
        },
        Effect::Flip {
            per_flop: 1e-15,
            bits: 2,
            above,
        },
        Effect::ReduceFlip { per_element: 1e-9 },
        Effect::Shortcut(Shortcut::Zeros),
    ] {
        let state = |w: &World| {
            let rank = &w.ranks[NUMBER];
            let own = (
                rank.late,
                rank.flips,
                rank.reduce_flips.to_bits(),
                rank.shortcut,
            );
            format!("{:?} {own:?}", w.links)
        };
        let (sound, _) = strained(None, GPU, None);
        let (lasting, _) = strained(Some(effect), GPU, None);
        let (over, _) = strained(Some(effect), GPU, minute);
        assert_ne!(state(&lasting), state(&sound), "{effect:?}");
        assert_eq!(state(&over), state(&sound), "{effect:?}");
    }
}

#[test]
fn counters_grow_by_what_they_are_told_to() {
    let burst = Effect::Counter {
        metric: Metric::Ecc,
        add: 10,
    };
    let (world, _) = strained(Some(burst), GPU, None);
    near(world.ranks[NUMBER].counters[0], 10.0, 1e-9);
}
