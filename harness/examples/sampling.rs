//! What sampling costs the load: steps on the processor with every sensor of this node read at 10 Hz, and
//! without, in alternating blocks.
//!
//! `sampling [PAIRS [SECONDS [NVML_LIBRARY]]]` prints the ratio of the median step times, pair by pair, its
//! median and one-sided 95 % bounds. Decides nothing. A library given as NVML may be a stand-in: the
//! cost of reading is then its own too.

use hallmark::clock::RunClock;
use hallmark::sensors::{self, Sources};
use hallmark::shell::inbox;
use hallmark::shell::probes::{Probe, Probes};
use hallmark_kernels::backend::{Backend, PreparedStep};
use hallmark_kernels::cpu::Cpu;
use hallmark_kernels::timer::now_ns;
use hallmark_kernels::work::Submission;
use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::{Dtype, Gemm, Parts, StepSpec};
use hallmark_results::stats::quantile::Sorted;
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

const PERIOD_NS: u64 = 100_000_000;
const MATMULS: usize = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let pairs: usize = args.next().map_or(Ok(24), |t| t.parse())?;
    let seconds: u64 = args.next().map_or(Ok(3), |t| t.parse())?;
    let nvml = args.next().map(PathBuf::from);
    let cpu = Cpu::new();
    let found = cpu.list().map_err(|absent| absent.why)?;
    let info = found.first().ok_or("no processor is listed")?;
    let mut device = cpu.open(info)?;
    let spec = StepSpec {
        dtype: Dtype::F32,
        gemms: vec![Gemm::new(512, 512, 512); MATMULS],
        buckets: Vec::new(),
        parameters: 0,
        memory: Bytes(0),
        audit_share: 0.1,
        operand_pairs: 4,
        seed: 1,
        audit_seed: None,
        sweep: None,
    };
    let mut step = device.prepare(&spec, None)?;
    let mut seq = 0;
    block(step.as_mut(), &mut seq, seconds)?;
    let mut ratios = Vec::with_capacity(pairs);
    for pair in 0..pairs {
        // The order turns from pair to pair, so that a drift of the machine's clock favours neither.
        let mut times = [0.0; 2];
        for on in [pair % 2 == 0, pair % 2 != 0] {
            let probes = if on {
                Some(sample(nvml.clone())?)
            } else {
                None
            };
            times[usize::from(on)] = block(step.as_mut(), &mut seq, seconds)?;
            if let Some(probes) = probes {
                probes.stop();
            }
        }
        let ratio = times[1] / times[0];
        println!(
            "pair {pair:2}: off {:.4} ms, on {:.4} ms, ratio {ratio:.4}",
            times[0], times[1]
        );
        ratios.push(ratio);
    }
    let sorted = Sorted::new(ratios)?;
    let bounds = sorted.bounds(0.5, 0.95).ok_or("too few pairs")?;
    let side = |bound: Option<f64>| bound.map_or("open".to_owned(), |b| format!("{b:.4}"));
    println!(
        "sampling on / off, median of {pairs} pairs: {:.4} ({} to {})",
        bounds.value,
        side(bounds.low),
        side(bounds.high)
    );
    Ok(())
}

/// Starts every sensor of this node at 10 Hz; its rows are thrown away.
fn sample(nvml: Option<PathBuf>) -> Result<Probes, Box<dyn Error>> {
    let sources = Sources {
        nvml,
        ..Sources::default()
    };
    let found = sensors::open(&sources)?;
    let probe =
        |(table, (sensor, period_ns)): (usize, (Box<dyn hallmark::sensor::Sensor>, _))| Probe {
            table: table as u32,
            device: None,
            period_ns: Option::unwrap_or(period_ns, PERIOD_NS),
            description: sensor.describe(),
            sensor,
        };
    let probes = found.present.into_iter().enumerate().map(probe).collect();
    let (sender, rows) = inbox::open();
    std::thread::spawn(move || rows.into_iter().for_each(drop));
    Ok(Probes::start(probes, RunClock::start(), 1, &sender))
}

/// Median time of a step over some seconds of steps back to back, in ms.
fn block(step: &mut dyn PreparedStep, seq: &mut u64, seconds: u64) -> Result<f64, Box<dyn Error>> {
    let until_ns = now_ns() + seconds * 1_000_000_000;
    let parts = Parts {
        gemms: true,
        buckets: false,
        optimizer: false,
        memory: false,
        within_node: false,
    };
    let mut times = Vec::new();
    while now_ns() < until_ns || step.in_flight() > 0 {
        while step.in_flight() < 3 && now_ns() < until_ns {
            step.submit(Submission {
                seq: *seq,
                parts,
                stop: false,
            })?;
            *seq += 1;
        }
        if let Some(done) = step.retire(Duration::from_secs(10))? {
            times.push(done.end_ns.saturating_sub(done.start_ns) as f64 / 1e6);
        }
    }
    let sorted = Sorted::new(times)?;
    Ok(sorted.quantile(0.5).ok_or("no step was completed")?)
}
