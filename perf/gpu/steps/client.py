"""A client of the comparison with peers: a process that loads on request, and times each load.

    client.py CLIENT    with requests as lines of JSON on its standard input

Importing and the GPU's context are done before the first request. A load begins with the client's
first call, and ends when all tensors are on the GPU and nothing is running there. Tensors are kept
until all are loaded, and dropped outside the measured time. The options are those of the first
example of each client's documentation.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import step
import torch

STAND_IN = step.is_stand_in()
#: Where the peers load to: torch has no GPU on the stand-in.
TARGET = "cpu" if STAND_IN else step.DEVICE

Load = Callable[[list[str]], dict[str, Any]]


def ringload(**options: Any) -> Load:
    """The package of the pack."""
    import ringload as package

    if not STAND_IN:
        return lambda files: package.load(files, device=step.DEVICE, **options)

    def load(files: list[str]) -> dict[str, Any]:
        stream = package.Loader(device=step.DEVICE, **options).stream(files)
        return {tensor.name: step.view(tensor) for tensor in stream}

    return load


def instanttensor(*, buffered: bool) -> Load:
    """InstantTensor: with direct I/O, or as it advises for files that are loaded repeatedly."""
    from instanttensor import BackendPolicy, safe_open

    options = {"backend": BackendPolicy.BUFFERED} if buffered else {}
    device = step.SETTINGS["device"]

    def load(files: list[str]) -> dict[str, Any]:
        with safe_open(files, framework="pt", device=device, **options) as opened:
            return dict(opened.tensors())

    return load


def runai(*, straight: bool) -> Load:
    """Run:ai Model Streamer: to host memory and `.to`, or straight to the GPU."""
    from runai_model_streamer import SafetensorsStreamer

    def load(files: list[str]) -> dict[str, Any]:
        tensors = {}
        with SafetensorsStreamer() as streamer:
            # Views of a buffer that is used again suffice where a copy follows.
            streamer.stream_files(files, device=TARGET if straight else "cpu", owned=straight)
            for name, tensor in streamer.get_tensors():
                tensors[name] = tensor if straight else tensor.to(TARGET, copy=True)
        return tensors

    return load


def safetensors() -> Load:
    """The reference library."""
    from safetensors.torch import load_file

    def load(files: list[str]) -> dict[str, Any]:
        tensors = {}
        for file in files:
            tensors.update(load_file(file, device=TARGET))
        return tensors

    return load


def safetensors_prefetch() -> Load:
    """The next version of the reference library: all files are prefetched at once."""
    from safetensors import safe_open

    def load(files: list[str]) -> dict[str, Any]:
        opened = [safe_open(file, framework="pt", device=TARGET) for file in files]
        tensors = {}
        for loader in [one.prefetch() for one in opened]:
            tensors.update(loader)
        return tensors

    return load


def fastsafetensors() -> Load:
    """Reads through bounce buffers; without GPUDirect Storage."""
    import fastsafetensors as package

    def load(files: list[str]) -> dict[str, Any]:
        loader = package.SafeTensorsFileLoader(None, device=TARGET, nogds=True)
        loader.add_filenames({0: files})
        buffer = loader.copy_files_to_device()
        tensors = {name: buffer.get_tensor(name) for name in loader.get_keys()}
        tensors["."] = Closing(buffer, loader)
        return tensors

    return load


class Closing:
    """Closes the buffer that tensors are views of, when they are dropped."""

    def __init__(self, *owners: Any) -> None:
        self.owners = owners

    def __del__(self) -> None:
        for owner in self.owners:
            owner.close()


#: By name: the wheel, and what prepares the client.
CLIENTS: dict[str, tuple[str, Callable[[], Load]]] = {
    "ringload": ("ringload", ringload),
    "ringload, --memory-limit 64MiB": ("ringload", lambda: ringload(memory_limit="64MiB")),
    "InstantTensor": ("instanttensor", lambda: instanttensor(buffered=False)),
    "InstantTensor, buffered": ("instanttensor", lambda: instanttensor(buffered=True)),
    "Run:ai, .to": ("runai_model_streamer", lambda: runai(straight=False)),
    "Run:ai, straight": ("runai_model_streamer", lambda: runai(straight=True)),
    "safetensors": ("", safetensors),
    "safetensors, prefetch": ("safetensors", safetensors_prefetch),
    "fastsafetensors": ("fastsafetensors", fastsafetensors),
}


def digest(tensor: Any) -> int:
    """A number that depends on every byte and its place, computed where the tensor is."""
    data = step.raw(tensor)
    words = torch.zeros(-(-data.numel() // 8) * 8, dtype=torch.uint8, device=data.device)
    words[: data.numel()] = data
    words = words.view(torch.int64)
    weights = torch.arange(1, 2 * words.numel() + 1, 2, device=data.device)
    return int((words * weights).sum())


def finish() -> None:
    """Waits for the GPU."""
    if not STAND_IN:
        torch.cuda.synchronize()


def serve(load: Load, request: dict[str, Any]) -> dict[str, Any]:
    """Makes a load, and returns its figures."""
    finish()
    cpu, began = time.process_time(), time.monotonic()
    tensors = load(request["files"])
    finish()
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    print(json.dumps({"loaded": True}), flush=True)
    closing = tensors.pop(".", None)
    answer: dict[str, Any] = {"seconds": seconds, "cpu_seconds": cpu, "tensors": len(tensors)}
    answer["bytes"] = sum(tensor.nbytes for tensor in tensors.values())
    if request["digest"]:
        answer["digests"] = {name: digest(tensor) for name, tensor in tensors.items()}
    tensors.clear()
    del tensors, closing
    gc.collect()
    if not STAND_IN:
        torch.cuda.empty_cache()
    return answer


def main() -> None:
    """Answers one request after the other."""
    wheel, prepare = CLIENTS[sys.argv[1]]
    torch.set_num_threads(max(1, min(8, os.cpu_count() or 1)))
    if wheel:
        step.use(wheel)
    load = prepare()
    digest(torch.zeros(1000, dtype=torch.uint8, device=TARGET))  # loads torch's kernels, too
    finish()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        try:
            answer = serve(load, json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
