//! The vocabulary of hallmark: units and quantities, the metric catalogue, SKU references, workloads, criteria,
//! profiles and sites. It decides what a name or a figure means, and refuses any it does not know; it knows no device and no clock.

pub mod check;
pub mod criterion;
pub mod error;
pub mod inventory;
pub mod metric;
pub mod profile;
pub mod quantity;
pub mod site;
pub mod sku;
pub mod units;
pub mod workload;
