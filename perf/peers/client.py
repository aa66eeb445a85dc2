#!/usr/bin/env python3
"""Runs and measures one load by one client in this process. The harness runs this program.

    client.py CLIENT LOCATION [--sums]
    client.py tensorizer FILE --convert

A load prints one JSON object:

    seconds, cpu_seconds     the wall-clock time and the CPU time of all threads, from the client's
                             first call to the last tensor. Importing the client and torch is not
                             included.
    bytes                    the number of bytes of all tensors
    first_tensor_seconds,    the time from the start of the process to the first and to the last
    last_tensor_seconds      tensor. RINGLOAD_PERF_BEGAN has the start in nanoseconds of
                             CLOCK_MONOTONIC; without the variable they are null.
    peak_rss_bytes           the peak resident memory of the process
    sums                     with --sums: the CRC-32 of each tensor's bytes, by its name. The times
                             include the computation, so they are not comparable.

Every tensor is dropped before the next one is taken. A tensor counts only when all its bytes are in
memory: if tensors are mapped files, each page is touched. --convert writes FILE in tensorizer's own
format, which tensorizer loads, as FILE.tensors.
"""

from __future__ import annotations

import argparse
import json

import clients
import measuring


def main() -> None:
    """Runs the requested action."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("client", choices=sorted(clients.CLIENTS))
    parser.add_argument("location", help="a file, or s3://BUCKET/KEY if supported")
    parser.add_argument("--sums", action="store_true", help="print the CRC-32 of every tensor")
    parser.add_argument("--convert", action="store_true", help="write the client's own format")
    options = parser.parse_args()
    if options.convert:
        clients.convert(options.location)
        return
    tensors = clients.CLIENTS[options.client](options.location)
    touches_pages = options.client in clients.MAPPING
    print(json.dumps(measuring.measure(tensors, touches_pages=touches_pages, sums=options.sums)))


if __name__ == "__main__":
    main()
