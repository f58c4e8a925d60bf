//! The course of an invented hall: physics device by device, then frames.

use super::{Hall, Meters, RATED_W, State, Told, event};
use hallmark_profiles::metric::Metric;
use hallmark_results::frame::{
    ClockState, Closed, Ending, FORMAT_VERSION, Frame, Host, OpRow, Opened, Provenance, Samples,
    Series, SeriesKind, StepRow, Steps, Table, What,
};
use hallmark_results::plan::{Plan, SegmentKind};
use hallmark_results::stats::bootstrap::SplitMix64;

const STEP_S: f64 = 4.0;
const OPS: u64 = 4;
/// FLOP/s at full clock.
const RATE: f64 = 700e12;
/// Memory's share of a step, and its rate, B/s.
const MEMORY: (f64, f64) = (0.05, 3e12);
/// Coolant rise through a device at the design's flow, K/W.
const RISE: f64 = 0.008;
/// Junction at which a device slows itself down, °C.
const SLOWDOWN_C: f64 = 85.0;
const IDLE_W: f64 = 90.0;

/// Slow noise: AR(1) of unit variance, with a wild value now and then.
struct Noise {
    chance: SplitMix64,
    slow: f64,
}

impl Noise {
    const KEEP: f64 = 0.8;

    fn new(seed: u64) -> Self {
        Self {
            chance: SplitMix64::new(seed),
            slow: 0.0,
        }
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.chance.unit()).sum::<f64>() - 6.0
    }

    fn next(&mut self) -> f64 {
        let fresh = self.normal() * (1.0 - Self::KEEP * Self::KEEP).sqrt();
        self.slow = Self::KEEP * self.slow + fresh;
        let wild = if self.chance.unit() < 0.002 { 5.0 } else { 0.0 };
        self.slow + wild * self.chance.unit()
    }
}

/// A device's own draw of chance.
struct Device {
    quality: f64,
    r_th: f64,
    needs_w: f64,
    offset_k: f64,
    junction_c: f64,
    power: Noise,
    heat: Noise,
    rate: Noise,
}

impl Device {
    fn new(hall: &Hall, index: usize) -> Self {
        let seed = hall.seed.wrapping_mul(1_000_003) + index as u64 * 17;
        let mut noise = Noise::new(seed);
        Self {
            quality: 1.0 + hall.sigma * noise.normal().clamp(-2.2, 2.2),
            r_th: 0.030 * (1.0 + 0.03 * noise.normal()),
            needs_w: 690.0 + 8.0 * noise.normal(),
            offset_k: 0.7 * noise.normal(),
            junction_c: 35.0,
            power: Noise::new(seed + 1),
            heat: Noise::new(seed + 2),
            rate: Noise::new(seed + 3),
        }
    }
}

/// One tick of one device: its state, what it does and what it tells.
struct Tick {
    state: State,
    /// FLOP/s while computing.
    rate: f64,
    told: Told,
}

fn tick(hall: &Hall, device: &mut Device, index: usize, t_s: f64, counters: &mut Told) -> Tick {
    let tray = index / hall.gpus;
    let mut state = State {
        device: index,
        rack: tray / hall.trays,
        tray: tray % hall.trays,
        t_s,
        of_s: hall.minutes * 60.0,
        quality: device.quality,
        cap_w: RATED_W,
        clock: 1.0,
        r_th: device.r_th,
        flow: 1.0,
        supply_c: 30.0,
        needs_w: device.needs_w,
        brake: false,
        memory: 1.0,
        outside_s: 2e-4,
        alive: true,
        heard: true,
    };
    hall.changes.iter().for_each(|c| c(&mut state));
    // Power goes with the cube of the clock, about.
    let free = state.clock * if state.brake { 0.5 } else { 1.0 };
    let capped = (state.cap_w / state.needs_w).min(1.0).cbrt();
    let over = (device.junction_c - SLOWDOWN_C).max(0.0);
    let cooled = (1.0 - 0.02 * over).max(0.3);
    let clock = free.min(capped).min(cooled);
    let power = if state.alive {
        IDLE_W + (state.needs_w.min(state.cap_w / capped.powi(3)) - IDLE_W) * clock.powi(3)
    } else {
        0.0
    };
    let rest = state.supply_c + power * (state.r_th + RISE / state.flow);
    let follow = 1.0 - (-hall.tick_s / 20.0).exp();
    device.junction_c += (rest - device.junction_c) * follow;
    let mut told = Told {
        power: power + 4.0 * device.power.next(),
        core: device.junction_c + device.offset_k + 0.4 * device.heat.next(),
        memory: device.junction_c + 9.0 + 0.4 * device.heat.next(),
        clock: 1.7e9 * clock * (1.0 + 0.001 * device.rate.next()),
        thermal: (over / 4.0).min(1.0),
        brake: f64::from(u8::from(state.brake)),
        capped: f64::from(u8::from(capped < 1.0)),
        ..*counters
    };
    hall.retells.iter().for_each(|r| r(&state, &mut told));
    *counters = told;
    Tick {
        rate: RATE * state.quality * clock * (1.0 + 0.002 * device.rate.next()),
        state,
        told,
    }
}

