//! Shells drive the state machines: [`real`] with processes, threads and the machine's clock,
//! [`simulated`] with one event queue and no time passing.

pub mod files;
pub mod fleet;
pub mod inbox;
pub mod pen;
pub mod probes;
pub mod real;
pub mod simulated;
