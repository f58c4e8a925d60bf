//! What cannot run is refused before anything is written: one clear line, exit 2, an empty folder.
//!
//! Every line says what is wrong, with the value, and what is known or what to do; a fault of a profile's has its
//! file and line.

#![expect(
    clippy::panic,
    reason = "a test, and what it is built of, fails by a panic"
)]

use hallmark_tests::program::{Finished, RunFolder, finish, hallmark};
use std::time::Duration;

/// Nothing is started, so this is short even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs in an empty folder with a profile beside it, and gives the refusal back.
fn refusal(folder: &RunFolder, arguments: &[&str]) -> String {
    let inside = folder.path().join("inside");
    std::fs::create_dir_all(&inside).unwrap_or_else(|e| panic!("{e}"));
    let mut command = hallmark(arguments);
    command.current_dir(&inside);
    let finished = finish(command, PATIENCE).expect_code(2);
    let written: Vec<_> = std::fs::read_dir(&inside)
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    assert!(written.is_empty(), "{arguments:?} wrote {written:?}");
    one_line(&finished)
}

/// # Panics
/// It said anything on its output, or not exactly one plain line of bounded length beside it.
fn one_line(finished: &Finished) -> String {
    assert_eq!(finished.stdout, "", "{finished}");
    let mut lines = finished.stderr.lines();
    let line = lines.next().unwrap_or_default().to_owned();
    assert_eq!(lines.next(), None, "more than one line: {finished}");
    assert!(line.starts_with("hallmark: "), "{finished}");
    assert!(!line.contains(char::is_control), "{line:?}");
    line.trim_start_matches("hallmark: ").to_owned()
}

/// The profile `smoke`, changed in one place.
fn changed(from: &str, to: &str) -> String {
    let (_, smoke) = hallmark_profiles::profile::BUILT_IN[0];
    assert!(smoke.contains(from), "`{from}` is no part of smoke");
    smoke.replacen(from, to, 1)
}

/// Refuses a profile both when it is to run and when it is checked, at the line where `mark` stands.
fn profile_refused(text: &str, mark: &str, wanted: &[&str]) {
    let folder = RunFolder::new();
    folder.write("p.toml", text);
    let line = text.lines().position(|l| l.contains(mark)).map(|i| i + 1);
    let line = line.unwrap_or_else(|| panic!("`{mark}` is nowhere in the profile"));
    let said = refusal(&folder, &["run", "../p.toml", "--devices", "cpu"]);
    assert_eq!(said, refusal(&folder, &["profiles", "check", "../p.toml"]));
    let place = format!("../p.toml:{line}: ");
    assert!(said.starts_with(&place), "not at {place}: {said}");
    for wanted in wanted {
        assert!(said.contains(wanted), "`{wanted}` is missing: {said}");
    }
}

#[test]
fn an_unknown_name_in_a_profile_is_shown_with_its_line_and_those_that_are_known() {
    for (from, to, mark, wanted) in [
        (
            "metric = \"duty\"",
            "metric = \"dutty\"",
            "dutty",
            vec![
                "unknown metric `dutty` (did you mean `duty`?); known: matmul_rate, ",
                "step_time",
            ],
        ),
        (
            "at_least = \"5 %\"",
            "at_least = \"5 parsecs\"",
            "parsecs",
            vec!["unknown unit `parsecs` in `5 parsecs`; known: ns, ", "°C"],
        ),
        (
            "dtype = [\"f32\"]",
            "dtype = [\"f31\"]",
            "f31",
            vec!["unknown dtype `f31`; known: `f64`, `f32`", "`int8`"],
        ),
        (
            "scope = \"site\"",
            "scope = \"town\"",
            "town",
            vec!["unknown scope `town`; known: `gpu`, `node`", "`site`"],
        ),
        (
            "statistic = \"p95\"",
            "statistic = \"p195\"",
            "p195",
            vec!["p195", "known: median"],
        ),
        (
            "pattern = \"memory\"",
            "pattern = \"memorial\"",
            "memorial",
            vec!["unknown pattern `memorial`; known: `steady`, `training`, `pulse`, `memory`"],
        ),
        (
            "queue_depth = 3",
            "queue_deep = 3",
            "queue_deep",
            vec!["unknown key `queue_deep`; known: `dtype`", "`queue_depth`"],
        ),
        (
            "statistic = \"p95\"\n",
            "statistic = \"p95\"\nphase = \"trian\"\n",
            "name = \"step-time\"",
            vec!["unknown phase `trian`; this profile has: compute, collective, memory, train"],
        ),
    ] {
        // A criterion's own rule points at where the criterion opens, one line above its name.
        let mark = if mark.starts_with("name") {
            "[[criterion]]"
        } else {
            mark
        };
        if mark == "[[criterion]]" {
            let folder = RunFolder::new();
            folder.write("p.toml", &changed(from, to));
            let said = refusal(&folder, &["run", "../p.toml"]);
            assert!(said.starts_with("../p.toml:"), "{said}");
            assert!(wanted.iter().all(|w| said.contains(w)), "{said}");
        } else {
            profile_refused(&changed(from, to), mark, &wanted);
        }
    }
}

