//! What was declared against what takes part: one sentence for each device that is missing.
//!
//! It decides who counts: a device of the declared model and, where devices are named, one of those named. A device that
//! does not count leaves its place empty. It refuses a run that could accept a site without saying what the site has.

use super::{PlanError, Settings};
use crate::sensor::DeviceKey;
use hallmark_profiles::inventory::Inventory;
use hallmark_profiles::profile::Loaded;
use hallmark_results::plan::PlannedDevice;

/// The declaration that this run is held to: the profile's, or the number given on the command line.
pub(super) fn declared(
    loaded: &Loaded,
    settings: &Settings,
) -> Result<Option<Inventory>, PlanError> {
    let profile = &loaded.profile;
    if let Some(hall) = &settings.hall {
        if let Some(own) = &profile.inventory {
            let other = own.sku.is_some() && own.sku != hall.inventory.sku;
            if other || !own.uuids.is_empty() {
                return Err(PlanError::InventoryBySite {
                    profile: profile.name.clone(),
                    what: if other { "a model" } else { "UUIDs" },
                });
            }
        }
        let declared = profile.inventory.as_ref().map(|i| i.devices);
        let found = hall.inventory.devices;
        return match declared.filter(|d| *d != found) {
            Some(declared) => Err(PlanError::InventoryOfSite {
                profile: profile.name.clone(),
                declared,
                found,
            }),
            None => Ok(Some(hall.inventory.clone())),
        };
    }
    match (&profile.inventory, settings.expect_devices) {
        (Some(declared), Some(asked)) if declared.devices != asked => {
            Err(PlanError::InventoryTwice {
                profile: profile.name.clone(),
                declared: declared.devices,
                asked,
            })
        }
        (Some(declared), _) => Ok(Some(declared.clone())),
        (None, Some(asked)) => Ok(Some(Inventory::of(asked))),
        (None, None) if profile.accepts_site => Err(PlanError::NoInventory {
            profile: profile.name.clone(),
        }),
        (None, None) => Ok(None),
    }
}

/// The declared devices that do not take part, one sentence each.
///
/// `watched`: what telemetry knows of the devices here, which may know a UUID where the engine does not.
pub fn missing(
    inventory: &Inventory,
    devices: &[PlannedDevice],
    watched: &[DeviceKey],
) -> Vec<String> {
    let model = |d: &PlannedDevice| inventory.sku.is_none() || inventory.sku == d.sku;
    let other = |d: &PlannedDevice| {
        let wanted = inventory.sku.as_deref().unwrap_or_default();
        format!("{} is `{}`, not the {wanted} declared", d.id, d.name)
    };
    if !inventory.uuids.is_empty() {
        let absent = |uuid: &String| match devices.iter().find(|d| is(d, uuid, watched)) {
            Some(d) if model(d) => None,
            Some(d) => Some(other(d)),
            None => Some(format!("declared device {uuid} was not found")),
        };
        return inventory.uuids.iter().filter_map(absent).collect();
    }
    let wrong = devices.iter().filter(|d| !model(d)).map(other);
    let (found, wanted) = (devices.len(), inventory.devices as usize);
    let short = (found..wanted).map(|place| {
        format!(
            "device {} of {wanted} declared was not found; {found} take part",
            place + 1
        )
    });
    // More devices than declared, of the wrong model, take no declared one's place.
    let right = devices.iter().filter(|d| model(d)).count();
    wrong
        .chain(short)
        .take(wanted.saturating_sub(right))
        .collect()
}

fn is(device: &PlannedDevice, uuid: &str, watched: &[DeviceKey]) -> bool {
    let same = |u: &Option<String>| u.as_ref().is_some_and(|u| u.eq_ignore_ascii_case(uuid));
    let own = DeviceKey {
        uuid: device.uuid.clone(),
        pci: device.pci.clone(),
    };
    same(&device.uuid)
        || watched
            .iter()
            .any(|key| same(&key.uuid) && key.matches(&own))
}
