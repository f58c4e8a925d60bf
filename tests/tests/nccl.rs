//! How groups of NVIDIA's collective library are formed, watched and given up, where no device is: a library that is
//! missing, lacks a function or is old, a group that never forms, fails by itself, hangs, or is another than asked for.
//!
//! The library here is a stand-in in C (`tests/fake-nccl/nccl.c`), whose ranks are threads and whose memory is the host's.
//! Nothing is measured with it; what holds on devices is asked by `tests/gpu`.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use hallmark_kernels::collective::exact;
use hallmark_kernels::collective::within::Element;
use hallmark_kernels::cuda::nccl::{Abort, Communicator, Nccl, NcclError, UniqueId};
use hallmark_tests::{Component, RunFolder};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// For what is to succeed on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);
/// For what is to be given up.
const WATCHDOG: Duration = Duration::from_millis(300);

/// Builds the stand-in with these faults into a folder's `lib`; false where there is no compiler.
fn build(folder: &Path, name: &str, faults: &[&str]) -> bool {
    if Component::Compiler.or_skip().is_none() {
        return false;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fake-nccl/nccl.c");
    let lib = folder.join("lib");
    std::fs::create_dir_all(&lib).unwrap();
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-w", "-pthread", "-o"]);
    command.arg(lib.join(name)).arg(source);
    command.args(faults.iter().map(|fault| format!("-D{fault}")));
    assert!(
        command.status().unwrap().success(),
        "the stand-in does not compile"
    );
    true
}

/// The stand-in with these faults, opened.
fn stand_in(folder: &RunFolder, faults: &[&str]) -> Option<Arc<Nccl>> {
    build(folder.path(), "libnccl.so.2", faults)
        .then(|| Arc::new(Nccl::open(Some(folder.path())).map_err(|a| a.why).unwrap()))
}

/// What each rank of a group comes to, each on a thread of its own.
fn ranks<T: Send + 'static>(ranks: u32, work: impl Fn(u32) -> T + Send + Sync + 'static) -> Vec<T> {
    let work = Arc::new(work);
    let threads: Vec<_> = (0..ranks)
        .map(|rank| {
            let work = Arc::clone(&work);
            std::thread::spawn(move || work(rank))
        })
        .collect();
    threads.into_iter().map(|t| t.join().unwrap()).collect()
}

/// The bits of a rank's addends, two bytes each where the type has two.
fn addends(element: Element, rank: u32, count: usize) -> Vec<u8> {
    whole(element, count, &[exact::key(3, rank, 8)], 4)
}

fn whole(element: Element, count: usize, keys: &[u32], of: u32) -> Vec<u8> {
    let shift = element.shift(of);
    let bits = |index: u64| {
        let total: i32 = keys.iter().map(|k| Element::addend(index, *k, shift)).sum();
        element.whole(total).to_le_bytes()
    };
    let bytes = element.bytes() as usize;
    (0..count as u64)
        .flat_map(|index| bits(index).into_iter().take(bytes))
        .collect()
}

/// Reduces once over a group that has formed, and waits for the flag that stands for the stream.
fn reduce(
    group: &mut Communicator,
    element: Element,
    addends: &[u8],
    count: usize,
    limit: Duration,
) -> Result<Vec<u8>, NcclError> {
    let mut total = vec![0_u8; addends.len()];
    let flag = Box::leak(Box::new(AtomicU32::new(0)));
    let places = [
        addends.as_ptr().addr() as u64,
        total.as_mut_ptr().addr() as u64,
    ];
    let stream = std::ptr::from_mut(flag).cast();
    // SAFETY: both buffers hold `count` elements and outlive the wait below, after which nobody writes them: the
    // stand-in writes totals only while all ranks are in it.
    unsafe { group.all_reduce(element, count, places, stream, limit)? };
    group.wait(limit, "all-reduce", || {
        Ok::<_, NcclError>(flag.load(Ordering::Acquire) == 1)
    })?;
    Ok(total)
}

