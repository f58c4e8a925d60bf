#!/usr/bin/env python3
"""A STAND-IN for kubectl and for a cluster behind it: it knows no more of either than hallmark's tests ask of them.

It takes what is created, places the pods as the manifest says, and runs each pod's container as a process of this machine,
with the environment, the mounted invitation and the arguments that the manifest gives it, and with nothing else. It shows
how a run is controlled; that a real cluster takes the same manifest it does not show.

    kubectl create --filename=- [--output=json|name]    get pods|nodes --output=json    delete KINDS --wait=false

HALLMARK_STANDIN names its folder: objects, pods, what was called (`calls`), and trouble that a test asks for
(`trouble.json`: a node's name and {"reason": …, "message": …}; with "unplaced": true no pod is placed on it), and the nodes that a test puts there (`nodes.json`).
HALLMARK_STANDIN_PROGRAM is the program that the image would hold.
"""

import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import uuid

STATE = pathlib.Path(os.environ["HALLMARK_STANDIN"])
KNOWN = {"Job": "jobs", "JobSet": "jobsets.jobset.x-k8s.io", "Secret": "secrets", "Service": "services"}
WORKLOADS = ("Job", "JobSet")
HOSTNAME = "kubernetes.io/hostname"
MARK = "HALLMARK_STANDIN"


def refuse(why):
    sys.exit(f"Error from a stand-in for a cluster: {why}")


def read(path):
    return json.loads(path.read_text())


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value))
    temporary.chmod(0o600)
    temporary.rename(path)


def objects():
    return [read(path) for path in sorted((STATE / "objects").glob("*.json"))]


def place_of(thing):
    return STATE / "objects" / f"{thing['kind']}.{thing['metadata']['name']}.json"


def selected(thing, selector):
    key, value = selector.split("=", 1)
    return thing["metadata"].get("labels", {}).get(key) == value


def create(options):
    given = json.load(sys.stdin)
    things = given["items"] if given["kind"] == "List" else [given]
    uids = {thing["metadata"]["uid"] for thing in objects()}
    for thing in things:
        if thing["kind"] not in KNOWN:
            refuse(f"no kind {thing['kind']}")
        if thing["metadata"].get("namespace") != options.get("namespace"):
            refuse("the namespace of the request and of the object differ")
        if place_of(thing).exists():
            refuse(f"{thing['metadata']['name']} already exists")
        for owner in thing["metadata"].get("ownerReferences", []):
            if owner["uid"] not in uids:
                refuse(f"no owner {owner['uid']}")
    for thing in things:
        thing["metadata"]["uid"] = str(uuid.uuid4())
        write(place_of(thing), thing)
        if thing["kind"] == "Secret":
            thing = {**thing, "stringData": sorted(thing["stringData"])}
        write(STATE / "created" / place_of(thing).name, thing)
    start_pods()
    if options.get("output") == "json":
        print(json.dumps(given))
    else:
        print("\n".join(f"{KNOWN[thing['kind']]}/{thing['metadata']['name']}" for thing in things))


def job_of(thing):
    """The Job, and its name as its controller forms it."""
    name = thing["metadata"]["name"]
    if thing["kind"] == "Job":
        return name, thing["spec"]
    group = thing["spec"]["replicatedJobs"][0]
    return f"{name}-{group['name']}-0", group["template"]["spec"]


def nodes_of(pod):
    """The nodes on which pods may stand, one for each; where the manifest does not say so, all on the first."""
    affinity = pod["affinity"]
    terms = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    allowed = [expression for expression in terms[0]["matchExpressions"] if expression["key"] == HOSTNAME][0]["values"]
    apart = affinity.get("podAntiAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution", [])
    return allowed if any(term["topologyKey"] == HOSTNAME for term in apart) else allowed[:1] * len(allowed)


