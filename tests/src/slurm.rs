//! A real Slurm on this machine for tests: munge, a controller and several node daemons, in a temporary folder.
//!
//! Each node has eight GPUs that are clones of /dev/null, which nothing opens. Refuses to leave anything running: its
//! jobs are cancelled and its daemons killed when it is dropped, and a test can ask which processes are its.

use crate::Component;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);
const GPUS: usize = 8;

/// Slurm with nodes n1, n2, …
#[derive(Debug)]
pub struct Cluster {
    folder: TempDir,
    munged: Child,
    controller: Child,
    /// Node daemons.
    slurmd: Vec<Child>,
}

impl Cluster {
    /// Starts Slurm; `None` where it is not installed, after saying so.
    ///
    /// # Panics
    /// It cannot be started, or [`crate::REQUIRE_ALL`] is set and it is not installed.
    #[must_use]
    pub fn start(nodes: usize) -> Option<Self> {
        Component::Slurm.or_skip()?;
        // A socket's path is short.
        let folder = tempfile::Builder::new().prefix("hs").tempdir_in("/tmp");
        let folder = folder.expect("a temporary folder can be made");
        let path = folder.path();
        lay_out(path, nodes);
        let munged = daemon(path, "munged", &munge(path));
        wait("munge", || path.join("munge.sock").exists());
        let controller = daemon(path, "slurmctld", &["-D", "-c"].map(str::to_owned));
        let node = |n: usize| {
            let arguments = ["-D", "-c", "-N", &format!("n{n}")].map(str::to_owned);
            daemon(path, "slurmd", &arguments)
        };
        let slurmd = (1..=nodes).map(node).collect();
        let cluster = Self {
            munged,
            controller,
            slurmd,
            folder,
        };
        let idle = || {
            let told = cluster.call("sinfo", &["-h", "-N", "-t", "idle", "-o", "%N"]);
            told.lines().count() == nodes
        };
        wait("nodes that are idle", idle);
        Some(cluster)
    }

    /// Its configuration, which Slurm's programs find by the variable `SLURM_CONF`.
    #[must_use]
    pub fn configuration(&self) -> PathBuf {
        self.folder.path().join("slurm.conf")
    }

    /// What a program of Slurm says.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn call(&self, program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program)
            .env("SLURM_CONF", self.configuration())
            .args(arguments)
            .output()
            .unwrap_or_else(|e| panic!("cannot start {program}: {e}"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Jobs that have not ended, as `number state`.
    #[must_use]
    pub fn jobs(&self) -> String {
        self.call("squeue", &["-h", "-o", "%i %T"])
    }

    /// Kills the daemon of a node, counted from 1.
    ///
    /// # Panics
    /// It is not there.
    pub fn kill_slurmd(&mut self, node: usize) {
        let daemon = &mut self.slurmd[node - 1];
        daemon.kill().expect("a child can be killed");
        daemon.wait().expect("a child can be waited for");
    }

    /// The agent that runs on a node.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn agent(&self, node: &str) -> u32 {
        let on = format!("SLURMD_NODENAME={node}");
        let is_it = |pid: &u32| {
            has(*pid, "environ", &on) && argument(*pid, 0, "hallmark") && argument(*pid, 1, "agent")
        };
        let found = self.processes().into_iter().find(is_it);
        found.unwrap_or_else(|| panic!("node {node} has no agent"))
    }

    /// Processes that this cluster's jobs, or programs that ask it, have on this machine.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let mark = format!("SLURM_CONF={}", self.configuration().display());
        let daemons = [&self.munged, &self.controller];
        let daemons = daemons.into_iter().chain(&self.slurmd).map(Child::id);
        let daemons: Vec<u32> = daemons.collect();
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        all.filter_map(|e| e.file_name().to_str()?.parse().ok())
            .filter(|pid| !daemons.contains(pid) && has(*pid, "environ", &mark))
            // A part of its controller.
            .filter(|pid| !words(*pid).iter().any(|w| w.contains("slurmscriptd")))
            .collect()
    }

    /// Waits until no job and no process is left.
    ///
    /// # Panics
    /// Something still is after half a minute.
    pub fn wait_until_empty(&self) {
        let begun = Instant::now();
        loop {
            let (jobs, processes) = (self.jobs(), self.processes());
            if jobs.is_empty() && processes.is_empty() {
                return;
            }
            let shown: Vec<String> = processes.iter().map(|p| words(*p).join(" ")).collect();
            assert!(
                begun.elapsed() < PATIENCE,
                "still there: jobs {jobs:?}, processes {shown:?}"
            );
            std::thread::sleep(LOOK);
        }
    }
}