#[test]
fn a_library_that_is_missing_broken_old_or_not_whole_is_told_with_price_and_remedy() {
    let folder = RunFolder::new();
    std::fs::write(folder.path().join("libnccl.so.2"), b"not a library").unwrap();
    let absent = Nccl::open(Some(folder.path())).err().unwrap();
    assert_eq!(absent.what, "libnccl.so.2");
    assert!(absent.why.contains("libnccl.so.2") && absent.why.contains("own collectives"));
    assert!(
        absent.remedy.contains("--cuda-lib-path"),
        "{}",
        absent.remedy
    );
    for (fault, said) in [
        ("LACKS_ABORT", "lacks ncclCommAbort"),
        ("VERSION=21602", "is NCCL 2.16.2, older than 2.18"),
    ] {
        let folder = RunFolder::new();
        if !build(folder.path(), "libnccl.so.2", &[fault]) {
            return;
        }
        let absent = Nccl::open(Some(folder.path())).err().unwrap();
        assert!(absent.why.contains(said), "{}", absent.why);
    }
}

#[test]
fn the_library_is_found_by_either_of_its_names_and_the_record_says_which_it_is() {
    let folder = RunFolder::new();
    if !build(folder.path(), "libnccl.so", &[]) {
        return;
    }
    let nccl = Nccl::open(Some(folder.path())).map_err(|a| a.why).unwrap();
    assert_eq!(nccl.version(), "2.27.3");
    let facts = nccl.facts();
    let about = &facts
        .iter()
        .find(|(key, _)| key == "library nccl")
        .unwrap()
        .1;
    assert!(
        about.starts_with("2.27.3, ") && about.contains("libnccl.so, sha256 "),
        "{about}"
    );
    assert!(
        facts.iter().any(|(key, _)| key.contains("algorithm")),
        "{facts:?}"
    );
}

#[test]
fn every_id_forms_a_group_of_its_own_in_which_every_type_is_summed_exactly() {
    let folder = RunFolder::new();
    let Some(nccl) = stand_in(&folder, &[]) else {
        return;
    };
    for element in [Element::F32, Element::Bf16, Element::F16] {
        let id = nccl.unique_id().unwrap();
        assert_ne!(id, nccl.unique_id().unwrap());
        let nccl = Arc::clone(&nccl);
        let done = ranks(4, move |rank| {
            let mut group = Communicator::form(&nccl, id, rank, 4, LIMIT)?;
            let addends = addends(element, rank, 1003);
            let total = reduce(&mut group, element, &addends, 1003, LIMIT)?;
            group.end(LIMIT)?;
            Ok::<_, NcclError>(total)
        });
        let keys: Vec<u32> = (0..4).map(|rank| exact::key(3, rank, 8)).collect();
        let expected = whole(element, 1003, &keys, 4);
        for total in done {
            assert_eq!(total.unwrap(), expected, "{}", element.name());
        }
    }
}

#[test]
fn a_type_that_it_does_not_sum_is_refused_with_those_that_are_known() {
    let folder = RunFolder::new();
    let Some(nccl) = stand_in(&folder, &[]) else {
        return;
    };
    let id = nccl.unique_id().unwrap();
    let mut group = Communicator::form(&nccl, id, 0, 1, LIMIT).unwrap();
    let error = reduce(&mut group, Element::I32, &[0; 4], 1, LIMIT).unwrap_err();
    assert_eq!(
        error.to_string(),
        "NCCL sums no i32 here; known: f32, bf16, f16"
    );
}

/// The error within the watchdog's time and that of an abort, on a busy machine.
fn given_up(forming: impl FnOnce() -> Result<Communicator, NcclError>) -> NcclError {
    let began = Instant::now();
    let error = forming().err().unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    error
}

#[test]
fn a_group_that_never_forms_is_given_up_within_the_limit_and_names_the_rank_that_waited() {
    let folder = RunFolder::new();
    let Some(nccl) = stand_in(&folder, &["NEVER_READY"]) else {
        return;
    };
    let id = nccl.unique_id().unwrap();
    let error = given_up(|| Communicator::form(&nccl, id, 1, 2, WATCHDOG));
    let NcclError::Hung {
        rank,
        ranks,
        waited_ms,
        abort,
        ..
    } = &error
    else {
        unreachable!("{error}")
    };
    assert_eq!((*rank, *ranks, abort), (1, 2, &Abort::Done));
    assert!(u128::from(*waited_ms) >= WATCHDOG.as_millis());
    assert!(error.to_string().contains("rank 1 waited"), "{error}");
}

