//! The world around a run: plan, workers, load, sensors, terminal, command line.
//!
//! It implements no statistics and no judgement: it feeds frames to `hallmark-results` and obeys.

pub mod agent;
pub mod bridge;
pub mod cli;
pub mod clock;
pub mod command;
pub mod controller;
pub mod engines;
pub mod exit;
pub mod lake;
pub mod launch;
pub mod load;
pub mod plan;
pub mod protocol;
pub mod rank;
pub mod rehearsal;
pub mod run;
pub mod sensor;
pub mod sensors;
pub mod shell;
pub mod topology;
pub mod twin;
pub mod view;
pub mod worker;
