//! Whether ranks within one device reduce exactly, see a corrupted element, and give up on a rank that never comes.
//!
//! Every type, number of ranks, size, way and place; then faults that must be seen; then times. Times are *in-device*:
//! no link carried a byte, so rates are by bytes moved, beside the device's own copy of the same memory in the same queue,
//! and there is no bus bandwidth. It judges sums and faults, never a rate.

use super::lacks;
use crate::cli::Proof;
use crate::command::say;
use hallmark_kernels::backend::Device;
use hallmark_kernels::collective::all_reduce_bytes_moved;
use hallmark_kernels::collective::within::{
    Element, Inject, ONE_SHOT_MAX, Shots, Within, WithinDone,
};
use hallmark_kernels::error::KernelError;
use hallmark_profiles::units::Bytes;

const RANKS: [u32; 4] = [2, 3, 5, 8];
/// One word, parts of lines, a little less and more than what the kernels divide by, and more than one round of all blocks.
const BYTES: [u64; 11] = [
    4, 8, 20, 1_000, 4_096, 8_192, 65_532, 65_536, 65_540, 1_000_012, 67_108_868,
];
const ITERATIONS: u32 = 3;
const SEED: u64 = 0x5EED_A11E;

/// Ranks of the timed reductions, and the sizes: 8 B to 1 GiB.
const TIMED_RANKS: u32 = 8;
const TIMED_BYTES: [u64; 10] = [
    8,
    64,
    512,
    4 << 10,
    32 << 10,
    256 << 10,
    2 << 20,
    16 << 20,
    128 << 20,
    1 << 30,
];
const TIMED: u32 = 50;
/// The message whose latency is told, and over how many reductions.
const SHORT: Bytes = Bytes(8 << 10);
const SHORT_ITERATIONS: u32 = 10_000;

/// What was shown of one type.
#[derive(Default)]
struct Shown {
    kinds: u32,
    reductions: usize,
    compared: u64,
    wrong: Vec<String>,
}

const ASK: Within = Within {
    ranks: TIMED_RANKS,
    element: Element::F32,
    bytes: SHORT,
    shots: Shots::Two,
    in_place: false,
    iterations: ITERATIONS,
    seed: SEED,
    inject: Inject::Nothing,
};

/// Proves what the engine has; `only` says what was asked for by name.
pub(super) fn prove(device: &mut dyn Device, only: &[Proof]) -> bool {
    let id = device.info().id.clone();
    let mut shown: Vec<(Element, Shown)> = Vec::new();
    for element in Element::ALL {
        let mut one = Shown::default();
        for ask in kinds(element) {
            match device.reduce_within(&ask) {
                Ok(None) => return lacks(&id, "all-reduce", only),
                Ok(Some(done)) => take(&ask, &done, &mut one),
                Err(error) => one.wrong.push(format!("{}: {error}", named(&ask))),
            }
        }
        shown.push((element, one));
    }
    let mut sound = true;
    for (element, one) in &shown {
        sound &= tell(&id, *element, one);
    }
    sound &= faults(device, &id);
    sound & times(device, &id)
}

/// Every number of ranks, size, way and place of one type.
fn kinds(element: Element) -> Vec<Within> {
    let mut kinds = Vec::new();
    for ranks in RANKS {
        for bytes in BYTES {
            // An odd number of elements where two of them share a word.
            let bytes = Bytes(if element.bytes() == 2 {
                bytes - 2
            } else {
                bytes
            });
            for shots in Shots::ALL {
                if shots == Shots::One && bytes > ONE_SHOT_MAX {
                    continue;
                }
                kinds.extend([false, true].map(|in_place| Within {
                    ranks,
                    element,
                    bytes,
                    shots,
                    in_place,
                    ..ASK
                }));
            }
        }
    }
    kinds
}

fn named(ask: &Within) -> String {
    format!(
        "{} {} ranks × {} B {} {}",
        ask.element.name(),
        ask.ranks,
        ask.bytes.0,
        ask.shots.name(),
        if ask.in_place {
            "in place"
        } else {
            "out of place"
        }
    )
}

fn take(ask: &Within, done: &WithinDone, shown: &mut Shown) {
    shown.kinds += 1;
    shown.reductions += done.reduce_ns.len();
    shown.compared += done.compared;
    let name = named(ask);
    if !done.waited_for.is_empty() {
        let what = format!(
            "{name}: ranks {:?} were waited for in vain",
            done.waited_for
        );
        shown.wrong.push(what);
    }
    if done.wrong > 0 {
        let first = done.faults.first().map_or("", String::as_str);
        shown
            .wrong
            .push(format!("{name}: {} elements wrong; {first}", done.wrong));
    }
    if done.reduce_ns.len() < ask.iterations as usize {
        let what = format!("{name}: {} reductions done", done.reduce_ns.len());
        shown.wrong.push(what);
    }
}

