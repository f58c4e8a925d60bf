//! A lake of records: what is published is judged from there as from its folder, never replaced, and queried by engines
//! that know nothing of hallmark with hallmark's own figures.
#![expect(
    clippy::unwrap_used,
    reason = "a test, and what it is built of, fails by a panic"
)]

use hallmark_results::frame::Frame;
use hallmark_results::report::{Format, Story, json::Json};
use hallmark_results::store::{JournalWriter, Sealed, seal};
use hallmark_results::verdict;
use hallmark_tests::component::Component;
use hallmark_tests::program::{Finished, finish, hallmark};
use hallmark_tests::synthetic::{self, Record};
use serde_json::Value;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(120);
const KEYS: (&str, &str) = ("hall-access", "hall-secret-of-a-test");

/// A minute of smoke on eight invented devices whose steps are of uneven length.
fn uneven() -> Record {
    synthetic::record("smoke")
        .lengths(|moment| 1.0 + 0.3 * ((moment.index * 7919) % 101) as f64 / 101.0)
}

fn sealed(frames: &[Frame], dir: &Path) -> Sealed {
    let mut writer = JournalWriter::create(dir).unwrap();
    for frame in frames {
        writer.append(frame).unwrap();
    }
    writer.close().unwrap();
    seal(dir).unwrap()
}

fn publish(record: &Path, to: &str, site: &str, keys: &[(String, String)]) -> Finished {
    let record = record.to_str().unwrap();
    let mut command = hallmark(["publish", record, "--to", to, "--site", site]);
    command.envs(keys.iter().cloned());
    finish(command, LIMIT)
}

/// The one folder of a lake's table.
fn partition(lake: &Path, table: &str) -> PathBuf {
    let mut folder = lake.join(table);
    for _ in 0..4 {
        let mut inner = fs::read_dir(&folder).unwrap();
        folder = inner.next().unwrap().unwrap().path();
        assert!(inner.next().is_none());
    }
    folder
}

#[test]
fn what_is_published_is_the_record_byte_for_byte_and_is_never_replaced() {
    let here = TempDir::new().unwrap();
    let (record, lake) = (here.path().join("record"), here.path().join("lake"));
    fs::create_dir(&record).unwrap();
    sealed(&uneven().frames(), &record);
    let to = lake.to_str().unwrap();
    let told = publish(&record, to, "jakarta-1", &[]).expect_code(0);
    assert!(told.stdout.contains("head "), "{told}");
    let there = partition(&lake, "record");
    let place = there.to_str().unwrap();
    assert!(place.contains("/site=jakarta-1/date="), "{place}");
    for file in [
        "seal",
        "manifest.json",
        "opened.json",
        "events.json",
        "steps.parquet",
    ] {
        let (a, b) = (fs::read(record.join(file)), fs::read(there.join(file)));
        assert_eq!(a.unwrap(), b.unwrap(), "{file}");
    }
    let judged = |dir: &Path| {
        let command = hallmark(["judge", dir.to_str().unwrap(), "--format", "json"]);
        let mut report: Value = serde_json::from_str(&finish(command, LIMIT).stdout).unwrap();
        report["run"]["place"] = Value::Null;
        report
    };
    assert_eq!(judged(&record), judged(&there));

    let again = publish(&record, to, "jakarta-1", &[]).expect_code(0);
    assert!(again.stdout.contains("already there"), "{}", again.stdout);

    // Another record under the same run, node, date and site.
    let other = here.path().join("other");
    fs::create_dir(&other).unwrap();
    let frames = synthetic::record("smoke").frames();
    sealed(&frames, &other);
    let refused = publish(&other, to, "jakarta-1", &[]).expect_code(2);
    assert!(
        refused.stderr.contains("never replaced"),
        "{}",
        refused.stderr
    );
    assert_eq!(
        fs::read(record.join("seal")).unwrap(),
        fs::read(there.join("seal")).unwrap()
    );
}

#[test]
fn what_does_not_verify_or_has_a_name_that_leaves_its_folder_is_not_published() {
    let here = TempDir::new().unwrap();
    let (record, lake) = (here.path().join("record"), here.path().join("lake"));
    fs::create_dir(&record).unwrap();
    sealed(&uneven().frames(), &record);
    let to = lake.to_str().unwrap();
    for site in ["../up", "", "a b", "x=y"] {
        let told = publish(&record, to, site, &[]).expect_code(2).stderr;
        assert!(told.contains("letters, digits"), "{told}");
    }
    let told = publish(&record, "gs://bucket/x", "one", &[])
        .expect_code(2)
        .stderr;
    assert!(told.contains("known: a folder, s3://"), "{told}");
    let mut bytes = fs::read(record.join("steps.parquet")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(record.join("steps.parquet"), bytes).unwrap();
    let told = publish(&record, to, "one", &[]).expect_code(3).stderr;
    assert!(told.contains("steps.parquet"), "{told}");
    assert!(!lake.exists(), "nothing was begun");
}

/// A server that speaks S3, from a folder; it ends with the test.
struct Server {
    process: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.local_addr().unwrap().port()
}

fn server(rclone: &Path, root: &Path) -> Server {
    let port = free_port();
    let process = Command::new(rclone)
        .args(["serve", "s3", "--addr", &format!("127.0.0.1:{port}")])
        .args(["--auth-key", &format!("{},{}", KEYS.0, KEYS.1)])
        .args(["--vfs-cache-mode", "off"])
        .arg(root)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server { process, port };
    let begun = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(begun.elapsed() < LIMIT, "the store did not start");
        std::thread::sleep(Duration::from_millis(50));
    }
    server
}

