//! What a device is doing: power, heat, clocks, reasons, memory, errors.
//!
//! Decides: which function gives which reading, in NVML's units. Refuses: kinds and links that the
//! header does not define (invalid argument) and structures of an unknown version.

use crate::abi::{
    DeviceHandle, MarginTemperature, MemoryV2, Ret, Status, Utilization, put, struct_version,
};
use crate::script::Reading;
use crate::settings::integers;
use crate::world::answer_device;
use std::ffi::{c_int, c_uint, c_ulonglong};

/// `NVML_NVLINK_MAX_LINKS`.
const LINKS_MAX: c_uint = 18;

integers! {
    nvmlDeviceGetPowerUsage: PowerUsageMw as c_uint;
    nvmlDeviceGetTotalEnergyConsumption: EnergyMj as c_ulonglong;
    nvmlDeviceGetCurrentClocksEventReasons: ReasonsMask as c_ulonglong;
    nvmlDeviceGetCurrentClocksThrottleReasons: ReasonsMask as c_ulonglong;
    nvmlDeviceGetPcieReplayCounter: PcieReplays as c_uint;
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTemperature(
    handle: DeviceHandle,
    sensor: c_uint,
    celsius: *mut c_uint,
) -> Ret {
    answer_device("nvmlDeviceGetTemperature", handle, |_, _, device, now_s| {
        if sensor != 0 {
            return Err(Status::InvalidArgument);
        }
        let value = device.value(Reading::TemperatureC, now_s)?;
        // SAFETY: the caller gives a place for one integer, as NVML asks.
        unsafe { put(celsius, value as c_uint) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMarginTemperature(
    handle: DeviceHandle,
    margin: *mut MarginTemperature,
) -> Ret {
    answer_device(
        "nvmlDeviceGetMarginTemperature",
        handle,
        |_, _, device, now_s| {
            // SAFETY: the caller gives null or a place for one such structure, as NVML asks.
            let asked = unsafe { margin.as_mut() }.ok_or(Status::InvalidArgument)?;
            if asked.version != struct_version::<MarginTemperature>(1) {
                return Err(Status::ArgumentVersionMismatch);
            }
            asked.margin_c = device.value(Reading::MarginTemperatureC, now_s)? as c_int;
            Ok(())
        },
    )
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetClockInfo(
    handle: DeviceHandle,
    kind: c_uint,
    mhz: *mut c_uint,
) -> Ret {
    answer_device("nvmlDeviceGetClockInfo", handle, |_, _, device, now_s| {
        let reading = match kind {
            0 => Reading::ClockGraphicsMhz,
            1 => Reading::ClockSmMhz,
            2 => Reading::ClockMemoryMhz,
            3 => Reading::ClockVideoMhz,
            _ => return Err(Status::InvalidArgument),
        };
        // SAFETY: the caller gives a place for one integer, as NVML asks.
        unsafe { put(mhz, device.value(reading, now_s)? as c_uint) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetUtilizationRates(
    handle: DeviceHandle,
    rates: *mut Utilization,
) -> Ret {
    answer_device(
        "nvmlDeviceGetUtilizationRates",
        handle,
        |_, _, device, now_s| {
            let value = Utilization {
                gpu: device.value(Reading::UtilizationGpuPercent, now_s)? as c_uint,
                memory: device.value(Reading::UtilizationMemoryPercent, now_s)? as c_uint,
            };
            // SAFETY: the caller gives a place for one such structure, as NVML asks.
            unsafe { put(rates, value) }
        },
    )
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(handle: DeviceHandle, info: *mut MemoryV2) -> Ret {
    answer_device(
        "nvmlDeviceGetMemoryInfo_v2",
        handle,
        |_, _, device, now_s| {
            // SAFETY: the caller gives null or a place for one such structure, as NVML asks.
            let asked = unsafe { info.as_mut() }.ok_or(Status::InvalidArgument)?;
            if asked.version != struct_version::<MemoryV2>(2) {
                return Err(Status::ArgumentVersionMismatch);
            }
            asked.total = device.value(Reading::MemoryTotalBytes, now_s)? as c_ulonglong;
            asked.used = device.value(Reading::MemoryUsedBytes, now_s)? as c_ulonglong;
            asked.reserved = device
                .value(Reading::MemoryReservedBytes, now_s)
                .unwrap_or(0.0) as c_ulonglong;
            asked.free = asked
                .total
                .saturating_sub(asked.used)
                .saturating_sub(asked.reserved);
            Ok(())
        },
    )
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    handle: DeviceHandle,
    severity: c_uint,
    counter: c_uint,
    count: *mut c_ulonglong,
) -> Ret {
    answer_device(
        "nvmlDeviceGetTotalEccErrors",
        handle,
        |_, _, device, now_s| {
            let reading = match (severity, counter) {
                (0, 0) => Reading::EccCorrectedVolatile,
                (1, 0) => Reading::EccUncorrectedVolatile,
                (0, 1) => Reading::EccCorrectedAggregate,
                (1, 1) => Reading::EccUncorrectedAggregate,
                _ => return Err(Status::InvalidArgument),
            };
            // SAFETY: the caller gives a place for one integer, as NVML asks.
            unsafe { put(count, device.value(reading, now_s)? as c_ulonglong) }
        },
    )
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetRemappedRows(
    handle: DeviceHandle,
    correctable: *mut c_uint,
    uncorrectable: *mut c_uint,
    pending: *mut c_uint,
    failed: *mut c_uint,
) -> Ret {
    answer_device(
        "nvmlDeviceGetRemappedRows",
        handle,
        |_, _, device, now_s| {
            for (place, reading) in [
                (correctable, Reading::RemappedCorrectable),
                (uncorrectable, Reading::RemappedUncorrectable),
                (pending, Reading::RemapPending),
                (failed, Reading::RemapFailed),
            ] {
                // SAFETY: the caller gives four places for integers, as NVML asks.
                unsafe { put(place, device.value(reading, now_s)? as c_uint) }?;
            }
            Ok(())
        },
    )
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetNvLinkState(
    handle: DeviceHandle,
    link: c_uint,
    active: *mut c_uint,
) -> Ret {
    answer_device("nvmlDeviceGetNvLinkState", handle, |_, _, device, now_s| {
        if link >= LINKS_MAX {
            return Err(Status::InvalidArgument);
        }
        let count = device.value(Reading::NvlinkCount, now_s)? as c_uint;
        // SAFETY: the caller gives a place for one integer, as NVML asks.
        unsafe { put(active, c_uint::from(link < count)) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetNvLinkErrorCounter(
    handle: DeviceHandle,
    link: c_uint,
    kind: c_uint,
    count: *mut c_ulonglong,
) -> Ret {
    answer_device(
        "nvmlDeviceGetNvLinkErrorCounter",
        handle,
        |_, _, device, now_s| {
            if link >= LINKS_MAX {
                return Err(Status::InvalidArgument);
            }
            if link >= device.value(Reading::NvlinkCount, now_s)? as c_uint {
                return Err(Status::NotSupported);
            }
            let reading = match kind {
                0 => Reading::NvlinkReplays,
                1 => Reading::NvlinkRecoveries,
                2 => Reading::NvlinkCrcFlit,
                3 => Reading::NvlinkCrcData,
                4 => return Err(Status::NotSupported),
                _ => return Err(Status::InvalidArgument),
            };
            // SAFETY: the caller gives a place for one integer, as NVML asks.
            unsafe { put(count, device.value(reading, now_s)? as c_ulonglong) }
        },
    )
}