fn tell(id: &str, element: Element, shown: &Shown) -> bool {
    let sound = shown.wrong.is_empty() && shown.kinds > 0 && shown.compared > 0;
    let verdict = if sound { "passed" } else { "FAILED" };
    say(&format!(
        "{verdict}  {id} all-reduce {} in-device: {} kinds, {} reductions, every element checked on the device, {} on the host too, {} wrong",
        element.name(),
        shown.kinds,
        shown.reductions,
        shown.compared,
        shown.wrong.len()
    ));
    for line in shown.wrong.iter().take(8) {
        say(&format!("          wrong: {line}"));
    }
    sound
}

/// A flipped bit is one wrong element, and a rank that never comes is named, in every type and way.
fn faults(device: &mut dyn Device, id: &str) -> bool {
    let mut unseen = Vec::new();
    for element in Element::ALL {
        for shots in Shots::ALL {
            let ask = Within {
                element,
                shots,
                ..ASK
            };
            for inject in [Inject::Bit, Inject::Absent] {
                let done = device.reduce_within(&Within { inject, ..ask });
                if let Some(what) = unseen_fault(inject, done) {
                    unseen.push(format!("{}: {what}", named(&ask)));
                }
            }
        }
    }
    let verdict = if unseen.is_empty() {
        "passed"
    } else {
        "FAILED"
    };
    say(&format!(
        "{verdict}  {id} all-reduce faults in-device: a flipped bit and an absent rank in {} types and {} ways, {} not seen",
        Element::ALL.len(),
        Shots::ALL.len(),
        unseen.len()
    ));
    for line in &unseen {
        say(&format!("          {line}"));
    }
    unseen.is_empty()
}

/// What is wrong with how an injected fault showed.
fn unseen_fault(inject: Inject, done: Result<Option<WithinDone>, KernelError>) -> Option<String> {
    let done = match done {
        Ok(Some(done)) => done,
        Ok(None) => return Some("its engine has no all-reduce".to_owned()),
        Err(error) => return Some(error.to_string()),
    };
    match inject {
        Inject::Bit if done.wrong == 1 => None,
        Inject::Bit => Some(format!("a flipped bit made {} elements wrong", done.wrong)),
        Inject::Absent if done.waited_for == [TIMED_RANKS - 1] => None,
        Inject::Absent => Some(format!(
            "without rank {} ranks {:?} were waited for",
            TIMED_RANKS - 1,
            done.waited_for
        )),
        Inject::Nothing => None,
    }
}

/// The table of times, f32 over eight ranks; a size for which there is no memory is told.
fn times(device: &mut dyn Device, id: &str) -> bool {
    say(&format!(
        "        {id} all-reduce in-device, f32, {TIMED_RANKS} ranks, medians of {TIMED}; GB/s by bytes moved; copy: of the same memory"
    ));
    say("               bytes  way        blocks      time us       GB/s  copy GB/s   ratio");
    let mut sound = true;
    for bytes in TIMED_BYTES.map(Bytes) {
        for shots in Shots::ALL {
            if shots == Shots::One && bytes > ONE_SHOT_MAX {
                continue;
            }
            let ask = Within {
                bytes,
                shots,
                iterations: TIMED,
                ..ASK
            };
            sound &= row(device, &ask);
        }
    }
    let short = Within {
        shots: Shots::One,
        iterations: SHORT_ITERATIONS,
        ..ASK
    };
    match device.reduce_within(&short) {
        Ok(Some(done)) if done.wrong == 0 && done.waited_for.is_empty() => {
            let median = WithinDone::median_ns(&done.reduce_ns).unwrap_or(0) as f64 / 1e3;
            say(&format!(
                "        {id} all-reduce in-device {SHORT} one-shot f32 {TIMED_RANKS} ranks: {median:.2} us, median of {}, all totals exact",
                done.reduce_ns.len()
            ));
            sound
        }
        Ok(_) => {
            say(&format!(
                "FAILED  {id} all-reduce {SHORT}: totals are wrong"
            ));
            false
        }
        Err(error) => {
            say(&format!("FAILED  {id} all-reduce {SHORT}: {error}"));
            false
        }
    }
}

fn row(device: &mut dyn Device, ask: &Within) -> bool {
    let name = format!("        {:>12}  {:<9}", ask.bytes.0, ask.shots.name());
    match device.reduce_within(ask) {
        Ok(Some(done)) => {
            let right = done.wrong == 0 && done.waited_for.is_empty();
            say(&format!("{name}  {}", figures(ask, &done)));
            right
        }
        Ok(None) => false,
        // A smaller device than the table was made for.
        Err(error @ KernelError::Memory { .. }) => {
            say(&format!("{name}  not measured: {error}"));
            true
        }
        Err(error) => {
            say(&format!("{name}  FAILED: {error}"));
            false
        }
    }
}

