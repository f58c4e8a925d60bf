//! The command line: names, defaults and help. It decides nothing about a run.

use crate::engines::Choice;
use crate::exit::Failure;
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use hallmark_kernels::cuda::Matmuls;
use hallmark_profiles::inventory::DEVICES_MAX;
use hallmark_profiles::quantity::Time;
use std::path::PathBuf;
use std::time::Duration;

/// Accept a data-center hall for AI training: load it, watch it, and say with evidence whether it holds.
#[derive(Debug, Parser)]
#[command(name = "hallmark", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// Reads the command line; prints help and version itself, for that is what they are asked for.
///
/// # Errors
/// [`Failure`] with exit 2: one line, as any other refusal is.
pub fn parse() -> Result<Command, Failure> {
    match Cli::try_parse() {
        Ok(cli) => Ok(cli.command),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
            _ => Err(Failure::usage(one_line(&error.to_string()))),
        },
    }
}

/// What is wrong and what may help, without the usage that `--help` shows.
fn one_line(told: &str) -> String {
    let told = told.strip_prefix("error: ").unwrap_or(told);
    let paragraphs = told.split("\n\n").map(|paragraph| {
        let lines: Vec<&str> = paragraph.lines().map(str::trim).collect();
        lines.join(" ")
    });
    let wanted = paragraphs.filter(|p| !p.starts_with("Usage:") && !p.is_empty());
    let said: Vec<String> = wanted
        .map(|p| {
            p.replacen("For more information, try", "see", 1)
                .replacen("tip: ", "", 1)
                .trim_end_matches('.')
                .to_owned()
        })
        .collect();
    said.join("; ")
}

const EXIT_CODES: &str = "Begin with `hallmark run`: about a minute of load on this machine, then a verdict and a report.\n\nExit codes: 0 accepted · 1 rejected · 2 usage or profile error · 3 inconclusive · 4 the run itself broke";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Load this machine by a profile, record it, judge it and write a report
    Run(Run),
    /// Go on with a run that was cut off, and judge it
    Resume(Resume),
    /// Close a run that was cut off with what is on disk, and judge it
    Seal(Seal),
    /// Show how a run fares, or how it ended: hall, racks, nodes
    Status(Status),
    /// End a run in good order, wherever it was started from
    Stop(Stop),
    /// Play faults on a simulated hall, and tell what a profile would find of them
    Rehearse(Rehearse),
    /// Show devices, engines and sensors; for each thing absent, why and how to get it
    Inspect(Inspect),
    /// Multiply exactly in every type on each device, flip a bit, and test free memory
    Prove(Prove),
    /// Judge a record again from its files alone
    Judge(Judge),
    /// Write a report of a record
    Report(Report),
    /// Put sealed records into a lake, a folder or S3 bucket that DuckDB, Spark and Trino query
    Publish(Publish),
    /// List, show and check profiles, or print their schema
    #[command(subcommand)]
    Profiles(Profiles),
    /// Write or check a site file, or print its schema
    #[command(subcommand)]
    Site(Site),
    /// Print completions for a shell
    Completions {
        /// Shell to complete for
        shell: clap_complete::Shell,
    },
    /// Ask one engine for its devices on behalf of another command; started by hallmark itself
    #[command(hide = true)]
    Probe {
        /// Engine to ask
        engine: String,
        #[command(flatten)]
        cuda: Cuda,
    },
    /// Drive one device on behalf of a run; started by hallmark itself
    #[command(hide = true)]
    Worker,
    /// Reduce with the other nodes on behalf of an agent; started by hallmark itself
    #[command(hide = true)]
    Bridge(BridgeCommand),
    /// Join a run on behalf of this node, by the invitation on standard input, in a file or a folder; started by a launcher
    #[command(hide = true)]
    Agent(Agent),
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
    /// Load these devices or engines, e.g. cpu,wgpu0 (see `hallmark inspect`); accepts no site
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "auto",
        value_name = "LIST"
    )]
    pub devices: Vec<String>,
    /// Declare how many devices must take part; each one missing fails the inventory [default: the profile's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(DEVICES_MAX)))]
    pub expect_devices: Option<u32>,
    /// Scale all phases to this long together, e.g. 10min; then no site is accepted [default: the profile's]
    // A minus is part of a time that is refused for it, and no option.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub duration: Option<Time>,
    /// Write the record and the report into this new folder [default: runs/<id>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Choose operands and sampling dither by this seed; what is audited is drawn anew [default: the profile's]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Keep this remark in the record and on the report, e.g. a work order
    #[arg(long, value_name = "TEXT")]
    pub remark: Option<String>,
    /// Load all nodes of the hall that this site file describes, and judge them together
    #[arg(long, value_name = "FILE")]
    pub site: Option<PathBuf>,
    /// Let nodes of the site be processes of one machine, to try a hall out; accepts no site
    #[arg(long, requires = "site")]
    pub rehearsal: bool,
    /// All-reduce across nodes by this library of MPI, or `none` [default: the first found]
    #[arg(long, requires = "site", value_name = "FILE", env = "HALLMARK_MPI")]
    pub mpi: Option<PathBuf>,
    /// Print what the site's launcher would be given, without its secrets, and start nothing
    #[arg(long, requires = "site")]
    pub dry_run: bool,
    /// Read series from this CSV file beside the sensors; marks the record as replayed
    #[arg(long, value_name = "FILE")]
    pub replay: Vec<PathBuf>,
    #[command(flatten)]
    pub cuda: Cuda,
    #[command(flatten)]
    pub show: Show,
}

