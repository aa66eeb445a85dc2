#!/usr/bin/env python3
"""Measures what slices promise: N processes load one file, each only its share, by a plan.

    perf/slices.py RINGLOAD FILE [--http RINGLOAD_PERF] [--short | --exchange [--nodes 2]]

RINGLOAD is the command (`target/release/ringload`). FILE is made with the shapes of a Llama layer
by layer, if it does not exist (`--size`). The figures, each the median of `--turns` turns that
alternate:

    plain      one load of the whole file: seconds, and bytes read from the disk (or sent by the
               server)
    rows       N loads at the same time, of dimension 0 of every matrix: the same, and the peak
               memory of the largest process beyond its share
    plan       N loads by the styles of a Llama's tp_plan (rows, and columns of o_proj and
               down_proj)
    per byte   one stream of dimension 0 of half the file against one of the whole file

With `--short`, FILE is made with 40,000 tensors of 16 KiB, and the rows are one load of all of
them, and one of half and of a quarter of dimension 0, and of half of dimension 1.

With `--exchange`, two other rows instead, for which this script has to run in a Python that has
ringload and torch. Their time begins when all processes have imported torch and joined their group.

    plain      one `ringload.load` of the whole file
    exchange   N processes that load by the plan with `is_distributed=True`, over gloo; CPU seconds
               are those of all of them, and memory is beyond the share and includes the ring of 64
               MiB

With `--nodes 2`, which needs root, the processes of the exchange are on two nodes, half on each:
namespaces of this machine that a network connects (`two_nodes.py`). Then there is a row for
processes that keep all tensors, too, and each has what the nodes sent to each other. At least that
are, of what a process keeps, the bytes that were read on the other node, once for each node.

Before each turn the file is dropped from the page cache. Bytes are the blocks that the processes
read (getrusage). With `--http` the file is in the page cache of the emulated store, a program
(`target/release/ringload-perf`) on the same cores that counts the bytes that it sends. With
`--rate 1200` it sends at most so many MB/s in all, as a network does; without, the processor is the
limit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from emulated_store import Store
from two_nodes import DEVICE, TwoNodes

HIDDEN, INNER, KEYS = 4096, 14336, 1024
LAYER = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KEYS, HIDDEN),
    "self_attn.v_proj": (KEYS, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
    "input_layernorm": (HIDDEN,),
}
ROWS = ["*_proj.weight=0:{rank}/{world}"]
SHORT = {"scale": (128, 64)}
SHORT_RULES = {"halves": ["*=0:0/2"], "quarters": ["*=0:0/4"], "columns": ["*=1:0/2"]}
PLAN = ["*.o_proj.weight=1:{rank}/{world}", "*.down_proj.weight=1:{rank}/{world}", *ROWS]


def make(path: Path, shapes: dict[str, tuple[int, ...]], size: int) -> None:
    """Writes a file of about `size` bytes, of layers with these shapes."""
    header, end, layer = {}, 0, 0
    while end < size:
        for name, shape in shapes.items():
            begin, end = end, end + 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
            entry = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
            header[f"model.layers.{layer}.{name}.weight"] = entry
        layer += 1
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 4096 - 8)
    noise = os.urandom(1 << 20)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for at in range(0, end, len(noise)):
            file.write(noise[: end - at])
        os.fsync(file.fileno())


def evict(path: Path) -> None:
    """Drops the file from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(
    command: str, location: str, slices: list[list[str]], flags: list[str], store: Store | None
) -> dict[str, float]:
    """Runs a load for each list of slices at the same time."""
    if store:
        store.sent_bytes()
    began = time.monotonic()
    processes = []
    for rules in slices:
        arguments = [command, "load", location, "--json", *flags]
        for rule in rules:
            arguments += ["--slice", rule]
        processes.append(subprocess.Popen(arguments, stdout=subprocess.PIPE))
    answers = []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for process in processes:
        answers.append(json.loads(process.communicate()[0]))
        if process.returncode:
            sys.exit(f"a load failed with {process.returncode}")
    seconds = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    read = 512.0 * (after.ru_inblock - before.ru_inblock)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if store:
        read = store.sent_bytes()
    peak = max(answer["peak_rss_bytes"] - answer["bytes"] for answer in answers)
    loaded = sum(answer["bytes"] for answer in answers)
    return {
        "seconds": seconds,
        "cpu": cpu,
        "read": read,
        "loaded": loaded,
        "beyond_share": peak,
    }


def run_ranks(  # noqa: PLR0913, PLR0917 - what a row varies
    location: str,
    file: Path,
    world: int,
    store: Store | None,
    what: str = "plan",
    nodes: TwoNodes | None = None,
) -> dict[str, float]:
    """Runs a plain load in Python, or with `world` above 1 the ranks of an exchange."""
    size = file.stat().st_size
    program = str(Path(__file__).with_name("slices_rank.py"))
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": DEVICE if nodes else "lo"}
    with tempfile.TemporaryDirectory() as folder:
        processes = []
        for rank in range(world):
            command = [
                sys.executable,
                program,
                location,
                f"{folder}/store",
                *map(str, (rank, world, size)),
                what,
            ]
            if nodes:
                command = nodes.command(rank * 2 // world, command)
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            processes.append(subprocess.Popen(command, env=environment, **pipes))
        for process in processes:
            process.stdout.readline()
        if store:
            store.sent_bytes()
        else:
            evict(file)
        crossed = nodes.sent_bytes() if nodes else 0
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for process in processes]
        for process in processes:
            process.wait()
    began = min(answer["began"] for answer in answers)
    return {
        "seconds": max(answer["ended"] for answer in answers) - began,
        "read": store.sent_bytes() if store else sum(answer["read"] for answer in answers),
        "loaded": sum(answer["loaded"] for answer in answers),
        "beyond_share": max(answer["beyond_share"] for answer in answers),
        "cpu": sum(answer["cpu"] for answer in answers),
        "crossed": nodes.sent_bytes() - crossed if nodes else 0,
    }


