//! `hallmark prove`: whether each device multiplies exactly, sees a flipped bit, has sound memory and reduces exactly.
//!
//! The same prepared steps as a run's, on shapes that are kind and on shapes that are not, in every type, every matmul
//! audited; then a test of free memory and all-reduces between ranks within the device, where its engine has them. It
//! measures nothing that is judged. What an engine refuses is told; what was asked for and could not be proven fails.

mod all_reduce;
mod nccl;
mod ratio;

use crate::cli::{Proof, Prove};
use crate::command::say;
use crate::engines;
use crate::exit::{Exit, Failure};
use crate::topology;
use hallmark_kernels::backend::{Device, MemoryTest, PreparedStep};
use hallmark_kernels::device::DeviceInfo;
use hallmark_kernels::error::KernelError;
use hallmark_kernels::work::{StepDone, Submission, Work};
use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::{Dtype, Gemm, Parts, StepSpec};
use std::time::Duration;

/// Sides of one, of primes, just beyond a tile, and whole tiles.
const SHAPES: [Gemm; 8] = [
    Gemm::new(1, 1, 1),
    Gemm::new(17, 33, 65),
    Gemm::new(64, 127, 1000),
    Gemm::new(129, 68, 36),
    Gemm::new(130, 264, 48),
    Gemm::new(256, 512, 128),
    Gemm::new(384, 256, 80),
    Gemm::new(257, 272, 1040),
];
/// For devices with silicon of their own: all of it at work.
const LARGE: Gemm = Gemm::new(4096, 4096, 4096);
/// Steps of each shape; more than an engine has slots for steps in flight.
const STEPS: u64 = 20;
const DEPTH: usize = 3;
const PATIENCE: Duration = Duration::from_secs(30);

/// What was shown of one type on one device.
#[derive(Debug, Default)]
struct Shown {
    audits: u64,
    shapes: u32,
    refused: Vec<String>,
    wrong: Vec<String>,
    /// FLOP/s of the fastest step of the largest shape: an impression, not a result.
    rate: f64,
}

/// # Errors
/// [`Failure`]: exit 2 for a device this machine does not have.
pub fn prove(args: &Prove) -> Result<Exit, Failure> {
    let found = topology::find(&args.cuda.choice(), args.cuda.patience());
    let devices =
        topology::select(&found, &args.devices, &topology::cores()).map_err(Failure::usage)?;
    let mut sound = true;
    for info in &devices {
        if args.only != [Proof::Ratio] {
            sound &= device(info, &args.only);
        }
        if args.only.contains(&Proof::Ratio) {
            sound &= ratio::prove(info, args);
        }
    }
    Ok(if sound {
        Exit::Accepted
    } else {
        Exit::Rejected
    })
}

/// The device, or why it does not open, which has been told.
fn open(info: &DeviceInfo) -> Option<Box<dyn Device>> {
    let why = match engines::find(&info.engine).map(|engine| engine.open(info)) {
        Some(Ok(device)) => return Some(device),
        Some(Err(error)) => error.to_string(),
        None => format!("no engine `{}`", info.engine),
    };
    say(&format!("FAILED  {}: {why}", info.id));
    None
}

fn device(info: &DeviceInfo, only: &[Proof]) -> bool {
    let Some(mut device) = open(info) else {
        return false;
    };
    let wants = |proof| only.is_empty() || only.contains(&proof);
    say(&format!("        {} {}", info.id, info.name));
    for (key, value) in &device.info().facts.clone() {
        say(&format!("        {} {key}: {value}", info.id));
    }
    let mut sound = !wants(Proof::Memory) || memory(device.as_mut(), only);
    if wants(Proof::AllReduce) {
        sound &= all_reduce::prove(device.as_mut(), only);
    }
    if only.contains(&Proof::Nccl) {
        sound &= nccl::prove(device.as_mut());
    }
    for dtype in info.dtypes.iter().filter(|_| wants(Proof::Matmul)) {
        sound &= tell(info, *dtype, &show(device.as_mut(), *dtype));
    }
    sound
}

/// Whether what the engine does not have was asked for by name, which then is told and fails.
fn lacks(id: &str, what: &str, only: &[Proof]) -> bool {
    if !only.is_empty() {
        say(&format!("FAILED  {id} {what}: its engine has none"));
    }
    only.is_empty()
}

fn tell(info: &DeviceInfo, dtype: Dtype, shown: &Shown) -> bool {
    let sound = shown.wrong.is_empty() && shown.shapes > 0;
    let verdict = if sound { "passed" } else { "FAILED" };
    say(&format!(
        "{verdict}  {} {dtype}: {} shapes, {} matmuls audited, {} refused, {} wrong, up to {:.1} TFLOP/s",
        info.id,
        shown.shapes,
        shown.audits,
        shown.refused.len(),
        shown.wrong.len(),
        shown.rate / 1e12
    ));
    for line in &shown.refused {
        say(&format!("          refused: {line}"));
    }
    for line in shown.wrong.iter().take(8) {
        say(&format!("          wrong: {line}"));
    }
    sound
}

