//! How many files this process may have open at once.
//!
//! A controller has two connections to each node; what a login shell allows at first (often 1,024) is less than a hall of
//! 512 needs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Enough for the largest hall; programs that are started from here inherit it, and some go through all numbers.
const ENOUGH: u64 = 65_536;

/// Allows as many as the system lets this process allow itself, up to what is needed.
pub fn allow_many() {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(ENOUGH, |most| most.min(ENOUGH));
    if limit.current.is_some_and(|now| now < most) {
        // Where that is refused the run goes on; what then cannot be opened says so by its name.
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(most),
                ..limit
            },
        );
    }
}
