//! `nvmlDeviceGetFieldValues`: many readings by number in one call, each with its own status.
//!
//! Decides: value, type and status per field, from the script's `fields` by the id that the caller
//! asked for (a script for a driver from 580.82 on uses that driver's numbers). Refuses: an empty
//! list; a field that the device does not name is not supported, the others are still answered.

use crate::abi::{DeviceHandle, FieldValue, Ret, SUCCESS, Status};
use crate::script::{Device, FieldType};
use crate::world::{World, answer_device};
use std::ffi::c_int;

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetFieldValues(
    handle: DeviceHandle,
    count: c_int,
    values: *mut FieldValue,
) -> Ret {
    answer_device(
        "nvmlDeviceGetFieldValues",
        handle,
        |world, place, device, now_s| {
            let count = usize::try_from(count).map_err(|_| Status::InvalidArgument)?;
            if count == 0 || values.is_null() {
                return Err(Status::InvalidArgument);
            }
            // SAFETY: the caller gives `count` initialised structures, as NVML asks.
            let asked = unsafe { std::slice::from_raw_parts_mut(values, count) };
            for field in asked {
                field.timestamp_us = (now_s * 1e6) as i64;
                field.latency_us = 0;
                match value(world, place, device, field, now_s) {
                    Ok((kind, value)) => {
                        field.value_type = kind as u32;
                        field.value = value;
                        field.status = SUCCESS;
                    }
                    Err(status) => field.status = status.code(),
                }
            }
            Ok(())
        },
    )
}

fn value(
    world: &World,
    place: usize,
    device: &Device,
    field: &FieldValue,
    now_s: f64,
) -> Result<(FieldType, u64), Status> {
    world.fault(&format!("field:{}", field.field_id), Some(place))?;
    let key = match field.scope_id {
        0 => field.field_id.to_string(),
        scope => format!("{}@{scope}", field.field_id),
    };
    let timeline = device.fields.get(&key).ok_or(Status::NotSupported)?;
    let value = timeline.value(now_s);
    let kind = device.field_types.get(&key).copied().unwrap_or_default();
    let bits = match kind {
        FieldType::Double => value.to_bits(),
        FieldType::SignedLongLong | FieldType::SignedInt => (value as i64).cast_unsigned(),
        _ => value as u64,
    };
    Ok((kind, bits))
}
