//! Xid errors: the driver's own error events, with their numbers.
//!
//! Decides: which events are waited for (critical Xid errors) and that a read takes all that came
//! since the last without waiting. Refuses: platforms on which NVML delivers no events.

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;

/// At most so many events are taken in one read, so that a storm cannot hold it up for ever.
#[cfg(target_os = "linux")]
const EVENTS_MAX: usize = 256;

/// What the numbers mean that a hall sees most. Source: NVIDIA, “XID Errors”.
const MEANINGS: [(u64, &str); 16] = [
    (13, "graphics engine exception, often the application's"),
    (31, "memory page fault, often the application's"),
    (43, "the channel stopped after an application's error"),
    (45, "channels ended early after an earlier error"),
    (48, "double-bit ECC error"),
    (61, "internal microcontroller breakpoint or warning"),
    (62, "internal microcontroller halt"),
    (63, "row remap or page retirement recorded"),
    (64, "row remap or page retirement could not be recorded"),
    (74, "NVLink error"),
    (79, "the GPU fell off the bus"),
    (92, "high rate of single-bit ECC errors"),
    (94, "contained ECC error"),
    (95, "uncontained ECC error"),
    (119, "GSP firmware call timed out"),
    (120, "GSP firmware error"),
];

/// What is known of an Xid number.
pub fn meaning(code: u64) -> &'static str {
    MEANINGS
        .iter()
        .find(|(known, _)| *known == code)
        .map_or("see NVIDIA's list of Xid errors", |(_, meaning)| meaning)
}

/// The Xid events of one device since it was opened.
pub struct XidEvents {
    #[cfg(target_os = "linux")]
    set: nvml_wrapper::EventSet<'static>,
}

#[cfg(target_os = "linux")]
impl XidEvents {
    /// Registers for the device's critical Xid errors.
    ///
    /// # Errors
    /// The device or driver delivers no such events.
    pub fn open(
        nvml: &'static nvml_wrapper::Nvml,
        device: &Device<'static>,
    ) -> Result<Self, NvmlError> {
        use nvml_wrapper::bitmasks::event::EventTypes;
        // The wrapper frees a set through a symbol that it does not look for first.
        nvml_wrapper::error::nvml_sym(nvml.lib().nvmlEventSetFree.as_ref())?;
        let set = nvml.create_event_set()?;
        let set = device
            .register_events(EventTypes::CRITICAL_XID_ERROR, set)
            .map_err(|failed| failed.error)?;
        Ok(Self { set })
    }

    /// The numbers of all errors since the last call, without waiting.
    ///
    /// # Errors
    /// The device is lost, or the driver failed.
    pub fn take(&mut self) -> Result<Vec<u64>, NvmlError> {
        use nvml_wrapper::enums::event::XidError;
        let mut codes = Vec::new();
        while codes.len() < EVENTS_MAX {
            match self.set.wait(0) {
                Ok(event) => codes.extend(event.event_data.map(|xid| match xid {
                    XidError::Value(code) => code,
                    XidError::Unknown => 999,
                })),
                Err(NvmlError::Timeout) => break,
                // What was taken is reported now; the error will be met again by the next read.
                Err(_) if !codes.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(codes)
    }
}

#[cfg(not(target_os = "linux"))]
impl XidEvents {
    /// # Errors
    /// Always: NVML delivers events on Linux only.
    pub fn open(_: &'static nvml_wrapper::Nvml, _: &Device<'static>) -> Result<Self, NvmlError> {
        Err(NvmlError::NotSupported)
    }

    /// # Errors
    /// Always, as [`XidEvents::open`].
    pub fn take(&mut self) -> Result<Vec<u64>, NvmlError> {
        Err(NvmlError::NotSupported)
    }
}

#[cfg(test)]
mod tests {
    use super::meaning;

    #[test]
    fn a_known_xid_is_explained_and_an_unknown_one_is_referred() {
        assert_eq!(meaning(79), "the GPU fell off the bus");
        assert!(meaning(7_777).contains("NVIDIA"));
    }
}
