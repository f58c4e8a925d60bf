//! Plays days of a simulated hall into a sealed record, and judges that record from its files: how long, how much memory.
//!
//! `cargo run --release -p hallmark-tests --example hall_record -- FOLDER [GPUS] [HOURS]`
//!
//! The hall is the healthy one of `tests/scenarios`, of as many GPUs [default: 1,024, in racks of 64], under the built-in
//! profile `hall-acceptance` for so many hours [default: 72] at 1 Hz. A folder that holds a sealed record is not played
//! anew: it is only judged, which shows the memory that judging alone takes. It prints one line a figure (wall clock,
//! processor seconds of all threads) and says nothing of whether they are good.

use hallmark::twin;
use hallmark_profiles::profile;
use hallmark_results::store::Record;
use hallmark_results::verdict;
use hallmark_tests::{scenarios, stopwatch};
use std::error::Error;
use std::path::Path;
use std::time::Duration;

const GPUS_PER_RACK: u32 = 64;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("name a folder for the record")?;
    let mut number = |usual: u32| arguments.next().map_or(Ok(usual), |n| n.parse());
    let (gpus, hours) = (number(1_024)?, number(72)?);
    let folder = Path::new(&folder);
    if !folder.join("seal").exists() {
        play(folder, gpus, hours)?;
    }
    judge(folder)
}

/// The healthy hall with so many devices, played into a sealed record.
fn play(folder: &Path, gpus: u32, hours: u32) -> Outcome<()> {
    let mut scenario = scenarios::named("healthy");
    let hall = &mut scenario.hall;
    hall.racks = gpus.div_ceil(GPUS_PER_RACK).max(1);
    hall.trays_per_rack = gpus.div_ceil(hall.racks * hall.gpus_per_node).max(1);
    hall.cdus = hall.racks.div_ceil(4);
    hall.rack_power.0 *= f64::from(hall.gpus_per_rack()) / 40.0;
    scenario.conditions.duration = Some(Duration::from_secs(3_600 * u64::from(hours)));
    scenario.conditions.tick = Duration::from_secs(1);
    let loaded = profile::load("hall-acceptance")?;
    let (_, sealed) = stopwatch::timed("simulate, record and seal", || {
        twin::record(&loaded, &scenario, 1, folder)
    })?;
    println!("devices: {}; head: {}", scenario.hall.gpus(), sealed.head);
    stopwatch::peak("sealed");
    Ok(())
}

/// What `hallmark judge` does to a record, each part timed.
fn judge(folder: &Path) -> Outcome<()> {
    let record = stopwatch::timed("open (every digest checked)", || Record::open(folder))?;
    let bytes: u64 = record.manifest().files.iter().map(|f| f.bytes).sum();
    println!("size: {:.1} MB", bytes as f64 / 1e6);
    let standing = stopwatch::timed("read and fold", || record.account())?;
    stopwatch::peak("folded");
    let verdict = stopwatch::timed("judge", || verdict::judge(&standing));
    println!("verdict: {:?}: {}", verdict.outcome, verdict.sentence);
    stopwatch::peak("judged");
    Ok(())
}
