//! The settings that a device was found with: modes, limits, link, highest clocks, thresholds.
//!
//! Decides: which function gives which reading. Refuses: every change; no function here sets.

use crate::abi::{DeviceHandle, Ret, Status, put};
use crate::script::Reading;
use crate::world::answer_device;
use std::ffi::c_uint;

/// Functions that give one unsigned integer.
macro_rules! integers {
    ($($symbol:ident: $reading:ident as $integer:ty;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $symbol(
            handle: $crate::abi::DeviceHandle,
            value: *mut $integer,
        ) -> $crate::abi::Ret {
            $crate::world::answer_device(stringify!($symbol), handle, |_, _, device, now_s| {
                let reading = device.value($crate::script::Reading::$reading, now_s)?;
                // SAFETY: the caller gives a place for one integer, as NVML asks.
                unsafe { $crate::abi::put(value, reading as $integer) }
            })
        }
    )*};
}
pub(crate) use integers;

/// Functions that give two unsigned integers.
macro_rules! pairs {
    ($($symbol:ident: $first:ident, $second:ident;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $symbol(
            handle: DeviceHandle,
            first: *mut c_uint,
            second: *mut c_uint,
        ) -> Ret {
            answer_device(stringify!($symbol), handle, |_, _, device, now_s| {
                let a = device.value(Reading::$first, now_s)? as c_uint;
                let b = device.value(Reading::$second, now_s)? as c_uint;
                // SAFETY: the caller gives two places for integers, as NVML asks.
                unsafe { put(first, a).and_then(|()| put(second, b)) }
            })
        }
    )*};
}

integers! {
    nvmlDeviceGetPersistenceMode: PersistenceMode as c_uint;
    nvmlDeviceGetPowerManagementLimit: PowerLimitMw as c_uint;
    nvmlDeviceGetPowerManagementDefaultLimit: PowerLimitDefaultMw as c_uint;
    nvmlDeviceGetEnforcedPowerLimit: PowerLimitEnforcedMw as c_uint;
    nvmlDeviceGetCurrPcieLinkGeneration: PcieGeneration as c_uint;
    nvmlDeviceGetMaxPcieLinkGeneration: PcieGenerationMax as c_uint;
    nvmlDeviceGetCurrPcieLinkWidth: PcieWidth as c_uint;
    nvmlDeviceGetMaxPcieLinkWidth: PcieWidthMax as c_uint;
}

pairs! {
    nvmlDeviceGetEccMode: EccMode, EccModePending;
    nvmlDeviceGetMigMode: MigMode, MigModePending;
    nvmlDeviceGetPowerManagementLimitConstraints: PowerLimitMinMw, PowerLimitMaxMw;
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMaxClockInfo(
    handle: DeviceHandle,
    kind: c_uint,
    mhz: *mut c_uint,
) -> Ret {
    answer_device(
        "nvmlDeviceGetMaxClockInfo",
        handle,
        |_, _, device, now_s| {
            let reading = match kind {
                0 => Reading::ClockGraphicsMhzMax,
                1 => Reading::ClockSmMhzMax,
                2 => Reading::ClockMemoryMhzMax,
                3 => Reading::ClockVideoMhzMax,
                _ => return Err(Status::InvalidArgument),
            };
            // SAFETY: the caller gives a place for one integer, as NVML asks.
            unsafe { put(mhz, device.value(reading, now_s)? as c_uint) }
        },
    )
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTemperatureThreshold(
    handle: DeviceHandle,
    kind: c_uint,
    celsius: *mut c_uint,
) -> Ret {
    answer_device(
        "nvmlDeviceGetTemperatureThreshold",
        handle,
        |_, _, device, now_s| {
            let reading = match kind {
                0 => Reading::ThresholdShutdownC,
                1 => Reading::ThresholdSlowdownC,
                2 => Reading::ThresholdMemoryMaxC,
                3 => Reading::ThresholdGpuMaxC,
                4..=7 => return Err(Status::NotSupported),
                _ => return Err(Status::InvalidArgument),
            };
            // SAFETY: the caller gives a place for one integer, as NVML asks.
            unsafe { put(celsius, device.value(reading, now_s)? as c_uint) }
        },
    )
}
