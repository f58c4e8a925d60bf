//! hallmark: parse, do, exit.

use clap::Parser;
use hallmark::cli::Cli;
use hallmark::command;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Mesa's device selection would reorder adapters by the desktop's wish and asks a display server for it.
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    match command::execute(Cli::parse().command) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("hallmark: {}", failure.message);
            failure.exit.into()
        }
    }
}
