//! What the end-to-end tests are built of: the built program, folders to run in, its JSON lines, and
//! the components of the machine that a test may need.
//!
//! A test that lacks a component is skipped with its reason, or fails where all are required
//! ([`REQUIRE_ALL`]). Everything here fails by a panic with a sentence: it serves tests only.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "tests, and what they are built of, fail by a panic"
)]

pub mod agents;
pub mod browser;
pub mod cluster;
pub mod component;
pub mod golden;
pub mod hall;
pub mod hostile;
pub mod judged;
pub mod mutants;
#[cfg(target_os = "linux")]
pub mod network;
pub mod program;
pub mod scenarios;
pub mod slurm;
pub mod staged;
pub mod stopwatch;
pub mod swept;
pub mod synthetic;
pub mod tidy;

pub use component::{Component, REQUIRE_ALL};
pub use program::{Finished, RunFolder, finish, hallmark, json_lines};
