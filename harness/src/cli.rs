//! The command line: names, defaults and help. It decides nothing about a run.

use clap::{Args, Parser, Subcommand, ValueEnum};
use hallmark_profiles::quantity::Time;
use std::path::PathBuf;

/// Accept a data-center hall for AI training: load it, watch it, and say with evidence whether it holds.
#[derive(Debug, Parser)]
#[command(name = "hallmark", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 accepted · 1 rejected · 2 usage or profile error · 3 inconclusive · 4 the run itself broke";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Load this machine by a profile, record it, judge it and write a report
    Run(Run),
    /// Go on with a run that was cut off, and judge it
    Resume(Resume),
    /// Close a run that was cut off with what is on disk, and judge it
    Seal(Seal),
    /// Show devices, engines and sensors; for each thing absent, why and how to get it
    Inspect(Inspect),
    /// Judge a record again from its files alone
    Judge(Judge),
    /// Write a report of a record
    Report(Report),
    /// List, show and check profiles, or print their schema
    #[command(subcommand)]
    Profiles(Profiles),
    /// Print completions for a shell
    Completions {
        /// Shell to complete for
        shell: clap_complete::Shell,
    },
    /// Drive one device on behalf of a run; started by hallmark itself
    #[command(hide = true)]
    Worker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Ui {
    /// The live view on a terminal, plain lines elsewhere
    Auto,
    /// The full-screen view
    Live,
    /// Progress lines
    Plain,
    /// One JSON object a line, the verdict last
    Json,
}

#[derive(Debug, Args)]
pub struct Run {
    /// Built-in profile or path of a .toml file (see `hallmark profiles list`)
    #[arg(default_value = "smoke")]
    pub profile: String,
    /// Load these devices or engines, e.g. cpu,wgpu0 (see `hallmark inspect`)
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "auto",
        value_name = "LIST"
    )]
    pub devices: Vec<String>,
    /// Measure for this long in all, e.g. 10min [default: the profile's]
    #[arg(long, value_name = "TIME")]
    pub duration: Option<Time>,
    /// Write the record and the report into this new folder [default: runs/<id>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Choose operands, audits and sampling dither by this seed [default: the profile's]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Keep this remark in the record and on the report, e.g. a work order
    #[arg(long, value_name = "TEXT")]
    pub remark: Option<String>,
    /// Read series from this CSV file beside the sensors; marks the record as replayed
    #[arg(long, value_name = "FILE")]
    pub replay: Vec<PathBuf>,
    #[command(flatten)]
    pub show: Show,
}

#[derive(Debug, Args)]
pub struct Show {
    /// How to show progress
    #[arg(long, value_enum, default_value = "auto")]
    pub ui: Ui,
    /// Load NVML from this file instead of the driver's usual place
    #[arg(long, value_name = "FILE", env = "HALLMARK_NVML")]
    pub nvml: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Resume {
    /// Folder of the run
    pub run: PathBuf,
    #[command(flatten)]
    pub show: Show,
}

#[derive(Debug, Args)]
pub struct Seal {
    /// Folder of the run
    pub run: PathBuf,
}

#[derive(Debug, Args)]
pub struct Inspect {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Load NVML from this file instead of the driver's usual place
    #[arg(long, value_name = "FILE", env = "HALLMARK_NVML")]
    pub nvml: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Judge {
    /// Folder of the record
    pub record: PathBuf,
    /// Refuse the record unless its head is this one, noted when the run ended
    #[arg(long, value_name = "HEX")]
    pub expect_head: Option<String>,
    /// Report format to print
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    pub format: String,
}

#[derive(Debug, Args)]
pub struct Report {
    /// Folder of the record
    pub record: PathBuf,
    /// text, json, junit, markdown or html
    #[arg(long, default_value = "html", value_name = "FORMAT")]
    pub format: String,
    /// Write to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Say on the report that the record's head is this one
    #[arg(long, value_name = "HEX")]
    pub expect_head: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Profiles {
    /// List the built-in profiles
    List,
    /// Print a profile's text
    Show {
        /// Built-in profile or path of a .toml file
        profile: String,
    },
    /// Check a profile without running anything
    Check {
        /// Built-in profile or path of a .toml file
        profile: String,
    },
    /// Print the JSON Schema of profiles, for editors
    Schema,
}
