//! Components of the machine that some tests need: where they are, and what to do without them.
//!
//! Where [`REQUIRE_ALL`] is set a component that is missing fails the test: on the machine that
//! decides nothing is skipped. Elsewhere the test is skipped, says so, and adds a line to the file
//! that [`SKIPPED`] names, if it is set, so that the summary can count it.

use std::io::Write;
use std::path::{Path, PathBuf};

/// Set to anything but `0` to fail where a component is missing.
pub const REQUIRE_ALL: &str = "HALLMARK_REQUIRE_ALL";
/// A file that collects what was skipped, one line each.
pub const SKIPPED: &str = "HALLMARK_SKIPPED";

const LIBRARIES: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
];
const VULKAN_DRIVERS: [&str; 3] = [
    "/usr/share/vulkan/icd.d",
    "/usr/local/share/vulkan/icd.d",
    "/etc/vulkan/icd.d",
];

/// Something that a test needs and a machine may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// A Vulkan driver and its loader.
    Vulkan,
    /// A browser that renders a page without a screen.
    Chromium,
    /// A terminal that a program can drive.
    Tmux,
    /// A C++ compiler, which builds the emulation of CUDA kernels.
    Compiler,
    /// The pinned compilers that make PTX and cubins, in the folder where `kernels/cuda/build.py` puts them.
    CudaTools,
    /// Slurm's daemons and programs, and munge, of which a test starts its own.
    Slurm,
    /// DuckDB, Spark with a Java runtime, and a store that speaks S3, where `tests/lake/engines.py` puts them.
    LakeTools,
    /// Schemas of Kubernetes and JobSet, where `tests/kubernetes/schemas.py` puts them.
    KubernetesTools,
    /// MPICH, where `tests/mpi/libraries.py` puts it.
    Mpich,
    /// Open MPI's `mpirun`.
    OpenMpi,
    /// Network and time namespaces, and the programs that set them up and start others in them.
    Namespaces,
}

impl Component {
    pub const ALL: [Component; 11] = [
        Self::Vulkan,
        Self::Chromium,
        Self::Tmux,
        Self::Compiler,
        Self::CudaTools,
        Self::Slurm,
        Self::LakeTools,
        Self::KubernetesTools,
        Self::Mpich,
        Self::OpenMpi,
        Self::Namespaces,
    ];

    /// Where it is: the program, or a driver's description.
    #[must_use]
    pub fn find(self) -> Option<PathBuf> {
        match self {
            Self::Vulkan => vulkan(&LIBRARIES, &VULKAN_DRIVERS),
            Self::Chromium => program(&["chromium", "chromium-browser", "google-chrome"]),
            Self::Tmux => program(&["tmux"]),
            Self::Compiler => program(&["g++", "clang++"]),
            Self::CudaTools => pinned("kernels/cuda/build.py", "target/cuda-tools"),
            Self::Slurm => slurm(),
            Self::LakeTools => pinned("tests/lake/engines.py", "target/lake-tools"),
            Self::KubernetesTools => {
                pinned("tests/kubernetes/schemas.py", "target/kubernetes-tools")
            }
            Self::Mpich => pinned("tests/mpi/libraries.py", "target/mpi-tools"),
            Self::OpenMpi => program(&["mpirun.openmpi"]),
            Self::Namespaces => namespaces(),
        }
    }

    /// Debian's packages that bring it, and what else there is to do.
    #[must_use]
    pub const fn packages(self) -> &'static str {
        match self {
            Self::Vulkan => "mesa-vulkan-drivers libvulkan1",
            Self::Chromium => "chromium fonts-liberation",
            Self::Tmux => "tmux",
            Self::Compiler => "g++",
            Self::CudaTools => {
                "python3 python3-pip, then run `python3 kernels/cuda/build.py install`"
            }
            Self::Slurm => "slurmctld slurmd slurm-client munge, and run the tests as root",
            Self::LakeTools => {
                "python3 python3-pip openjdk-17-jre-headless, then run `python3 tests/lake/engines.py install`"
            }
            Self::KubernetesTools => {
                "python3 python3-pip, then run `python3 tests/kubernetes/schemas.py install`"
            }
            Self::Mpich => "python3 python3-pip, then run `python3 tests/mpi/libraries.py install`",
            Self::OpenMpi => "openmpi-bin libopenmpi3",
            Self::Namespaces => {
                "iproute2 util-linux, and run the tests as root, where it may have namespaces and /dev/net/tun"
            }
        }
    }

    /// Where it is, or `None` for a test to return early, after saying so.
    ///
    /// # Panics
    /// It is missing and [`REQUIRE_ALL`] is set.
    #[must_use]
    pub fn or_skip(self) -> Option<PathBuf> {
        let required = std::env::var_os(REQUIRE_ALL).is_some_and(|v| !v.is_empty() && v != "0");
        let found = self.find();
        if found.is_none() {
            let what = self.missing();
            assert!(
                !required,
                "{what}; {REQUIRE_ALL} is set, so nothing is skipped"
            );
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            note(&format!("{test}: {what}"));
        }
        found
    }

    fn missing(self) -> String {
        format!("{self:?} is missing; install {}", self.packages())
    }
}

