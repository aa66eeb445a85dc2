#!/usr/bin/env python3
"""Runs and measures one load by one client in this process. The harness runs this program.

    client.py CLIENT LOCATION [--device cpu|cuda:0] [--sums] [--keep]
    client.py tensorizer FILE --convert
    client.py CLIENT --check

A load prints one JSON object:

    seconds, cpu_seconds     the wall-clock time and the CPU time of all threads, from the client's
                             first call to the last tensor. Importing the client and torch is not
                             included.
    bytes, tensors           the number of bytes and the number of tensors
    first_tensor_seconds,    the time from the start of the process to the first and to the last
    last_tensor_seconds      tensor. RINGLOAD_PERF_BEGAN has the start in nanoseconds of
                             CLOCK_MONOTONIC; without the variable they are null.
    peak_rss_bytes           the peak resident memory of the process
    version                  the version of the client's package
    sums                     with --sums: the CRC-32 of each tensor's bytes, by its name. The times
                             include the computation, so they are not comparable.

Every tensor is dropped before the next one is taken; with --keep all are held to the end. A tensor
counts only when all its bytes are in memory: if tensors are mapped files, each page is touched.

--convert writes a file in tensorizer's own format, which tensorizer loads. --check loads a small
file and prints, as one JSON object, the versions, or why the client does not run here.
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
    """Runs the requested action; returns the exit status."""
    options = arguments()
    if options.check:
        print(json.dumps(check(options)))
        return 0
    if options.location is None:
        sys.exit("LOCATION is missing; see --help")
    if options.convert:
        clients.convert(options.client, options.location)
        return 0
    print(json.dumps(load(options)))
    return 0


def arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("client", choices=sorted(clients.CLIENTS))
    parser.add_argument("location", nargs="?", help="a file, or s3://BUCKET/KEY if supported")
    parser.add_argument("--device", default="cpu", help="the device of tensors (default cpu)")
    parser.add_argument("--sums", action="store_true", help="print the CRC-32 of every tensor")
    parser.add_argument("--keep", action="store_true", help="drop no tensor before the end")
    parser.add_argument("--convert", action="store_true", help="write the client's own format")
    parser.add_argument("--check", action="store_true", help="say whether the client runs here")
    return parser.parse_args()


def load(options: argparse.Namespace) -> dict[str, Any]:
    """Runs one load and returns its measurements."""
    client = clients.CLIENTS[options.client]
    tensors = client.prepare(clients.Load(options.location, options.device, options.keep))
    result = measuring.measure(
        tensors,
        touches_pages=client.maps_file and options.device == "cpu",
        sums=options.sums,
        keep=options.keep,
        synchronize=clients.synchronize(options.device),
    )
    result["version"] = importlib.metadata.version(client.package)
    return result


def check(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the versions by package, or `why` the client does not run here."""
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
    """Loads a small file with the client.

    Raises:
        ValueError: the loaded tensors differ from those in the file.
    """
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "small.safetensors"
        expected = small.write(file)
        location = os.fspath(file)
        if options.client in clients.CONVERTERS:
            location = clients.convert(options.client, location)
        options = argparse.Namespace(**{**vars(options), "location": location, "sums": True})
        if load(options)["sums"] != expected:
            raise ValueError("the client loaded other bytes than those in the file")


if __name__ == "__main__":
    sys.exit(main())
