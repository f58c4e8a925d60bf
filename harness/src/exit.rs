//! Exit codes: the one place that says what a run came to, for scripts.

use hallmark_results::verdict::{Outcome, Verdict};

/// `0` accepted · `1` rejected · `2` usage or profile error · `3` inconclusive · `4` the run itself broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Accepted = 0,
    Rejected = 1,
    Usage = 2,
    Inconclusive = 3,
    Broken = 4,
}

impl From<&Verdict> for Exit {
    fn from(verdict: &Verdict) -> Self {
        match verdict.outcome {
            Outcome::Passed => Self::Accepted,
            Outcome::Failed => Self::Rejected,
            Outcome::Inconclusive => Self::Inconclusive,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that ends the program, with the code that it ends with.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
}

impl Failure {
    /// Something the caller can mend: exit 2, and nothing has been written.
    pub fn usage(error: impl std::fmt::Display) -> Self {
        Self {
            exit: Exit::Usage,
            message: error.to_string(),
        }
    }

    /// The run itself broke: exit 4.
    pub fn broken(error: impl std::fmt::Display) -> Self {
        Self {
            exit: Exit::Broken,
            message: error.to_string(),
        }
    }

    /// A record that shows nothing because it cannot be believed: exit 3.
    pub fn inconclusive(error: impl std::fmt::Display) -> Self {
        Self {
            exit: Exit::Inconclusive,
            message: error.to_string(),
        }
    }
}
