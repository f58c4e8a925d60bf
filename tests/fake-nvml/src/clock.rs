//! The script's clock: seconds since `nvmlInit_v2`, or whatever a test writes into a file.
//!
//! Decides: how old the world is. A clock file makes a test exact and instant. Without one the
//! machine's steady clock runs: a driver is a world of its own and keeps its own time, as the real
//! one does. Refuses: a clock file that holds no number; the world then stands still at zero.

use std::path::PathBuf;
use std::time::Instant;

pub enum Clock {
    /// A file that holds the time in seconds as text, read anew at every call.
    File(PathBuf),
    /// The steady clock since the library was initialised.
    Steady(Instant),
}

impl Clock {
    pub fn start(file: Option<PathBuf>) -> Self {
        match file {
            Some(path) => Self::File(path),
            None => Self::Steady(Instant::now()),
        }
    }

    /// Seconds since the library was initialised.
    pub fn now_s(&self) -> f64 {
        match self {
            Self::File(path) => std::fs::read_to_string(path)
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(0.0),
            Self::Steady(start) => start.elapsed().as_secs_f64(),
        }
    }
}
