//! What one process of the comparison does; rank 0 prints its median times, one a line.
//!
//! All three roles measure alike: a barrier, operations back to back, a barrier, and the time between over
//! their number. Totals are checked after the clock has stopped.

use crate::{Outcome, SIZES, median, triad};
use hallmark_kernels::collective::Collective;
use hallmark_kernels::collective::exact::{digest, expected_digest, fill_exact};
use hallmark_kernels::collective::host::bridge::{Between, Bridge};
use hallmark_kernels::collective::host::{HostCollective, Region};
use hallmark_kernels::collective::mpi::{Mpi, World};
use hallmark_kernels::timer::now_ns;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const SEED: u64 = 1;
/// Timed batches per size; the median counts.
const BATCHES: usize = 3;
/// Bytes one batch reduces, at least.
const BATCH_BYTES: u64 = 128 << 20;

pub fn host(rank: &str, ranks: &str, region: &Path) -> Outcome<()> {
    let mut group = join(rank, ranks, region)?;
    for (bucket, &bytes) in SIZES.iter().enumerate() {
        let rank = group.rank();
        fill_exact(group.input(bucket)?, SEED, rank, 0);
        let ns = timed(
            bytes,
            &mut group,
            |group| Ok(group.barrier(LIMIT).map(|_| ())?),
            |group| Ok(group.all_reduce(bucket, LIMIT).map(|_| ())?),
        )?;
        check(group.output(bucket)?, group.ranks())?;
        report(rank, ns);
    }
    Ok(group.barrier(LIMIT).map(|_| ())?)
}

/// MPI's all-reduce called plainly, then the same through a bridge, each rank a node of its own.
pub fn mpi(library: &Path) -> Outcome<()> {
    let mut world = Mpi::open(Some(library), false)?.join()?;
    let (rank, ranks) = (world.rank, world.size);
    for bytes in SIZES {
        let mut input = vec![0f32; (bytes / 4) as usize];
        let mut output = input.clone();
        fill_exact(&mut input, SEED, rank, 0);
        let met = |world: &mut World| Ok(world.gather([0; 3]).map(|_| ())?);
        let ns = timed(bytes, &mut world, met, |world| {
            Ok(world.add(&input, &mut output)?)
        })?;
        check(&output, ranks)?;
        report(rank, ns);
    }
    bridged(&mut world)?;
    world.leave();
    Ok(())
}

fn bridged(world: &mut World) -> Outcome<()> {
    let (rank, ranks) = (world.rank, world.size);
    let region = Arc::new(Region::create(2, &SIZES)?);
    let mut bridge = Bridge::new(vec![Arc::clone(&region)], rank, vec![0], 1, now_ns)?;
    bridge.open()?;
    let shared = Arc::clone(&region);
    let reducing = std::thread::spawn(move || {
        let done = reduce(Arc::clone(&shared), rank, ranks).map_err(|e| e.to_string());
        shared.abort(1, &[]);
        done
    });
    let served = bridge.serve(world);
    let times = reducing.join().map_err(|_| "the rank's thread died")??;
    served?;
    times.into_iter().for_each(|ns| report(rank, ns));
    Ok(())
}

fn reduce(region: Arc<Region>, rank: u32, ranks: u32) -> Outcome<Vec<f64>> {
    let mut group = HostCollective::attach_bridged(region, 0, rank, now_ns)?;
    group.regroup(1, &(0..ranks).collect::<Vec<_>>(), LIMIT)?;
    let mut times = Vec::new();
    for (bucket, &bytes) in SIZES.iter().enumerate() {
        fill_exact(group.input(bucket)?, SEED, rank, 0);
        times.push(timed(
            bytes,
            &mut group,
            |group| Ok(group.barrier(LIMIT).map(|_| ())?),
            |group| Ok(group.all_reduce(bucket, LIMIT).map(|_| ())?),
        )?);
        check(group.output(bucket)?, ranks)?;
    }
    Ok(times)
}

/// Prints bytes per second of all ranks together: the faster of streaming and plain stores.
pub fn triad(rank: &str, ranks: &str, region: &Path) -> Outcome<()> {
    let mut group = join(rank, ranks, region)?;
    let mut arrays = triad::Arrays::new();
    let mut fastest_ns = f64::INFINITY;
    for stream in [true, false] {
        let ns = timed(
            SIZES[3],
            &mut group,
            |group| Ok(group.barrier(LIMIT).map(|_| ())?),
            |_| {
                arrays.pass(stream);
                Ok(())
            },
        )?;
        fastest_ns = fastest_ns.min(ns);
    }
    arrays.check()?;
    let bytes = arrays.bytes_moved() * u64::from(group.ranks());
    report(group.rank(), bytes as f64 * 1e9 / fastest_ns);
    Ok(group.barrier(LIMIT).map(|_| ())?)
}

fn join(rank: &str, ranks: &str, region: &Path) -> Outcome<HostCollective> {
    let region = Region::attach(region, ranks.parse()?, &SIZES)?;
    Ok(HostCollective::join(
        Arc::new(region),
        rank.parse()?,
        now_ns,
        LIMIT,
    )?)
}

/// Median nanoseconds per operation over the batches, after two that are not counted.
fn timed<T>(
    bytes: u64,
    on: &mut T,
    mut barrier: impl FnMut(&mut T) -> Outcome<()>,
    mut operation: impl FnMut(&mut T) -> Outcome<()>,
) -> Outcome<f64> {
    let operations = BATCH_BYTES.div_ceil(bytes).min(100);
    operation(on)?;
    operation(on)?;
    let mut batches = Vec::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        barrier(on)?;
        let began_ns = now_ns();
        for _ in 0..operations {
            operation(on)?;
        }
        barrier(on)?;
        batches.push((now_ns() - began_ns) as f64 / operations as f64);
    }
    Ok(median(batches))
}

fn check(output: &[f32], ranks: u32) -> Outcome<()> {
    let members: Vec<u32> = (0..ranks).collect();
    let (found, expected) = (
        digest(output),
        expected_digest(SEED, &members, output.len(), 0)?,
    );
    if found != expected {
        return Err(format!("wrong total: digest {found}, expected {expected}").into());
    }
    Ok(())
}

fn report(rank: u32, value: f64) {
    if rank == 0 {
        println!("{value}");
    }
}
