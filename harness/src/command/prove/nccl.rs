//! Whether NVIDIA's collective library opens, forms a group of one device and leaves every bit of its sums right.
//!
//! One rank moves nothing over a link: no rate is told, only the time of a call. It is proven where it is asked for by
//! name, and what is not there then fails.

use super::lacks;
use crate::cli::Proof;
use crate::command::say;
use hallmark_kernels::backend::Device;
use hallmark_kernels::collective::alone::{Alone, AloneDone};
use hallmark_kernels::collective::within::{Element, WithinDone};
use hallmark_profiles::units::Bytes;

const ELEMENTS: [Element; 3] = [Element::F32, Element::Bf16, Element::F16];
/// One element, parts of lines, and more than one round of the library's channels.
const BYTES: [u64; 4] = [4, 1_000, 1 << 20, 64 << 20];
const ITERATIONS: u32 = 5;
const SEED: u64 = 0x5EED_0CC1;

/// Proves what the engine has.
pub(super) fn prove(device: &mut dyn Device) -> bool {
    let id = device.info().id.clone();
    let mut sound = true;
    let mut told = false;
    for element in ELEMENTS {
        let (mut reductions, mut wrong, mut shortest) = (0, Vec::new(), None);
        for (bytes, in_place) in BYTES.into_iter().flat_map(|b| [(b, false), (b, true)]) {
            let ask = Alone {
                element,
                bytes: Bytes(bytes),
                in_place,
                iterations: ITERATIONS,
                seed: SEED,
            };
            match device.reduce_alone(&ask) {
                Ok(None) => return lacks(&id, "nccl", &[Proof::Nccl]),
                Ok(Some(done)) => {
                    for (key, value) in done.facts.iter().filter(|_| !told) {
                        say(&format!("        {id} {key}: {value}"));
                    }
                    told = true;
                    reductions += done.reduce_ns.len();
                    shortest = shortest.or_else(|| WithinDone::median_ns(&done.reduce_ns));
                    wrong.extend(fault(&ask, &done));
                }
                Err(error) => {
                    wrong.push(format!("{bytes} B: {error}"));
                    break;
                }
            }
        }
        let proven = wrong.is_empty();
        sound &= proven;
        let verdict = if proven { "passed" } else { "FAILED" };
        let call = shortest.map_or_else(String::new, |ns| {
            format!(
                ", {} B in {:.1} us at the median",
                BYTES[0],
                ns as f64 / 1e3
            )
        });
        say(&format!(
            "{verdict}  {id} nccl {}: one rank, {reductions} reductions, {} wrong{call}",
            element.name(),
            wrong.len()
        ));
        for line in wrong.iter().take(4) {
            say(&format!("          wrong: {line}"));
        }
    }
    sound
}

fn fault(ask: &Alone, done: &AloneDone) -> Option<String> {
    let place = if ask.in_place {
        "in place"
    } else {
        "out of place"
    };
    if done.wrong > 0 {
        return Some(format!(
            "{} B {place}: {} elements wrong",
            ask.bytes.0, done.wrong
        ));
    }
    (done.reduce_ns.len() < ask.iterations as usize).then(|| {
        format!(
            "{} B {place}: {} reductions done",
            ask.bytes.0,
            done.reduce_ns.len()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_element_or_a_reduction_that_is_missing_is_a_fault() {
        let ask = Alone {
            element: Element::F32,
            bytes: Bytes(8),
            in_place: true,
            iterations: 2,
            seed: 1,
        };
        let done = |count, wrong| AloneDone {
            reduce_ns: vec![1; count],
            wrong,
            facts: Vec::new(),
        };
        assert_eq!(fault(&ask, &done(2, 0)), None);
        assert_eq!(
            fault(&ask, &done(2, 3)).unwrap(),
            "8 B in place: 3 elements wrong"
        );
        assert_eq!(
            fault(&ask, &done(1, 0)).unwrap(),
            "8 B in place: 1 reductions done"
        );
    }
}
