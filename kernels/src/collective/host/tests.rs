//! Ranks as threads: right totals, named absentees, refused input, survivors that go on.

use super::*;
use crate::collective::exact::{digest, expected_digest, fill_exact, first_mismatch};
use crate::timer::now_ns;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Barrier;

pub(super) const LONG: Duration = Duration::from_secs(20);
pub(super) const SEED: u64 = 42;

/// Runs `work` once per rank, each on its own thread with its own mapping.
fn ranks<T: Send>(
    ranks: u32,
    buckets: &[u64],
    work: impl Fn(&mut HostCollective) -> T + Sync,
) -> Vec<T> {
    let region = Region::create(ranks, buckets).unwrap();
    let joined = Barrier::new(ranks as usize);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..ranks)
            .map(|rank| {
                let (path, work, joined) = (region.path(), &work, &joined);
                scope.spawn(move || {
                    let mine = Arc::new(Region::attach(path, ranks, buckets).unwrap());
                    let mut group = HostCollective::join(mine, rank, now_ns, LONG).unwrap();
                    // Past the joining of all, so that `work` may break the group.
                    joined.wait();
                    work(&mut group)
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

pub(super) fn fill(group: &mut HostCollective, bucket: usize, iteration: u64) {
    let rank = group.rank();
    fill_exact(group.input(bucket).unwrap(), SEED, rank, iteration);
}

pub(super) fn check(group: &HostCollective, bucket: usize, iteration: u64) {
    let output = group.output(bucket).unwrap();
    let expected = expected_digest(SEED, group.members(), output.len(), iteration).unwrap();
    let mismatch = first_mismatch(output, SEED, group.members(), iteration).unwrap();
    assert_eq!(digest(output), expected, "first mismatch {mismatch:?}");
}

fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("hallmark-{}-{name}", std::process::id()))
}

#[test]
fn every_rank_gets_the_exact_total_at_odd_sizes() {
    let buckets: Vec<u64> = [1, 3, 17, 64, 1_000_003].map(|floats| floats * 4).to_vec();
    for n in 2..=8 {
        ranks(n, &buckets, |group| {
            for iteration in 0..2 {
                for bucket in 0..buckets.len() {
                    fill(group, bucket, iteration);
                }
                for (bucket, &bytes) in buckets.iter().enumerate() {
                    let done = group.all_reduce(bucket, LONG).unwrap();
                    assert_eq!(done.bytes, bytes);
                    assert!(done.started_ns <= done.arrived_last_ns);
                    assert!(done.arrived_last_ns <= done.ended_ns);
                    check(group, bucket, iteration);
                }
            }
            let input = digest(group.input(4).unwrap());
            let own = expected_digest(SEED, &[group.rank()], 1_000_003, 1).unwrap();
            assert_eq!(input, own, "a reduction changed its input");
        });
    }
}

#[test]
fn one_rank_alone_is_a_group() {
    ranks(1, &[4004], |group| {
        fill(group, 0, 0);
        group.all_reduce(0, LONG).unwrap();
        check(group, 0, 0);
    });
}

#[test]
fn ten_thousand_small_reductions_stay_exact() {
    for n in [2, 4] {
        ranks(n, &[68, 4], |group| {
            for iteration in 0..10_000 {
                let bucket = (iteration % 2) as usize;
                fill(group, bucket, iteration);
                group.all_reduce(bucket, LONG).unwrap();
                check(group, bucket, iteration);
            }
        });
    }
}

#[test]
fn one_corrupted_element_is_caught() {
    ranks(2, &[4_000_012], |group| {
        fill(group, 0, 0);
        if group.rank() == 1 {
            let input = group.input(0).unwrap();
            input[777_777] = f32::from_bits(input[777_777].to_bits() ^ 1);
        }
        group.all_reduce(0, LONG).unwrap();
        let output = group.output(0).unwrap();
        let expected = expected_digest(SEED, &[0, 1], output.len(), 0).unwrap();
        // The lowest bit of a small addend can be rounded away by a larger total: then nothing is wrong.
        let found = first_mismatch(output, SEED, &[0, 1], 0).unwrap();
        assert_eq!(digest(output) != expected, found.is_some());
        group.barrier(LONG).unwrap();
        fill(group, 0, 0);
        if group.rank() == 1 {
            group.input(0).unwrap()[777_777] += 1.0;
        }
        group.all_reduce(0, LONG).unwrap();
        let output = group.output(0).unwrap();
        let found = first_mismatch(output, SEED, &[0, 1], 0).unwrap().unwrap();
        assert_ne!(digest(output), expected);
        assert_eq!(found.index, 777_777);
    });
}

#[test]
fn the_last_to_arrive_is_named_and_its_delay_is_not_transfer_time() {
    let done = ranks(2, &[4096], |group| {
        group.barrier(LONG).unwrap();
        if group.rank() == 1 {
            std::thread::sleep(Duration::from_millis(60));
        }
        group.all_reduce(0, LONG).unwrap()
    });
    assert_eq!((done[0].last, done[1].last), (1, 1));
    assert!(done[0].waited_ns() > 40_000_000, "{:?}", done[0]);
    assert_eq!(done[1].waited_ns(), 0);
    assert!(done[0].transfer_ns() < 30_000_000, "{:?}", done[0]);
}

#[test]
fn a_late_peer_costs_sleep_not_a_core() {
    let cpu_ns = |clock| {
        let t = rustix::time::clock_gettime(clock);
        t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
    };
    let busy = ranks(2, &[4096], |group| {
        group.barrier(LONG).unwrap();
        if group.rank() == 1 {
            std::thread::sleep(Duration::from_millis(500));
        }
        let before = cpu_ns(rustix::time::ClockId::ThreadCPUTime);
        group.all_reduce(0, LONG).unwrap();
        cpu_ns(rustix::time::ClockId::ThreadCPUTime) - before
    });
    assert!(busy[0] < 25_000_000, "{} ns of processor time", busy[0]);
}

#[test]
fn an_absent_rank_is_named_within_the_limit_and_survivors_go_on_without_it() {
    let began_ns = now_ns();
    ranks(3, &[40_004], |group| {
        fill(group, 0, 0);
        group.all_reduce(0, LONG).unwrap();
        if group.rank() == 1 {
            // Present, but it never arrives again: a hung driver call.
            std::thread::sleep(Duration::from_millis(600));
            let late = group.all_reduce(0, LONG).unwrap_err();
            assert!(matches!(late, CollectiveError::Aborted { .. }), "{late}");
            return;
        }
        match group.all_reduce(0, Duration::from_millis(200)).unwrap_err() {
            CollectiveError::TimedOut { waiting_for, .. } => assert_eq!(waiting_for, [1]),
            CollectiveError::Aborted { lost, .. } => assert_eq!(lost, [1]),
            other => panic!("{other}"),
        }
        let again = group.all_reduce(0, LONG).unwrap_err();
        assert!(matches!(again, CollectiveError::Aborted { .. }), "{again}");
        group.regroup(2, &[0, 2], LONG).unwrap();
        assert_eq!((group.ranks(), group.generation()), (2, 2));
        group.all_reduce(0, LONG).unwrap();
        check(group, 0, 0);
    });
    assert!(now_ns() - began_ns < 10_000_000_000);
}

#[test]
fn a_rank_that_leaves_ends_the_wait_of_the_others_at_once() {
    let region = Arc::new(Region::create(2, &[64]).unwrap());
    std::thread::scope(|scope| {
        let leaver = scope.spawn(|| {
            let mut group = HostCollective::join(region.clone(), 1, now_ns, LONG).unwrap();
            group.barrier(LONG).unwrap();
        });
        let mut group = HostCollective::join(region.clone(), 0, now_ns, LONG).unwrap();
        group.barrier(LONG).unwrap();
        let began_ns = now_ns();
        let error = group.all_reduce(0, LONG).unwrap_err();
        assert!(
            matches!(&error, CollectiveError::Aborted { lost, .. } if lost == &[1]),
            "{error}"
        );
        assert!(now_ns() - began_ns < 2_000_000_000);
        leaver.join().unwrap();
    });
}

#[test]
fn the_creator_can_give_a_generation_up() {
    let region = Region::create(2, &[64]).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let mine = Region::attach(region.path(), 2, &[64]).unwrap();
            HostCollective::join(Arc::new(mine), 0, now_ns, LONG).err()
        });
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(region.progress(0).unwrap().generation, 1);
        assert_eq!(region.progress(1).unwrap().pid, 0);
        region.abort(1, &[1]);
        let error = waiter.join().unwrap().unwrap();
        let CollectiveError::Aborted {
            lost, waiting_for, ..
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!((lost, waiting_for), (vec![1], vec![1]));
    });
}

