//! hallmark: parse, do, exit.

use hallmark::{cli, command};
use std::process::ExitCode;

fn main() -> ExitCode {
    // Mesa's device selection would reorder adapters by the desktop's wish and asks a display server for it.
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    match cli::parse().and_then(command::execute) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("hallmark: {}", failure.message);
            failure.exit.into()
        }
    }
}
