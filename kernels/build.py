#!/usr/bin/env python3
"""Builds the kernels' PTX with a pinned NVRTC from PyPI (x86-64 Linux).

    kernels/build.py           writes scatter.ptx, cast.ptx and crc64.ptx
    kernels/build.py --check   builds them and fails if they differ from the files; then assembles
                               them for three generations of GPUs and prints the resources they use;
                               spilled registers fail the check too

Neither a GPU nor CUDA is needed. The compiler's release decides which drivers accept the PTX: CUDA
12.2 writes PTX 8.2, which drivers from 535 on accept. Each file begins with a hash of its sources
(including this script), which the crate's tests check.
"""

import argparse
import ctypes
import hashlib
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODULES = ["scatter", "cast", "crc64"]
SHARED = ["build.py", "pieces.cuh"]
FLAGS = ["--gpu-architecture=compute_70", "--std=c++17"]
PTX_VERSION = ".version 8.2"
ASSEMBLED_FOR = ["sm_75", "sm_80", "sm_90"]
REQUIREMENTS = """\
nvidia-cuda-nvrtc-cu12==12.2.140 --hash=sha256:b1cdcae6443cb7cdcfb5d1bf51896a148c9f82f9e65b27db9ab095eaed689aa7
nvidia-cuda-nvcc-cu12==12.2.140 --hash=sha256:c6ff4ae7a636eb6cab7621191e19ac3779690686bbcf52c04d8b1ca2944e1e27
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare and assemble; write nothing")
    check = parser.parse_args().check
    tools = install()
    compiler = Compiler(tools / "cuda_nvrtc" / "lib" / "libnvrtc.so.12")
    stale = []
    for module in MODULES:
        ptx, path = build(compiler, module), HERE / f"{module}.ptx"
        if not check:
            path.write_text(ptx)
            print(f"{path.name}: {len(ptx)} bytes")
        elif not path.exists() or path.read_text() != ptx:
            stale.append(path.name)
    if stale:
        sys.exit(f"error: {' and '.join(stale)} is stale; run kernels/build.py")
    if check:
        assemble_all(tools / "cuda_nvcc" / "bin" / "ptxas")


def install():
    """Returns the folder of NVIDIA's packages, installed in a virtual environment under target/."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target"))
    root = target / "kernels"
    done, wanted = root / "requirements.done", root / "requirements.txt"
    if not done.exists() or done.read_text() != REQUIREMENTS:
        venv.create(root, clear=True, with_pip=True)
        wanted.write_text(REQUIREMENTS)
        pip = [root / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", "--require-hashes", "-r", wanted], check=True)
        done.write_text(REQUIREMENTS)
    return next(root.glob("lib/python3*/site-packages/nvidia"))


def build(compiler, module):
    """Returns the PTX of a module, which begins with the hash of its sources."""
    source = HERE / f"{module}.cu"
    digest = hashlib.sha256()
    for name in [*SHARED, source.name]:
        digest.update((HERE / name).read_bytes())
    ptx = compiler.compile(source.name, source.read_bytes())
    if PTX_VERSION not in ptx:
        sys.exit(f"error: {module}.ptx is not of {PTX_VERSION}, so other drivers would accept it")
    return f"// Built by kernels/build.py from sources of sha256 {digest.hexdigest()}\n{ptx}"


class Compiler:
    """NVRTC, through its C interface."""

    def __init__(self, library):
        self.nvrtc = ctypes.CDLL(str(library))

    def compile(self, name, source):
        program = ctypes.c_void_p()
        self.call("CreateProgram", ctypes.byref(program), source, name.encode(), 0, None, None)
        flags = [flag.encode() for flag in [*FLAGS, f"--include-path={HERE}"]]
        array = (ctypes.c_char_p * len(flags))(*flags)
        failed = self.nvrtc.nvrtcCompileProgram(program, len(flags), array)
        log = self.text(program, "ProgramLog").strip()
        if failed or log:
            sys.exit(f"error: {name} does not compile without messages:\n{log}")
        return self.text(program, "PTX")

    def text(self, program, what):
        size = ctypes.c_size_t()
        self.call(f"Get{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self.call(f"Get{what}", program, buffer)
        return buffer.value.decode()

    def call(self, function, *arguments):
        failed = getattr(self.nvrtc, f"nvrtc{function}")(*arguments)
        if failed:
            sys.exit(f"error: nvrtc{function} failed with {failed}")


def assemble_all(ptxas):
    ptxas.chmod(0o755)  # wheels do not keep file modes
    print(f"{'kernel':<28}" + "".join(f"{arch:>24}" for arch in ASSEMBLED_FOR))
    rows = {}
    for module in MODULES:
        for arch in ASSEMBLED_FOR:
            for kernel, taken in assemble(ptxas, module, arch).items():
                rows.setdefault(kernel, []).append(taken)
    for kernel, columns in rows.items():
        print(f"{kernel:<28}" + "".join(f"{taken:>24}" for taken in columns))


def assemble(ptxas, module, arch):
    """Returns the resources of a multiprocessor that each kernel uses, by name."""
    command = [ptxas, "-v", f"-arch={arch}", "-o", "/dev/null", HERE / f"{module}.ptx"]
    log = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    taken = {}
    for part in log.split("Compiling entry function '")[1:]:
        kernel = part.split("'")[0]
        registers = re.search(r"Used (\d+) registers", part)[1]
        shared = re.search(r"(\d+) bytes smem", part)
        spilled = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores", part)
        if spilled.groups() != ("0", "0"):
            sys.exit(f"error: {kernel} spills registers on {arch}:\n{part}")
        taken[kernel] = f"{registers} reg, {shared[1] if shared else 0} B"
    return taken


main()
