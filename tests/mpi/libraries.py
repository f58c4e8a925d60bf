#!/usr/bin/env python3
"""MPICH for the tests, a pinned package of PyPI in a folder of its own. Open MPI comes from the system (Debian: openmpi-bin).

    libraries.py install    install the pinned package
    libraries.py check      exit 0 where it is there, else say what is missing

--tools DIR names the folder; it is target/mpi-tools of the repository unless given. MPICH is then in DIR/lib and DIR/bin.
"""

import argparse
import pathlib
import subprocess
import sys

PINNED = {"mpich": "5.0.2"}


def missing(tools):
    return [
        f"{package}=={version}"
        for package, version in PINNED.items()
        if not list(tools.glob(f"**/{package}-{version}.dist-info")) or not list(tools.glob("lib/libmpi_abi.so.*"))
    ]


def install(tools):
    packages = missing(tools)
    if packages:
        tools.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-warn-script-location"]
        subprocess.run([*pip, "--ignore-installed", "--prefix", str(tools), *packages], check=True, timeout=900)
    return missing(tools)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["install", "check"])
    root = pathlib.Path(__file__).resolve().parents[2]
    parser.add_argument("--tools", type=pathlib.Path, default=root / "target" / "mpi-tools")
    args = parser.parse_args()
    left = install(args.tools) if args.command == "install" else missing(args.tools)
    if left:
        sys.exit(f"missing: {' '.join(left)}")


if __name__ == "__main__":
    main()
