//! What the CUDA engine promises on a machine without its devices: a driver that is missing, broken, old or out of order
//! is told with its price and remedy, loads nothing else in its stead, and takes nothing along.
//!
//! The driver here is a stand-in written in C, of which every function answers with an error or with one made-up
//! device; it computes nothing, and nothing is measured with it. What holds on a device is asked by `tests/gpu`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what tests are built of fails by a panic"
)]

use hallmark_tests::{Component, Finished, RunFolder, finish, hallmark};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

/// Names of the functions that the engine looks up in the driver.
fn functions() -> Vec<String> {
    let source = include_str!("../../kernels/src/cuda/driver.rs");
    let named = source.lines().filter_map(|line| {
        let (name, _) = line.trim().split_once(": fn(")?;
        name.starts_with("cu").then(|| name.to_owned())
    });
    named.collect()
}

/// A driver in C: `own` are functions with bodies, every other answers with an error.
fn driver(own: &[(&str, &str)], without: &[&str]) -> String {
    let mut text = String::from("#include <string.h>\n");
    for name in functions() {
        if without.contains(&name.as_str()) {
            continue;
        }
        match own.iter().find(|(n, _)| *n == name) {
            Some((_, body)) => text.push_str(&format!("int {name}{body}\n")),
            None => text.push_str(&format!("int {name}(void) {{ return 801; }}\n")),
        }
    }
    text
}

/// One device of compute capability 9.0 with 80 GB.
const ONE_DEVICE: [(&str, &str); 9] = [
    ("cuInit", "(unsigned f) { return 0; }"),
    ("cuDriverGetVersion", "(int* v) { *v = 12040; return 0; }"),
    ("cuDeviceGetCount", "(int* n) { *n = 1; return 0; }"),
    ("cuDeviceGet", "(int* d, int i) { *d = i; return 0; }"),
    (
        "cuDeviceGetName",
        "(char* s, int n, int d) { strncpy(s, \"Stand-in H100\", n); return 0; }",
    ),
    (
        "cuDeviceGetPCIBusId",
        "(char* s, int n, int d) { strncpy(s, \"0000:FE:1F.0\", n); return 0; }",
    ),
    (
        "cuDeviceGetUuid_v2",
        "(char* u, int d) { for (int i = 0; i < 16; i++) u[i] = i; return 0; }",
    ),
    (
        "cuDeviceTotalMem_v2",
        "(unsigned long* b, int d) { *b = 80000000000ul; return 0; }",
    ),
    (
        "cuDeviceGetAttribute",
        "(int* v, int a, int d) { *v = a == 75 ? 9 : a == 76 ? 0 : 132; return 0; }",
    ),
];

/// Builds a driver into `folder`; false where there is no compiler.
fn build(folder: &Path, source: &str) -> bool {
    if Component::Compiler.or_skip().is_none() {
        return false;
    }
    let file = folder.join("driver.c");
    std::fs::write(&file, source).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-w", "-o"])
        .arg(folder.join("libcuda.so.1"))
        .arg(&file)
        .status();
    assert!(built.unwrap().success(), "the stand-in does not compile");
    true
}

fn inspect(folder: &Path) -> Value {
    let mut command = hallmark(["inspect", "--json", "--cuda-lib-path"]);
    command.arg(folder);
    let finished = finish(command, LIMIT).expect_code(0);
    serde_json::from_str(&finished.stdout).unwrap_or_else(|e| panic!("{e}: {finished}"))
}

fn absent(inspected: &Value, what: &str) -> (String, String) {
    let all = inspected["absent"].as_array().unwrap();
    let one = all.iter().find(|a| a["what"] == what);
    let one = one.unwrap_or_else(|| panic!("{what} is not among {all:?}"));
    let text = |key: &str| one[key].as_str().unwrap().to_owned();
    (text("why"), text("remedy"))
}

fn no_panic(finished: &Finished) {
    assert!(!finished.stderr.contains("panicked"), "{finished}");
}

