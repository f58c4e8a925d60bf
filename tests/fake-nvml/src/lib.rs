//! A stand-in for NVIDIA's management library, `libnvidia-ml.so.1`: it measures nothing.
//!
//! Every answer comes from a JSON script ([`script`]) whose path is in the environment variable
//! `FAKE_NVML_SCRIPT` when `nvmlInit_v2` is called. It exists so that the telemetry of hallmark can
//! be driven through the real `nvml-wrapper`, fault by fault, on a machine without a GPU. What it
//! reports must never be taken for a measurement: a script whose device names do not begin with
//! `Fake` is refused.
//!
//! ```json
//! { "devices": [{ "name": "Fake H100", "uuid": "GPU-1", "pci_bus_id": "00000000:1B:00.0",
//!     "readings": { "temperature_c": [[0, 40], [30, 63]], "reasons_mask": 36,
//!                   "energy_mj": { "from": 0, "per_second": 433000 } },
//!     "fields": { "186": 433000 }, "events": [{ "at_s": 9, "data": 79 }] }],
//!   "missing": ["nvmlDeviceGetSerial"],
//!   "faults": [{ "function": "nvmlDeviceGetPowerUsage", "hang_s": 2, "from_s": 3, "until_s": 4 },
//!              { "function": "*", "device": 0, "code": "GPU_IS_LOST", "from_s": 9 }] }
//! ```
//!
//! It decides: which value, error or delay a call gets at which second of the script's clock.
//! It refuses: to change any setting (no `nvml…Set…` symbol exists), and an unclear script, which
//! makes `nvmlInit_v2` fail with the reason on standard error.
//!
//! Build it with `cargo build -p fake-nvml`; the library is `libfake_nvml.so` in the target folder.
//! Two loads of one file share their state, so a test that wants a world of its own loads a copy.

mod abi;
mod clock;
mod events;
mod fields;
mod identity;
mod readings;
mod script;
mod settings;
mod timeline;
mod world;