#[test]
fn ranks_that_disagree_are_told_so() {
    let errors = ranks(2, &[64, 64], |group| {
        let bucket = group.rank() as usize;
        group.all_reduce(bucket, LONG).unwrap_err().to_string()
    });
    assert!(
        errors.iter().any(|e| e.contains("buckets in one order")),
        "{errors:?}"
    );
    let errors = ranks(3, &[64], |group| match group.rank() {
        0 => group.regroup(2, &[0, 1], LONG).unwrap_err().to_string(),
        1 => group.regroup(2, &[0, 1, 2], LONG).unwrap_err().to_string(),
        _ => group
            .regroup(2, &[0, 1, 2], LONG)
            .map_or_else(|e| e.to_string(), |()| String::new()),
    });
    // Whoever sees it first says so; it may have given the generation up before the others looked.
    assert!(
        errors.iter().any(|e| e.contains("regroups with")),
        "{errors:?}"
    );
    assert!(errors.iter().all(|e| !e.is_empty()), "{errors:?}");
    ranks(1, &[64], |group| {
        for bad in [&[][..], &[1], &[0, 0], &[0, 9], &[0, u32::MAX]] {
            let error = group.regroup(2, bad, LONG).unwrap_err();
            assert!(
                matches!(error, CollectiveError::BadMembers { .. }),
                "{error}"
            );
        }
        let error = group.regroup(1, &[0], LONG).unwrap_err();
        assert!(
            matches!(error, CollectiveError::StaleGeneration { .. }),
            "{error}"
        );
        assert!(matches!(
            group.input(1),
            Err(CollectiveError::UnknownBucket {
                bucket: 1,
                buckets: 1
            })
        ));
        assert!(group.all_reduce(7, LONG).is_err() && group.output(7).is_err());
        group.all_reduce(0, LONG).unwrap(); // none of these broke the group
    });
}

