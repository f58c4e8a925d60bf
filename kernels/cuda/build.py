#!/usr/bin/env python3
"""Makes the PTX beside it from the CUDA sources, and cubins from that PTX, with no GPU and no CUDA toolkit.

Decides with which tools: NVRTC of CUDA 12.4, whose PTX ISA 8.4 a driver of release 550 takes; the assembler of the same
release, which stands for that driver's own compiler; and a newer assembler, which knows Blackwell. All are pinned
packages of PyPI, installed into a folder of their own. Refuses to go on where one of them is missing or another version.

    build.py install            install the pinned packages (pip, no dependencies)
    build.py ptx [--out DIR]    write the PTX files; without --out into ptx/ beside this script
    build.py cubins --out DIR   assemble the committed PTX for every architecture; one JSON line per kernel
    build.py check              exit 0 where the tools are installed, else say what is missing

--tools DIR names the folder of the packages; it is target/cuda-tools of the repository unless given.
"""

import argparse
import ctypes
import json
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
PINNED = {
    "nvidia-cuda-nvrtc-cu12": "12.4.127",
    "nvidia-cuda-nvcc-cu12": "12.4.131",
    "nvidia-cuda-nvcc": "13.5.37",
    "nvidia-cuda-nvdisasm": "13.5.37",
}
NVRTC = "nvidia/cuda_nvrtc/lib/libnvrtc.so.12"
BUILTINS = "nvidia/cuda_nvrtc/lib/libnvrtc-builtins.so.12.4"
PTXAS_OF_550 = "nvidia/cuda_nvcc/bin/ptxas"
PTXAS_NEW = "nvidia/cu13/bin/ptxas"
NVDISASM = "nvidia/cu13/bin/nvdisasm"

# Source and architecture of each PTX file.
SOURCES = [
    ("step", "compute_80"),
    ("all_reduce", "compute_80"),
    ("matmul", "compute_80"),
    ("matmul", "compute_89"),
    ("hopper", "sm_90a"),
]
HEADERS = ["generator.cuh", "ptx.cuh", "hopper.cuh", "wgmma.cuh"]
# Which assembler makes which architecture of which PTX: what a driver's compiler would do on such a device.
PORTABLE = [
    (PTXAS_OF_550, "sm_80"),
    (PTXAS_OF_550, "sm_89"),
    (PTXAS_OF_550, "sm_90a"),
    (PTXAS_NEW, "sm_80"),
    (PTXAS_NEW, "sm_89"),
    (PTXAS_NEW, "sm_90a"),
    (PTXAS_NEW, "sm_100a"),
    (PTXAS_NEW, "sm_120a"),
]


def ptx_name(source, arch):
    return f"{source}.{arch}.ptx"


def architectures(arch):
    """Those on which the PTX for `arch` is loaded."""
    if arch.startswith("sm_"):
        return [(tool, each) for tool, each in PORTABLE if each == arch]
    least = int(arch.removeprefix("compute_"))
    return [(tool, each) for tool, each in PORTABLE if int(re.findall(r"\d+", each)[0]) >= least]


def missing(tools):
    """What of the pinned packages is not in the folder, in words."""
    wanted = []
    for package, version in PINNED.items():
        folder = package.replace("-", "_")
        if not (tools / f"{folder}-{version}.dist-info").is_dir():
            wanted.append(f"{package}=={version}")
    return wanted


def require(tools):
    wanted = missing(tools)
    if wanted:
        sys.exit(f"build.py: {tools} lacks {' '.join(wanted)}; run `python3 kernels/cuda/build.py install`")


def install(tools):
    if not missing(tools):
        return
    packages = [f"{package}=={version}" for package, version in PINNED.items()]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--upgrade"]
    done = subprocess.run([*pip, "--target", str(tools), *packages], check=False)
    if done.returncode:
        sys.exit(f"build.py: pip could not install {' '.join(packages)} into {tools}")
    require(tools)


