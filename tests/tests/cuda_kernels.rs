//! Decides that the committed PTX is what its sources give with the pinned compiler, that an old driver takes it, and
//! that what a driver's compiler makes of it spills nothing and uses the tensor cores it is meant for.
//!
//! No GPU is needed, and nothing here shows that a kernel is right: see `cuda_emulation.rs` for what can be shown.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test, and what it is built of, fails by a panic"
)]

use hallmark_tests::Component;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The newest PTX ISA that driver release 550 takes.
const PTX_ISA_MAX: (u32, u32) = (8, 4);
const PTX: [&str; 5] = [
    "step.compute_80.ptx",
    "all_reduce.compute_80.ptx",
    "matmul.compute_80.ptx",
    "matmul.compute_89.ptx",
    "hopper.sm_90a.ptx",
];

fn sources() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.expect("the crate lies in the repository")
        .join("kernels/cuda")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn committed(name: &str) -> String {
    read(&sources().join("ptx").join(name))
}

/// What `build.py` prints; fails with what it complains of.
fn build(arguments: &[&str], out: &Path) -> String {
    let done = Command::new("python3")
        .arg(sources().join("build.py"))
        .args(arguments)
        .arg("--out")
        .arg(out)
        .output()
        .expect("python3 runs");
    let complaint = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "build.py {arguments:?}: {complaint}");
    String::from_utf8(done.stdout).expect("build.py prints text")
}

/// The value of a directive such as `.version 8.4`.
fn directive<'a>(ptx: &'a str, name: &str) -> &'a str {
    let found = ptx.lines().find_map(|line| line.strip_prefix(name));
    found.expect("a PTX file has the directive").trim()
}

fn isa(ptx: &str) -> (u32, u32) {
    let (major, minor) = directive(ptx, ".version")
        .split_once('.')
        .expect("a version has two numbers");
    (
        major.parse().expect("a number"),
        minor.parse().expect("a number"),
    )
}

fn entries(ptx: &str) -> BTreeSet<String> {
    let named = |line: &str| {
        line.strip_prefix(".visible .entry ")
            .map(|rest| rest.trim_end_matches('(').to_owned())
    };
    ptx.lines().filter_map(named).collect()
}

/// Names that the tables of a source's contract hold in their first column.
fn contract(source: &str) -> BTreeSet<String> {
    let head = read(&sources().join(source));
    let mut names = BTreeSet::new();
    let mut full = String::new();
    let rows = head.lines().take_while(|line| line.starts_with("//"));
    for row in rows.filter_map(|line| line.strip_prefix("// | ")) {
        let first = row.split('|').next().unwrap_or_default();
        for name in first.split([',', ' ']).filter(|name| !name.is_empty()) {
            // `_f16_any` after `matmul_bf16_any` stands for `matmul_f16_any`.
            if let Some(rest) = name.strip_prefix('_') {
                let family = full.split('_').next().unwrap_or_default();
                names.insert(format!("{family}_{rest}"));
            } else {
                full = name.to_owned();
                names.insert(full.clone());
            }
        }
    }
    names
}

#[test]
fn a_driver_of_release_550_takes_every_committed_ptx() {
    for name in PTX {
        let text = committed(name);
        assert!(isa(&text) <= PTX_ISA_MAX, "{name}: {:?}", isa(&text));
        let target = name.split('.').nth(1).expect("the name holds the target");
        let target = target.replace("compute_", "sm_");
        assert_eq!(directive(&text, ".target"), target, "{name}");
    }
    assert!(isa(".version 8.5\n") > PTX_ISA_MAX && isa(".version 9.0\n") > PTX_ISA_MAX);
}

#[test]
fn every_entry_stands_in_its_contract_and_every_contract_has_its_entry() {
    for (source, files) in [
        ("step.cu", &PTX[0..1]),
        ("all_reduce.cu", &PTX[1..2]),
        ("matmul.cu", &PTX[2..4]),
        ("hopper.cu", &PTX[4..5]),
    ] {
        let made: BTreeSet<_> = files
            .iter()
            .flat_map(|name| entries(&committed(name)))
            .collect();
        assert!(!made.is_empty(), "{source}");
        let promised = contract(source);
        for entry in &made {
            assert!(
                promised.contains(entry),
                "{entry} is not in the contract of {source}"
            );
        }
        let is_entry = |name: &&String| name.contains('_') && !made.contains(*name);
        let absent: Vec<_> = promised.iter().filter(is_entry).collect();
        assert!(
            absent.is_empty(),
            "{source} promises {absent:?}, which its PTX lacks"
        );
    }
}

