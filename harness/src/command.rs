//! What each command does, one line each.

pub mod batch;
pub mod hall;
pub mod inspect;
pub mod load;
pub mod preview;
pub mod profiles;
pub mod prove;
pub mod publish;
pub mod record;
pub mod rehearse;
pub mod resume;
pub mod site;
pub mod status;
pub mod stop;

use crate::cli::{Cli, Command};
use crate::exit::{Exit, Failure};
use clap::CommandFactory;
use std::path::{Path, PathBuf};

/// Carries a command out.
///
/// # Errors
/// [`Failure`]: one line for the user, and the exit code.
pub fn execute(command: Command) -> Result<Exit, Failure> {
    crate::shell::files::allow_many();
    match command {
        Command::Run(args) => load::run(&args),
        Command::Resume(args) => resume::resume(&args),
        Command::Seal(args) => record::seal(&args.run),
        Command::Status(args) => status::status(&args.run),
        Command::Stop(args) => stop::stop(&args),
        Command::Rehearse(args) => rehearse::rehearse(&args),
        Command::Inspect(args) => inspect::inspect(&args),
        Command::Prove(args) => prove::prove(&args),
        Command::Judge(args) => record::judge(&args),
        Command::Report(args) => record::report(&args),
        Command::Publish(args) => publish::publish(&args),
        Command::Profiles(args) => profiles::profiles(&args),
        Command::Site(args) => site::site(&args),
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "hallmark",
                &mut std::io::stdout(),
            );
            Ok(Exit::Accepted)
        }
        Command::Probe { engine, cuda } => inspect::probe(&engine, &cuda),
        Command::Agent(args) => crate::agent::join(&args),
        Command::Bridge(args) => crate::bridge::main(&args),
        Command::Worker => {
            crate::worker::main(std::io::stdin(), std::io::stdout());
            Ok(Exit::Accepted)
        }
    }
}

/// A file of a run that lies beside its folder, where nothing but the record may lie.
fn beside(folder: &Path, ending: &str) -> PathBuf {
    // `runs/x/` and `runs/x` are one folder.
    let mut name = folder.components().as_path().as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Prints to standard output. A reader that has gone away, such as `head`, is no error.
pub fn say(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    if !text.ends_with('\n') {
        let _ = out.write_all(b"\n");
    }
    let _ = out.flush();
}
