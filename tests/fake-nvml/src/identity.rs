//! Start and stop, versions, the list of devices, and who each device is.
//!
//! Decides: how a device is found (place, UUID, PCI address, serial). Refuses: unknown ones, with
//! `NVML_ERROR_NOT_FOUND`; a place beyond the list is an invalid argument.

use crate::abi::{DeviceHandle, PciInfo, Ret, Status, put, put_text, text_array};
use crate::script::{Device, parse_pci};
use crate::world::{World, answer, answer_device, start, stop};
use std::ffi::{CStr, c_char, c_int, c_uint};

#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> Ret {
    start()
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> Ret {
    start()
}

#[unsafe(no_mangle)]
extern "C" fn nvmlShutdown() -> Ret {
    stop()
}

#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(_code: Ret) -> *const c_char {
    c"an error of the fake nvml".as_ptr()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetDriverVersion(text: *mut c_char, length: c_uint) -> Ret {
    answer("nvmlSystemGetDriverVersion", |world| {
        // SAFETY: the caller gives a buffer of `length` bytes, as NVML asks.
        unsafe { put_text(text, length, &world.script.driver_version) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetNVMLVersion(text: *mut c_char, length: c_uint) -> Ret {
    answer("nvmlSystemGetNVMLVersion", |world| {
        // SAFETY: the caller gives a buffer of `length` bytes, as NVML asks.
        unsafe { put_text(text, length, &world.script.nvml_version) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> Ret {
    answer("nvmlSystemGetCudaDriverVersion_v2", |world| {
        let value = c_int::try_from(world.script.cuda_version).map_err(|_| Status::Unknown)?;
        // SAFETY: the caller gives a place for one integer, as NVML asks.
        unsafe { put(version, value) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> Ret {
    answer("nvmlDeviceGetCount_v2", |world| {
        let value = c_uint::try_from(world.script.devices.len()).map_err(|_| Status::Unknown)?;
        // SAFETY: the caller gives a place for one integer, as NVML asks.
        unsafe { put(count, value) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(
    index: c_uint,
    handle: *mut DeviceHandle,
) -> Ret {
    answer("nvmlDeviceGetHandleByIndex_v2", |world| {
        let place = index as usize;
        if place >= world.script.devices.len() {
            return Err(Status::InvalidArgument);
        }
        world.fault("nvmlDeviceGetHandleByIndex_v2", Some(place))?;
        // SAFETY: the caller gives a place for one handle, as NVML asks.
        unsafe { put(handle, place + 1) }
    })
}

/// The handle of the first device that `fits`.
fn find(world: &World, function: &str, fits: impl Fn(&Device) -> bool) -> Result<usize, Status> {
    let place = world
        .script
        .devices
        .iter()
        .position(fits)
        .ok_or(Status::NotFound)?;
    world.fault(function, Some(place))?;
    Ok(place + 1)
}

/// The caller's string.
///
/// # Safety
/// `text` is null or a zero-terminated string that outlives the call.
unsafe fn given<'text>(text: *const c_char) -> Result<&'text str, Status> {
    if text.is_null() {
        return Err(Status::InvalidArgument);
    }
    // SAFETY: not null, and zero-terminated by this function's contract.
    unsafe { CStr::from_ptr(text) }
        .to_str()
        .map_err(|_| Status::InvalidArgument)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByUUID(
    uuid: *const c_char,
    handle: *mut DeviceHandle,
) -> Ret {
    const NAME: &str = "nvmlDeviceGetHandleByUUID";
    answer(NAME, |world| {
        // SAFETY: the caller gives a zero-terminated string, as NVML asks.
        let wanted = unsafe { given(uuid) }?;
        let found = find(world, NAME, |device| device.uuid == wanted)?;
        // SAFETY: the caller gives a place for one handle, as NVML asks.
        unsafe { put(handle, found) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByPciBusId_v2(
    bus_id: *const c_char,
    handle: *mut DeviceHandle,
) -> Ret {
    const NAME: &str = "nvmlDeviceGetHandleByPciBusId_v2";
    answer(NAME, |world| {
        // SAFETY: the caller gives a zero-terminated string, as NVML asks.
        let wanted = parse_pci(unsafe { given(bus_id) }?).ok_or(Status::InvalidArgument)?;
        let found = find(world, NAME, |device| device.pci_address() == Some(wanted))?;
        // SAFETY: the caller gives a place for one handle, as NVML asks.
        unsafe { put(handle, found) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleBySerial(
    serial: *const c_char,
    handle: *mut DeviceHandle,
) -> Ret {
    const NAME: &str = "nvmlDeviceGetHandleBySerial";
    answer(NAME, |world| {
        // SAFETY: the caller gives a zero-terminated string, as NVML asks.
        let wanted = unsafe { given(serial) }?;
        let found = find(world, NAME, |device| {
            device.serial.as_deref() == Some(wanted)
        })?;
        // SAFETY: the caller gives a place for one handle, as NVML asks.
        unsafe { put(handle, found) }
    })
}

/// Functions that give one text of a device into the caller's buffer.
macro_rules! texts {
    ($($symbol:ident($device:ident): $text:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $symbol(
            handle: DeviceHandle,
            text: *mut c_char,
            length: c_uint,
        ) -> Ret {
            answer_device(stringify!($symbol), handle, |_, _, device, _| {
                let $device = device;
                let value: Option<&String> = $text;
                // SAFETY: the caller gives a buffer of `length` bytes, as NVML asks.
                unsafe { put_text(text, length, value.ok_or(Status::NotSupported)?) }
            })
        }
    )*};
}

texts! {
    nvmlDeviceGetName(device): Some(&device.name);
    nvmlDeviceGetUUID(device): Some(&device.uuid);
    nvmlDeviceGetSerial(device): device.serial.as_ref();
    nvmlDeviceGetBoardPartNumber(device): device.part_number.as_ref();
    nvmlDeviceGetVbiosVersion(device): device.vbios_version.as_ref();
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetIndex(handle: DeviceHandle, index: *mut c_uint) -> Ret {
    answer_device("nvmlDeviceGetIndex", handle, |_, place, _, _| {
        let value = c_uint::try_from(place).map_err(|_| Status::Unknown)?;
        // SAFETY: the caller gives a place for one integer, as NVML asks.
        unsafe { put(index, value) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMinorNumber(handle: DeviceHandle, minor: *mut c_uint) -> Ret {
    answer_device("nvmlDeviceGetMinorNumber", handle, |_, place, _, _| {
        let value = c_uint::try_from(place).map_err(|_| Status::Unknown)?;
        // SAFETY: the caller gives a place for one integer, as NVML asks.
        unsafe { put(minor, value) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(handle: DeviceHandle, info: *mut PciInfo) -> Ret {
    answer_device("nvmlDeviceGetPciInfo_v3", handle, |_, _, device, _| {
        let (domain, bus, slot, _) = device.pci_address().ok_or(Status::Unknown)?;
        let value = PciInfo {
            bus_id_legacy: text_array(&format!("{domain:04X}:{bus:02X}:{slot:02X}.0")),
            domain,
            bus,
            device: slot,
            pci_device_id: 0,
            pci_subsystem_id: 0,
            bus_id: text_array(&device.pci_bus_id),
        };
        // SAFETY: the caller gives a place for one such structure, as NVML asks.
        unsafe { put(info, value) }
    })
}