pub fn frames(hall: &Hall, plan: Plan) -> Vec<Frame> {
    let devices = hall.devices();
    let digest = plan.digest();
    let schedule = plan.schedule.clone();
    let is_phase = |k: SegmentKind| matches!(k, SegmentKind::Phase(_));
    let ends = schedule.iter().scan(0, |at, s| {
        *at += s.duration_ns;
        Some((*at - s.duration_ns, *at))
    });
    let spans: Vec<(u64, u64)> = ends.collect();
    let train = schedule
        .iter()
        .rposition(|s| is_phase(s.kind))
        .expect("one phase");
    let begin_ns = spans[train].0;
    let mut frames = vec![Frame::Opened(Box::new(opened(plan, digest)))];
    frames.extend(tables(hall).into_iter().map(Frame::Table));
    for device in 0..devices as u32 {
        let (passed, detail) = (true, String::new());
        frames.push(event(0, Some(device), What::SelfTest { passed, detail }));
    }
    let mut world: Vec<Device> = (0..devices).map(|i| Device::new(hall, i)).collect();
    let mut counters = vec![
        Told {
            power: 0.0,
            core: 0.0,
            memory: 0.0,
            clock: 0.0,
            thermal: 0.0,
            brake: 0.0,
            capped: 0.0,
            corrected: 2.0,
            remapped: 0.0,
            flaps: 0.0,
        };
        devices
    ];
    let mut seq = 0;
    for (index, (start_ns, end_ns)) in spans.iter().enumerate() {
        let segment = index as u32;
        frames.push(event(*start_ns, None, What::Segment { index: segment }));
        let mut out = Out::new(hall);
        let ticks = ((end_ns - start_ns) as f64 / 1e9 / hall.tick_s) as u64;
        for tick_index in 0..ticks {
            let at_ns = start_ns + (tick_index as f64 * hall.tick_s * 1e9) as u64;
            let t_s = (at_ns as f64 - begin_ns as f64) / 1e9;
            let all: Vec<Tick> = (0..devices)
                .map(|d| tick(hall, &mut world[d], d, t_s, &mut counters[d]))
                .collect();
            out.row(hall, at_ns, &all);
            out.steps(hall, (segment, at_ns, *end_ns), &all, &mut seq);
        }
        frames.extend(out.frames());
        if schedule[index].kind == SegmentKind::Warmup {
            frames.push(event(*end_ns, None, What::Steady));
        }
    }
    for (t_s, device, what) in &hall.events {
        let at_ns = (begin_ns as f64 + t_s * 1e9) as u64;
        frames.push(event(at_ns, *device, what.clone()));
    }
    frames.push(Frame::Closed(Closed {
        at_ns: spans.last().expect("a segment").1,
        utc_end: "2026-01-01T01:00:00Z".to_owned(),
        clock: clock(),
        ending: Ending::Complete,
    }));
    frames
}

fn clock() -> ClockState {
    ClockState {
        synchronised: Some(true),
        max_error_s: Some(0.001),
    }
}

