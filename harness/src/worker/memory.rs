//! The test of a device's free memory before anything is prepared on it, and what is said of it.
//!
//! A wrong word is a wrong result. A test that did not take place, or not over nearly all that was free, is said to be
//! none, with the reason; only a device that is lost or hangs in it ends the worker.

use hallmark_kernels::backend::{Device, MemoryTest};
use hallmark_kernels::error::KernelError;
use hallmark_results::plan::{MEMORY_TESTED, MEMORY_UNTESTED};

/// Of free memory that must have been tested, in percent: what a driver keeps for itself is less than the rest.
const TESTED_PERCENT: u64 = 90;

/// A fact for the record, and each wrong word in words.
pub(super) struct Told {
    pub fact: (String, String),
    pub wrong: Vec<String>,
}

/// Tests the device's free memory.
///
/// # Errors
/// [`KernelError::Lost`] and [`KernelError::Hung`]: the device is a fault.
pub(super) fn test(device: &mut dyn Device) -> Result<Told, KernelError> {
    match device.test_memory() {
        Ok(Some(test)) => Ok(tell(&test)),
        Ok(None) => Ok(untested(
            "its memory is the host's, or its engine has no such test",
        )),
        Err(error @ (KernelError::Lost { .. } | KernelError::Hung { .. })) => Err(error),
        Err(error) => Ok(untested(&error.to_string())),
    }
}

fn untested(why: &str) -> Told {
    Told {
        fact: (MEMORY_UNTESTED.to_owned(), why.to_owned()),
        wrong: Vec::new(),
    }
}

fn tell(test: &MemoryTest) -> Told {
    let MemoryTest {
        tested,
        free,
        passes,
        wrong,
        faults,
    } = test;
    let said = format!("{tested} of {free} free tested by {passes} patterns, {wrong} words wrong");
    let enough = tested.0 > 0 && tested.0 / TESTED_PERCENT >= free.0 / 100;
    let key = if enough {
        MEMORY_TESTED
    } else {
        MEMORY_UNTESTED
    };
    let mut told: Vec<String> = faults
        .iter()
        .map(|f| format!("test of free memory: {f}"))
        .collect();
    if *wrong > 0 && told.is_empty() {
        told.push(format!("test of free memory: {wrong} words wrong"));
    }
    Told {
        fact: (key.to_owned(), said),
        wrong: told,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hallmark_profiles::units::Bytes;

    fn tested(tested: u64, wrong: u64, faults: &[&str]) -> Told {
        tell(&MemoryTest {
            tested: Bytes(tested << 30),
            free: Bytes(80 << 30),
            passes: 6,
            wrong,
            faults: faults.iter().map(|f| (*f).to_owned()).collect(),
        })
    }

    #[test]
    fn memory_that_another_holds_is_not_called_tested() {
        assert_eq!(tested(79, 0, &[]).fact.0, MEMORY_TESTED);
        for few in [0, 40, 71] {
            assert_eq!(tested(few, 0, &[]).fact.0, MEMORY_UNTESTED, "{few}");
        }
    }

    #[test]
    fn every_wrong_word_is_told_and_none_is_lost_in_a_count() {
        assert!(tested(79, 0, &[]).wrong.is_empty());
        let told = tested(79, 2, &["at 0x10, bit 3", "at 0x20, bit 4"]);
        assert_eq!(told.wrong.len(), 2);
        assert!(told.wrong[0].contains("0x10, bit 3"), "{:?}", told.wrong);
        assert_eq!(tested(79, 7, &[]).wrong.len(), 1);
    }
}
