//! Event sets: scripted events, such as Xid errors, delivered once to each set.
//!
//! Decides: which event is due. An event before the set was registered is never delivered, as with
//! the real library. Refuses: sets that were freed or never made, and registrations for nothing.

use crate::abi::{DeviceHandle, EventData, EventSetHandle, Ret, Status, put};
use crate::world::{World, answer, answer_device};
use std::ffi::{c_uint, c_ulonglong};
use std::time::Duration;

/// Every event bit that a script may use.
const SUPPORTED: c_ulonglong = 0xff9f;
/// How long a wait sleeps between looks at the script's clock.
const LOOK_MS: c_uint = 2;

#[derive(Default)]
pub struct EventSet {
    registered: Vec<Registration>,
}

struct Registration {
    device: usize,
    mask: u64,
    since_s: f64,
    /// Places in the device's list of events that were delivered.
    delivered: Vec<usize>,
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetCreate(set: *mut EventSetHandle) -> Ret {
    answer("nvmlEventSetCreate", |world| {
        let mut sets = world.event_sets();
        sets.push(Some(EventSet::default()));
        // SAFETY: the caller gives a place for one handle, as NVML asks.
        unsafe { put(set, sets.len()) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlEventSetFree(set: EventSetHandle) -> Ret {
    answer("nvmlEventSetFree", |world| {
        let mut sets = world.event_sets();
        let place = set.checked_sub(1).ok_or(Status::InvalidArgument)?;
        let slot = sets.get_mut(place).ok_or(Status::InvalidArgument)?;
        slot.take().map(|_| ()).ok_or(Status::InvalidArgument)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetSupportedEventTypes(
    handle: DeviceHandle,
    mask: *mut c_ulonglong,
) -> Ret {
    answer_device("nvmlDeviceGetSupportedEventTypes", handle, |_, _, _, _| {
        // SAFETY: the caller gives a place for one integer, as NVML asks.
        unsafe { put(mask, SUPPORTED) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceRegisterEvents(
    handle: DeviceHandle,
    mask: c_ulonglong,
    set: EventSetHandle,
) -> Ret {
    answer_device(
        "nvmlDeviceRegisterEvents",
        handle,
        |world, device, _, since_s| {
            if mask == 0 || mask & !SUPPORTED != 0 {
                return Err(Status::InvalidArgument);
            }
            with_set(world, set, |set| {
                let delivered = Vec::new();
                set.registered.push(Registration {
                    device,
                    mask,
                    since_s,
                    delivered,
                });
            })
        },
    )
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetWait_v2(
    set: EventSetHandle,
    data: *mut EventData,
    timeout_ms: c_uint,
) -> Ret {
    answer("nvmlEventSetWait_v2", |world| {
        let mut left_ms = timeout_ms;
        loop {
            let mut due = None;
            with_set(world, set, |set| due = set.next(world))?;
            if let Some(event) = due {
                // SAFETY: the caller gives a place for one such structure, as NVML asks.
                return unsafe { put(data, event) };
            }
            if left_ms == 0 {
                return Err(Status::Timeout);
            }
            let look_ms = LOOK_MS.min(left_ms);
            std::thread::sleep(Duration::from_millis(u64::from(look_ms)));
            left_ms -= look_ms;
        }
    })
}

fn with_set(
    world: &World,
    handle: EventSetHandle,
    then: impl FnOnce(&mut EventSet),
) -> Result<(), Status> {
    let mut sets = world.event_sets();
    let place = handle.checked_sub(1).ok_or(Status::InvalidArgument)?;
    let set = sets
        .get_mut(place)
        .and_then(Option::as_mut)
        .ok_or(Status::InvalidArgument)?;
    then(set);
    Ok(())
}

impl EventSet {
    /// The next event that is due and was not delivered to this set.
    fn next(&mut self, world: &World) -> Option<EventData> {
        let now_s = world.now_s();
        for registration in &mut self.registered {
            let events = &world.script.devices.get(registration.device)?.events;
            let due = events.iter().enumerate().find(|(place, event)| {
                event.kind & registration.mask != 0
                    && registration.since_s <= event.at_s
                    && event.at_s <= now_s
                    && !registration.delivered.contains(place)
            });
            if let Some((place, event)) = due {
                registration.delivered.push(place);
                return Some(EventData {
                    device: registration.device + 1,
                    event_type: event.kind,
                    event_data: event.data,
                    // `nvml.h`: all ones where the event concerns no MIG instance.
                    gpu_instance_id: c_uint::MAX,
                    compute_instance_id: c_uint::MAX,
                });
            }
        }
        None
    }
}