fn opened(plan: Plan, plan_digest: String) -> Opened {
    Opened {
        format_version: FORMAT_VERSION,
        run_id: "invented-hall".to_owned(),
        hallmark_version: "test".to_owned(),
        utc_start: "2026-01-01T00:00:00Z".to_owned(),
        clock: clock(),
        host: Host {
            name: "controller".to_owned(),
            ..Host::default()
        },
        remark: Some("invented for a test, no result of any hardware".to_owned()),
        plan,
        plan_digest,
    }
}

fn series(metric: Metric, label: &str, kind: SeriesKind) -> Series {
    Series {
        metric,
        label: label.to_owned(),
        unit: metric.spec().unit,
        kind,
        averaging_ns: None,
        accuracy: None,
    }
}

fn tables(hall: &Hall) -> Vec<Table> {
    let (gauge, counter) = (SeriesKind::Gauge, SeriesKind::Counter);
    let table = |id: usize, name: String, device: Option<u32>, place: String, series| Table {
        id: id as u32,
        name,
        source: "invented".to_owned(),
        provenance: Provenance::Measured,
        device,
        place,
        period_ns: (hall.tick_s * 1e9) as u64,
        series,
    };
    let of_device = |d: usize| {
        let own = vec![
            series(Metric::PowerDraw, "", gauge),
            series(Metric::TempCore, "", gauge),
            series(Metric::TempMemory, "", gauge),
            series(Metric::ClockSm, "", gauge),
            series(Metric::ThrottleFrac, "hw_thermal", gauge),
            series(Metric::ThrottleFrac, "hw_power_brake", gauge),
            series(Metric::PowerCapFrac, "sw_power_cap", gauge),
            series(Metric::EccCorrected, "", counter),
            series(Metric::RowRemap, "", counter),
            series(Metric::LinkFlaps, "", counter),
        ];
        let place = format!("node-{}", d / hall.gpus);
        table(d, format!("device-{d}"), Some(d as u32), place, own)
    };
    let mut all: Vec<Table> = (0..hall.devices()).map(of_device).collect();
    let mut cdu = vec![
        series(Metric::CoolantSupply, "", gauge),
        series(Metric::Flow, "", gauge),
        series(Metric::PumpSpeed, "", gauge),
        series(Metric::DewMargin, "", gauge),
    ];
    if hall.flow_by_power {
        cdu.push(series(Metric::FlowPerKw, "", gauge));
    }
    all.push(table(
        all.len(),
        "cdu".to_owned(),
        None,
        "cdu-1".to_owned(),
        cdu,
    ));
    for rack in 0..hall.racks {
        let own = vec![series(Metric::PowerDraw, "", gauge)];
        all.push(table(
            all.len(),
            format!("rack-{rack}"),
            None,
            rack.to_string(),
            own,
        ));
    }
    let own = vec![series(Metric::PowerDraw, "", gauge)];
    all.push(table(
        all.len(),
        "feeder".to_owned(),
        None,
        "feeder-1".to_owned(),
        own,
    ));
    all
}

/// Rows of one segment.
struct Out {
    samples: Vec<Samples>,
    steps: Vec<Steps>,
    due_s: f64,
    noise: Noise,
}

impl Out {
    fn new(hall: &Hall) -> Self {
        let samples = tables(hall).into_iter().map(|t| Samples {
            table: t.id,
            at_ns: Vec::new(),
            columns: vec![Vec::new(); t.series.len()],
        });
        let steps = (0..hall.devices() as u32).map(|device| Steps {
            device,
            device_clock: true,
            rows: Vec::new(),
            ops: Vec::new(),
            trials: Vec::new(),
        });
        Self {
            samples: samples.collect(),
            steps: steps.collect(),
            due_s: 0.0,
            noise: Noise::new(hall.seed ^ 0xABCD),
        }
    }

    fn push(&mut self, table: usize, at_ns: u64, values: &[f64]) {
        let samples = &mut self.samples[table];
        samples.at_ns.push(at_ns);
        for (column, value) in samples.columns.iter_mut().zip(values) {
            column.push(*value);
        }
    }

