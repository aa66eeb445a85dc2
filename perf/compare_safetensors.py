#!/usr/bin/env python3
"""Compares `ringload.safetensors` with the package safetensors on this machine.

    perf/compare_safetensors.py [--runs 5] [--directory DIR] [--state cold] [ROW ...]

It needs torch, safetensors and ringload, as a release build, and transformers and diffusers for
their rows. A row is measured in turns, each time in a process of its own; the figures are medians.
"cold" means that the file was dropped from the page cache before, "warm" that it was read. Every
row uses every byte that it has loaded, but for the one that says otherwise.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

STATES = ("cold", "warm")

SETTLE_BYTES = 3 << 30
"""More than a client uses."""

START = f"""
import mmap, os, pathlib, sys, time, torch
path, small, model, state = sys.argv[1:5]
if os.environ["PACKAGE"] == "ringload":
    import ringload
    from ringload.safetensors import safe_open
    from ringload.safetensors.torch import load_file
    ringload.patch()
else:
    from safetensors import safe_open
    from safetensors.torch import load_file
IMPORTS
def use(tensor):
    return tensor.reshape(-1).view(torch.int64).sum()
torch.ones(1 << 20).sum()
files = [path, small]
if model:
    files += map(str, pathlib.Path(model).rglob("*.safetensors"))
for name in files:
    with open(name, "rb") as file:
        os.fsync(file.fileno())
        if state == "cold":
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
# Memory that was free for two seconds may have gone back to the host of a virtual machine.
memory = mmap.mmap(-1, {SETTLE_BYTES}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_HUGEPAGE)
torch.frombuffer(memory, dtype=torch.uint8).fill_(1)
del memory
if state == "warm":
    buffer = bytearray(16 << 20)
    for name in files:
        with open(name, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
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
    "transformers from_pretrained": """
loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
for tensor in loaded.parameters(): use(tensor)
""",
    "diffusers from_pretrained": """
loaded = DiffusionPipeline.from_pretrained(model, torch_dtype=torch.bfloat16, tokenizer=None)
for part in (loaded.unet, loaded.vae, loaded.text_encoder):
    for tensor in part.parameters(): use(tensor)
""",
}

IMPORTS = {
    "transformers": """
from transformers import AutoModelForCausalLM
from transformers.models.llama import LlamaForCausalLM
""",
    "diffusers": """
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline, StableDiffusionPipeline
from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel
""",
}
"""What the rows of a package import before the time begins."""

MODELS = {
    "transformers": """
import sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
torch.set_default_dtype(torch.bfloat16)
sizes = dict(hidden_size=2048, intermediate_size=5504, num_hidden_layers=16, vocab_size=32000)
config = LlamaConfig(**sizes, num_attention_heads=16, dtype=torch.bfloat16)
LlamaForCausalLM(config).save_pretrained(sys.argv[1])
""",
    "diffusers": """
import sys, torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel
torch.set_default_dtype(torch.bfloat16)
unet = UNet2DConditionModel(layers_per_block=1, cross_attention_dim=768)
vae = AutoencoderKL(
    in_channels=4, out_channels=4, block_out_channels=(128, 256, 512, 512), layers_per_block=2,
    down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4)
text = CLIPTextModel(CLIPTextConfig(
    hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12))
scheduler = DDIMScheduler(steps_offset=1, clip_sample=False)
StableDiffusionPipeline(
    unet=unet, vae=vae, text_encoder=text, scheduler=scheduler, tokenizer=None,
    safety_checker=None, feature_extractor=None, requires_safety_checker=False,
).save_pretrained(sys.argv[1])
""",
}
"""Programs that write a Llama of 1.9 GB, and a pipeline of Stable Diffusion of 1.7 GB."""

END = "\nprint(time.perf_counter() - began)\n"

MEMORY = """
for tensor in load_file(path).values(): use(tensor)
tensors = load_file(path)
for tensor in tensors.values(): use(tensor)
print("ready", flush=True)
sys.stdin.readline()
"""


class Files(NamedTuple):
    """What is loaded."""

    big: Path
    small: Path
    models: dict[str, Path]
    """The folders of the models, by the package that loads them."""


def write_files(directory: Path, rows: list[str]) -> Files:
    """Writes a file of 1.7 GB with 686 tensors, one with 20,000, and the models that rows need."""
    import torch
    from safetensors.torch import save_file

    big, small = directory / "big.safetensors", directory / "small.safetensors"
    if not big.exists():
        each = 1_700_000_000 // 686 // 8 * 4
        tensors = {f"layers.{n:04}.w": torch.randn(each).bfloat16() for n in range(686)}
        save_file(tensors, big)
    if not small.exists():
        save_file({f"t.{n:05}": torch.randn(8192).bfloat16() for n in range(20_000)}, small)
    models = {package: directory / package for package in map(package_of, rows) if package}
    for package, model in models.items():
        if not model.exists():
            subprocess.run([sys.executable, "-c", MODELS[package], model], check=True)
    return Files(big, small, models)


def package_of(row: str) -> str:
    """Returns the package that a row loads a model with; "" for rows without a model."""
    return next((package for package in MODELS if row.startswith(package)), "")


def environment(package: str) -> dict[str, str]:
    """Returns the environment of a client that uses `package`."""
    return {**os.environ, "PACKAGE": package}


def command(row: str, body: str, files: Files, state: str) -> list[str]:
    """Returns the command of a client."""
    package = package_of(row)
    program = START.replace("IMPORTS", IMPORTS.get(package, "")) + body
    model = str(files.models.get(package, ""))
    return [sys.executable, "-c", program, str(files.big), str(files.small), model, state]


def seconds(row: str, package: str, files: Files, state: str) -> float:
    """Runs a row once."""
    arguments = command(row, ROWS[row] + END, files, state)
    done = subprocess.run(
        arguments, check=True, text=True, stdout=subprocess.PIPE, env=environment(package)
    )
    return float(done.stdout)


def shared_memory(package: str, files: Files) -> float:
    """Returns the proportional memory of two processes that hold one model, in GB."""
    arguments = command("", MEMORY, files, "warm")
    clients = [
        subprocess.Popen(
            arguments,
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
    parser.add_argument("--state", choices=STATES, action="append", help="both by default")
    parser.add_argument("rows", nargs="*", help="the beginnings of rows; all by default")
    arguments = parser.parse_args()
    chosen = tuple(arguments.rows) or ("",)
    rows = [row for row in ROWS if row.startswith(chosen)]
    with tempfile.TemporaryDirectory() as scratch:
        files = write_files(arguments.directory or Path(scratch), rows)
        print("| | safetensors | ringload | ratio |\n| --- | --- | --- | --- |")
        for row in rows:
            for state in arguments.state or STATES:
                found: dict[str, list[float]] = {"safetensors": [], "ringload": []}
                for number in range(arguments.runs):
                    turns = list(found.items())
                    for package, times in turns if number % 2 else reversed(turns):
                        times.append(seconds(row, package, files, state))
                theirs, ours = (statistics.median(times) for times in found.values())
                print(
                    f"| {row}, {state} | {theirs:.3f} s | {ours:.3f} s | {ours / theirs:.2f} |",
                    flush=True,
                )
        if not arguments.rows or "memory" in arguments.rows:
            theirs, ours = (shared_memory(each, files) for each in ("safetensors", "ringload"))
            label = "two processes that hold one model: memory"
            print(f"| {label} | {theirs:.2f} GB | {ours:.2f} GB | {ours / theirs:.2f} |")


if __name__ == "__main__":
    main()