#[test]
fn a_driver_that_is_no_library_is_told_with_its_price_and_remedy() {
    let folder = RunFolder::new();
    folder.write("libcuda.so.1", "not a library");
    let (why, remedy) = absent(&inspect(folder.path()), "libcuda.so.1");
    assert!(
        why.contains("libcuda.so.1") && why.contains("no NVIDIA device"),
        "{why}"
    );
    assert!(remedy.contains("driver"), "{remedy}");
}

#[test]
fn a_driver_that_lacks_a_function_says_which() {
    let folder = RunFolder::new();
    let source = driver(&ONE_DEVICE, &["cuLaunchKernel", "cuEventQuery"]);
    if !build(folder.path(), &source) {
        return;
    }
    let (why, _) = absent(&inspect(folder.path()), "libcuda.so.1");
    assert!(why.contains("cuEventQuery, cuLaunchKernel"), "{why}");
}

#[test]
fn a_driver_that_does_not_start_says_its_code_even_one_that_no_header_names() {
    let folder = RunFolder::new();
    let source = driver(&[("cuInit", "(unsigned f) { return 4711; }")], &[]);
    if !build(folder.path(), &source) {
        return;
    }
    let (why, _) = absent(&inspect(folder.path()), "libcuda.so.1");
    assert!(why.contains("4711"), "{why}");
}

#[test]
fn a_device_is_listed_by_its_address_and_uuid_as_telemetry_knows_it() {
    let folder = RunFolder::new();
    if !build(folder.path(), &driver(&ONE_DEVICE, &[])) {
        return;
    }
    folder.write("libcublasLt.so.12", "not a library");
    folder.write("libcublasLt.so.13", "not a library");
    folder.write("libnccl.so.2", "not a library");
    let inspected = inspect(folder.path());
    let devices = inspected["devices"].as_array().unwrap();
    let device = devices.iter().find(|d| d["id"] == "cuda0").unwrap();
    assert_eq!(device["pci"], "0000:fe:1f.0");
    assert_eq!(device["uuid"], "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f");
    assert_eq!(device["software"], false);
    let (why, remedy) = absent(&inspected, "libcublasLt.so.13");
    assert!(why.contains("own kernels"), "{why}");
    assert!(remedy.contains("--cuda-lib-path"), "{remedy}");
    let (why, remedy) = absent(&inspected, "libnccl.so.2");
    assert!(why.contains("NVIDIA's own collectives"), "{why}");
    assert!(
        remedy.contains("2.18") && remedy.contains("--cuda-lib-path"),
        "{remedy}"
    );
}