    fn row(&mut self, hall: &Hall, at_ns: u64, all: &[Tick]) {
        for (device, tick) in all.iter().enumerate().filter(|(_, t)| t.state.heard) {
            let t = &tick.told;
            let values = [
                t.power,
                t.core,
                t.memory,
                t.clock,
                t.thermal,
                t.brake,
                t.capped,
                t.corrected,
                t.remapped,
                t.flaps,
            ];
            if tick.state.alive {
                self.push(device, at_ns, &values);
            }
        }
        let per_rack = hall.trays * hall.gpus;
        let watts = |t: &Tick| if t.state.alive { t.told.power } else { 0.0 };
        let racks: Vec<f64> = all
            .chunks(per_rack)
            .map(|r| 1.08 * r.iter().map(watts).sum::<f64>())
            .collect();
        let mut meters = Meters {
            t_s: all[0].state.t_s,
            of_s: all[0].state.of_s,
            supply: all[0].state.supply_c + 0.05 * self.noise.next(),
            flow: 120.0 + 0.5 * self.noise.next(),
            pump: 2_900.0 + 5.0 * self.noise.next(),
            dew: 6.0 + 0.1 * self.noise.next(),
            feeder: 1.03 * racks.iter().sum::<f64>(),
            racks,
        };
        hall.meters.iter().for_each(|m| m(&mut meters));
        let first = hall.devices();
        let m = &meters;
        let mut cdu = vec![m.supply, m.flow, m.pump, m.dew];
        if hall.flow_by_power {
            cdu.push(1e3 * m.flow / m.racks.iter().sum::<f64>());
        }
        self.push(first, at_ns, &cdu);
        for (rack, power) in meters.racks.iter().enumerate() {
            self.push(first + 1 + rack, at_ns, &[*power]);
        }
        self.push(first + 1 + hall.racks, at_ns, &[meters.feeder]);
    }

    /// Steps that are due until the next tick: all ranks begin together.
    fn steps(&mut self, hall: &Hall, at: (u32, u64, u64), all: &[Tick], seq: &mut u64) {
        let (segment, at_ns, end_ns) = at;
        let step_s = STEP_S.max(hall.tick_s);
        self.due_s -= hall.tick_s;
        if self.due_s > -hall.tick_s / 2.0 && !self.steps[0].rows.is_empty() {
            return;
        }
        self.due_s = step_s - hall.tick_s / 2.0;
        let stop_ns = (at_ns + (step_s * 1e9) as u64).min(end_ns);
        let length_s = (stop_ns - at_ns) as f64 / 1e9;
        let slowest = all
            .iter()
            .filter(|t| t.state.alive)
            .map(|t| t.rate)
            .fold(f64::MAX, f64::min);
        for (steps, tick) in self
            .steps
            .iter_mut()
            .zip(all)
            .filter(|(_, t)| t.state.alive)
        {
            // All do the same work, as much as the slowest can in most of the step.
            let flop = slowest * 0.85 * length_s;
            let ns = |s: f64| (s * 1e9) as u64;
            let memory_s = MEMORY.0 * length_s;
            let outside_s = tick.state.outside_s * (1.0 + 0.1 * self.noise.next().abs());
            let compute_s = flop / tick.rate;
            let rest_s = length_s - compute_s - memory_s - outside_s;
            steps.rows.push(StepRow {
                seq: *seq,
                segment,
                due_ns: at_ns,
                start_ns: at_ns,
                end_ns: stop_ns,
                compute_ns: ns(compute_s),
                reduce_ns: ns(rest_s.max(0.0)),
                flop,
                gemms: 24,
                audited: 3,
                audited_flop: flop / 8.0,
                memory_bytes: (MEMORY.1 * tick.state.memory * memory_s) as u64,
                memory_ns: ns(memory_s),
                ..StepRow::default()
            });
            let factor = |op: u64| (hall.operation)(tick.state.t_s, *seq * OPS + op);
            let op = |op: u64| OpRow {
                seq: *seq,
                start_ns: at_ns + op * 20_000_000,
                end_ns: at_ns + op * 20_000_000 + (factor(op) * 2e6) as u64,
                bytes: 25 << 20,
            };
            steps.ops.extend((0..OPS).map(op));
        }
        *seq += 1;
    }

    fn frames(self) -> impl Iterator<Item = Frame> {
        let steps = self.steps.into_iter().map(Frame::Steps);
        steps.chain(self.samples.into_iter().map(Frame::Samples))
    }
}
