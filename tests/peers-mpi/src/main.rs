//! Compares the all-reduce over shared memory with MPICH's between the same number of local processes and with the rate
//! of a triad on the same cores, and the all-reduce across nodes with the MPICH that carries it, all in one run.
//!
//! Each round starts fresh processes for the triad, for the host all-reduce and for MPICH in turn; a
//! ratio is taken within a round, and the table gives its median over the rounds. Both sides sum the
//! same inputs and are checked bit by bit. Refuses to compare with an MPI it cannot start.
//!
//! Run: `cargo run --release -- --mpich PREFIX`, where `PREFIX/bin/mpiexec` and `PREFIX/lib` are
//! MPICH's, for instance a Python environment into which `pip install mpich` put them.

mod triad;
mod worker;

use hallmark_kernels::collective::host::Region;
use hallmark_kernels::collective::{all_reduce_busbw, all_reduce_bytes_moved};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// Bytes each rank holds.
const SIZES: [u64; 4] = [64 << 10, 1 << 20, 25 << 20, 64 << 20];
/// MPICH ships its own interface and the standard one; the faster of the two counts.
const MPI_LIBRARIES: [&str; 2] = ["libmpi.so.12", "libmpi_abi.so.1"];

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["triad", rank, ranks, region] => worker::triad(rank, ranks, Path::new(region)),
        ["host", rank, ranks, region] => worker::host(rank, ranks, Path::new(region)),
        ["mpi", library] => worker::mpi(Path::new(library)),
        _ => compare(&words),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::from(2)
        }
    }
}

/// Nanoseconds per operation, one entry per size.
type Times = Vec<f64>;

struct Round {
    triad_bytes_per_s: f64,
    host: Times,
    /// MPICH's all-reduce called plainly, and through a bridge.
    mpi: Times,
    bridged: Times,
}

struct Options {
    mpich: PathBuf,
    ranks: u32,
    rounds: u32,
}

fn compare(words: &[&str]) -> Outcome<()> {
    let options = options(words)?;
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        let triad = ranks_of_own("triad", options.ranks)?;
        let host = ranks_of_own("host", options.ranks)?;
        let mut mpi = mpich(&options)?;
        let bridged = mpi.split_off(SIZES.len());
        eprintln!("round {round} of {} done", options.rounds);
        rounds.push(Round {
            triad_bytes_per_s: triad[0],
            host,
            mpi,
            bridged,
        });
    }
    print_table(&options, &rounds);
    Ok(())
}

fn options(words: &[&str]) -> Outcome<Options> {
    let usage = "usage: hallmark-peers-mpi --mpich PREFIX [--ranks N] [--rounds N]; \
                 `pip install mpich` in a Python environment makes its folder such a prefix";
    let (mut mpich, mut ranks, mut rounds) = (None, 2, 7);
    for pair in words.chunks(2) {
        match *pair {
            ["--mpich", prefix] => mpich = Some(PathBuf::from(prefix)),
            ["--ranks", n] => ranks = n.parse().map_err(|e| format!("--ranks {n}: {e}"))?,
            ["--rounds", n] => rounds = n.parse().map_err(|e| format!("--rounds {n}: {e}"))?,
            _ => return Err(format!("unknown `{}`; {usage}", pair.join(" ")).into()),
        }
    }
    if ranks < 2 || rounds < 1 {
        return Err(format!("{ranks} ranks, {rounds} rounds: 2 and 1 at least; {usage}").into());
    }
    Ok(Options {
        mpich: mpich.ok_or(usage)?,
        ranks,
        rounds,
    })
}