fn memory(device: &mut dyn Device, only: &[Proof]) -> bool {
    let id = device.info().id.clone();
    match device.test_memory() {
        Ok(None) => lacks(&id, "memory", only),
        Ok(Some(test)) => {
            let MemoryTest {
                tested,
                free,
                passes,
                wrong,
                faults,
            } = test;
            let sound = wrong == 0 && tested.0 > 0;
            let verdict = if sound { "passed" } else { "FAILED" };
            say(&format!(
                "{verdict}  {id} memory: {tested} of {free} free tested by {passes} patterns, {wrong} words wrong"
            ));
            for fault in &faults {
                say(&format!("          {fault}"));
            }
            sound
        }
        Err(error) => {
            say(&format!("FAILED  {id} memory: {error}"));
            false
        }
    }
}

fn show(device: &mut dyn Device, dtype: Dtype) -> Shown {
    let mut shown = Shown::default();
    let large = (!device.info().software).then_some(LARGE);
    for gemm in SHAPES.into_iter().chain(large) {
        match shape(device, dtype, gemm, &mut shown) {
            Ok(()) => shown.shapes += 1,
            // What cannot be prepared was not tried; whatever fails later is a fault.
            Err(error @ (KernelError::Lost { .. } | KernelError::Hung { .. })) => {
                shown.wrong.push(format!("{gemm}: {error}"));
                break;
            }
            Err(error) => shown.refused.push(format!("{gemm}: {error}")),
        }
    }
    shown
}

/// # Errors
/// What the engine says when the shape cannot be prepared; whatever fails later is a fault and among `wrong`.
fn shape(
    device: &mut dyn Device,
    dtype: Dtype,
    gemm: Gemm,
    shown: &mut Shown,
) -> Result<(), KernelError> {
    let spec = StepSpec {
        dtype,
        gemms: vec![gemm; 2],
        buckets: Vec::new(),
        parameters: 1001,
        memory: Bytes(70_000),
        audit_share: 0.5,
        operand_pairs: 16,
        seed: 0x5EED_0000_0000 + u64::from(gemm.m),
        audit_seed: None,
        sweep: None,
    };
    let mut step = device.prepare(&spec, None)?;
    let before = shown.audits;
    if let Err(error) = drive(step.as_mut(), &spec, shown) {
        shown.wrong.push(format!("{gemm}: {error}"));
    }
    if shown.audits == before {
        shown.wrong.push(format!("{gemm}: nothing was audited"));
    }
    Ok(())
}

fn drive(
    step: &mut dyn PreparedStep,
    spec: &StepSpec,
    shown: &mut Shown,
) -> Result<(), KernelError> {
    let test = step.self_test()?;
    if !(test.clean_passed && test.flip_caught) {
        shown.wrong.push(format!("self-test: {}", test.detail));
    }
    // With and without the optimizer: both are queued as graphs where the engine has them; all three are not.
    for (optimizer, memory) in [(false, false), (true, false), (true, true)] {
        let parts = Parts {
            gemms: true,
            buckets: false,
            optimizer,
            memory,
            within_node: false,
        };
        if !steps(step, parts, STEPS, |done| take(spec, done, shown))? {
            let what = format!("a step did not end within {PATIENCE:?}");
            shown.wrong.push(what);
            return Ok(());
        }
    }
    Ok(())
}

/// Keeps the device's queue full for so many steps; false where one of them does not end.
fn steps(
    step: &mut dyn PreparedStep,
    parts: Parts,
    count: u64,
    mut take: impl FnMut(&StepDone),
) -> Result<bool, KernelError> {
    let mut next = 0;
    while next < count || step.in_flight() > 0 {
        if next < count && step.in_flight() < DEPTH {
            step.submit(Submission {
                seq: next,
                parts,
                stop: false,
            })?;
            next += 1;
            continue;
        }
        let Some(done) = step.retire(PATIENCE)? else {
            return Ok(false);
        };
        take(&done);
    }
    Ok(true)
}

/// FLOP of a step's matmuls and the device time they took, in ns.
fn matmuls(done: &StepDone) -> (f64, u64) {
    let spans = done.spans.iter().filter(|s| s.work == Work::Matmul);
    spans.fold((0.0, 0), |(flop, ns), s| {
        (flop + s.amount, ns + s.end_ns.saturating_sub(s.start_ns))
    })
}

fn take(spec: &StepSpec, done: &StepDone, shown: &mut Shown) {
    shown.audits += u64::from(done.audited);
    shown.wrong.extend(done.mismatches.iter().cloned());
    if done.gemms as usize != spec.gemms.len() {
        shown
            .wrong
            .push(format!("step {}: {} matmuls done", done.seq, done.gemms));
    }
    let (flop, ns) = matmuls(done);
    if ns > 0 {
        shown.rate = shown.rate.max(flop * 1e9 / ns as f64);
    }
    if (flop - spec.flop().0).abs() > 0.5 {
        shown
            .wrong
            .push(format!("step {}: {flop} FLOP in its spans", done.seq));
    }
}
