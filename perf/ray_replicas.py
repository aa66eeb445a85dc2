#!/usr/bin/env python3
"""Measures what replicas of a Ray cluster cost the store that load the same weights.

    perf/ray_replicas.py RINGLOAD_PERF [--size 1000] [--rate 200] [--turns 3] [--kills 50]

RINGLOAD_PERF is the program with the emulated store (`target/release/ringload-perf`), which sends
at most `--rate` MB/s to all connections together and counts the bytes. This script has to run in a
Python that has ringload, ray, torch and pytest. It starts a cluster of two nodes on this machine
(`ray.cluster_utils.Cluster`). The replicas have imported torch when their time begins.

    single     one replica loads with `ringload.load_file`: seconds of the call, bytes sent
    four       four replicas on two nodes call `ringload.ray.load_file` at once, and nothing is in
               memory: seconds of the slowest, bytes sent, and the seconds in times of `single`
    fifth      another one on the second node, after the four: bytes sent
    restart    a replica ends and starts again on the first node: seconds of the call. The store has
               no limit, and `--restart-size` is the size of the checkpoint
    kills      with `--kills N`: N turns of python/tests/test_ray_failures.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "python" / "tests"), str(REPOSITORY / "perf")]

from emulated_store import Store  # noqa: E402
from ray_support import cluster  # noqa: E402
from slices import LAYER, make  # noqa: E402


class Replica:
    """An actor that loads, and tells how long that took."""

    def __init__(self) -> None:
        import ringload.ray
        import torch

        self._modules = ringload, torch
        self._tensors: dict[str, Any] = {}

    def ready(self) -> None:
        """Returns when the modules are imported."""

    def load(self, location: str, is_shared: bool) -> dict[str, Any]:
        """Loads, and returns the seconds of the call and the report."""
        ringload, _ = self._modules
        began = time.monotonic()
        if is_shared:
            self._tensors = ringload.ray.load_file(location)
        else:
            self._tensors = ringload.load_file(location)
        seconds = time.monotonic() - began
        report = self._tensors.report.as_dict() if is_shared else {}
        return {"call_seconds": seconds, **report}


def replicas(nodes: list[int]) -> list[Any]:
    """Starts a replica on each of the nodes, and waits until they have imported torch."""
    import ray

    actor = ray.remote(Replica)
    started = [actor.options(num_cpus=0.1, resources={f"node{n}": 1}).remote() for n in nodes]
    ray.get([one.ready.remote() for one in started], timeout=120)
    return started


def end(actors: list[Any]) -> None:
    """Ends replicas, and waits until Ray has taken their memory back."""
    import ray

    for actor in actors:
        ray.kill(actor)
    time.sleep(1)


def loaded(actors: list[Any], location: str, *, is_shared: bool) -> list[dict[str, Any]]:
    """Lets replicas load at once."""
    import ray

    return ray.get([one.load.remote(location, is_shared) for one in actors], timeout=300)


def turn(store: Store, location: str) -> dict[str, float]:
    """Makes one turn of `single`, `four` and `fifth`."""
    import ringload.ray

    one = replicas([0])
    store.sent_bytes()
    single = loaded(one, location, is_shared=False)[0]["call_seconds"]
    single_bytes = store.sent_bytes()
    end(one)
    four = replicas([0, 0, 1, 1])
    store.sent_bytes()
    reports = loaded(four, location, is_shared=True)
    four_bytes = store.sent_bytes()
    fifth = replicas([1])
    report = loaded(fifth, location, is_shared=True)[0]
    fifth_bytes = store.sent_bytes()
    end([*four, *fifth])
    ringload.ray.release()
    time.sleep(1)
    return {
        "single": single,
        "single_bytes": single_bytes,
        "four": max(report["call_seconds"] for report in reports),
        "four_bytes": four_bytes,
        "fifth": report["call_seconds"],
        "fifth_bytes": fifth_bytes,
    }


def restart(store: Store, location: str, turns: int) -> list[float]:
    """Returns the seconds of the call of replicas that start again."""
    import ringload.ray

    first = replicas([0])
    loaded(first, location, is_shared=True)
    end(first)
    seconds = []
    for _ in range(turns):
        again = replicas([0])
        store.sent_bytes()
        seconds.append(loaded(again, location, is_shared=True)[0]["call_seconds"])
        end(again)
    ringload.ray.release()
    return seconds


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", metavar="RINGLOAD_PERF")
    parser.add_argument("--size", type=float, default=1000, help="MB of the checkpoint, about")
    parser.add_argument("--restart-size", type=float, default=2000, help="MB; 0 leaves it out")
    parser.add_argument("--rate", type=float, default=200, help="MB/s of the store")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--kills", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ray-replicas-") as folder:
        measure(arguments, Path(folder))
    if arguments.kills:
        tests = REPOSITORY / "python" / "tests" / "test_ray_failures.py"
        environment = {**os.environ, "RINGLOAD_TEST_RAY_TURNS": str(arguments.kills)}
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)]
        sys.exit(subprocess.run(pytest, env=environment, cwd=tests.parent, check=False).returncode)


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Makes the turns, and prints their medians."""
    lengths = []
    for name, size in (("model", arguments.size), ("restart", arguments.restart_size)):
        if size:
            make(folder / f"{name}.safetensors", LAYER, int(size * 1e6))
            lengths.append((folder / f"{name}.safetensors").stat().st_size)
    total = lengths[0]
    store = Store(arguments.program, folder, arguments.rate)
    try:
        with cluster(2, int(max(lengths) * 1.6)):
            turns = [turn(store, store.url("model.safetensors")) for _ in range(arguments.turns)]
            middle = {key: statistics.median(one[key] for one in turns) for key in turns[0]}
            print(f"{total / 1e6:.0f} MB at {arguments.rate:.0f} MB/s, medians of {len(turns)}")
            print(
                f"single   {middle['single']:6.2f} s, sent {middle['single_bytes'] / total:.4f} x"
            )
            ratio = statistics.median(one["four"] / one["single"] for one in turns)
            sent = middle["four_bytes"] / total
            print(f"four     {middle['four']:6.2f} s, {ratio:.2f} x single, sent {sent:.4f} x")
            print(f"fifth    {middle['fifth']:6.2f} s, sent {middle['fifth_bytes']:.0f} bytes")
            if arguments.restart_size:
                store.close()
                store = Store(arguments.program, folder, 0)
                found = restart(store, store.url("restart.safetensors"), 3 * arguments.turns)
                middle_seconds = statistics.median(found)
                print(f"restart  {middle_seconds:6.3f} s for {lengths[1] / 1e6:.0f} MB, of {found}")
    finally:
        store.close()


if __name__ == "__main__":
    main()