/// How NVIDIA devices are driven.
#[derive(Debug, Args)]
pub struct Cuda {
    /// Look for NVIDIA's libraries in this folder first
    #[arg(long, value_name = "DIR", env = "HALLMARK_CUDA_LIB_PATH")]
    pub cuda_lib_path: Option<PathBuf>,
    /// Multiply on NVIDIA devices with these kernels: auto, cublaslt or own
    #[arg(
        long,
        value_enum,
        default_value = "auto",
        value_name = "WHOSE",
        hide_possible_values = true
    )]
    pub cuda_matmul: CudaMatmul,
    /// Wait this long for NVIDIA's driver to say which devices it has, e.g. 2min
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub cuda_patience: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CudaMatmul {
    Auto,
    Cublaslt,
    Own,
}

impl Cuda {
    /// How long its driver is waited for.
    pub fn patience(&self) -> Duration {
        self.cuda_patience.duration()
    }

    /// As a command line says it to another process.
    pub fn arguments(&self) -> Vec<String> {
        let folder = self.cuda_lib_path.iter();
        let folder = folder.flat_map(|f| ["--cuda-lib-path".to_owned(), f.display().to_string()]);
        let matmul = self.cuda_matmul.to_possible_value();
        let matmul = matmul.map_or_else(String::new, |v| v.get_name().to_owned());
        let rest = [
            format!("--cuda-matmul={matmul}"),
            format!("--cuda-patience={}", self.cuda_patience),
        ];
        folder.chain(rest).collect()
    }

    /// As the engines take it.
    pub fn choice(&self) -> Choice {
        Choice {
            folder: self.cuda_lib_path.clone(),
            matmuls: match self.cuda_matmul {
                CudaMatmul::Auto => Matmuls::Auto,
                CudaMatmul::Cublaslt => Matmuls::CublasLt,
                CudaMatmul::Own => Matmuls::Own,
            },
        }
    }
}

