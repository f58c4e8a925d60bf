//! What outlives the process: frames, the sealed record, statistics, the verdict and its reports.
//!
//! Pure but for [`store`]: no clock, no device, no network. A record can be judged on a machine it never saw.

pub mod diagnosis;
pub mod frame;
pub mod plan;
pub mod report;
pub mod standing;
pub mod stats;
pub mod store;
pub mod trace;
pub mod verdict;
