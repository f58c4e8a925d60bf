//! A profile of seconds with a sweep of all-reduces, for tests of what reduces.

use crate::RunFolder;

/// Largest payload of the sweep, B, and how often each is reduced.
pub const LARGEST: u64 = 128 << 10;
pub const ITERATIONS: u64 = 20;

/// Smoke with phases of seconds, a sweep among them, and nothing judged that other work on the machine can miss; gives the
/// file's path.
///
/// # Panics
/// It cannot be written.
#[must_use]
pub fn profile(folder: &RunFolder, sweep_s: u32) -> String {
    let smoke = hallmark_profiles::profile::load("smoke")
        .expect("a built-in profile")
        .text;
    let load = smoke.split("[[load.phase]]").next().unwrap_or_default();
    let load = load
        .replace("\"smoke\"", "\"swept\"")
        .replace("fit_step = \"120 ms\"", "fit_step = \"30 ms\"")
        .replace("least = \"4 s\"", "least = \"1 s\"")
        .replace("limit = \"25 s\"", "limit = \"2 s\"")
        .replace("window = \"4 s\"", "window = \"1 s\"");
    let train_s = sweep_s + 1;
    let text = format!(
        "{load}
[[load.phase]]
name = \"all-reduce\"
pattern = \"sweep\"
duration = \"{sweep_s} s\"
sweep = {{ largest = \"128 KiB\", iterations = {ITERATIONS}, warm_up = 3 }}

[[load.phase]]
name = \"train\"
pattern = \"training\"
duration = \"{train_s} s\"

[telemetry]
period = \"100 ms\"
block = \"1 s\"
metrics = [\"cpu_load\"]

[[criterion]]
name = \"self-test\"
metric = \"self_test\"
scope = \"gpu\"
statistic = \"min\"
at_least = \"1\"

[[criterion]]
name = \"integrity\"
metric = \"audit_errors\"
scope = \"gpu\"
statistic = \"total\"
at_most = \"0\"

[[criterion]]
name = \"latency\"
metric = \"allreduce_latency\"
scope = \"group\"
phase = \"all-reduce\"
statistic = \"median\"
at_most = \"10 s\"

[[criterion]]
name = \"bandwidth\"
metric = \"allreduce_busbw\"
scope = \"group\"
phase = \"all-reduce\"
statistic = \"median\"
at_least = \"1 kB/s\"
"
    );
    let path = folder.write("swept.toml", &text);
    path.display().to_string()
}
