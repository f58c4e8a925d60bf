//! The controller of a hall: it lets agents in, hands what they report to the run, and what the run decides to them.
//!
//! It decides nothing about the load: that is [`crate::run::Run`]'s, as on one machine.

pub mod hall;
