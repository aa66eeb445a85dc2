#!/usr/bin/env python3
"""One load by one client in this process, timed: what the harness runs in turns.

    client.py CLIENT LOCATION [--device cpu|cuda:0] [--sums] [--keep]
    client.py tensorizer FILE --convert
    client.py CLIENT --check

A load prints one JSON object:

    seconds, cpu_seconds     from the client's first call to the last tensor; CPU time is that of
                             all threads. Importing the client, and torch, comes before.
    bytes, tensors           of all tensors
    first_tensor_seconds,    from the start of the process: RINGLOAD_PERF_BEGAN tells it, in
    last_tensor_seconds      nanoseconds of CLOCK_MONOTONIC. Without the variable they are null.
    peak_rss_bytes           of the process
    version                  of the client's package
    sums                     with --sums: the CRC-32 of each tensor's bytes, by its name. Taking
                             them is within the time, so figures of such a load mean nothing.

Every tensor is dropped before the next one is taken; --keep holds them all to the end. Every byte
is really in memory when it counts: pages of tensors that are mapped files are touched, one by one.

--convert writes the file that tensorizer loads, in its own format. --check prints, as one JSON
object, the versions, or why the client does not run here: it loads a few bytes.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import clients
import measuring
import small


def main() -> int:
    """Runs what the arguments say; gives the exit status."""
    options = arguments()
    if options.check:
        print(json.dumps(check(options)))
        return 0
    if options.location is None:
        sys.exit("a LOCATION is needed; see --help")
    if options.convert:
        clients.convert(options.client, options.location)
        return 0
    print(json.dumps(load(options)))
    return 0


def arguments() -> argparse.Namespace:
    """The arguments of this process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("client", choices=sorted(clients.CLIENTS))
    parser.add_argument("location", nargs="?", help="a file, or s3://BUCKET/KEY where that works")
    parser.add_argument("--device", default="cpu", help="where tensors go (default cpu)")
    parser.add_argument("--sums", action="store_true", help="tell the CRC-32 of every tensor")
    parser.add_argument("--keep", action="store_true", help="drop no tensor before the end")
    parser.add_argument("--convert", action="store_true", help="write the client's own format")
    parser.add_argument("--check", action="store_true", help="say whether the client runs here")
    return parser.parse_args()


def load(options: argparse.Namespace) -> dict[str, Any]:
    """One load, and what it took."""
    client = clients.CLIENTS[options.client]
    wanted = clients.Load(options.location, options.device, options.keep)
    tensors = client.prepare(wanted)
    told = measuring.measure(
        tensors,
        touches_pages=client.maps_file and options.device == "cpu",
        sums=options.sums,
        keep=options.keep,
        synchronize=clients.synchronize(options.device),
    )
    told["version"] = importlib.metadata.version(client.package)
    return told


def check(options: argparse.Namespace) -> dict[str, Any]:
    """The versions by package, or `why` the client does not run here."""
    client = clients.CLIENTS[options.client]
    try:
        versions = {"python": platform.python_version()}
        for package in (client.package, *client.beside):
            versions[package] = importlib.metadata.version(package)
        if client.reads_files:
            load_few_bytes(options)
        else:
            client.prepare(clients.Load("", options.device, False))
    except Exception as error:
        traceback.print_exc()
        lines = str(error).strip().splitlines() or ["no reason given"]
        return {"why": f"{type(error).__name__}: {lines[0]}"}
    return {"versions": versions}


def load_few_bytes(options: argparse.Namespace) -> None:
    """Loads a small file by the client.

    Raises:
        ValueError: where it gives other tensors.
    """
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "small.safetensors"
        expected = small.write(file)
        location = os.fspath(file)
        if options.client in clients.CONVERTERS:
            location = clients.convert(options.client, location)
        options = argparse.Namespace(**{**vars(options), "location": location, "sums": True})
        if load(options)["sums"] != expected:
            raise ValueError("it gives other bytes than the file holds")


if __name__ == "__main__":
    sys.exit(main())
