#!/usr/bin/env python3
"""What loading from Python takes, beside Run:ai Model Streamer 0.17 and beside the command.

    perf/python.py runai       a local file, cold and warm, into host memory, dropped tensor by tensor
    perf/python.py library     Run:ai's package on its own library, and on ours (STREAMER_LIBRARY)
    perf/python.py overhead    100,000 tensors of 4 KiB, iterated in Python and by the command

Clients run in turns (A B A B ...), each in a process of its own, and time themselves from the first call
of their package to the last tensor dropped: neither the interpreter's start nor the import of torch
is counted. CPU time is the process's, of all its threads, in that time. Before a cold run nothing of
the file is in the page cache, and before a warm one all of it; both is checked. That both give the
same bytes is checked once, by CRC-32 of every tensor.

Needs: cargo build --release --features capi. Installs the peers, torch among them, and ./python by
pip into target/perf/python, once (delete it after changes). --with PYTHON uses another
environment's.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

from common import KEEP, RINGLOAD, ROOT, TARGET, forget, of_tensors, verdict

CLIENT = ROOT / "perf" / "python_client.py"
LIBRARY = TARGET / "release" / "libringload.so"
TENSOR_BYTES = 14 << 20
PEERS = ["torch", "numpy", "runai-model-streamer==0.17.0"]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("what", choices=["runai", "library", "overhead"])
    arguments.add_argument("--gib", type=float, default=4.0, help="size of the file (default 4)")
    arguments.add_argument("--runs", type=int, default=5, help="turns (default 5)")
    arguments.add_argument("--with", dest="python", help="the Python of an environment that has all")
    options = arguments.parse_args()
    for built in [RINGLOAD, LIBRARY]:
        if not built.exists():
            sys.exit(f"{built} is missing; build it first: cargo build --release --features capi")
    python = options.python or environment()
    {"runai": runai, "library": library, "overhead": overhead}[options.what](options, python)


# ---------------------------------------------------------------- scenarios


def runai(options, python):
    compare(options, {"ringload": client(python, "ringload"), "Run:ai": client(python, "runai")}, (0.8, 0.4, 0.4))


def library(options, python):
    ours = ["env", f"STREAMER_LIBRARY={LIBRARY}"] + client(python, "runai")
    # No target is set for it: it shows what one variable gains.
    compare(options, {"on ours": ours, "Run:ai": client(python, "runai")}, (1.0, 1.0, 1.0))


def compare(options, clients, targets):
    count = max(1, round(options.gib * 2**30 / TENSOR_BYTES))
    path = of_tensors(f"python-{count}.safetensors", count, TENSOR_BYTES)
    sums = [run(command + [str(path), "--sums"])["sums"] for command in clients.values()]
    if sums[0] != sums[1] or len(sums[0]) != count:
        sys.exit("the clients give other bytes, or other tensors")
    own, theirs = clients
    rows = []
    for state, prepare in [("cold", cold), ("warm", warm)]:
        told = in_turns(clients, path, options.runs, prepare)
        report(state, told)
        ratio = lambda what: median(told[own], what) / median(told[theirs], what)
        wall, cpu, warm_wall = targets
        rows.append((f"{state}: wall, of Run:ai's", ratio("seconds"), wall if state == "cold" else warm_wall))
        if state == "cold":
            rows.append(("cold: CPU-s/GB, of Run:ai's", ratio("cpu_seconds_per_gb"), cpu))
    verdict(rows)


def overhead(options, python):
    path = of_tensors("python-tiny.safetensors", 100_000, 4096)
    warm(path)
    clients = {
        "get_tensors": client(python, "ringload"),
        "stream": client(python, "stream"),
        "the command": [str(RINGLOAD), "load", "--json", "--drop"],
    }
    told = in_turns(clients, path, options.runs, warm)
    report("100,000 tensors", told)
    rust = median(told["the command"], "seconds")
    over = [(f"{name}: s over Rust", median(told[name], "seconds") - rust, 1.0) for name in ["get_tensors", "stream"]]
    verdict(over)


# ---------------------------------------------------------------- clients


def client(python, name):
    return [str(python), str(CLIENT), name]


def in_turns(clients, path, runs, prepare):
    """The reports of all turns but the first."""
    told = {name: [] for name in clients}
    for turn in range(runs + 1):
        for name, command in clients.items():
            prepare(path)
            report = run(command + [str(path)])
            report["cpu_seconds_per_gb"] = report["cpu_seconds"] / (report["bytes"] / 1e9)
            if turn > 0:
                told[name].append(report)
    return told


def run(command):
    # Run:ai's log is for stderr, which is shown when something fails.
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def cold(path):
    forget(path)
    if resident(path) > 0:
        sys.exit(f"{path} stays in the page cache")


def warm(path):
    with open(path, "rb") as file:
        while file.read(16 << 20):
            pass
    if resident(path) < path.stat().st_size:
        sys.exit(f"{path} does not fit the page cache; choose a smaller --gib")


def resident(path):
    """How many bytes of the file the page cache holds."""
    told = subprocess.run(["fincore", "--bytes", "--noheadings", "--output", "RES", str(path)], capture_output=True, check=True)
    return int(told.stdout or 0)


# ---------------------------------------------------------------- figures


def median(told, what):
    return statistics.median(report[what] for report in told)


def report(title, told):
    print(f"\n{title:<18}{'seconds':>10}{'spread':>16}{'GB/s':>8}{'CPU-s/GB':>10}{'peak MiB':>10}")
    for name, runs in told.items():
        seconds = sorted(run["seconds"] for run in runs)
        speed = runs[0]["bytes"] / 1e9 / statistics.median(seconds)
        spread = f"{seconds[0]:.2f}-{seconds[-1]:.2f}"
        cost, peak = median(runs, "cpu_seconds_per_gb"), max(run["peak_rss_bytes"] for run in runs) / 2**20
        print(f"{name:<18}{statistics.median(seconds):>10.2f}{spread:>16}{speed:>8.2f}{cost:>10.3f}{peak:>10.0f}")


# ---------------------------------------------------------------- what is needed


def environment():
    """The Python of an environment with the peers and ours."""
    where = KEEP / "python"
    python = where / "bin" / "python"
    if not (where / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", str(where)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run(pip + PEERS, check=True)
        subprocess.run(pip + [str(ROOT / "python")], check=True)
        (where / "done").touch()
    return python


if __name__ == "__main__":
    main()