#[test]
fn a_rank_is_taken_once() {
    ranks(2, &[64], |group| {
        let twin = HostCollective::join(group.region.clone(), group.rank(), now_ns, LONG);
        assert!(matches!(
            twin.err(),
            Some(CollectiveError::RankTaken { .. })
        ));
        let outside = HostCollective::join(group.region.clone(), 2, now_ns, LONG);
        assert!(matches!(
            outside.err(),
            Some(CollectiveError::NoSuchRank { .. })
        ));
        group.barrier(LONG).unwrap();
    });
}

#[test]
fn foreign_truncated_and_differing_regions_are_refused() {
    let buckets = [4096, 400];
    let region = Region::create(2, &buckets).unwrap();
    let attach = |path: &Path, ranks, buckets: &[u64]| Region::attach(path, ranks, buckets).err();
    assert!(matches!(
        attach(region.path(), 3, &buckets),
        Some(CollectiveError::RanksDiffer {
            found: 2,
            expected: 3,
            ..
        })
    ));
    assert!(matches!(
        attach(region.path(), 2, &[400, 4096]),
        Some(CollectiveError::LayoutDiffers { .. })
    ));
    let path = scratch("foreign");
    std::fs::write(&path, [b'x'; 100_000]).unwrap();
    assert!(matches!(
        attach(&path, 2, &buckets),
        Some(CollectiveError::NotARegion { .. })
    ));
    let mut bytes = std::fs::read(region.path()).unwrap();
    bytes.truncate(70_000);
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(
        attach(&path, 2, &buckets),
        Some(CollectiveError::Truncated { len: 70_000, .. })
    ));
    std::fs::write(&path, &bytes[..9]).unwrap();
    assert!(matches!(
        attach(&path, 2, &buckets),
        Some(CollectiveError::Truncated { .. })
    ));
    bytes[8] ^= 0xff;
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(
        attach(&path, 2, &buckets),
        Some(CollectiveError::Version { .. })
    ));
    std::fs::remove_file(&path).unwrap();
    for odd in [&path, Path::new("/dev/null"), &std::env::temp_dir()] {
        assert!(attach(odd, 2, &buckets).is_some(), "{odd:?}");
    }
    for (ranks, buckets) in [
        (0, [4, 4]),
        (65, [4, 4]),
        (2, [4, 0]),
        (2, [4, 6]),
        (2, [4, u64::MAX - 3]),
    ] {
        assert!(
            Region::create(ranks, &buckets).is_err(),
            "{ranks} {buckets:?}"
        );
    }
}

