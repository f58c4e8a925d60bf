//! What a site is declared to have: the devices that must take part from the start.
//!
//! It refuses a declaration that contradicts itself. Which devices are there is the harness's to find, and what a
//! missing one comes to is the verdict's.

use crate::sku::Skus;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// More devices than any hall has; a larger number is a slip of the hand.
pub const DEVICES_MAX: u32 = 100_000;

/// The declared devices. One that is not found is missing, and the inventory fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    /// How many devices must take part.
    #[schemars(range(min = 1, max = 100_000))]
    pub devices: u32,
    /// Their model by its name in the SKU files, e.g. "H100 SXM"; a device of another model does not count.
    #[serde(default)]
    pub sku: Option<String>,
    /// Their UUIDs as the driver reports them: all of them, or none; a device that is not named does not count.
    #[serde(default)]
    pub uuids: Vec<String>,
}

impl Inventory {
    /// So many devices, whichever they are.
    pub const fn of(devices: u32) -> Self {
        Self {
            devices,
            sku: None,
            uuids: Vec::new(),
        }
    }

    /// The key that is wrong and why; `None` for a sound declaration.
    pub(crate) fn fault(&self) -> Option<(&'static str, String)> {
        if !(1..=DEVICES_MAX).contains(&self.devices) {
            let what = format!("{} devices must be 1 to {DEVICES_MAX}", self.devices);
            return Some(("devices", what));
        }
        if let (Some(sku), Ok(skus)) = (&self.sku, Skus::built_in())
            && !skus.iter().any(|s| s.name == *sku)
        {
            let known: Vec<_> = skus.iter().map(|s| s.name.as_str()).collect();
            let what = format!("unknown sku `{sku}`; known: {}", known.join(", "));
            return Some(("sku", what));
        }
        let named = self.uuids.len();
        if named > 0 && named != self.devices as usize {
            let what = format!(
                "{named} uuids for {} devices; name all or none",
                self.devices
            );
            return Some(("uuids", what));
        }
        let twice = |(i, uuid): &(usize, &String)| {
            self.uuids[..*i]
                .iter()
                .any(|u| u.eq_ignore_ascii_case(uuid))
        };
        let (_, uuid) = self.uuids.iter().enumerate().find(twice)?;
        Some(("uuids", format!("uuid `{uuid}` stands twice")))
    }
}