impl Server {
    fn keys(&self, secret: &str) -> Vec<(String, String)> {
        let pairs = [
            ("AWS_ACCESS_KEY_ID", KEYS.0.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", secret.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            (
                "AWS_ENDPOINT_URL",
                format!("http://127.0.0.1:{}", self.port),
            ),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ];
        pairs.map(|(key, value)| (key.to_owned(), value)).to_vec()
    }
}

fn lake_tool(arguments: &[&str]) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut command = Command::new("python3");
    command
        .arg(root.join("tests/lake/engines.py"))
        .args(arguments);
    command
}

#[test]
fn a_record_goes_to_an_s3_store_and_is_judged_from_there() {
    if Component::LakeTools.or_skip().is_none() {
        return;
    }
    let rclone = finish(lake_tool(&["rclone"]), LIMIT).expect_code(0).stdout;
    let here = TempDir::new().unwrap();
    let (record, root) = (here.path().join("record"), here.path().join("store"));
    fs::create_dir(&record).unwrap();
    fs::create_dir_all(root.join("halls")).unwrap();
    sealed(&uneven().frames(), &record);
    let server = server(Path::new(rclone.trim()), &root);

    let told = publish(&record, "s3://halls/lake", "nairobi", &server.keys("wrong"));
    assert_eq!(told.code, Some(4), "{told}");
    let told = publish(&record, "s3://halls/lake", "nairobi", &server.keys(KEYS.1));
    assert_eq!(told.code, Some(0), "{told}");

    let folder = partition(&root.join("halls/lake"), "record");
    let below = folder.strip_prefix(&root).unwrap().to_str().unwrap();
    let judge = |what: &str| {
        let mut command = hallmark(["judge", what, "--format", "json"]);
        command.envs(server.keys(KEYS.1));
        let finished = finish(command, LIMIT);
        let report: Value = serde_json::from_str(&finished.stdout).unwrap();
        (finished.code, report["findings"].clone())
    };
    let there = judge(&format!("s3://{below}"));
    assert_eq!(there, judge(record.to_str().unwrap()));

    // One byte less in the store, and the record is no record.
    fs::write(folder.join("ops.parquet"), b"PAR1").unwrap();
    let mut command = hallmark(["judge", &format!("s3://{below}")]);
    command.envs(server.keys(KEYS.1));
    let told = finish(command, LIMIT).expect_code(3).stderr;
    assert!(told.contains("ops.parquet"), "{told}");
}

/// hallmark's own figures: one row a device, in order of its id.
fn own(frames: &[Frame]) -> Vec<Value> {
    let standing = synthetic::fold(frames);
    let verdict = verdict::judge(&standing);
    let story = Story {
        standing: &standing,
        verdict: &verdict,
        head: None,
        anchored: false,
        place: "",
    };
    let report: Value = serde_json::from_str(&Json.write(&story)).unwrap();
    assert!(report["devices"].as_array().is_some_and(|d| d.len() == 8));
    let main = standing.profile().load.main_phase();
    let window = standing.phase_window(main).unwrap();
    let devices = standing.opened().plan.devices.iter().zip(&window.devices);
    devices
        .map(|(planned, seen)| {
            let times = seen.step_time.get().unwrap();
            let quantile = |q| times.quantile(q).unwrap();
            let span = seen.span_ns() as f64;
            serde_json::json!({
                "device": planned.id, "steps": seen.steps, "matmuls": seen.gemms, "audited": seen.audited,
                "flop_per_s": seen.flop / (span / 1e9), "idle_gap": seen.idle_ns as f64 / span,
                "step_p50_s": quantile(0.5), "step_p99_s": quantile(0.99),
            })
        })
        .collect()
}

fn agree(rows: &[Value], own: &[Value]) {
    assert_eq!(rows.len(), own.len());
    for (row, own) in rows.iter().zip(own) {
        for exact in ["device", "steps", "matmuls", "audited"] {
            assert_eq!(
                row[exact].to_string(),
                own[exact].to_string(),
                "{exact}: {row}"
            );
        }
        let near = [
            ("flop_per_s", 1e-12),
            ("idle_gap", 1e-12),
            ("step_p50_s", 1e-3),
            ("step_p99_s", 1e-3),
        ];
        for (figure, within) in near {
            let (a, b) = (row[figure].as_f64().unwrap(), own[figure].as_f64().unwrap());
            assert!(
                (a - b).abs() <= within * b.abs(),
                "{figure}: {a} against {b}"
            );
        }
        assert!(
            own["idle_gap"].as_f64().unwrap() > 0.0,
            "the figure says something"
        );
    }
}

#[test]
fn duckdb_and_a_spark_cluster_find_hallmarks_own_figures_by_the_documented_query() {
    if Component::LakeTools.or_skip().is_none() {
        return;
    }
    let here = TempDir::new().unwrap();
    let (record, lake) = (here.path().join("record"), here.path().join("lake"));
    fs::create_dir(&record).unwrap();
    // The third step of each device in ten waits a little.
    let frames = uneven()
        .steps(|_, _, row| {
            if row.seq % 10 == 3 {
                row.start_ns += 1_000 + row.seq;
            }
            true
        })
        .frames();
    sealed(&frames, &record);
    let told = publish(&record, lake.to_str().unwrap(), "lima", &[]);
    assert_eq!(told.code, Some(0), "{told}");
    let own = own(&frames);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let query = root.join("docs/lake.sql");
    for engine in ["duckdb", "spark"] {
        let arguments = [engine, lake.to_str().unwrap(), query.to_str().unwrap()];
        let out = finish(lake_tool(&arguments), 3 * LIMIT)
            .expect_code(0)
            .stdout;
        let rows: Vec<Value> = out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        agree(&rows, &own);
    }
}
