#!/usr/bin/env python3
"""Compares `ringload.safetensors` with the package safetensors on this machine.

    perf/compare_safetensors.py [--runs 5] [--directory DIR] [ROW ...]

It needs torch, safetensors and ringload, as a release build. A row is measured in turns, each time
in a process of its own; the figures are medians. "cold" means that the file was dropped from the
page cache before, "warm" that it was read. Every row uses every byte that it has loaded.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

START = """
import os, sys, time, torch
path, small = sys.argv[1:3]
if os.environ["PACKAGE"] == "ringload":
    from ringload.safetensors import safe_open
    from ringload.safetensors.torch import load_file
else:
    from safetensors import safe_open
    from safetensors.torch import load_file
def use(tensor):
    return tensor.view(torch.int64).sum()
torch.ones(1 << 20).sum()
began = time.perf_counter()
"""

ROWS = {
    "load_file, all bytes used": "for tensor in load_file(path).values(): use(tensor)",
    "load_file alone": "tensors = load_file(path)",
    "686 tensors, each copied and dropped": """
into = torch.empty(4 << 20, dtype=torch.bfloat16)
with safe_open(path, framework="pt") as opened:
    for name in opened.keys():
        tensor = opened.get_tensor(name)
        into[:tensor.numel()].copy_(tensor)
        del tensor
""",
    "686 tensors, by get_slice": """
into = torch.empty(4 << 20, dtype=torch.bfloat16)
with safe_open(path, framework="pt") as opened:
    for name in opened.keys():
        tensor = opened.get_slice(name)[:]
        into[:tensor.numel()].copy_(tensor)
        del tensor
""",
    "20,000 tensors of 16 KiB": """
with safe_open(small, framework="pt") as opened:
    for name in opened.keys():
        use(opened.get_tensor(name))
""",
    "20,000 tensors of 16 KiB, pread": """
with safe_open(small, framework="pt", backend="pread") as opened:
    for name in opened.keys():
        use(opened.get_tensor(name))
""",
}

END = "\nprint(time.perf_counter() - began)\n"

MEMORY = """
for tensor in load_file(path).values(): use(tensor)
tensors = load_file(path)
for tensor in tensors.values(): use(tensor)
print("ready", flush=True)
sys.stdin.readline()
"""


def write_files(directory: Path) -> tuple[Path, Path]:
    """Writes a file of 1.7 GB with 686 tensors, and one with 20,000."""
    import torch
    from safetensors.torch import save_file

    big, small = directory / "big.safetensors", directory / "small.safetensors"
    if not big.exists():
        each = 1_700_000_000 // 686 // 8 * 4
        tensors = {f"layers.{n:04}.w": torch.randn(each).bfloat16() for n in range(686)}
        save_file(tensors, big)
    if not small.exists():
        save_file({f"t.{n:05}": torch.randn(8192).bfloat16() for n in range(20_000)}, small)
    return big, small


def settle(files: tuple[Path, Path], *, cold: bool) -> None:
    """Drops the files from the page cache, or reads them into it."""
    for path in files:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            if cold:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while file.read(16 << 20):
                    pass


def environment(package: str) -> dict[str, str]:
    """Returns the environment of a client that uses `package`."""
    return {**os.environ, "PACKAGE": package}


def seconds(row: str, package: str, files: tuple[Path, Path]) -> float:
    """Runs a row once."""
    command = [sys.executable, "-c", START + ROWS[row] + END, *map(str, files)]
    done = subprocess.run(
        command, check=True, text=True, stdout=subprocess.PIPE, env=environment(package)
    )
    return float(done.stdout)


def shared_memory(package: str, files: tuple[Path, Path]) -> float:
    """Returns the proportional memory of two processes that hold one model, in GB."""
    command = [sys.executable, "-c", START + MEMORY, *map(str, files)]
    clients = [
        subprocess.Popen(
            command,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(package),
        )
        for _ in range(2)
    ]
    for client in clients:
        client.stdout.readline()
    total = 0
    for client in clients:
        rollup = Path(f"/proc/{client.pid}/smaps_rollup").read_text()
        line = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
        total += int(line.split()[1]) * 1024
    for client in clients:
        client.communicate("\n")
    return total / 1e9


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--directory", type=Path, help="where the files are, or are written to")
    parser.add_argument("rows", nargs="*", help="the beginnings of rows; all by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        files = write_files(arguments.directory or Path(scratch))
        print("| | safetensors | ringload | ratio |\n| --- | --- | --- | --- |")
        for row in ROWS:
            if arguments.rows and not row.startswith(tuple(arguments.rows)):
                continue
            for cold in (True, False):
                found: dict[str, list[float]] = {"safetensors": [], "ringload": []}
                for _ in range(arguments.runs):
                    for package, times in found.items():
                        settle(files, cold=cold)
                        times.append(seconds(row, package, files))
                theirs, ours = (statistics.median(times) for times in found.values())
                label = f"{row}, {'cold' if cold else 'warm'}"
                print(
                    f"| {label} | {theirs:.3f} s | {ours:.3f} s | {ours / theirs:.2f} |", flush=True
                )
        if not arguments.rows or "memory" in arguments.rows:
            theirs, ours = (shared_memory(each, files) for each in ("safetensors", "ringload"))
            label = "two processes that hold one model: memory"
            print(f"| {label} | {theirs:.2f} GB | {ours:.2f} GB | {ours / theirs:.2f} |")


if __name__ == "__main__":
    main()
