//! How one unit of device work is prepared, queued, timed on the device's own clock and checked.
//!
//! Refuses to know what is acceptable, to open a socket or to pick a device by itself.

pub mod audit;
pub mod backend;
pub mod collective;
pub mod cpu;
pub mod cuda;
pub mod device;
pub mod error;
pub mod reference;
pub mod timer;
pub mod wgpu;
pub mod work;
