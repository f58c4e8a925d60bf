//! Ranks as real processes: exact totals, and a rank killed while it reduces.

use super::tests::{LONG, check, fill};
use super::{HostCollective, Region};
use crate::collective::{Collective, CollectiveError};
use crate::timer::now_ns;
use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const CHILD: &str = "HALLMARK_TEST_RANK";

/// This test binary again, as `rank` of the region; it obeys lines on its standard input.
fn child(region: &Region, rank: u32, ranks: u32, bytes: u64) -> Child {
    let (_, name) = module_path!().split_once("::").unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture"])
        .arg(format!("{name}::a_rank_as_a_process"))
        .env(
            CHILD,
            format!("{rank} {ranks} {bytes} {}", region.path().display()),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The part of a process test that runs in the child.
#[test]
#[ignore = "runs only as a child of the process tests"]
fn a_rank_as_a_process() {
    let orders = std::env::var(CHILD).unwrap();
    let mut words = orders.splitn(4, ' ');
    let mut next = || words.next().unwrap();
    let (rank, ranks, bytes) = (
        next().parse().unwrap(),
        next().parse().unwrap(),
        next().parse().unwrap(),
    );
    let region = Region::attach(Path::new(next()), ranks, &[bytes]).unwrap();
    let mut group = HostCollective::join(Arc::new(region), rank, now_ns, LONG).unwrap();
    println!("\nready");
    let mut iteration = 0;
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let mut words = line.split(' ');
        match words.next().unwrap() {
            "reduce" => {
                let times: u64 = words.next().unwrap().parse().unwrap();
                let limit = Duration::from_millis(words.next().unwrap().parse().unwrap());
                let mut outcome = "exact".to_owned();
                for _ in 0..times {
                    fill(&mut group, 0, iteration);
                    match group.all_reduce(0, limit) {
                        Ok(_) => check(&group, 0, iteration),
                        Err(CollectiveError::TimedOut { waiting_for, .. }) => {
                            outcome = format!("lost {waiting_for:?}");
                        }
                        Err(CollectiveError::Aborted { lost, .. }) => {
                            outcome = format!("lost {lost:?}")
                        }
                        Err(other) => outcome = other.to_string(),
                    }
                    if outcome != "exact" {
                        break;
                    }
                    iteration += 1;
                }
                println!("\n{outcome}");
            }
            "regroup" => {
                let members: Vec<u32> = words.map(|w| w.parse().unwrap()).collect();
                group
                    .regroup(group.generation() + 1, &members, LONG)
                    .unwrap();
                iteration = 1_000_000;
                println!("\nregrouped");
            }
            other => panic!("{other}"),
        }
    }
}

fn say(child: &mut Child, line: &str) {
    writeln!(child.stdin.as_mut().unwrap(), "{line}").unwrap();
}

/// The next line of the child's own, past what the test harness prints.
fn hear(child: &mut Child) -> String {
    let out = child.stdout.as_mut().unwrap();
    let mut line = String::new();
    loop {
        let mut byte = [0];
        // One byte at a time, so that nothing is buffered away from the next call.
        assert_eq!(
            out.read(&mut byte).unwrap(),
            1,
            "the child ended after `{line}`"
        );
        if byte[0] != b'\n' {
            line.push(byte[0] as char);
            continue;
        }
        if ["ready", "exact", "lost", "regrouped", "rank"]
            .iter()
            .any(|w| line.starts_with(w))
        {
            return line;
        }
        line.clear();
    }
}

fn end(mut child: Child) {
    drop(child.stdin.take());
    let mut rest = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_to_string(&mut rest)
        .unwrap();
    assert!(child.wait().unwrap().success(), "{rest}");
}

#[test]
fn processes_reduce_exactly() {
    for (n, floats) in [(2, 1_000_003), (3, 17), (8, 100_001)] {
        let region = Region::create(n, &[floats * 4]).unwrap();
        let mut children: Vec<_> = (0..n).map(|r| child(&region, r, n, floats * 4)).collect();
        for c in &mut children {
            assert_eq!(hear(c), "ready");
            say(c, "reduce 20 20000");
        }
        for mut c in children {
            assert_eq!(hear(&mut c), "exact");
            end(c);
        }
    }
}

#[test]
fn a_killed_process_is_named_and_the_survivors_finish_without_it() {
    let floats = 1_000_003u64;
    for delay_ms in [1, 30] {
        let region = Region::create(3, &[floats * 4]).unwrap();
        let mut children: Vec<_> = (0..3).map(|r| child(&region, r, 3, floats * 4)).collect();
        for c in &mut children {
            assert_eq!(hear(c), "ready");
        }
        for c in &mut children {
            say(c, "reduce 1000000 1000");
        }
        std::thread::sleep(Duration::from_millis(delay_ms));
        let mut dead = children.remove(1);
        dead.kill().unwrap(); // SIGKILL
        dead.wait().unwrap();
        let began_ns = now_ns();
        for c in &mut children {
            assert_eq!(hear(c), "lost [1]");
        }
        assert!(
            now_ns() - began_ns < 5_000_000_000,
            "{} ns",
            now_ns() - began_ns
        );
        for c in &mut children {
            say(c, "regroup 0 2");
        }
        for c in &mut children {
            assert_eq!(hear(c), "regrouped");
            say(c, "reduce 20 20000");
        }
        for mut c in children {
            assert_eq!(hear(&mut c), "exact");
            end(c);
        }
    }
}