#[derive(Debug, Args)]
pub struct Show {
    /// Show progress in this way
    #[arg(long, value_enum, default_value = "auto")]
    pub ui: Ui,
    /// Load NVML from this file instead of the driver's usual place; accepts no site
    #[arg(long, value_name = "FILE", env = "HALLMARK_NVML")]
    pub nvml: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Agent {
    /// Take the invitation for this node from this folder, with the launcher `manual`
    #[arg(long, value_name = "DIR")]
    pub join: Option<PathBuf>,
    /// Take the invitation from this file, which nobody else may read, instead of standard input
    #[arg(long, value_name = "FILE", conflicts_with = "join")]
    pub invitation: Option<PathBuf>,
    #[command(flatten)]
    pub cuda: Cuda,
    /// Load NVML from this file instead of the driver's usual place
    #[arg(long, value_name = "FILE", env = "HALLMARK_NVML")]
    pub nvml: Option<PathBuf>,
    /// All-reduce across nodes through this library of MPI; `none` for not at all
    #[arg(long, value_name = "FILE", env = "HALLMARK_MPI")]
    pub mpi: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct BridgeCommand {
    /// Say which library of MPI would be used, and end
    #[arg(long)]
    pub probe: bool,
    /// The agents were started by Open MPI
    #[arg(long)]
    pub open_mpi: bool,
    /// Open this library of MPI
    #[arg(long, value_name = "FILE")]
    pub mpi: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Resume {
    /// Folder of the run, e.g. runs/20260302-060000-smoke
    pub run: PathBuf,
    /// The site file that the run of a hall was begun with
    #[arg(long, value_name = "FILE")]
    pub site: Option<PathBuf>,
    /// All-reduce across nodes by this library of MPI, or `none` [default: the first found]
    #[arg(long, requires = "site", value_name = "FILE", env = "HALLMARK_MPI")]
    pub mpi: Option<PathBuf>,
    #[command(flatten)]
    pub cuda: Cuda,
    #[command(flatten)]
    pub show: Show,
}

#[derive(Debug, Args)]
pub struct Seal {
    /// Folder of the run, e.g. runs/20260302-060000-smoke
    pub run: PathBuf,
}

#[derive(Debug, Args)]
pub struct Status {
    /// Folder of the run, e.g. runs/20260302-060000-smoke
    pub run: PathBuf,
}

#[derive(Debug, Args)]
pub struct Stop {
    /// Folder of the run, e.g. runs/20260302-060000-smoke
    pub run: PathBuf,
    /// End it at once, without ramping the load down
    #[arg(long)]
    pub now: bool,
}

/// What `prove` can show of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Proof {
    Memory,
    Matmul,
    AllReduce,
    Nccl,
    Ratio,
}

#[derive(Debug, Args)]
pub struct Rehearse {
    /// Built-in profile or path of a .toml file (see `hallmark profiles list`)
    pub profile: String,
    /// Play on the hall of this file; it is played by itself too, for false alarms
    #[arg(long, value_name = "HALL.toml")]
    pub hall: PathBuf,
    /// Put the faults of these files into the hall, one file at a time
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub fault: Vec<PathBuf>,
    /// Play each fault at these multiples of its severity, e.g. 0.5,1,2
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1", value_parser = severity)]
    pub severity: Vec<f64>,
    /// Play everything with so many seeds, which draw constants, noise and places
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub seeds: u64,
    /// Play so many at a time [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub jobs: Option<u32>,
    /// Write rehearsal.html, .txt and .json into this folder
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Show progress in this way: auto, plain or json
    #[arg(long, value_enum, default_value = "auto")]
    pub ui: Ui,
}

/// A multiple of a severity.
fn severity(text: &str) -> Result<f64, String> {
    /// Beyond this nothing is left of what is scaled.
    const MOST: f64 = 100.0;
    let value: f64 = text
        .parse()
        .map_err(|_| "write such as 0.5,1,2".to_owned())?;
    if value > 0.0 && value <= MOST {
        Ok(value)
    } else {
        Err(format!("a severity is above 0 and at most {MOST}"))
    }
}

#[derive(Debug, Args)]
pub struct Prove {
    /// Try these devices or engines, e.g. cuda,cpu0 (see `hallmark inspect`)
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "auto",
        value_name = "LIST"
    )]
    pub devices: Vec<String>,
    /// Prove only memory, matmul, all-reduce, nccl, ratio (to cuBLASLt) [default: the first 3]
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "LIST",
        hide_possible_values = true
    )]
    pub only: Vec<Proof>,
    #[command(flatten)]
    pub cuda: Cuda,
}

