"""What the steps in Python share: their settings, the packages, and the records that they print.

`ringload-gpu run` starts each step and passes the settings in RINGLOAD_GPU_STEP. A record is a line
of JSON, as src/record.rs describes it. On the stand-in for the CUDA driver torch has no GPU; device
memory is host memory there, and `view` makes host tensors of it.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

SETTINGS: dict[str, Any] = json.loads(os.environ["RINGLOAD_GPU_STEP"])
PACK = Path(SETTINGS["own"]).parent
DEVICE = f"cuda:{SETTINGS['device']}"
WORK = Path(SETTINGS["dir"])
BEGAN = time.monotonic()

NAME_BYTES = 100


def record(kind: str, **fields: Any) -> None:
    """Prints a record."""
    print(json.dumps({"kind": kind, **fields}), flush=True)


def note(text: str) -> None:
    """Records a fact that explains figures."""
    record("note", text=text)


def skip(why: str) -> None:
    """Records what could not be measured."""
    record("skip", why=why)


def check(name: str, work: Callable[[], int]) -> bool:
    """Records a check; `work` returns the number of its cases, or raises."""
    cases, error = 0, None
    try:
        cases = work()
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    record("check", name=name, cases=cases, error=error)
    return error is None


class Figures:
    """Figures by name, each with its turns so far."""

    def __init__(self) -> None:
        self.turns: dict[str, list[float]] = {}

    def add(
        self, name: str, unit: str, value: float, target: tuple[str, float] | None = None
    ) -> None:
        """Adds a turn; `target` is `at_most` or `at_least`, and a number."""
        turns = self.turns.setdefault(name, [])
        turns.append(value)
        enough = min(int(SETTINGS["turns"]), 3)
        record("figure", name=name, unit=unit, turns=turns, target=target, enough=enough)


def seconds_left() -> float:
    """The seconds after which no turn begins any more."""
    return float(SETTINGS["seconds"]) - (time.monotonic() - BEGAN)


def site(distribution: str) -> Path:
    """Unpacks a wheel of the pack, once, and returns the folder for PYTHONPATH."""
    folder = WORK / "site" / distribution
    if folder.exists():
        return folder
    wheels = sorted((PACK / "wheels").glob(f"{distribution}-*.whl"))
    if not wheels:
        raise FileNotFoundError(f"the pack has no wheel of {distribution}; MANIFEST says why")
    unfinished = folder.with_name(f"{distribution}.{os.getpid()}")
    with zipfile.ZipFile(wheels[-1]) as wheel:
        wheel.extractall(unfinished)
    # Some wheels keep their files in a folder of their own.
    for data in unfinished.glob("*.data/*lib"):
        shutil.copytree(data, unfinished, dirs_exist_ok=True)
    try:
        unfinished.rename(folder)
    except OSError:  # another process was quicker
        shutil.rmtree(unfinished)
    return folder


def use(distribution: str) -> None:
    """Makes a package of the pack importable in this process."""
    sys.path.insert(0, str(site(distribution)))


def driver() -> Any:
    """The driver's library."""
    library = ctypes.CDLL("libcuda.so.1")
    if library.cuInit(0) != 0:
        raise OSError("the CUDA driver does not start")
    return library


def is_stand_in() -> bool:
    """Whether the driver is the stand-in."""
    name = ctypes.create_string_buffer(NAME_BYTES)
    driver().cuDeviceGetName(name, NAME_BYTES, SETTINGS["device"])
    return b"stand-in" in name.value


def view(tensor: Any) -> Any:
    """A torch tensor of the bytes of a native tensor in the memory of the stand-in."""
    import torch

    size = tensor.nbytes
    if size == 0:
        return torch.empty(0, dtype=torch.uint8)
    memory = (ctypes.c_ubyte * size).from_address(tensor.address)
    memory.owner = tensor  # keeps it alive
    return torch.frombuffer(memory, dtype=torch.uint8)


def raw(tensor: Any) -> Any:
    """The bytes of a torch tensor, as one row on its device."""
    import torch

    return tensor.detach().contiguous().flatten().view(torch.uint8)


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a program and returns what it printed; the caller looks at its status."""
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