fn note(line: &str) {
    eprintln!("skipped: {line}");
    let Some(path) = std::env::var_os(SKIPPED) else {
        return;
    };
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path);
    let written = file.and_then(|mut file| writeln!(file, "{line}"));
    written.unwrap_or_else(|e| panic!("cannot note a skipped test in {}: {e}", path.display()));
}

fn program(names: &[&str]) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    let candidates = names
        .iter()
        .flat_map(|name| std::env::split_paths(&folders).map(move |folder| folder.join(name)));
    candidates.into_iter().find(|path| path.is_file())
}

/// Slurm's controller, if all of Slurm is here and its daemons may be started.
fn slurm() -> Option<PathBuf> {
    // Daemons of a user's own cannot make the device files of their GPUs.
    let own = std::fs::metadata("/proc/self").ok()?;
    let is_root = std::os::unix::fs::MetadataExt::uid(&own) == 0;
    let all = ["munged", "slurmd", "sbatch", "srun", "scancel", "scontrol"];
    let here = all.iter().all(|name| of_system(name).is_some());
    of_system("slurmctld").filter(|_| is_root && here)
}

/// The program `ip`, if this process may make namespaces and interfaces for them.
fn namespaces() -> Option<PathBuf> {
    let mut interfaces = std::fs::OpenOptions::new();
    let interfaces = interfaces.read(true).write(true).open("/dev/net/tun");
    let apart = std::process::Command::new(program(&["unshare"])?)
        .args(["--net", "--time", "true"])
        .stderr(std::process::Stdio::null())
        .status();
    let may = interfaces.is_ok() && apart.is_ok_and(|s| s.success());
    program(&["nsenter"])?;
    of_system("ip").filter(|_| may)
}

/// A daemon's program, which an ordinary user's path may lack.
fn of_system(name: &str) -> Option<PathBuf> {
    let there = Path::new("/usr/sbin").join(name);
    there
        .is_file()
        .then_some(there)
        .or_else(|| program(&[name]))
}

/// The folder of pinned packages, if the script that knows them finds each there in its version.
fn pinned(script: &str, folder: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let check = std::process::Command::new(program(&["python3"])?)
        .arg(root.join(script))
        .arg("check")
        .output()
        .ok()?;
    check.status.success().then_some(root.join(folder))
}

/// The description of a driver; none where the loader is not there to read it.
fn vulkan(libraries: &[&str], drivers: &[&str]) -> Option<PathBuf> {
    libraries
        .iter()
        .find(|folder| Path::new(folder).join("libvulkan.so.1").exists())?;
    let named =
        std::env::var_os("VK_DRIVER_FILES").or_else(|| std::env::var_os("VK_ICD_FILENAMES"));
    if let Some(files) = named {
        return std::env::split_paths(&files).find(|file| file.is_file());
    }
    let mut found: Vec<PathBuf> = drivers
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .collect();
    found.sort();
    // Any driver will do; Mesa's software driver is the one that needs no device.
    let software = |path: &PathBuf| path.to_string_lossy().contains("lvp_icd");
    found
        .iter()
        .find(|path| software(path))
        .or(found.first())
        .cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_without_its_loader_is_no_vulkan() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().to_str().unwrap();
        std::fs::write(folder.path().join("lvp_icd.json"), "{}").unwrap();
        assert_eq!(vulkan(&[path], &[path]), None);
        std::fs::write(folder.path().join("libvulkan.so.1"), "").unwrap();
        if std::env::var_os("VK_DRIVER_FILES").is_none()
            && std::env::var_os("VK_ICD_FILENAMES").is_none()
        {
            assert_eq!(
                vulkan(&[path], &[path]),
                Some(folder.path().join("lvp_icd.json"))
            );
        }
    }

    #[test]
    fn what_is_missing_names_the_packages_that_bring_it() {
        assert_eq!(program(&["no-such-program-anywhere"]), None);
        for component in Component::ALL {
            assert!(component.missing().ends_with(component.packages()));
        }
    }
}
