#!/usr/bin/env python3
"""Builds the kernels' PTX with a pinned NVRTC from PyPI (x86-64 Linux).

    kernels/build.py           writes scatter.ptx, cast.ptx and crc64.ptx
    kernels/build.py --check   builds them and fails if they differ from the files; then assembles
                               them for all generations of GPUs, by the assemblers of three releases
                               of CUDA, and prints the resources they use; spilled registers fail
                               the check too

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
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODULES = ["scatter", "cast", "crc64"]
SHARED = ["build.py", "pieces.cuh"]
FLAGS = ["--gpu-architecture=compute_70", "--std=c++17"]
PTX_VERSION = ".version 8.2"
REQUIREMENTS = """\
nvidia-cuda-nvrtc-cu12==12.2.140 --hash=sha256:b1cdcae6443cb7cdcfb5d1bf51896a148c9f82f9e65b27db9ab095eaed689aa7
"""
# The assemblers, each with the GPUs that it is asked for. CUDA 13 has dropped Volta.
ASSEMBLERS = {
    "nvidia-cuda-nvcc-cu12==12.2.140 "
    "--hash=sha256:c6ff4ae7a636eb6cab7621191e19ac3779690686bbcf52c04d8b1ca2944e1e27": "70 80 90",
    "nvidia-cuda-nvcc-cu12==12.9.86 "
    "--hash=sha256:5d6a0d32fdc7ea39917c20065614ae93add6f577d840233237ff08e9a38f58f0": "70 72 75",
    "nvidia-cuda-nvcc==13.0.88 "
    "--hash=sha256:56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03": (
        "75 80 86 87 88 89 90 100 103 110 120 121"
    ),
}


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
        for requirement, models in ASSEMBLERS.items():
            assemble_all(assembler(requirement), [f"sm_{model}" for model in models.split()])


def install():
    """Returns the folder of NVIDIA's packages, installed in a virtual environment under target/."""
    root = root_folder()
    done, wanted = root / "requirements.done", root / "requirements.txt"
    if not done.exists() or done.read_text() != REQUIREMENTS:
        venv.create(root, clear=True, with_pip=True)
        wanted.write_text(REQUIREMENTS)
        pip("install", "--require-hashes", "-r", wanted)
        done.write_text(REQUIREMENTS)
    return next(root.glob("lib/python3*/site-packages/nvidia"))


def root_folder():
    target = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target"))
    return target / "kernels"


def pip(command, *arguments):
    options = ["--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([root_folder() / "bin" / "pip", command, *options, *arguments], check=True)


def assembler(requirement):
    """Returns ptxas of a release of CUDA, unpacked from its package."""
    folder = root_folder() / "ptxas" / requirement.split()[0]
    if not (folder / "ptxas").exists():
        folder.mkdir(parents=True, exist_ok=True)
        wanted = folder / "requirements.txt"
        wanted.write_text(requirement + "\n")
        pip("download", "--require-hashes", "--dest", folder, "-r", wanted)
        (archive,) = folder.glob("*.whl")
        with zipfile.ZipFile(archive) as wheel:
            (name,) = [name for name in wheel.namelist() if name.endswith("/bin/ptxas")]
            (folder / "ptxas").write_bytes(wheel.read(name))
        archive.unlink()
    return folder / "ptxas"


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


def assemble_all(ptxas, architectures):
    ptxas.chmod(0o755)  # wheels do not keep file modes
    print(f"{ptxas.parent.name:<32}" + "".join(f"{arch:>18}" for arch in architectures))
    rows = {}
    for module in MODULES:
        for arch in architectures:
            for kernel, taken in assemble(ptxas, module, arch).items():
                rows.setdefault(kernel, []).append(taken)
    for kernel, columns in rows.items():
        print(f"{kernel:<32}" + "".join(f"{taken:>18}" for taken in columns))


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
