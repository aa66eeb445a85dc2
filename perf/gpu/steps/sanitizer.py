"""NVIDIA's compute-sanitizer over a short load and over the checks of the kernels.

memcheck finds accesses outside of allocations and leaks, racecheck hazards in shared memory, and
synccheck wrong barriers. (initcheck would report the kernels' reads of whole words, which hold up
to three bytes beside a piece.) A machine on which the tool refuses its work is reported as such,
and is no error of ringload.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import step

PLACES = [
    "/usr/local/cuda/bin",
    "/opt/nvidia/compute-sanitizer",
    "/usr/local/cuda/compute-sanitizer",
]
#: The tool's own status for what it found.
FOUND = 86
SUMMARY = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)")
REFUSALS = ("Device not supported", "Internal Sanitizer Error", "Failed to initialize")
CHECK_BYTES = "1MiB"


def tool() -> str | None:
    """The path of compute-sanitizer."""
    return shutil.which("compute-sanitizer", path=os.pathsep.join([os.environ["PATH"], *PLACES]))


def runs() -> list[tuple[str, list[str]]]:
    """The tools, each with the command that it watches."""
    settings = step.SETTINGS
    places = [f"--device={settings['device']}", f"--dir={settings['dir']}"]
    kernels = [settings["own"], "step", "right-kernels", f"--check-bytes={CHECK_BYTES}", *places]
    small = str(write_small())
    load = [settings["ringload"], "load", small, "--device", step.DEVICE, "--verify"]
    cast = [settings["ringload"], "load", small, "--device", step.DEVICE, "--dtype", "f32"]
    cast += ["--memory-limit", "min"]
    return [
        ("memcheck", load),
        ("memcheck", cast),
        ("racecheck", kernels),
        ("memcheck", kernels),
        ("synccheck", kernels),
    ]


def write_small() -> Path:
    """A small file with tensors of several types and sizes."""
    import torch
    from safetensors.torch import save_file

    tensors = {
        f"{number}": torch.randn(37 * number + 1, 129).to(dtype)
        for number in range(40)
        for dtype in [(torch.float32, torch.bfloat16, torch.float16)[number % 3]]
    }
    path = step.WORK / "sanitized.safetensors"
    save_file(tensors, path)
    return path


def watch(program: str, name: str, command: list[str]) -> int:
    """Runs a command under the tool; raises with what the tool found."""
    options = ["--tool", name, "--error-exitcode", str(FOUND), "--target-processes", "all"]
    if name == "memcheck":
        options += ["--leak-check", "full"]
    seconds = max(step.seconds_left(), 1.0)
    ended = subprocess.run(
        [program, *options, *command],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    text = ended.stdout + ended.stderr
    if any(refusal in text for refusal in REFUSALS):
        raise NotImplementedError(first_line(text, REFUSALS))
    count = sum(int(found) for found in SUMMARY.findall(text))
    # Some of the checks of the kernels may fail because of the tool, but their records say so.
    wrong = '"error":"' in ended.stdout
    if ended.returncode != 0 or count or wrong:
        lines = [line for line in text.splitlines() if "=====" in line]
        raise AssertionError(f"status {ended.returncode}, {count} found: {' / '.join(lines[:6])}")
    return 1


def first_line(text: str, words: tuple[str, ...]) -> str:
    """The first line with one of the words."""
    return next(line for line in text.splitlines() if any(word in line for word in words)).strip()


def main() -> None:
    """Runs the tools one after the other, while there is time."""
    program = tool()
    if program is None:
        step.skip("compute-sanitizer is not installed")
        return
    for name, command in runs():
        cast = " --dtype" if "--dtype" in command else ""
        what = f"{name}: {Path(command[0]).name} {command[1]}{cast}"
        if step.seconds_left() <= 0:
            step.skip(f"{what}: no time was left")
            continue
        try:
            watched = watch(program, name, command)
        except NotImplementedError as refusal:
            step.skip(f"{what}: refused: {refusal}")
        except subprocess.TimeoutExpired:
            step.skip(f"{what}: no time was left")
        except AssertionError as error:
            step.record("check", name=what, cases=0, error=str(error))
        else:
            step.record("check", name=what, cases=watched, error=None)


main()