/// Configuration and folders.
fn lay_out(folder: &Path, nodes: usize) {
    let at = folder.display();
    let make = |name: &str| fs::create_dir_all(folder.join(name)).expect("a folder can be made");
    let write = |name: &str, text: &str| {
        fs::write(folder.join(name), text).expect("a file can be written");
    };
    for name in ["log", "run", "state", "dev"] {
        make(name);
    }
    for gpu in 0..GPUS {
        let device = folder.join(format!("dev/nvidia{gpu}"));
        let made = Command::new("mknod")
            .arg(device)
            .args(["c", "1", "3"])
            .status();
        assert!(made.is_ok_and(|s| s.success()), "a device can be made");
    }
    // It is of this machine and this test alone: whoever reads it can only talk to daemons that a test ends.
    let key: Vec<u8> = (0..1024_u32)
        .map(|i| (i * 31 + std::process::id()) as u8)
        .collect();
    fs::write(folder.join("munge.key"), key).expect("a file can be written");
    let mode = Command::new("chmod")
        .arg("600")
        .arg(folder.join("munge.key"))
        .status();
    assert!(mode.is_ok_and(|s| s.success()));
    // munged wants a folder that others may pass, for its socket.
    let mode = Command::new("chmod").arg("755").arg(folder).status();
    assert!(mode.is_ok_and(|s| s.success()));
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host
        .trim()
        .split('.')
        .next()
        .unwrap_or("localhost")
        .to_owned();
    let free: Vec<TcpListener> = (0..=nodes)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a port is free"))
        .collect();
    let port = |n: usize| free[n].local_addr().expect("a bound port is known").port();
    let mut text = format!(
        "ClusterName=hall\nSlurmctldHost={host}(127.0.0.1)\nSlurmUser=root\nSlurmdUser=root\n\
         SlurmctldPort={}\nAuthType=auth/munge\nAuthInfo=socket={at}/munge.sock\nCredType=cred/munge\n\
         StateSaveLocation={at}/state\nSlurmdSpoolDir={at}/spool.%n\nSlurmctldPidFile={at}/run/slurmctld.pid\n\
         SlurmdPidFile={at}/run/slurmd.%n.pid\nSlurmctldLogFile={at}/log/slurmctld\nSlurmdLogFile={at}/log/slurmd.%n\n\
         ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nJobAcctGatherType=jobacct_gather/none\n\
         AccountingStorageType=accounting_storage/none\nSelectType=select/cons_tres\nSelectTypeParameters=CR_Core\n\
         SchedulerType=sched/backfill\nSlurmdParameters=config_overrides\nMpiDefault=none\nTmpFS={at}\n\
         ReturnToService=2\nSlurmdTimeout=300\nKillWait=5\nGresTypes=gpu\n",
        port(0)
    );
    for n in 1..=nodes {
        make(&format!("spool.n{n}"));
        text.push_str(&format!(
            "NodeName=n{n} NodeHostname={host} NodeAddr=127.0.0.1 Port={} CPUs=16 SocketsPerBoard=1 CoresPerSocket=16 \
             ThreadsPerCore=1 RealMemory=2000 Gres=gpu:h100:{GPUS} Feature=rack{} State=UNKNOWN\n",
            port(n),
            n.div_ceil(2)
        ));
    }
    text.push_str("PartitionName=hall Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n");
    write("slurm.conf", &text);
    let last = GPUS - 1;
    write(
        "gres.conf",
        &format!(
            "AutoDetect=off\nNodeName=n[1-{nodes}] Name=gpu Type=h100 File={at}/dev/nvidia[0-{last}]\n"
        ),
    );
}

fn munge(folder: &Path) -> Vec<String> {
    let at = folder.display();
    let files = ["key-file=munge.key", "socket=munge.sock"].into_iter();
    let files = files.chain(["pid-file=run/munged.pid", "log-file=log/munged"]);
    let files = files.chain(["seed-file=munge.seed"]);
    let one = |setting: &str| match setting.split_once('=') {
        Some((key, file)) => format!("--{key}={at}/{file}"),
        None => setting.to_owned(),
    };
    let fixed = ["--foreground", "--force"].map(str::to_owned);
    fixed.into_iter().chain(files.map(one)).collect()
}

fn daemon(folder: &Path, program: &str, arguments: &[String]) -> Child {
    let said = fs::File::create(folder.join("log").join(format!("{program}.said")));
    let path = std::env::var("PATH").unwrap_or_default();
    Command::new(program)
        .env("PATH", format!("{path}:/usr/sbin"))
        .env("SLURM_CONF", folder.join("slurm.conf"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said.expect("a file can be made"))
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start {program}: {e}"))
}

fn wait(what: &str, ready: impl Fn() -> bool) {
    let begun = Instant::now();
    while !ready() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(LOOK);
    }
}

fn list(pid: u32, file: &str) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let parts = bytes.split(|b| *b == 0).filter(|p| !p.is_empty());
    parts
        .map(|p| String::from_utf8_lossy(p).into_owned())
        .collect()
}

fn words(pid: u32) -> Vec<String> {
    list(pid, "cmdline")
}

fn has(pid: u32, file: &str, entry: &str) -> bool {
    list(pid, file).iter().any(|e| e == entry)
}

fn argument(pid: u32, at: usize, ending: &str) -> bool {
    words(pid).get(at).is_some_and(|w| w.ends_with(ending))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.call("scancel", &["--signal=KILL", "--user=root"]);
        let _ = self.call("scancel", &["--user=root"]);
        for pid in self.processes() {
            let _ = Command::new("kill")
                .args(["-KILL", &pid.to_string()])
                .stderr(Stdio::null())
                .status();
        }
        let daemons = [&mut self.controller, &mut self.munged];
        for daemon in self.slurmd.iter_mut().chain(daemons) {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}