fn figures(ask: &Within, done: &WithinDone) -> String {
    if done.wrong > 0 || !done.waited_for.is_empty() {
        return format!("FAILED: {} elements wrong", done.wrong);
    }
    let moved = all_reduce_bytes_moved(ask.bytes.0, ask.ranks) as f64;
    let median = |times: &[u64]| WithinDone::median_ns(times).filter(|ns| *ns > 0);
    let (Some(reduce), Some(copy)) = (median(&done.reduce_ns), median(&done.copy_ns)) else {
        return "too short for the device's clock".to_owned();
    };
    let rate = |ns: u64| moved / ns as f64;
    format!(
        "{:>6} {:>12.2} {:>10.2} {:>10.2} {:>7.3}",
        done.blocks,
        reduce as f64 / 1e3,
        rate(reduce),
        rate(copy),
        copy as f64 / reduce as f64
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use hallmark_kernels::backend::PreparedStep;
    use hallmark_kernels::collective::Collective;
    use hallmark_kernels::device::DeviceInfo;
    use hallmark_profiles::workload::StepSpec;

    /// A device whose reductions come to what a function says; it computes nothing, and its figures are no results.
    struct Said {
        info: DeviceInfo,
        answer: fn(&Within) -> Result<Option<WithinDone>, KernelError>,
    }

    impl Device for Said {
        fn info(&self) -> &DeviceInfo {
            &self.info
        }

        fn free_memory(&self) -> Bytes {
            Bytes(0)
        }

        fn prepare(
            &mut self,
            _spec: &StepSpec,
            _collective: Option<Box<dyn Collective>>,
        ) -> Result<Box<dyn PreparedStep>, KernelError> {
            Err(lost())
        }

        fn reduce_within(&mut self, ask: &Within) -> Result<Option<WithinDone>, KernelError> {
            (self.answer)(ask)
        }
    }

    fn lost() -> KernelError {
        KernelError::Lost {
            device: "said0".to_owned(),
            why: "it is none".to_owned(),
        }
    }

    fn proven(answer: fn(&Within) -> Result<Option<WithinDone>, KernelError>) -> bool {
        let info = DeviceInfo {
            id: "said0".to_owned(),
            engine: String::new(),
            name: String::new(),
            vendor: String::new(),
            pci: None,
            uuid: None,
            driver: String::new(),
            memory: Bytes(0),
            dtypes: Vec::new(),
            software: false,
            cores: Vec::new(),
            facts: Vec::new(),
        };
        prove(&mut Said { info, answer }, &[Proof::AllReduce])
    }

    /// As a sound device answers.
    fn right(ask: &Within) -> WithinDone {
        WithinDone {
            reduce_ns: vec![1000; ask.iterations as usize],
            copy_ns: vec![900; ask.iterations as usize],
            wrong: u64::from(ask.inject == Inject::Bit),
            waited_for: match ask.inject {
                Inject::Absent => vec![ask.ranks - 1],
                _ => Vec::new(),
            },
            compared: 1,
            ..WithinDone::default()
        }
    }

    #[test]
    fn a_proof_needs_right_totals_a_flip_that_shows_and_an_absent_rank_that_is_named() {
        assert!(proven(|ask| Ok(Some(right(ask)))));
        let blind: fn(&Within) -> _ = |ask| {
            let done = right(ask);
            Ok(Some(WithinDone { wrong: 0, ..done }))
        };
        assert!(!proven(blind), "the flipped bit was not seen");
        let patient: fn(&Within) -> _ = |ask| {
            let done = right(ask);
            Ok(Some(WithinDone {
                waited_for: Vec::new(),
                ..done
            }))
        };
        assert!(!proven(patient), "the absent rank was not missed");
        let wrong: fn(&Within) -> _ = |ask| {
            let odd = u64::from(ask.bytes.0 == 1_000 && ask.in_place);
            let done = right(ask);
            Ok(Some(WithinDone {
                wrong: done.wrong + odd,
                ..done
            }))
        };
        assert!(!proven(wrong), "one wrong element in one kind");
        let short: fn(&Within) -> _ = |ask| {
            let mut done = right(ask);
            done.reduce_ns.pop();
            Ok(Some(done))
        };
        assert!(!proven(short), "a reduction is missing");
    }

    #[test]
    fn what_is_asked_for_by_name_and_is_not_there_or_breaks_fails() {
        assert!(!proven(|_| Ok(None)));
        assert!(!proven(|_| Err(lost())));
    }

    #[test]
    fn a_device_without_the_memory_for_the_largest_size_is_told_and_passes_on_the_rest() {
        assert!(proven(|ask| {
            if ask.bytes.0 >= 1 << 30 {
                return Err(KernelError::Memory {
                    device: "said0".to_owned(),
                    free: Bytes(1),
                    need: Bytes(2),
                });
            }
            Ok(Some(right(ask)))
        }));
    }
}