/// Starts this program once per rank over a fresh region; what rank 0 prints.
fn ranks_of_own(role: &str, ranks: u32) -> Outcome<Times> {
    let region = Region::create(ranks, &SIZES)?;
    let program = std::env::current_exe()?;
    let children = (0..ranks)
        .map(|rank| {
            Command::new(&program)
                .args([role, &rank.to_string(), &ranks.to_string()])
                .arg(region.path())
                .stdout(Stdio::piped())
                .spawn()
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut printed = String::new();
    for (rank, child) in children.into_iter().enumerate() {
        let out = child.wait_with_output()?;
        if !out.status.success() {
            return Err(format!("{role} rank {rank} ended with {}", out.status).into());
        }
        printed.push_str(&String::from_utf8(out.stdout)?);
    }
    numbers(&printed)
}

/// The faster of MPICH's two libraries, size by size.
fn mpich(options: &Options) -> Outcome<Times> {
    let program = std::env::current_exe()?;
    let mut best: Option<Times> = None;
    for name in MPI_LIBRARIES {
        let library = options.mpich.join("lib").join(name);
        if !library.exists() {
            continue;
        }
        let mpiexec = options.mpich.join("bin/mpiexec");
        let out = Command::new(&mpiexec)
            .args(["-n", &options.ranks.to_string()])
            .arg(&program)
            .arg("mpi")
            .arg(&library)
            .stderr(Stdio::inherit())
            .output()
            .map_err(|e| format!("cannot start {}: {e}", mpiexec.display()))?;
        if !out.status.success() {
            return Err(format!("{} under mpiexec: {}", library.display(), out.status).into());
        }
        let times = numbers(&String::from_utf8(out.stdout)?)?;
        best = Some(match best {
            Some(best) => best.iter().zip(&times).map(|(a, b)| a.min(*b)).collect(),
            None => times,
        });
    }
    best.ok_or_else(|| format!("no {MPI_LIBRARIES:?} in {}/lib", options.mpich.display()).into())
}

fn numbers(printed: &str) -> Outcome<Times> {
    let numbers = printed
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<Times, _>>()?;
    if numbers.is_empty() {
        return Err("a rank printed no times".into());
    }
    Ok(numbers)
}

fn print_table(options: &Options, rounds: &[Round]) {
    let n = options.ranks;
    let over = |f: &dyn Fn(&Round) -> f64| median(rounds.iter().map(f).collect());
    println!(
        "{n} processes of one machine, f32 sum, median of {} rounds; 1 GB = 10^9 B",
        rounds.len()
    );
    println!(
        "triad over {n} processes: {:.2} GB/s (read + written)",
        over(&|r| r.triad_bytes_per_s) / 1e9
    );
    println!(
        "{:>9}  {:>10} {:>11} {:>11}  {:>10} {:>11}  {:>10} {:>10}  {:>10} {:>12}",
        "bytes",
        "host µs",
        "busbw GB/s",
        "moved GB/s",
        "mpich µs",
        "busbw GB/s",
        "host/mpich",
        "host/triad",
        "bridge µs",
        "bridge/mpich"
    );
    for (i, &bytes) in SIZES.iter().enumerate() {
        let busbw = |ns: f64| all_reduce_busbw(bytes, ns as u64, n).map_or(f64::NAN, |b| b / 1e9);
        let moved = |ns: f64| all_reduce_bytes_moved(bytes, n) as f64 * 1e9 / ns;
        println!(
            "{bytes:>9}  {:>10.1} {:>11.2} {:>11.2}  {:>10.1} {:>11.2}  {:>10.2} {:>10.2}  {:>10.1} {:>12.2}",
            over(&|r| r.host[i]) / 1e3,
            over(&|r| busbw(r.host[i])),
            over(&|r| moved(r.host[i])) / 1e9,
            over(&|r| r.mpi[i]) / 1e3,
            over(&|r| busbw(r.mpi[i])),
            over(&|r| r.mpi[i] / r.host[i]),
            over(&|r| moved(r.host[i]) / r.triad_bytes_per_s),
            over(&|r| r.bridged[i]) / 1e3,
            over(&|r| r.mpi[i] / r.bridged[i]),
        );
    }
    println!("moved: every input read once, every output written once, 2 × ranks × bytes");
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