#[test]
fn a_sweep_that_cannot_be_meant_is_refused_at_the_line_where_its_phase_opens() {
    let sweep = |inside: &str| {
        let phase = format!(
            "name = \"sweep\"\npattern = \"sweep\"\nduration = \"1 s\"\n{inside}\n\n[telemetry]"
        );
        changed("[telemetry]", &format!("[[load.phase]]\n{phase}"))
    };
    let with = |largest: &str, iterations: u32, warm_up: u32| {
        sweep(&format!(
            "sweep = {{ largest = \"{largest}\", iterations = {iterations}, warm_up = {warm_up} }}"
        ))
    };
    for (text, wanted) in [
        (
            sweep(""),
            "phase `sweep` needs sweep = { largest, iterations, warm_up }",
        ),
        (
            with("3 MiB", 20, 5),
            "power of two from 8.00\u{a0}B to 16\u{a0}GiB, not 3\u{a0}MiB",
        ),
        (with("4 B", 20, 5), "needs a `largest`"),
        (with("32 GiB", 20, 5), "needs a `largest`"),
        (with("1 MiB", 0, 5), "`iterations` from 1 to 10000, not 0"),
        (
            with("1 MiB", 10_001, 5),
            "`iterations` from 1 to 10000, not 10001",
        ),
        (with("1 MiB", 20, 0), "`warm_up` from 1 to 1000, not 0"),
        (
            with("1 MiB", 20, 5).replace("pattern = \"sweep\"", "pattern = \"steady\""),
            "phase `sweep` needs a [load.matmul]",
        ),
        (
            with("1 MiB", 20, 5).replace("pattern = \"sweep\"", "pattern = \"memory\""),
            "phase `sweep` is no sweep, yet has `sweep`",
        ),
    ] {
        let opens = text
            .lines()
            .position(|l| l == "name = \"sweep\"")
            .unwrap_or(0);
        let folder = RunFolder::new();
        folder.write("p.toml", &text);
        let said = refusal(&folder, &["profiles", "check", "../p.toml"]);
        assert!(said.starts_with(&format!("../p.toml:{opens}: ")), "{said}");
        assert!(said.contains(wanted), "`{wanted}` is missing: {said}");
    }
    let longest = with("1 MiB", 20, 5).replace("duration = \"1 s\"", "duration = \"1 h\"");
    profile_refused(&longest, "sweep = {", &["the longest phase is a sweep"]);
    let unknown = with("1 MiB", 20, 5).replace("warm_up", "warmup");
    profile_refused(
        &unknown,
        "warmup = 5",
        &["unknown key `warmup`; known: `largest`"],
    );
}

#[test]
fn a_duration_of_zero_or_less_is_refused_in_a_profile_and_on_the_command_line() {
    for bad in ["0 s", "-8 s", "8 parsecs", "8", "200 day"] {
        let text = changed("duration = \"6 s\"", &format!("duration = \"{bad}\""));
        profile_refused(&text, &format!("\"{bad}\""), &[bad]);
        let folder = RunFolder::new();
        let said = refusal(&folder, &["run", "--duration", bad]);
        assert!(
            said.contains(&format!("'{bad}' for '--duration <TIME>'")),
            "{said}"
        );
    }
    let folder = RunFolder::new();
    let said = refusal(&folder, &["run", "--duration", "0s"]);
    assert!(
        said.contains("`0s` is not above zero; write how long, such as `10 min`"),
        "{said}"
    );
}