#[test]
fn an_nccl_that_is_there_is_listed_with_its_version_and_file() {
    let folder = RunFolder::new();
    if !build(folder.path(), &driver(&ONE_DEVICE, &[])) {
        return;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fake-nccl/nccl.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-w", "-pthread", "-o"])
        .arg(folder.path().join("libnccl.so.2"))
        .arg(source)
        .status();
    assert!(built.unwrap().success(), "the stand-in does not compile");
    let inspected = inspect(folder.path());
    let facts = inspected["devices"].as_array().unwrap().iter();
    let facts: Vec<&Value> = facts
        .filter(|d| d["id"] == "cuda0")
        .flat_map(|d| d["facts"].as_array().unwrap())
        .collect();
    let nccl = facts.iter().find(|f| f[0] == "nccl").unwrap();
    let about = nccl[1].as_str().unwrap();
    assert!(
        about.starts_with("2.27.3, ") && about.ends_with("libnccl.so.2"),
        "{about}"
    );
    let others = inspected["absent"].as_array().unwrap();
    assert!(
        others.iter().all(|a| a["what"] != "libnccl.so.2"),
        "{others:?}"
    );
}

#[test]
fn a_device_before_the_kernels_is_named_as_absent_and_not_listed() {
    let folder = RunFolder::new();
    let mut old = ONE_DEVICE;
    old[8].1 = "(int* v, int a, int d) { *v = a == 75 ? 7 : 0; return 0; }";
    if !build(folder.path(), &driver(&old, &[])) {
        return;
    }
    let inspected = inspect(folder.path());
    let devices = inspected["devices"].as_array().unwrap();
    assert!(devices.iter().all(|d| d["engine"] != "cuda"), "{devices:?}");
    let (why, _) = absent(&inspected, "libcuda.so.1");
    assert!(why.contains("7.0") && why.contains("8.0"), "{why}");
}

#[test]
fn a_run_on_devices_that_are_not_there_is_refused_with_those_that_are() {
    let folder = RunFolder::new();
    folder.write("libcuda.so.1", "not a library");
    let mut command = hallmark([
        "run",
        "--devices",
        "cuda",
        "--ui",
        "plain",
        "--cuda-lib-path",
    ]);
    command.arg(folder.path()).arg("--out").arg(folder.run());
    let finished = finish(command, LIMIT).expect_code(2);
    assert!(
        finished.stderr.contains("unknown device `cuda`"),
        "{finished}"
    );
    assert!(finished.stderr.contains("cpu0"), "{finished}");
    assert!(!folder.run().exists());
}

#[test]
fn a_device_whose_context_does_not_open_is_a_missing_device_and_never_a_pass() {
    let folder = RunFolder::new();
    // 719, launch failed: a sticky error, here already while the context is made.
    let mut broken = ONE_DEVICE.to_vec();
    broken.push((
        "cuDevicePrimaryCtxRetain",
        "(void** c, int d) { return 719; }",
    ));
    if !build(folder.path(), &driver(&broken, &[])) {
        return;
    }
    let mut command = hallmark(["run", "smoke", "--devices", "cuda", "--duration", "5s"]);
    command
        .args(["--ui", "plain", "--cuda-lib-path"])
        .arg(folder.path())
        .arg("--out")
        .arg(folder.run());
    let finished = finish(command, LIMIT).expect_code(1);
    no_panic(&finished);
    assert!(finished.stdout.contains("cuda0: inventory"), "{finished}");
    assert!(finished.stdout.contains("719"), "{finished}");
}

#[test]
fn a_proof_on_a_device_that_does_not_open_fails() {
    let folder = RunFolder::new();
    if !build(folder.path(), &driver(&ONE_DEVICE, &[])) {
        return;
    }
    let mut command = hallmark(["prove", "--devices", "cuda", "--cuda-lib-path"]);
    command.arg(folder.path());
    let finished = finish(command, LIMIT).expect_code(1);
    no_panic(&finished);
    assert!(finished.stdout.contains("FAILED  cuda0"), "{finished}");
}

#[test]
fn a_proof_on_the_processor_passes_in_every_type_it_has() {
    let finished = finish(hallmark(["prove", "--devices", "cpu0"]), LIMIT).expect_code(0);
    assert!(
        finished.stdout.contains("passed  cpu0 f32: 8 shapes"),
        "{finished}"
    );
}

#[test]
fn a_driver_that_hangs_where_it_starts_holds_up_no_listing() {
    let folder = RunFolder::new();
    let hangs = [("cuInit", "(unsigned f) { for (;;) sleep(1000); }")];
    let source = format!("#include <unistd.h>\n{}", driver(&hangs, &[]));
    if !build(folder.path(), &source) {
        return;
    }
    let mut command = hallmark(["inspect", "--json", "--cuda-patience", "1.5s"]);
    command.arg("--cuda-lib-path").arg(folder.path());
    let finished = finish(command, Duration::from_secs(20)).expect_code(0);
    let inspected: Value = serde_json::from_str(&finished.stdout).unwrap();
    let (why, _) = absent(&inspected, "libcuda.so.1");
    assert!(why.contains("did not answer within 1.5 s"), "{why}");
    let devices = inspected["devices"].as_array().unwrap();
    assert!(devices.iter().any(|d| d["engine"] == "cpu"), "{finished}");
}

#[test]
fn a_driver_that_crashes_where_it_starts_takes_no_command_along() {
    let folder = RunFolder::new();
    let crashes = [("cuInit", "(unsigned f) { abort(); }")];
    let source = format!("#include <stdlib.h>\n{}", driver(&crashes, &[]));
    if !build(folder.path(), &source) {
        return;
    }
    let (why, _) = absent(&inspect(folder.path()), "libcuda.so.1");
    assert!(
        why.contains("signal: 6") && why.contains("no answer"),
        "{why}"
    );
}
