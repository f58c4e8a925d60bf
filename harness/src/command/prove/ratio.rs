//! How fast hallmark's own matmuls are beside cuBLASLt's: the same steps in turn, on one device, in one process.
//!
//! Audited as a load's are, so that neither is fast by being wrong. The ratio is told and judges nothing; it fails where one
//! of the two cannot be run, or multiplies wrongly.

use super::{matmuls, open, steps};
use crate::cli::Prove;
use crate::command::say;
use crate::engines::Choice;
use crate::topology;
use hallmark_kernels::backend::PreparedStep;
use hallmark_kernels::cuda::Matmuls;
use hallmark_kernels::device::DeviceInfo;
use hallmark_kernels::error::KernelError;
use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::{Dtype, Gemm, Parts, StepSpec};

const SHAPE: Gemm = Gemm::new(8192, 8192, 8192);
const DTYPES: [Dtype; 4] = [Dtype::Bf16, Dtype::F16, Dtype::Fp8E4m3, Dtype::Tf32];
const SIDES: [Matmuls; 2] = [Matmuls::Own, Matmuls::CublasLt];
/// Turns of each side, of which the first warms up, and steps of eight matmuls in each.
const TURNS: usize = 6;
const STEPS: u64 = 60;
const MATMULS: usize = 8;

/// Compares the two on the device that `listed` describes.
pub(super) fn prove(listed: &DeviceInfo, args: &Prove) -> bool {
    let sides = SIDES.map(|matmuls| {
        let choice = Choice {
            matmuls,
            ..args.cuda.choice()
        };
        let found = topology::find(&choice, args.cuda.patience());
        let info = found.devices.into_iter().find(|d| d.id == listed.id);
        info.filter(|info| info.engine == "cuda")
    });
    let [Some(own), Some(lt)] = sides else {
        say(&format!(
            "FAILED  {} ratio: only NVIDIA devices have two kinds of matmuls",
            listed.id
        ));
        return false;
    };
    let mut sound = true;
    for dtype in DTYPES.into_iter().filter(|d| own.dtypes.contains(d)) {
        sound &= dtype_ratio(&own, &lt, dtype);
    }
    sound
}

fn dtype_ratio(own: &DeviceInfo, lt: &DeviceInfo, dtype: Dtype) -> bool {
    let (Some(mut own), Some(mut lt)) = (open(own), open(lt)) else {
        return false;
    };
    let id = own.info().id.clone();
    let spec = spec(dtype);
    let both = own
        .prepare(&spec, None)
        .and_then(|own| Ok([own, lt.prepare(&spec, None)?]));
    let rates = both.and_then(|[mut own, mut lt]| in_turn([own.as_mut(), lt.as_mut()]));
    match rates {
        Ok([own, lt]) => {
            say(&format!(
                "        {id} {dtype} {SHAPE}: own {:.1}, cublaslt {:.1} TFLOP/s, ratio {:.3}, medians of {} turns",
                own / 1e12,
                lt / 1e12,
                own / lt,
                TURNS - 1
            ));
            own > 0.0 && lt > 0.0
        }
        Err(error) => {
            say(&format!("FAILED  {id} {dtype} ratio: {error}"));
            false
        }
    }
}

fn spec(dtype: Dtype) -> StepSpec {
    StepSpec {
        dtype,
        gemms: vec![SHAPE; MATMULS],
        buckets: Vec::new(),
        parameters: 0,
        memory: Bytes(0),
        audit_share: 0.1,
        operand_pairs: 16,
        seed: 0x5EED_0000_2A71,
        audit_seed: None,
        sweep: None,
    }
}

/// The median rate of each side in FLOP/s, taken in turns.
fn in_turn(sides: [&mut dyn PreparedStep; 2]) -> Result<[f64; 2], KernelError> {
    let mut rates = [Vec::new(), Vec::new()];
    let mut sides = sides;
    for turn in 0..TURNS {
        for (side, rates) in sides.iter_mut().zip(&mut rates) {
            let rate = rate(*side)?;
            if turn > 0 {
                rates.push(rate);
            }
        }
    }
    Ok(rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    }))
}

fn rate(step: &mut dyn PreparedStep) -> Result<f64, KernelError> {
    let parts = Parts {
        gemms: true,
        buckets: false,
        optimizer: false,
        memory: false,
        within_node: false,
    };
    let (mut flop, mut ns, mut wrong) = (0.0, 0, None);
    let ended = steps(step, parts, STEPS, |done| {
        let (more, time) = matmuls(done);
        flop += more;
        ns += time;
        wrong = wrong.take().or_else(|| done.mismatches.first().cloned());
    })?;
    let refused = |what: String| KernelError::Device {
        device: "the step".to_owned(),
        what,
    };
    match wrong {
        Some(what) => Err(refused(what)),
        None if !ended => Err(refused("it did not end in time".to_owned())),
        None if ns == 0 => Err(refused("no time passed on the device".to_owned())),
        None => Ok(flop * 1e9 / ns as f64),
    }
}