#[test]
fn ranks_with_two_ids_do_not_meet_and_both_give_up() {
    let folder = RunFolder::new();
    let Some(nccl) = stand_in(&folder, &[]) else {
        return;
    };
    let ids: Vec<UniqueId> = (0..2).map(|_| nccl.unique_id().unwrap()).collect();
    let formed = ranks(2, move |rank| {
        Communicator::form(&nccl, ids[rank as usize], rank, 2, WATCHDOG).map(drop)
    });
    for (rank, formed) in (0..).zip(formed) {
        let error = formed.unwrap_err();
        let hung =
            matches!(&error, NcclError::Hung { rank: r, abort: Abort::Done, .. } if *r == rank);
        assert!(hung, "{error}");
    }
}

#[test]
fn a_group_of_another_size_than_asked_for_is_refused() {
    let folder = RunFolder::new();
    let Some(nccl) = stand_in(&folder, &["COUNT=3"]) else {
        return;
    };
    let id = nccl.unique_id().unwrap();
    let error = given_up(|| Communicator::form(&nccl, id, 0, 1, LIMIT));
    let wanted = NcclError::Another {
        rank: 0,
        ranks: 1,
        found_rank: 0,
        found: 3,
    };
    assert_eq!(error, wanted);
}

#[test]
fn a_group_that_fails_by_itself_says_what_the_library_says_and_is_aborted() {
    let folder = RunFolder::new();
    let Some(nccl) = stand_in(&folder, &["FAILS=6"]) else {
        return;
    };
    let id = nccl.unique_id().unwrap();
    let error = given_up(|| Communicator::form(&nccl, id, 0, 1, LIMIT));
    let failed = matches!(
        &error,
        NcclError::Failed {
            abort: Abort::Done,
            ..
        }
    );
    assert!(failed, "{error}");
    let said = error.to_string();
    assert!(
        said.contains("stand-in error (6), said by the stand-in"),
        "{said}"
    );
}

#[test]
fn a_sum_that_hangs_is_aborted_by_the_watchdog_and_its_group_reduces_no_more() {
    let folder = RunFolder::new();
    let Some(nccl) = stand_in(&folder, &["HANGS"]) else {
        return;
    };
    let id = nccl.unique_id().unwrap();
    let errors = ranks(2, move |rank| {
        let mut group = Communicator::form(&nccl, id, rank, 2, LIMIT).unwrap();
        let addends = addends(Element::F32, rank, 16);
        let hung = reduce(&mut group, Element::F32, &addends, 16, WATCHDOG).unwrap_err();
        let after = reduce(&mut group, Element::F32, &addends, 16, WATCHDOG).unwrap_err();
        (hung, after)
    });
    for (rank, (hung, after)) in (0..).zip(errors) {
        assert!(
            hung.to_string().contains("to all-reduce with 2 ranks"),
            "{hung}"
        );
        assert!(
            matches!(
                hung,
                NcclError::Hung {
                    abort: Abort::Done,
                    ..
                }
            ),
            "{hung}"
        );
        assert_eq!(after, NcclError::Ended { rank });
    }
}

#[test]
fn ranks_that_reduce_different_sizes_give_up_within_the_watchdogs_time() {
    let folder = RunFolder::new();
    let Some(nccl) = stand_in(&folder, &[]) else {
        return;
    };
    let id = nccl.unique_id().unwrap();
    let errors = ranks(2, move |rank| {
        let mut group = Communicator::form(&nccl, id, rank, 2, LIMIT).unwrap();
        let count = 16 + rank as usize;
        let addends = addends(Element::F32, rank, count);
        reduce(&mut group, Element::F32, &addends, count, WATCHDOG).unwrap_err()
    });
    let hung = |e: &NcclError| matches!(e, NcclError::Hung { .. });
    assert!(errors.iter().all(hung), "{errors:?}");
}

#[test]
fn an_abort_that_hangs_as_well_holds_nobody_up_and_is_told() {
    let folder = RunFolder::new();
    let Some(nccl) = stand_in(&folder, &["NEVER_READY", "ABORT_HANGS"]) else {
        return;
    };
    let id = nccl.unique_id().unwrap();
    let error = given_up(|| Communicator::form(&nccl, id, 0, 2, WATCHDOG));
    assert!(
        matches!(
            error,
            NcclError::Hung {
                abort: Abort::Hung,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error.to_string().contains("the abort did not return"),
        "{error}"
    );
}