def exchange(  # noqa: PLR0913 - what the arguments say
    file: Path,
    location: str,
    world: int,
    turns: int,
    *,
    store: Store | None,
    nodes: TwoNodes | None,
) -> None:
    """Measures and prints the rows of `--exchange`."""
    size = file.stat().st_size
    rows = {"plain": (1, "plan", None), "exchange": (world, "plan", nodes)}
    if nodes:
        rows["whole"] = (world, "whole", nodes)
    found = {name: [] for name in rows}
    for _ in range(turns):
        for name, (count, what, where) in rows.items():
            found[name].append(run_ranks(location, file, count, store, what, where))
    seconds = {}
    for name, answers in found.items():
        row = {key: statistics.median(turn[key] for turn in answers) for key in answers[0]}
        seconds[name] = row["seconds"]
        crossed = f", {row['crossed'] / size:5.3f} x between nodes" if rows[name][2] else ""
        print(
            f"{name:10} {row['seconds']:6.2f} s, {row['cpu']:5.2f} CPU s, read "
            f"{row['read'] / size:5.3f} x the file, loaded {row['loaded'] / size:5.3f} x{crossed}, "
            f"{row['beyond_share'] / 2**20:.1f} MiB beyond the share"
        )
    print(f"exchange / plain: {seconds['exchange'] / seconds['plain']:.2f} of the time")


def main() -> None:
    """Measures what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command")
    parser.add_argument("file", type=Path)
    parser.add_argument("--world", type=int, default=4)
    parser.add_argument("--size", type=int)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--http", metavar="RINGLOAD_PERF")
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--exchange", action="store_true")
    parser.add_argument("--nodes", type=int, choices=[1, 2], default=1)
    given = parser.parse_args()
    if given.nodes == 2 and (given.http or not given.exchange):
        parser.error("--nodes 2 goes with --exchange, and not with --http")
    if not given.file.exists():
        if given.short:
            make(given.file, SHORT, given.size or 40_000 << 14)
        else:
            make(given.file, LAYER, given.size or 4_000_000_000)
    with contextlib.ExitStack() as stack:
        store = None
        if given.http:
            store = Store(given.http, given.file.parent, given.rate)
            stack.callback(store.close)
        location = store.url(given.file.name) if store else str(given.file)
        if given.exchange:
            nodes = stack.enter_context(TwoNodes()) if given.nodes == 2 else None
            exchange(given.file, location, given.world, given.turns, store=store, nodes=nodes)
        else:
            alone(given, location, store)


def alone(given: argparse.Namespace, location: str, store: Store | None) -> None:
    """Measures and prints the rows of loads without an exchange."""
    size = given.file.stat().st_size

    def ranks(rules: list[str]) -> list[list[str]]:
        return [
            [rule.format(rank=rank, world=given.world) for rule in rules]
            for rank in range(given.world)
        ]

    half = [[rule.format(rank=0, world=2) for rule in ROWS]]
    stream = ["--drop", "--memory-limit", "1GiB"]
    rows = {
        "plain": ([[]], []),
        "rows": (ranks(ROWS), []),
        "plan": (ranks(PLAN), []),
        "stream": ([[]], stream),
        "stream of rows": (half, stream),
    }
    if given.short:
        rows = {"all": ([[]], [])} | {name: ([rules], []) for name, rules in SHORT_RULES.items()}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in rows}
    for _ in range(given.turns):
        for name, (slices, flags) in rows.items():
            if store is None:
                evict(given.file)
            found[name].append(run(given.command, location, slices, flags, store))

    def median(name: str, key: str) -> float:
        return statistics.median(turn[key] for turn in found[name])

    for name in rows:
        held = f", {median(name, 'beyond_share') / 2**20:.1f} MiB beyond the share"
        seconds, read = median(name, "seconds"), median(name, "read") / size
        print(
            f"{name:15} {seconds:6.2f} s, {median(name, 'cpu'):5.2f} CPU s, "
            f"read {read:5.3f} x the file, "
            f"loaded {median(name, 'loaded') / size:5.3f} x"
            f"{'' if name.startswith('stream') else held}"
        )
    if given.short:
        return
    print(f"rows / plain: {median('rows', 'seconds') / median('plain', 'seconds'):.2f} of the time")
    print(f"plan / plain: {median('plan', 'seconds') / median('plain', 'seconds'):.2f} of the time")

    def per_byte(name: str) -> float:
        return median(name, "seconds") / median(name, "loaded")

    print(
        f"stream of rows / stream: {per_byte('stream of rows') / per_byte('stream'):.2f} per byte"
    )


if __name__ == "__main__":
    main()