#[derive(Debug, Args)]
pub struct Inspect {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub cuda: Cuda,
    /// Load NVML from this file instead of the driver's usual place
    #[arg(long, value_name = "FILE", env = "HALLMARK_NVML")]
    pub nvml: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Publish {
    /// Folders of sealed records, e.g. runs/*
    #[arg(required = true)]
    pub records: Vec<PathBuf>,
    /// Put them here: a folder, or s3://BUCKET/PREFIX (set up by AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, …)
    #[arg(long, value_name = "WHERE")]
    pub to: String,
    /// Name the site; letters, digits, `-`, `_` and `.`
    #[arg(long, value_name = "NAME")]
    pub site: String,
}

#[derive(Debug, Args)]
pub struct Judge {
    /// Folder of the run or of its sealed record, or s3://… of a published one
    pub record: PathBuf,
    /// Refuse the record unless its head is this one, which the run printed at its end
    #[arg(long, value_name = "HEX")]
    pub expect_head: Option<String>,
    /// Print the report in this format: text, json, junit, markdown, html or nccl
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    pub format: String,
}

#[derive(Debug, Args)]
pub struct Report {
    /// Folder of the run or of its sealed record, or s3://… of a published one
    pub record: PathBuf,
    /// Write this format: text, json, junit, markdown, html or nccl
    #[arg(long, default_value = "html", value_name = "FORMAT")]
    pub format: String,
    /// Write to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Refuse the record unless its head is this one, and say on the report that it is
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

#[derive(Debug, Subcommand)]
pub enum Site {
    /// Write a site file from what a launcher reports
    Init(SiteInit),
    /// Check a site file without running anything; exits 1 where it differs from what its launcher reports
    Check {
        /// Path of a .toml file
        site: PathBuf,
    },
    /// Print the JSON Schema of site files, for editors
    Schema,
}

/// Whom to ask for the nodes of a hall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Asked {
    Local,
    Slurm,
}

/// What no launcher knows has to be said.
#[derive(Debug, Args)]
#[command(
    override_usage = "hallmark site init --launcher <WHOM> --name <NAME> --country <COUNTRY> --region <REGION>\n         \
                      --hall <HALL> --contract-power <POWER> [OPTIONS]"
)]
pub struct SiteInit {
    /// Ask for the nodes: slurm, or local for this machine alone
    #[arg(long, value_enum, value_name = "WHOM", hide_possible_values = true)]
    pub launcher: Asked,
    /// Name the site as contracts call it
    #[arg(long)]
    pub name: String,
    /// Name the country by two capital letters of ISO 3166-1, e.g. NO
    #[arg(long)]
    pub country: String,
    /// Name the region within the country, or your own
    #[arg(long)]
    pub region: String,
    /// Name the hall within the site
    #[arg(long)]
    pub hall: String,
    /// Give each rack this power, e.g. "40.8 kW"
    #[arg(long, value_name = "POWER")]
    pub contract_power: String,
    /// Take the nodes of this partition of Slurm alone
    #[arg(long, value_name = "NAME")]
    pub partition: Option<String>,
    /// Write to this new file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_several_paragraphs_becomes_one_line_without_the_usage() {
        let told = Cli::try_parse_from(["hallmark", "runn"]).unwrap_err();
        assert_eq!(
            one_line(&told.to_string()),
            "unrecognized subcommand 'runn'; a similar subcommand exists: 'run'; see '--help'"
        );
        let told = Cli::try_parse_from(["hallmark", "run", "--ui", "loud"]).unwrap_err();
        assert_eq!(
            one_line(&told.to_string()),
            "invalid value 'loud' for '--ui <UI>' [possible values: auto, live, plain, json]; see '--help'"
        );
    }
}