def start_pods():
    """Pods of Jobs whose Secrets are all there; a pod waits for the volumes that it names."""
    trouble = read(STATE / "trouble.json") if (STATE / "trouble.json").exists() else {}
    secrets = {thing["metadata"]["name"]: thing for thing in objects() if thing["kind"] == "Secret"}
    for thing in objects():
        if thing["kind"] not in WORKLOADS:
            continue
        name, job = job_of(thing)
        pod = job["template"]["spec"]
        names = [source["secret"]["name"] for volume in pod["volumes"] for source in volume.get("projected", {}).get("sources", [])]
        if not all(name in secrets for name in names):
            continue
        keys = {key: text for name in names for key, text in secrets[name]["stringData"].items()}
        if job["completionMode"] != "Indexed" or job["completions"] != job["parallelism"]:
            refuse("this is no Job with a pod for each index at once")
        for index, node in zip(range(job["completions"]), nodes_of(pod)):
            folder = STATE / "pods" / f"{name}-{index}"
            if folder.exists():
                continue
            folder.mkdir(parents=True)
            ill = trouble.get(node)
            status = {"phase": "Pending"}
            if ill and ill.get("unplaced"):
                status["conditions"] = [{"type": "PodScheduled", "status": "False", "reason": ill["reason"], "message": ill["message"]}]
            elif ill:
                status["containerStatuses"] = [{"state": {"waiting": {"reason": ill["reason"], "message": ill["message"]}}}]
            metadata = {"name": folder.name, "labels": job["template"]["metadata"]["labels"]}
            placed = {} if ill and ill.get("unplaced") else {"nodeName": node}
            write(folder / "pod.json", {"metadata": metadata, "spec": {**pod, **placed}, "status": status})
            if not ill:
                write(folder / "index.json", index)
                mount(folder, pod, node, keys)
                subprocess.Popen([sys.executable, __file__, "run-pod", str(folder)], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def environment(pod, node, index):
    known = {"PATH": os.environ["PATH"], "JOB_COMPLETION_INDEX": str(index), MARK: str(STATE)}
    for entry in pod["containers"][0]["env"]:
        field = entry.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        known[entry["name"]] = {"spec.nodeName": node}[field] if field else entry["value"]
    return known


def mount(folder, pod, node, keys):
    """Writes the one key that the container may see below its folder, with the mode that the volume says."""
    known = environment(pod, node, 0)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for entry in pod["containers"][0]["volumeMounts"]:
        projected = volumes[entry["name"]].get("projected")
        if not projected:
            continue
        key = entry["subPathExpr"]
        for name, value in known.items():
            key = key.replace(f"$({name})", value)
        path = folder / "root" / entry["mountPath"].lstrip("/")
        path.parent.mkdir(parents=True)
        path.touch(mode=0o600)
        path.write_text(keys[key])
        path.chmod(projected["defaultMode"])


def run_pod(folder):
    """The pod's container, from its start to its end."""
    pod = read(folder / "pod.json")
    spec = pod["spec"]
    container = spec["containers"][0]
    mounts = [entry["mountPath"] for entry in container["volumeMounts"] if (folder / "root" / entry["mountPath"].lstrip("/")).exists()]
    words = container["command"] + container["args"]
    for path in mounts:
        words = [word.replace(path, str(folder / "root" / path.lstrip("/"))) for word in words]
    if words[0] == "hallmark":
        words[0] = os.environ["HALLMARK_STANDIN_PROGRAM"]
    log = folder / "log"
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(time.monotonic()))
    with open(log, "wb") as said:
        child = subprocess.Popen(words, env=environment(spec, spec["nodeName"], read(folder / "index.json")),
                                 stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=folder)
    pod["status"] = {"phase": "Running"}
    write(folder / "pod.json", pod)
    passed_on = False
    while child.poll() is None:
        if told and not passed_on:
            child.terminate()
            passed_on = True
        if told and time.monotonic() - told[0] > spec["terminationGracePeriodSeconds"]:
            child.kill()
        time.sleep(0.05)
    # A signal's number is told as a shell tells it.
    code = child.returncode if child.returncode >= 0 else 128 - child.returncode
    state = {"exitCode": code, "reason": "Completed" if child.returncode == 0 else "Error"}
    if child.returncode and container["terminationMessagePolicy"] == "FallbackToLogsOnError":
        state["message"] = log.read_text(errors="replace")[-2048:]
    phase = "Succeeded" if child.returncode == 0 else "Failed"
    pod["status"] = {"phase": phase, "containerStatuses": [{"state": {"terminated": state}}]}
    write(folder / "pod.json", pod)
    for path in mounts:
        invitation = folder / "root" / path.lstrip("/")
        # In a pod it would be in a volume of the pod's own, and go with it.
        shutil.rmtree(json.loads(invitation.read_text())["folder"], ignore_errors=True)
        invitation.unlink()


def supervisors(folder):
    """Whoever runs the pod."""
    for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[2:4] == [b"run-pod", str(folder).encode()]:
            yield int(entry.parent.name)


def get(what, options):
    if what not in ("pods", "nodes") or options.get("output") != "json":
        refuse("only pods and nodes are told of, in JSON")
    if what == "nodes":
        print(json.dumps({"kind": "List", "items": read(STATE / "nodes.json")}))
        return
    pods = [read(path) for path in sorted((STATE / "pods").glob("*/pod.json")) if not (path.parent / "deleted").exists()]
    print(json.dumps({"kind": "List", "items": [pod for pod in pods if selected(pod, options["selector"])]}))


def delete(kinds, options):
    if options.get("wait") != "false":
        refuse("a test would wait for pods to end")
    gone = [thing for thing in objects() if KNOWN[thing["kind"]] in kinds.split(",") and selected(thing, options["selector"])]
    for thing in gone:
        place_of(thing).unlink()
        print(f"{thing['kind']} {thing['metadata']['name']} deleted")
        if thing["kind"] not in WORKLOADS:
            continue
        name, _ = job_of(thing)
        for folder in (STATE / "pods").glob(f"{name}-*"):
            (folder / "deleted").touch()
            for pid in supervisors(folder):
                os.kill(pid, signal.SIGTERM)


def main():
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    if words[0] == "run-pod":
        return run_pod(pathlib.Path(words[1]))
    options = dict(word[2:].split("=", 1) for word in sys.argv[1:] if word.startswith("--"))
    STATE.mkdir(exist_ok=True)
    with open(STATE / "calls", "a") as calls:
        fcntl.flock(calls, fcntl.LOCK_EX)
        calls.write(json.dumps(sys.argv[1:]) + "\n")
        calls.flush()
        if words[0] == "create":
            create(options)
        elif words[0] == "get":
            get(words[1], options)
        elif words[0] == "delete":
            delete(words[1], options)
        else:
            refuse(f"no verb {words[0]}")


if __name__ == "__main__":
    main()