#[test]
fn a_region_at_a_path_works_and_goes_with_its_creator() {
    let path = scratch("region");
    let region = Region::create_at(&path, 1, &[400]).unwrap();
    assert!(matches!(
        Region::create_at(&path, 1, &[400]).err(),
        Some(CollectiveError::Io { .. })
    ));
    let mine = Arc::new(Region::attach(&path, 1, &[400]).unwrap());
    let mut group = HostCollective::join(mine, 0, now_ns, LONG).unwrap();
    fill(&mut group, 0, 0);
    group.all_reduce(0, LONG).unwrap();
    check(&group, 0, 0);
    drop(region);
    assert!(!path.exists());
}

#[test]
fn a_region_too_large_to_map_is_an_error_that_leaves_no_file() {
    let path = scratch("huge");
    let error = Region::create_at(&path, 1, &[1 << 60]).unwrap_err();
    assert!(matches!(error, CollectiveError::Io { .. }), "{error}");
    assert!(!path.exists());
}

#[test]
fn scribbled_flags_end_in_a_typed_error_never_a_hang() {
    for value in [7, u32::MAX, 1 << 31] {
        let errors = ranks(2, &[64], |group| {
            group.barrier(LONG).unwrap();
            if group.rank() == 1 {
                let slot = group.region.slot(1).unwrap();
                slot.arrived.store(value, Ordering::SeqCst);
                slot.bucket.store(value, Ordering::SeqCst);
                slot.arrived_ns.store(u64::MAX, Ordering::SeqCst);
                slot.sleepers.store(value, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(50));
                return None;
            }
            Some(group.all_reduce(0, Duration::from_secs(2)).unwrap_err())
        });
        assert!(
            matches!(
                errors[0],
                Some(CollectiveError::Scribbled { peer: 1, .. } | CollectiveError::Aborted { .. })
            ),
            "{:?}",
            errors[0]
        );
    }
}

#[test]
fn a_header_overwritten_at_random_never_hangs_or_crashes() {
    // xorshift64, seed printed by the assertion that fails.
    let mut state = 0x1234_5678_9abc_def1u64;
    for round in 0..40 {
        let region = Region::create(2, &[4096]).unwrap();
        let mut noise = std::fs::File::options()
            .write(true)
            .open(region.path())
            .unwrap();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..2)
                .map(|rank| {
                    let path = region.path();
                    scope.spawn(move || {
                        let limit = Duration::from_millis(300);
                        let Ok(mine) = Region::attach(path, 2, &[4096]) else {
                            return;
                        };
                        let Ok(mut group) =
                            HostCollective::join(Arc::new(mine), rank, now_ns, limit)
                        else {
                            return;
                        };
                        for _ in 0..2000 {
                            if group.all_reduce(0, limit).is_err() {
                                break;
                            }
                        }
                    })
                })
                .collect();
            for at in 0..64 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                std::thread::sleep(Duration::from_micros(20));
                let to = if at % 2 == 0 {
                    state % 512
                } else {
                    state % 9000
                };
                noise.seek(SeekFrom::Start(to)).unwrap();
                noise
                    .write_all(&state.to_le_bytes()[..1 + (state % 8) as usize])
                    .unwrap();
            }
            for thread in threads {
                assert!(thread.join().is_ok(), "round {round} state {state:x}");
            }
        });
    }
}

#[test]
fn ranks_take_their_places_without_waiting_and_form_a_group_without_one_that_never_came() {
    let buckets = [4096];
    let region = Region::create(3, &buckets).unwrap();
    std::thread::scope(|scope| {
        for rank in [0, 2] {
            let path = region.path();
            scope.spawn(move || {
                let mine = Arc::new(Region::attach(path, 3, &buckets).unwrap());
                let mut group = HostCollective::attach(mine, rank, now_ns).unwrap();
                fill(&mut group, 0, 0);
                let early = group.all_reduce(0, LONG).unwrap_err();
                assert!(matches!(early, CollectiveError::Aborted { .. }), "{early}");
                group.regroup(1, &[0, 2], LONG).unwrap();
                group.all_reduce(0, LONG).unwrap();
                assert_eq!(group.members(), [0, 2]);
                check(&group, 0, 0);
            });
        }
    });
}