#[test]
fn a_run_too_short_for_its_phases_is_refused_with_the_shortest_that_will_do() {
    let folder = RunFolder::new();
    let said = refusal(&folder, &["run", "--devices", "cpu", "--duration", "1 s"]);
    assert!(
        said.contains("phase `memory` would last 49.2\u{a0}ms"),
        "{said}"
    );
    assert!(said.ends_with("use at least 4.10\u{a0}s"), "{said}");
}

#[test]
fn a_criterion_on_what_the_profile_never_measures_is_refused_with_what_it_measures() {
    let text = changed("metric = \"duty\"", "metric = \"rack_density\"");
    let opens = text
        .lines()
        .position(|l| l.contains("rack_density"))
        .unwrap_or(0)
        - 1;
    let folder = RunFolder::new();
    folder.write("p.toml", &text);
    let said = refusal(&folder, &["run", "../p.toml"]);
    // Two lines above its metric stands where the criterion opens.
    let place = format!("../p.toml:{opens}: criterion `completion` judges rack_density");
    assert!(said.starts_with(&place), "{place}: {said}");
    assert!(
        said.contains("never measures; it measures: matmul_rate, "),
        "{said}"
    );
    assert!(said.ends_with("cpu_load"), "{said}");
    assert!(
        !said.contains("kernel_rate"),
        "what is never judged is not offered: {said}"
    );
}

#[test]
fn kernel_rate_is_never_judged_and_the_refusal_says_why() {
    let text = changed("metric = \"duty\"", "metric = \"kernel_rate\"").replacen(
        "at_least = \"95 %\"",
        "at_least = \"1 GFLOP/s\"",
        1,
    );
    let folder = RunFolder::new();
    folder.write("p.toml", &text);
    let said = refusal(&folder, &["run", "../p.toml"]);
    assert!(
        said.contains("criterion `completion`: kernel_rate is never judged: it hides every stall between matmuls; judge matmul_rate"),
        "{said}"
    );
}

#[test]
fn an_unknown_profile_device_format_or_command_lists_those_that_are_known() {
    let folder = RunFolder::new();
    for (arguments, wanted) in [
        (
            vec!["run", "smok"],
            "unknown profile `smok`; built in: smoke, burn-in, soak, hall-acceptance, vendor-compare, burn; or give the path of a .toml file",
        ),
        (
            vec!["profiles", "show", "smok"],
            "unknown profile `smok`; built in: smoke",
        ),
        (
            vec!["run", "./none.toml"],
            "cannot read profile ./none.toml: No such file or directory",
        ),
        (
            vec!["run", "--devices", "gpu99"],
            "unknown device `gpu99`; this machine has: ",
        ),
        (
            vec!["run", "--devices", "cpu0,tpu"],
            "unknown device `tpu`; this machine has: ",
        ),
        (
            vec!["report", ".", "--format", "pdf"],
            "unknown report format `pdf`; known: text, json, junit, markdown, html, nccl",
        ),
        (
            vec!["judge", ".", "--format", "pdf"],
            "unknown report format `pdf`; known: ",
        ),
        (
            vec!["run", "--ui", "loud"],
            "invalid value 'loud' for '--ui <UI>' [possible values: auto, live, plain, json]; see '--help'",
        ),
        (
            vec!["rum"],
            "unrecognized subcommand 'rum'; some similar subcommands exist: 'run', 'resume'; see '--help'",
        ),
        (
            vec!["run", "--sede", "7"],
            "unexpected argument '--sede' found; a similar argument exists: '--seed'; see '--help'",
        ),
        (
            vec!["run", "--seed", "x"],
            "invalid value 'x' for '--seed <N>': invalid digit found in string; see '--help'",
        ),
        (
            vec!["judge"],
            "the following required arguments were not provided: <RECORD>; see '--help'",
        ),
        (
            vec!["run", "--replay", "none.csv"],
            "cannot read none.csv: No such file or directory",
        ),
        (
            vec!["resume", "."],
            ". holds neither a journal nor a sealed record; name the folder of a run",
        ),
        (
            vec!["seal", "."],
            ". holds neither a journal nor a sealed record; name the folder of a run",
        ),
    ] {
        let said = refusal(&folder, &arguments);
        assert!(said.starts_with(wanted), "{arguments:?}: {said}");
    }
}

