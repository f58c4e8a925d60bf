//! The C side: status codes, the structures that callers pass in, and checked writes to them.
//!
//! Decides: layout, as NVIDIA's `nvml.h` (API version 13) declares it. Refuses: null pointers and
//! buffers that are too short, each with the status that the real library gives.

use std::ffi::{c_char, c_int, c_longlong, c_uint, c_ulonglong};

/// `nvmlReturn_t`.
pub type Ret = c_uint;

pub const SUCCESS: Ret = 0;

/// `nvmlDevice_t`: one more than the device's place in the script, so that null is no device.
pub type DeviceHandle = usize;
/// `nvmlEventSet_t`: one more than the set's place in the world's list.
pub type EventSetHandle = usize;

/// The errors that a script can name and that this library gives of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    Uninitialized = 1,
    InvalidArgument = 2,
    NotSupported = 3,
    NoPermission = 4,
    NotFound = 6,
    InsufficientSize = 7,
    DriverNotLoaded = 9,
    Timeout = 10,
    FunctionNotFound = 13,
    CorruptedInforom = 14,
    GpuIsLost = 15,
    ResetRequired = 16,
    LibRmVersionMismatch = 18,
    NoData = 21,
    ArgumentVersionMismatch = 25,
    Unknown = 999,
}

impl Status {
    pub fn code(self) -> Ret {
        self as Ret
    }
}

pub type Answer = Result<(), Status>;

/// `nvmlUtilization_t`.
#[repr(C)]
pub struct Utilization {
    pub gpu: c_uint,
    pub memory: c_uint,
}

/// `nvmlMemory_v2_t`.
#[repr(C)]
pub struct MemoryV2 {
    pub version: c_uint,
    pub total: c_ulonglong,
    pub reserved: c_ulonglong,
    pub free: c_ulonglong,
    pub used: c_ulonglong,
}

/// `nvmlPciInfo_t`.
#[repr(C)]
pub struct PciInfo {
    pub bus_id_legacy: [c_char; 16],
    pub domain: c_uint,
    pub bus: c_uint,
    pub device: c_uint,
    pub pci_device_id: c_uint,
    pub pci_subsystem_id: c_uint,
    pub bus_id: [c_char; 32],
}

/// `nvmlMarginTemperature_v1_t`.
#[repr(C)]
pub struct MarginTemperature {
    pub version: c_uint,
    pub margin_c: c_int,
}

/// `nvmlFieldValue_t`; the union is written as eight little-endian bytes.
#[repr(C)]
pub struct FieldValue {
    pub field_id: c_uint,
    pub scope_id: c_uint,
    pub timestamp_us: c_longlong,
    pub latency_us: c_longlong,
    pub value_type: c_uint,
    pub status: Ret,
    pub value: c_ulonglong,
}

/// `nvmlEventData_t`.
#[repr(C)]
pub struct EventData {
    pub device: DeviceHandle,
    pub event_type: c_ulonglong,
    pub event_data: c_ulonglong,
    pub gpu_instance_id: c_uint,
    pub compute_instance_id: c_uint,
}

/// `NVML_STRUCT_VERSION`: size in the low bits, version in the top byte.
pub fn struct_version<T>(version: c_uint) -> c_uint {
    let size = c_uint::try_from(size_of::<T>()).unwrap_or(0);
    size | (version << 24)
}

/// Writes `value` where the caller asked for it.
///
/// # Safety
/// `at` is null or valid for a write of `T`.
pub unsafe fn put<T>(at: *mut T, value: T) -> Answer {
    if at.is_null() {
        return Err(Status::InvalidArgument);
    }
    // SAFETY: not null, and valid by this function's contract.
    unsafe { at.write(value) };
    Ok(())
}

/// Writes `text` and a closing zero into a buffer of `length` bytes.
///
/// # Safety
/// `at` is null or valid for writes of `length` bytes.
pub unsafe fn put_text(at: *mut c_char, length: c_uint, text: &str) -> Answer {
    if at.is_null() {
        return Err(Status::InvalidArgument);
    }
    if text.len() >= length as usize {
        return Err(Status::InsufficientSize);
    }
    // SAFETY: the text and its closing zero fit into `length` bytes, and the source is a live
    // string that cannot overlap the caller's buffer.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), at, text.len());
        at.add(text.len()).write(0);
    }
    Ok(())
}

/// `text`, cut to what fits, as a zero-terminated array.
pub fn text_array<const N: usize>(text: &str) -> [c_char; N] {
    let mut array = [0; N];
    for (slot, byte) in array.iter_mut().take(N - 1).zip(text.bytes()) {
        *slot = c_char::from_ne_bytes([byte]);
    }
    array
}
