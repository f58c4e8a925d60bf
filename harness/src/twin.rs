//! The simulated hall: what a hall would show if its parts behaved as physics says, faults included.
//!
//! Everything here is *simulated*: it accepts no site. What breaks a hall is here, what judges one is in
//! `hallmark-results`, which cannot know this folder.

pub mod scenario;