#[test]
fn the_committed_ptx_is_what_the_pinned_compiler_makes_of_the_sources() {
    let Some(_tools) = Component::CudaTools.or_skip() else {
        return;
    };
    let out = tempfile::TempDir::new().expect("a folder");
    build(&["ptx"], out.path());
    for name in PTX {
        let made = read(&out.path().join(name));
        assert!(
            made == committed(name),
            "{name} is stale: run `python3 kernels/cuda/build.py ptx` and commit"
        );
    }
    let made: BTreeSet<_> = std::fs::read_dir(out.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(made, PTX.iter().map(std::ffi::OsString::from).collect());
}

/// One line of `build.py cubins`.
#[derive(serde::Deserialize)]
struct Made {
    kernel: String,
    arch: String,
    release: String,
    ptx: String,
    stack: u32,
    spill_stores: u32,
    spill_loads: u32,
    registers: u32,
    warnings: Vec<String>,
    instructions: u32,
    #[serde(rename = "HGMMA")]
    hgmma: u32,
    #[serde(rename = "QGMMA")]
    qgmma: u32,
    #[serde(rename = "HMMA")]
    hmma: u32,
    #[serde(rename = "IMMA")]
    imma: u32,
}

impl Made {
    /// What is wrong with the machine code of this kernel, if anything.
    fn complaint(&self) -> Option<String> {
        let is = |part: &str| self.kernel.contains(part);
        let hopper = is("hopper");
        let wanted = match () {
            () if hopper && (is("bf16") || is("f16")) => self.hgmma,
            () if hopper => self.qgmma,
            () if is("matmul_i8") => self.imma,
            () if is("matmul_bf16") || is("matmul_f16") || is("matmul_tf32") => self.hmma,
            () => 1,
        };
        let found = [
            (
                self.stack + self.spill_stores + self.spill_loads > 0,
                "it spills",
            ),
            (wanted == 0, "it leaves its tensor cores idle"),
            (!self.warnings.is_empty(), "the assembler warns"),
            (self.registers == 0 || self.instructions == 0, "it is empty"),
            (
                hopper && self.registers != 168,
                "its warp groups cannot trade registers",
            ),
        ];
        let what: Vec<_> = found
            .iter()
            .filter(|(holds, _)| *holds)
            .map(|(_, what)| *what)
            .collect();
        (!what.is_empty()).then(|| {
            format!(
                "{} for {} by {}: {}; {} bytes of stack, {:?}",
                self.kernel,
                self.arch,
                self.release,
                what.join(", "),
                self.stack,
                self.warnings
            )
        })
    }
}

#[test]
fn every_architecture_gets_machine_code_that_spills_nothing_and_uses_its_tensor_cores() {
    let Some(_tools) = Component::CudaTools.or_skip() else {
        return;
    };
    let out = tempfile::TempDir::new().expect("a folder");
    let text = build(&["cubins"], out.path());
    let made: Vec<Made> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    let complaints: Vec<_> = made.iter().filter_map(Made::complaint).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    for name in PTX {
        let entries = entries(&committed(name));
        let architectures: &[&str] = match name.split('.').nth(1) {
            Some("compute_80") => &["sm_80", "sm_89", "sm_90a", "sm_100a", "sm_120a"],
            Some("compute_89") => &["sm_89", "sm_90a", "sm_100a", "sm_120a"],
            _ => &["sm_90a"],
        };
        for arch in architectures {
            let here: BTreeSet<_> = made
                .iter()
                .filter(|m| m.ptx == name && m.arch == *arch)
                .map(|m| m.kernel.clone())
                .collect();
            assert_eq!(here, entries, "{name} for {arch}");
        }
    }
    let by_old = |m: &&Made| m.release == "12.4" && m.arch == "sm_90a";
    assert!(
        made.iter()
            .filter(by_old)
            .any(|m| m.kernel == "hopper_bf16" && m.hgmma >= 4)
    );
}

#[test]
fn machine_code_that_spills_warns_or_leaves_tensor_cores_idle_is_seen() {
    let line = |kernel: &str, spills: u32, hgmma: u32, warnings: &str| {
        let text = format!(
            "{{\"kernel\": \"{kernel}\", \"arch\": \"sm_90a\", \"stack\": 0, \"spill_stores\": {spills}, \
             \"spill_loads\": 0, \"registers\": 168, \"ptx\": \"a\", \"release\": \"13.5\", \
             \"warnings\": [{warnings}], \"HGMMA\": {hgmma}, \"QGMMA\": 0, \"HMMA\": 0, \"IMMA\": 0, \
             \"QMMA\": 0, \"instructions\": 9}}"
        );
        let made: Made = serde_json::from_str(&text).expect("a line of JSON");
        made.complaint().is_some()
    };
    assert!(!line("hopper_bf16", 0, 4, ""));
    assert!(line("hopper_bf16", 4, 4, ""));
    assert!(line("hopper_bf16", 0, 0, ""));
    assert!(line("hopper_e4m3", 0, 4, ""));
    assert!(line("matmul_tf32_any", 0, 0, ""));
    assert!(line("hopper_bf16", 0, 4, "\"serialized\""));
    assert!(!line("copy", 0, 0, ""));
}