class Nvrtc:
    """The four calls that are needed."""

    def __init__(self, tools):
        ctypes.CDLL(str(tools / BUILTINS), mode=ctypes.RTLD_GLOBAL)
        self.library = ctypes.CDLL(str(tools / NVRTC))

    def text(self, program, what):
        size = ctypes.c_size_t()
        getattr(self.library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(self.library, f"nvrtcGet{what}")(program, buffer)
        return buffer.value.decode()

    def compile(self, source, arch):
        headers = [name for name in HEADERS if (HERE / name).exists()]
        texts = (ctypes.c_char_p * len(headers))(*[(HERE / name).read_bytes() for name in headers])
        names = (ctypes.c_char_p * len(headers))(*[name.encode() for name in headers])
        program = ctypes.c_void_p()
        text = (HERE / f"{source}.cu").read_bytes()
        made = self.library.nvrtcCreateProgram(
            ctypes.byref(program), text, f"{source}.cu".encode(), len(headers), texts, names
        )
        if made:
            sys.exit(f"build.py: NVRTC takes no program, code {made}")
        options = [f"--gpu-architecture={arch}", "--std=c++17", "--no-source-include"]
        given = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        code = self.library.nvrtcCompileProgram(program, len(options), given)
        log = self.text(program, "ProgramLog")
        if code:
            sys.exit(f"build.py: {source}.cu for {arch}:\n{log}")
        if log.strip():
            print(log, file=sys.stderr)
        return self.text(program, "PTX")


def write_ptx(tools, out):
    require(tools)
    nvrtc = Nvrtc(tools)
    out.mkdir(parents=True, exist_ok=True)
    for source, arch in SOURCES:
        (out / ptx_name(source, arch)).write_text(nvrtc.compile(source, arch))


ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")


def kernels(text):
    """What the assembler said of each entry."""
    found = []
    for line in text.splitlines():
        if entry := ENTRY.search(line):
            found.append({"kernel": entry[1], "arch": entry[2]})
        elif spills := SPILLS.search(line):
            # Functions that are not entries have lines of their own, before the first entry or between.
            if found and "spill_stores" not in found[-1]:
                found[-1].update(stack=int(spills[1]), spill_stores=int(spills[2]), spill_loads=int(spills[3]))
        elif (used := USED.search(line)) and found:
            found[-1]["registers"] = int(used[1])
    return found


def cubins(tools, out, ptx):
    require(tools)
    out.mkdir(parents=True, exist_ok=True)
    for source, arch in SOURCES:
        for tool, target in architectures(arch):
            release = "12.4" if tool == PTXAS_OF_550 else "13.5"
            cubin = out / f"{source}.{arch}.{target}.{release}.cubin"
            command = [str(tools / tool), "-v", f"-arch={target}", str(ptx / ptx_name(source, arch)), "-o", str(cubin)]
            made = subprocess.run(command, capture_output=True, text=True, check=False)
            if made.returncode:
                sys.exit(f"build.py: {' '.join(command)}\n{made.stdout}{made.stderr}")
            said = made.stdout + made.stderr
            # Advice has a number such as (C7510): products serialised, a register request ignored.
            warnings = [line for line in said.splitlines() if "warning" in line.lower() or "(C7" in line]
            sass = subprocess.run(
                [str(tools / NVDISASM), "-c", str(cubin)], capture_output=True, text=True, check=True
            ).stdout
            bodies = re.split(r"^\s*\.section\s+\.text\.", sass, flags=re.MULTILINE)[1:]
            by_name = {re.match(r"\w+", body)[0]: body for body in bodies}
            for kernel in kernels(said):
                body = by_name.get(kernel["kernel"], "")
                counts = {word: len(re.findall(rf"\b{word}\b", body)) for word in ("HGMMA", "QGMMA", "HMMA", "IMMA", "QMMA")}
                kernel.update(ptx=ptx_name(source, arch), release=release, warnings=warnings, **counts)
                kernel["instructions"] = len(re.findall(r"^\s+/\*[0-9a-f]+\*/", body, flags=re.MULTILINE))
                print(json.dumps(kernel))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["install", "ptx", "cubins", "check"])
    parser.add_argument("--tools", type=pathlib.Path, default=HERE.parent.parent / "target/cuda-tools")
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    tools = arguments.tools.resolve()
    if arguments.command == "install":
        install(tools)
    elif arguments.command == "ptx":
        write_ptx(tools, arguments.out or HERE / "ptx")
    elif arguments.command == "cubins":
        if arguments.out is None:
            parser.error("cubins needs --out DIR")
        cubins(tools, arguments.out, HERE / "ptx")
    else:
        require(tools)


if __name__ == "__main__":
    main()
