"""Loads over HTTP on loopback to the GPU, compared with the same loads to host memory."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import step

FILES = 2


def load(ringload: Any, urls: list[str], device: str) -> tuple[list[Any], float, float]:
    """Loads; returns the tensors, the seconds, and the processor seconds of this process."""
    cpu, began = time.process_time(), time.monotonic()
    tensors = list(ringload.Loader(device=device).stream(urls, keep_all=True))
    return tensors, time.monotonic() - began, time.process_time() - cpu


def compare(found: list[Any], wanted: list[Any]) -> int:
    """Raises unless the tensors on the GPU are those in host memory."""
    import torch

    stand_in = step.is_stand_in()
    host = {tensor.name: torch.from_dlpack(Bits(tensor)) for tensor in wanted}
    for tensor in found:
        there = step.view(tensor) if stand_in else torch.from_dlpack(Bits(tensor)).cpu()
        if not torch.equal(step.raw(there), step.raw(host[tensor.name])):
            raise AssertionError(f"{tensor.name}: the bytes are wrong")
    return len(found)


class Bits:
    """A native tensor that DLPack takes as integers of the same width."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    def __dlpack__(self, **_: Any) -> Any:
        return self.tensor.dlpack_as_integers()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.tensor.__dlpack_device__()


def main() -> None:
    """Measures both in turns."""
    step.use("ringload")
    import ringload

    files = [Path(file) for file in step.SETTINGS["tmpfs_files"][:FILES]]
    script = Path(__file__).with_name("range_server.py")
    server = subprocess.Popen(
        [sys.executable, "-B", script, files[0].parent],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    port = int(server.stdout.readline())
    urls = [f"http://127.0.0.1:{port}/{file.name}" for file in files]
    figures = step.Figures()

    def check() -> int:
        wanted, _, _ = load(ringload, [str(file) for file in files], "cpu")
        found, _, _ = load(ringload, urls, step.DEVICE)
        if len(found) != len(wanted):
            raise AssertionError(f"{len(found)} of {len(wanted)} tensors came")
        return compare(found, wanted)

    step.check("HTTP: the bytes on the GPU", check)
    for _ in range(step.SETTINGS["turns"]):
        if step.seconds_left() <= 0:
            break
        speeds = {}
        for device in (step.DEVICE, "cpu"):
            tensors, seconds, cpu = load(ringload, urls, device)
            gigabytes = sum(tensor.nbytes for tensor in tensors) / 1e9
            del tensors
            where = "host memory" if device == "cpu" else "the GPU"
            speeds[device] = gigabytes / seconds
            figures.add(f"HTTP on loopback to {where}", "GB/s", speeds[device])
            name = f"HTTP on loopback to {where}: CPU time"
            figures.add(name, "CPU-s/GB", cpu / gigabytes)
        ratio = speeds[step.DEVICE] / speeds["cpu"]
        figures.add("HTTP on loopback to the GPU / to host memory", "", ratio)
    server.stdin.close()
    server.wait(timeout=5)


main()