#[test]
fn a_dtype_that_no_device_has_is_refused_with_those_that_each_has() {
    let folder = RunFolder::new();
    folder.write(
        "p.toml",
        &changed("dtype = [\"f32\"]", "dtype = [\"fp8_e4m3\"]"),
    );
    let said = refusal(&folder, &["run", "../p.toml", "--devices", "cpu"]);
    assert!(
        said.contains("asks for (fp8_e4m3) is on every device: cpu0 has") && said.contains("f32"),
        "{said}"
    );
}

#[test]
fn work_that_does_not_fit_says_what_is_free_and_what_is_needed() {
    let sized = |model: &str| {
        changed("fit_step = \"120 ms\"\n", "").replacen(
            "model = { hidden = 512, ffn = 2048, tokens = 512, layers = 2 }",
            &format!("model = {{ {model} }}"),
            1,
        )
    };
    let folder = RunFolder::new();
    for (model, wanted) in [
        (
            "hidden = 16384, ffn = 65536, tokens = 65536, layers = 8",
            " free, the profile's steps need 1.08\u{a0}TiB (largest matmul 16384×65536×65536); use smaller matmuls or stop other jobs",
        ),
        // As large as may be written: refused at once, not after counting its buckets.
        (
            "hidden = 1048576, ffn = 1048576, tokens = 1048576, layers = 4096",
            " free, the profile's steps need ",
        ),
        (
            "hidden = 4000000000, ffn = 1, tokens = 1, layers = 1",
            "model dimension 4000000000 is above the most there may be, 1048576",
        ),
        (
            "hidden = 1, ffn = 1, tokens = 1, layers = 4000000000",
            "4000000000 layers are more than there may be on one rank, 4096",
        ),
        (
            "hidden = 0, ffn = 1, tokens = 1, layers = 1",
            "model dimensions must be at least 1",
        ),
    ] {
        folder.write("p.toml", &sized(model));
        let said = refusal(&folder, &["run", "../p.toml", "--devices", "cpu"]);
        assert!(said.contains(wanted), "{model}: {said}");
        assert!(
            !wanted.starts_with(' ') || said.starts_with("cpu0 has "),
            "{said}"
        );
    }
    folder.write("p.toml", &changed("bucket = \"4 MiB\"", "bucket = \"4 B\""));
    let said = refusal(&folder, &["run", "../p.toml", "--devices", "cpu"]);
    assert!(
        said.contains("in more than 65536 buckets of 4\u{a0}B; use a larger `bucket`"),
        "{said}"
    );
}

#[test]
fn a_folder_that_holds_something_is_left_as_it_is() {
    let folder = RunFolder::new();
    let run = folder.run();
    std::fs::create_dir(&run).unwrap_or_else(|e| panic!("{e}"));
    let kept = folder.write("run/notes.txt", "mine");
    let out = run.display().to_string();
    let said = refusal(&folder, &["run", "--devices", "cpu", "--out", &out]);
    assert_eq!(
        said,
        format!("{out} holds something already; give --out a new folder")
    );
    let text = std::fs::read_to_string(kept).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(text, "mine");
    let count = std::fs::read_dir(&run).into_iter().flatten().count();
    assert_eq!(count, 1);
}

#[test]
fn what_a_profile_holds_reaches_the_terminal_as_plain_text() {
    let folder = RunFolder::new();
    folder.write(
        "p.toml",
        &changed("dtype = [\"f32\"]", "dtype = [\"\\u001b[31mf32\"]"),
    );
    let said = refusal(&folder, &["run", "../p.toml"]);
    assert!(said.contains("unknown dtype `[31mf32`"), "{said}");
}
