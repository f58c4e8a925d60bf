//! `hallmark run --site SITE --dry-run`: what a launcher would be given, without its secrets.
//!
//! It decides nothing, and starts and writes nothing; what would be refused before anything is written is refused here too.
//! For Kubernetes and Slurm it prints what they take as it is, for other launchers the command of each node.

use super::load::{folder, run_id};
use super::{batch, hall, say};
use crate::cli::Run;
use crate::exit::{Exit, Failure};
use crate::launch::kubernetes::{self, manifest::Order};
use crate::launch::{line, local, slurm, ssh};
use hallmark_profiles::profile::Loaded;
use hallmark_profiles::site::{Launcher, LoadedSite};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Stands for a name that is drawn for each run.
const NAME: &str = "hallmark-dry-run";

/// Prints it.
///
/// # Errors
/// [`Failure`] with exit 2, as of the run itself.
pub fn show(
    args: &Run,
    path: &Path,
    site: &LoadedSite,
    loaded: &Loaded,
    planned: Duration,
) -> Result<Exit, Failure> {
    let folder = folder(args, &loaded.profile.name)?;
    let program = std::env::current_exe().map_err(Failure::broken)?;
    let arguments = hall::arguments(&args.cuda, args.mpi.as_deref());
    let world = site.nodes().count();
    let text = match site.site.launcher {
        Launcher::Kubernetes => {
            // The folder's usual name has the time of day in it, and one site gives one text.
            let run = args.out.as_deref().map_or_else(|| NAME.to_owned(), run_id);
            kubernetes::shown(&Order {
                name: NAME,
                run: &run,
                site,
                asked: kubernetes::asked(site)?,
                arguments: &arguments,
                planned,
            })?
        }
        Launcher::Slurm if slurm::allocation().is_none() => batch::text(args, path, site, &folder)?,
        Launcher::Slurm => each(site, |index, node| {
            slurm::command(&program, &arguments, node, (index, world))
        }),
        Launcher::Ssh => each(site, |_, node| ssh::command(node, &program, &arguments)),
        Launcher::Local => each(site, |_, _| local::command(&program, &arguments)),
        Launcher::Manual => {
            let command = hall::by_hand(&folder, args.mpi.as_deref())?;
            format!("# on each of {world} nodes:\n{command}\n")
        }
    };
    say(&text);
    Ok(Exit::Accepted)
}

/// A command for each node, which gets its invitation over standard input.
fn each(site: &LoadedSite, command: impl Fn(usize, &str) -> Command) -> String {
    let nodes = site.nodes().enumerate();
    let lines = nodes
        .map(|(index, node)| format!("# {}\n{}\n", node.name, line(&command(index, node.name))));
    lines.collect()
}
