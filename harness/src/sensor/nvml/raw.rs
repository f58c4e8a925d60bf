//! The calls that nvml-wrapper lacks or gets wrong, made on the library's own symbols.
//!
//! Decides: field values with their scope and full width (the wrapper drops the scope and cuts an
//! unsigned long to 32 bits), clocks-event reasons by their new symbol and then the old one,
//! remapped rows, thermal margin. Refuses: to set anything. A symbol that the library lacks is an
//! error, never a panic.

use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::{Device, FieldIdScheme};
use std::ffi::c_int;

/// One question to `nvmlDeviceGetFieldValues`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldAsk {
    /// `NVML_FI_DEV_…` in the numbering before driver 580.82.
    pub id: u32,
    /// A link, or 0 for the whole device.
    pub scope: u32,
}

/// `NVML_STRUCT_VERSION`: the structure's size, and its version in the top byte.
fn struct_version<T>(_of: &T, version: u32) -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(0) | (version << 24)
}

/// A zeroed structure of the type that `call` fills in.
///
/// # Safety
/// `T` is plain data for which all bytes zero are a valid value.
unsafe fn zeroed_for<H, N, T, R>(_call: &unsafe extern "C" fn(H, N, *mut T) -> R) -> T {
    // SAFETY: the caller vouches for `T`.
    unsafe { std::mem::zeroed() }
}

/// A zeroed structure of the type that `call`, which takes a device and a structure, fills in.
///
/// # Safety
/// `T` is plain data for which all bytes zero are a valid value.
unsafe fn zeroed_for_device<H, T, R>(_call: &unsafe extern "C" fn(H, *mut T) -> R) -> T {
    // SAFETY: the caller vouches for `T`.
    unsafe { std::mem::zeroed() }
}

/// The number that this driver uses for a field.
///
/// Source: NVML known issues, “field ids 251–273”: renumbered from driver 580.82 on.
fn id_for_driver(scheme: FieldIdScheme, id: u32) -> u32 {
    match (scheme, id) {
        (FieldIdScheme::V13Update1, 251..=255) => id + 18,
        (FieldIdScheme::V13Update1, 256..=273) => id - 5,
        _ => id,
    }
}

/// Asks for many fields in one call; each has its own outcome, in the order asked.
///
/// # Errors
/// The call as a whole failed: the device is lost, or the library has no such function.
pub fn field_values(
    device: &Device<'_>,
    asks: &[FieldAsk],
) -> Result<Vec<Result<f64, NvmlError>>, NvmlError> {
    if asks.is_empty() {
        return Ok(Vec::new());
    }
    let nvml = device.nvml();
    let call = nvml_sym(nvml.lib().nvmlDeviceGetFieldValues.as_ref())?;
    // SAFETY: `nvmlFieldValue_t` is integers and a union of numbers; zero is valid for all.
    let blank = unsafe { zeroed_for(call) };
    let mut values = vec![blank; asks.len()];
    for (value, ask) in values.iter_mut().zip(asks) {
        value.fieldId = id_for_driver(nvml.field_id_scheme(), ask.id);
        value.scopeId = ask.scope;
    }
    let count = c_int::try_from(values.len()).map_err(|_| NvmlError::InvalidArg)?;
    // SAFETY: the handle is this device's, and `values` holds `count` structures.
    nvml_try(unsafe { call(device.handle(), count, values.as_mut_ptr()) })?;
    let mut outcomes = Vec::with_capacity(values.len());
    for value in &values {
        if let Err(error) = nvml_try(value.nvmlReturn) {
            outcomes.push(Err(error));
            continue;
        }
        // SAFETY: every member of the union is a number, for which any bits are valid, and the
        // whole union was zeroed before the driver wrote the member that `valueType` names.
        outcomes.push(unsafe {
            match value.valueType {
                0 => Ok(value.value.dVal),
                1 => Ok(f64::from(value.value.uiVal)),
                2 => Ok(value.value.ulVal as f64),
                3 => Ok(value.value.ullVal as f64),
                4 => Ok(value.value.sllVal as f64),
                5 => Ok(f64::from(value.value.siVal)),
                6 => Ok(f64::from(value.value.usVal)),
                unknown => Err(NvmlError::UnexpectedVariant(unknown)),
            }
        });
    }
    Ok(outcomes)
}

/// The clocks-event reasons that hold now, as a mask: several may hold at once.
///
/// # Errors
/// As [`field_values`].
pub fn clocks_event_reasons(device: &Device<'_>) -> Result<u64, NvmlError> {
    let lib = device.nvml().lib();
    let mut mask = 0;
    if let Ok(call) = lib.nvmlDeviceGetCurrentClocksEventReasons.as_ref() {
        // SAFETY: the handle is this device's, and `mask` takes the one integer written.
        match nvml_try(unsafe { call(device.handle(), &mut mask) }) {
            Err(NvmlError::FunctionNotFound) => {}
            outcome => return outcome.map(|()| mask),
        }
    }
    // Drivers before 535 know the same mask by its old name only.
    let call = nvml_sym(lib.nvmlDeviceGetCurrentClocksThrottleReasons.as_ref())?;
    // SAFETY: as above.
    nvml_try(unsafe { call(device.handle(), &mut mask) })?;
    Ok(mask)
}

/// Rows of device memory that were remapped, and whether a remap waits or failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemappedRows {
    pub correctable: u32,
    pub uncorrectable: u32,
    /// A row waits for the next reset to be remapped.
    pub pending: bool,
    /// A remap failed: no spare rows are left.
    pub failed: bool,
}

/// The remapped rows of device memory.
///
/// # Errors
/// As [`field_values`].
pub fn remapped_rows(device: &Device<'_>) -> Result<RemappedRows, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetRemappedRows.as_ref())?;
    let (mut correctable, mut uncorrectable, mut pending, mut failed) = (0, 0, 0, 0);
    // SAFETY: the handle is this device's, and four integers take the four that are written.
    nvml_try(unsafe {
        call(
            device.handle(),
            &mut correctable,
            &mut uncorrectable,
            &mut pending,
            &mut failed,
        )
    })?;
    Ok(RemappedRows {
        correctable,
        uncorrectable,
        pending: pending != 0,
        failed: failed != 0,
    })
}

/// Distance from the temperature to the nearest slowdown threshold, K.
///
/// # Errors
/// As [`field_values`].
pub fn thermal_margin_k(device: &Device<'_>) -> Result<f64, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetMarginTemperature.as_ref())?;
    // SAFETY: `nvmlMarginTemperature_t` is two integers.
    let mut margin = unsafe { zeroed_for_device(call) };
    margin.version = struct_version(&margin, 1);
    // SAFETY: the handle is this device's, and `margin` states its version as NVML asks.
    nvml_try(unsafe { call(device.handle(), &mut margin) })?;
    Ok(f64::from(margin.marginTemperature))
}
