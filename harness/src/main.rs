//! hallmark: parse, do, exit.

use clap::Parser;
use hallmark::cli::Cli;
use hallmark::command;
use std::process::ExitCode;

fn main() -> ExitCode {
    match command::execute(Cli::parse().command) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("hallmark: {}", failure.message);
            failure.exit.into()
        }
    }
}
