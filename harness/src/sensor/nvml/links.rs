//! NVLink: which links are up, and each link's errors as one growing count.
//!
//! Decides: what counts as an error of a link (replays, recoveries, CRC errors; from Blackwell on
//! receive errors and recovery events, which replaced them). Refuses: to guess a kind of error that
//! the device does not count, and to hide a link that cannot be asked behind the sum of the others.

use super::is_unsupported;
use super::raw::{FieldAsk, field_values};
use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::nv_link::ErrorCounter;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::sys_exports::field_id;

/// `NVML_NVLINK_MAX_LINKS`.
const LINKS_MAX: u32 = 18;

/// One kind of error that a link may count.
#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Counter(ErrorCounter),
    Field(u32),
}

/// Until Hopper. Source: `nvml.h`, `nvmlNvLinkErrorCounter_t`.
const COUNTERS: [Kind; 4] = [
    Kind::Counter(ErrorCounter::DlReplay),
    Kind::Counter(ErrorCounter::DlRecovery),
    Kind::Counter(ErrorCounter::DlCrcFlit),
    Kind::Counter(ErrorCounter::DlCrcData),
];

/// From Blackwell on. Source: `nvml.h`, `NVML_FI_DEV_NVLINK_COUNT_…`.
const FIELDS: [Kind; 2] = [
    Kind::Field(field_id::NVML_FI_DEV_NVLINK_COUNT_RCV_ERRORS),
    Kind::Field(field_id::NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_EVENTS),
];

/// The numbers of the links that are up.
///
/// # Errors
/// The device has no NVLink, or could not be asked.
pub fn active_links(device: &Device<'_>) -> Result<Vec<u32>, NvmlError> {
    let mut active = Vec::new();
    let mut known = false;
    for link in 0..LINKS_MAX {
        match device.link_wrapper_for(link).is_active() {
            Ok(up) => {
                known = true;
                active.extend(up.then_some(link));
            }
            // The device has fewer links than the header allows.
            Err(error) if is_unsupported(&error) => {}
            Err(error) => return Err(error),
        }
    }
    if known {
        Ok(active)
    } else {
        Err(NvmlError::NotSupported)
    }
}

/// The errors of one link.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkErrors {
    pub link: u32,
    kinds: Vec<Kind>,
}

impl LinkErrors {
    /// Finds out which kinds of error the link counts; `None` where it counts none.
    pub fn probe(device: &Device<'_>, link: u32) -> Option<Self> {
        let counts = |kind: &Kind| match count(device, link, kind) {
            Ok(_) => true,
            // An error that may pass is no reason to leave the link out for the whole run.
            Err(error) => !is_unsupported(&error),
        };
        let mut kinds: Vec<Kind> = COUNTERS.into_iter().filter(counts).collect();
        if kinds.is_empty() {
            kinds = FIELDS.into_iter().filter(counts).collect();
        }
        (!kinds.is_empty()).then_some(Self { link, kinds })
    }

    /// Errors of all kinds since the counters began.
    ///
    /// # Errors
    /// One kind could not be read: a sum without it would hide its growth.
    pub fn total(&self, device: &Device<'_>) -> Result<f64, NvmlError> {
        let mut total = 0.0;
        for kind in &self.kinds {
            total += count(device, self.link, kind)?;
        }
        Ok(total)
    }
}

fn count(device: &Device<'_>, link: u32, kind: &Kind) -> Result<f64, NvmlError> {
    match kind {
        Kind::Counter(counter) => {
            let count = device.link_wrapper_for(link).error_counter(*counter)?;
            Ok(count as f64)
        }
        Kind::Field(id) => {
            let ask = FieldAsk {
                id: *id,
                scope: link,
            };
            let first = field_values(device, &[ask])?.pop();
            first.unwrap_or(Err(NvmlError::NoData))
        }
    }
}

/// Counts the times that a link which was up is found down.
#[derive(Clone, Debug, PartialEq)]
pub struct Flaps {
    up: Vec<u32>,
    seen: u32,
}

impl Flaps {
    pub fn new(up: Vec<u32>) -> Self {
        Self { up, seen: 0 }
    }

    /// Flaps seen so far, given the links that are up now.
    pub fn count(&mut self, up_now: Vec<u32>) -> f64 {
        let down = self.up.iter().filter(|link| !up_now.contains(link)).count();
        self.seen = self
            .seen
            .saturating_add(u32::try_from(down).unwrap_or(u32::MAX));
        self.up = up_now;
        f64::from(self.seen)
    }
}

#[cfg(test)]
mod tests {
    use super::Flaps;

    #[test]
    fn a_link_that_goes_down_counts_once_and_again_when_it_went_up_between() {
        let mut flaps = Flaps::new(vec![0, 1, 2]);
        let counts = [
            vec![0, 1, 2],
            vec![0, 2],
            vec![0, 2],
            vec![0, 1, 2],
            vec![1],
        ]
        .map(|up_now| flaps.count(up_now) as u32);
        assert_eq!(counts, [0, 1, 1, 1, 3]);
    }
}
