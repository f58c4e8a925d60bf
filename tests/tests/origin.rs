//! Who chose what was measured, and by what: devices, libraries and programs that somebody brought in by hand are told.
//!
//! Real runs of the program on the processor's cores, a second long each.

use hallmark_profiles::workload::AuditSeed;
use hallmark_results::frame::{FaultKind, Provenance, What};
use hallmark_results::plan::Plan;
use hallmark_results::standing::Standing;
use hallmark_results::store::journal::JournalReader;
use hallmark_results::verdict::{Outcome, Verdict, judge};
use hallmark_tests::judged::standing;
use hallmark_tests::program::{self, Finished, RunFolder, finish, hallmark};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);

/// A second of matmuls.
fn tiny(duration: &str) -> String {
    format!(
        r#"
schema_version = 1
name = "tiny"
summary = "A second of matmuls."
[load]
dtype = ["f32"]
matmul = {{ m = 128, n = 128, k = 128 }}
bucket = "1 MiB"
audit_share = 0.5
[load.ramp]
levels = [0.5, 1.0]
hold = "0 s"
[load.warmup]
least = "200 ms"
limit = "5 s"
window = "400 ms"
rate_tolerance = 0.9
temperature_tolerance = "100 K"
[[load.phase]]
name = "steady"
pattern = "steady"
duration = "{duration}"
[telemetry]
period = "100 ms"
block = "100 ms"
"#
    )
}

struct Ran {
    finished: Finished,
    standing: Standing,
    verdict: Verdict,
    _folder: RunFolder,
}

impl Ran {
    fn plan(&self) -> &Plan {
        &self.standing.opened().plan
    }
}

fn command(folder: &RunFolder, arguments: &[&str]) -> Command {
    let profile = folder.write("tiny.toml", &tiny("1 s"));
    let mut command = hallmark(["run", "--ui", "plain"]);
    command.arg(profile).arg("--out").arg(folder.run());
    command.args(arguments);
    command
}

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
    let folder = RunFolder::new();
    let mut command = command(&folder, arguments);
    command.envs(environment.iter().copied());
    let finished = finish(command, PATIENCE);
    let standing = standing(&folder.run());
    Ran {
        verdict: judge(&standing),
        finished,
        standing,
        _folder: folder,
    }
}

#[test]
fn declared_devices_that_are_not_here_fail_the_inventory_and_the_others_go_on() {
    let ran = run(&["--expect-devices", "90"], &[]);
    let here = ran.plan().devices.len();
    let missing = |e: &&hallmark_results::frame::Event| {
        matches!(
            e.what,
            What::Fault {
                kind: FaultKind::Missing,
                ..
            }
        )
    };
    let told = ran.standing.events().iter().filter(missing).count();
    assert_eq!(told, 90 - here);
    let finding = ran.verdict.findings.iter();
    let mut inventory = finding.filter(|f| f.criterion.name == "inventory");
    assert_eq!(inventory.next().unwrap().outcome, Outcome::Failed);
    assert!(ran.standing.devices().iter().all(|d| d.steps > 0));
    let _ = ran.finished.expect_code(1);
}

#[test]
fn devices_chosen_by_name_are_written_into_the_plan_and_each_run_draws_its_own_audits() {
    let all = run(&[], &[]);
    assert_eq!(all.plan().overrides, [""; 0]);
    let one = run(&["--devices", "cpu0"], &[]);
    assert_eq!(one.plan().devices.len(), 1);
    assert_eq!(one.plan().overrides.len(), 1);
    assert!(one.plan().overrides[0].starts_with("--devices cpu0: "));
    assert!(
        one.finished.stdout.contains("--devices cpu0"),
        "{}",
        one.finished
    );
    let seed = |ran: &Ran| ran.plan().steps[0].audit_seed.unwrap();
    assert_ne!(seed(&all), seed(&one));
    assert_ne!(seed(&all), AuditSeed(all.plan().seed));
    assert!(
        all.standing
            .devices()
            .iter()
            .all(|d| d.audited > 0 && d.mismatches == 0)
    );
}

#[test]
fn another_worker_program_makes_every_device_a_stand_in_and_the_run_never_passes() {
    let folder = RunFolder::new();
    let script = format!("#!/bin/sh\nexec {} \"$@\"\n", program::binary().display());
    let other = folder.write("worker", &script);
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&other, executable).unwrap();
    let other = other.to_str().unwrap();
    let ran = run(&[], &[("HALLMARK_WORKER_BINARY", other)]);
    let stand_in = |d: &hallmark_results::plan::PlannedDevice| d.provenance == Provenance::StandIn;
    assert!(ran.plan().devices.iter().all(stand_in));
    assert!(ran.plan().overrides.iter().any(|o| o.contains(other)));
    assert_ne!(ran.verdict.outcome, Outcome::Passed);
    assert!(ran.finished.stdout.contains("STAND-IN"), "{}", ran.finished);
    let _ = ran.finished.expect_code(3);
}

#[test]
fn this_programs_own_path_in_the_environment_changes_nothing() {
    let own = program::binary();
    let ran = run(&[], &[("HALLMARK_WORKER_BINARY", own.to_str().unwrap())]);
    assert_eq!(ran.plan().overrides, [""; 0]);
    let measured = |d: &hallmark_results::plan::PlannedDevice| d.provenance == Provenance::Measured;
    assert!(ran.plan().devices.iter().all(measured));
}

#[test]
fn a_telemetry_library_named_by_the_environment_is_told() {
    let ran = run(&[], &[("HALLMARK_NVML", "/nowhere/libnvidia-ml.so.1")]);
    let told = |o: &String| o.starts_with("--nvml /nowhere/libnvidia-ml.so.1: ");
    assert!(
        ran.plan().overrides.iter().any(told),
        "{:?}",
        ran.plan().overrides
    );
}

#[test]
fn the_halls_acceptance_does_not_begin_before_its_devices_are_declared() {
    let finished = finish(hallmark(["run", "hall-acceptance"]), PATIENCE).expect_code(2);
    let error = finished.stderr.trim();
    assert!(error.contains("--expect-devices N"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

/// Killed when the test is over, however it ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_resumed_run_takes_no_library_and_no_program_that_it_did_not_begin_with() {
    let folder = RunFolder::new();
    let mut command = command(&folder, &[]);
    folder.write("tiny.toml", &tiny("10 min"));
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let running = Killed(child.unwrap());
    let frames =
        || JournalReader::open(&folder.run()).map_or(0, |r| r.take_while(Result::is_ok).count());
    let begun = Instant::now();
    while frames() < 20 {
        assert!(begun.elapsed() < PATIENCE, "the load does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(running);
    let resume = |name: &str, value: &str| {
        let mut command = hallmark(["resume", "--ui", "plain"]);
        command.arg(folder.run()).env(name, value);
        finish(command, PATIENCE).expect_code(2).stderr
    };
    let error = resume("HALLMARK_NVML", "/nowhere/libnvidia-ml.so.1");
    assert!(
        error.contains("cannot go on with --nvml /nowhere"),
        "{error}"
    );
    let error = resume("HALLMARK_WORKER_BINARY", "/bin/true");
    assert!(error.contains("/bin/true"), "{error}");
}
