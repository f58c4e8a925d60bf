//! `hallmark stop`: an order to a run, left beside its folder; and the run's side of it.
//!
//! A file, because the run may be on another machine that shares the folder, as a job is. It decides nothing about how a
//! run ends: to the run the order is the operator's interrupt. It refuses a run that nobody drives any more.

use super::{beside, say};
use crate::cli::Stop;
use crate::clock;
use crate::exit::{Exit, Failure};
use crate::run::Input;
use crate::shell::inbox::Inlet;
use hallmark_results::frame::Ending;
use hallmark_results::store::journal;
use hallmark_results::store::manifest::SEAL;
use std::path::Path;
use std::time::Duration;

/// Between two looks, on either side.
const LOOK: Duration = Duration::from_millis(250);
/// An order that lies there this long is read by nobody; a shared file system may show it late.
const UNREAD_NS: u64 = 120_000_000_000;
/// Between two lines to whoever waits.
const TELL_NS: u64 = 10_000_000_000;
const ORDER: &str = ".stop";
/// The two orders, whole: one that was not written to its end is no order yet.
const IN_ORDER: &str = "in order\n";
const NOW: &str = "now\n";

/// Removes an order that was left for an earlier life of this run; before anybody can know of the new one.
pub(super) fn forget(folder: &Path) {
    if !journal::is_written(folder) {
        let _ = std::fs::remove_file(beside(folder, ORDER));
    }
}

/// Hands a run the orders that are left for it, as long as it listens.
pub(super) fn watch(folder: &Path, inlet: &Inlet) {
    let order = beside(folder, ORDER);
    let inlet = inlet.clone();
    std::thread::spawn(move || {
        loop {
            clock::sleep(LOOK);
            let input = match std::fs::read_to_string(&order).as_deref() {
                Ok(IN_ORDER) => Input::Interrupt,
                Ok(NOW) => Input::Cut,
                _ => continue,
            };
            let _ = std::fs::remove_file(&order);
            if inlet.send(input).is_err() {
                return;
            }
        }
    });
}

/// Longest time for which nobody holds the journal of a run that goes on to seal it.
const UNHELD_NS: u64 = 5_000_000_000;

/// Ends a run, and waits until it has ended.
///
/// # Errors
/// [`Failure`]: exit 2 for a folder without a run that goes on, 4 where the order is not taken.
pub fn stop(args: &Stop) -> Result<Exit, Failure> {
    let folder = &args.run;
    let name = folder.display();
    if folder.join(SEAL).exists() {
        say(&format!("{name} has ended already"));
        return Ok(Exit::Accepted);
    }
    if !journal::is_written(folder) {
        return Err(Failure::usage(format!(
            "no run goes on in {name}; `hallmark status` says what is there"
        )));
    }
    let order = beside(folder, ORDER);
    let text = if args.now { NOW } else { IN_ORDER };
    std::fs::write(&order, text)
        .map_err(|e| Failure::broken(format!("cannot write {}: {e}", order.display())))?;
    let begun_ns = clock::monotonic_ns();
    let mut told_ns = begun_ns;
    while is_on(folder) {
        let now_ns = clock::monotonic_ns();
        if now_ns.saturating_sub(begun_ns) > UNREAD_NS && order.exists() {
            let _ = std::fs::remove_file(&order);
            return Err(Failure::broken(format!(
                "the run in {name} has not taken the order for {} s; interrupt it where it was started",
                UNREAD_NS / 1_000_000_000
            )));
        }
        if now_ns.saturating_sub(told_ns) >= TELL_NS {
            told_ns = now_ns;
            say(if order.exists() {
                "the order is not taken yet"
            } else {
                "the load ramps down"
            });
        }
        clock::sleep(LOOK);
    }
    // It may have ended by itself before it saw the order.
    let _ = std::fs::remove_file(&order);
    if !folder.join(SEAL).exists() {
        return Err(Failure::broken(format!(
            "the run in {name} ended without sealing its record; `hallmark seal {name}` closes it"
        )));
    }
    say(&format!("{name} has ended{}", how(folder)));
    Ok(Exit::Accepted)
}

/// Between the last frame and the seal nobody holds the journal for an instant, which a busy disk makes long.
fn is_on(folder: &Path) -> bool {
    let begun_ns = clock::monotonic_ns();
    while clock::monotonic_ns().saturating_sub(begun_ns) < UNHELD_NS {
        if folder.join(SEAL).exists() {
            return false;
        }
        if journal::is_written(folder) {
            return true;
        }
        clock::sleep(LOOK);
    }
    !folder.join(SEAL).exists() && journal::is_written(folder)
}

fn how(folder: &Path) -> String {
    match super::record::account(folder) {
        Ok(standing) => match standing.closed().map(|c| c.ending.clone()) {
            Some(Ending::Stopped { why }) => format!(": {why}"),
            _ => String::new(),
        },
        Err(why) => format!(", and its record cannot be read: {}", why.message),
    }
}
