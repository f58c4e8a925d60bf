//! Names the place and the cause of what a verdict found: [`cause`] is the closed list of causes.
//!
//! It never decides: an outcome is the same with or without its diagnosis.

pub mod cause;

pub use cause::Cause;
