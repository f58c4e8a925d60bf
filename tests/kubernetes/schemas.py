#!/usr/bin/env python3
"""Holds a manifest against the schemas of Kubernetes and JobSet, without a cluster: an unknown field is an error.

What Kubernetes itself knows is checked by kubernetes-validate, strictly, against the oldest and the newest API version that
hallmark's manifests are for. A JobSet is no part of Kubernetes: its own fields are checked by the models that Kubeflow's
trainer generates from JobSet's API, which must give back every field they are given, and the Job within as a Job.

    schemas.py install            install the pinned packages
    schemas.py check              exit 0 where they are there, else say what is missing
    schemas.py validate           read a List in JSON from standard input; one line an error, exit 1 if there is any

--tools DIR names the folder; it is target/kubernetes-tools of the repository unless given.
"""

import argparse
import json
import pathlib
import subprocess
import sys

PINNED = {"kubernetes_validate": "1.37.0", "kubeflow_trainer_api": "2.3.0"}
VERSIONS = ["1.33", "1.37"]
JOBSET = "jobset.x-k8s.io/v1alpha2"


def missing(tools):
    return [
        f"{package}=={version}"
        for package, version in PINNED.items()
        if not (tools / f"{package}-{version}.dist-info").is_dir()
    ]


def install(tools):
    packages = missing(tools)
    if packages:
        tools.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-warn-script-location"]
        subprocess.run([*pip, "--upgrade", "--target", str(tools), *packages], check=True, timeout=900)
    return missing(tools)


def of_kubernetes(thing, path):
    import kubernetes_validate

    for version in VERSIONS:
        try:
            kubernetes_validate.validate(thing, version, strict=True)
        except Exception as error:  # each of its errors is told alike
            yield f"{path}: Kubernetes {version}: {str(error).splitlines()[0]}"


def lost(given, kept, path):
    """Fields that are not there any more."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            if key not in kept:
                yield f"{path}.{key}: no such field"
            else:
                yield from lost(value, kept[key], f"{path}.{key}")
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for index, pair in enumerate(zip(given, kept)):
            yield from lost(*pair, f"{path}[{index}]")
    elif given != kept:
        yield f"{path}: {given!r} became {kept!r}"


def of_jobset(thing, path):
    from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet

    try:
        kept = JobsetV1alpha2JobSet.from_dict(thing).to_dict()
    except Exception as error:
        yield f"{path}: JobSet: {' '.join(str(error).split())}"
        return
    yield from lost(thing, json.loads(json.dumps(kept, default=str)), path)
    for index, group in enumerate(thing["spec"]["replicatedJobs"]):
        job = {"apiVersion": "batch/v1", "kind": "Job", **group["template"]}
        yield from of_kubernetes(job, f"{path}.spec.replicatedJobs[{index}].template")


def errors(manifest):
    if (manifest.get("apiVersion"), manifest.get("kind")) != ("v1", "List") or not manifest.get("items"):
        yield "this is no List of objects"
        return
    for thing in manifest["items"]:
        path = f"{thing.get('kind')} {thing.get('metadata', {}).get('name')}"
        yield from (of_jobset if thing.get("apiVersion") == JOBSET else of_kubernetes)(thing, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = pathlib.Path(__file__).resolve().parents[2]
    parser.add_argument("--tools", type=pathlib.Path, default=root / "target/kubernetes-tools")
    parser.add_argument("what", choices=["install", "check", "validate"])
    given = parser.parse_args()
    tools = given.tools.resolve()
    if given.what in ("install", "check"):
        absent = install(tools) if given.what == "install" else missing(tools)
        if absent:
            sys.exit("missing: " + ", ".join(absent))
        return
    sys.path.insert(0, str(tools))
    found = list(errors(json.load(sys.stdin)))
    for line in found:
        print(line)
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
