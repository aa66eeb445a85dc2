#!/usr/bin/env python3
"""Runs and measures one load by one client in this process. The harness runs this program.

    client.py CLIENT LOCATION [--digest]
    client.py tensorizer FILE --convert

A load prints its figures as one JSON object, as perf/common/src/figures.rs describes them. They
begin with the client's first call: importing the client and torch is not included. With --digest it
also prints the SHA-256 of each tensor's bytes, by its name; the times include that computation.

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
    parser.add_argument("--digest", action="store_true", help="print the SHA-256 of every tensor")
    parser.add_argument("--convert", action="store_true", help="write the client's own format")
    options = parser.parse_args()
    if options.convert:
        clients.convert(options.location)
        return
    tensors = clients.CLIENTS[options.client](options.location)
    touches_pages = options.client in clients.MAPPING
    digest = options.digest
    print(json.dumps(measuring.measure(tensors, touches_pages=touches_pages, digest=digest)))


if __name__ == "__main__":
    main()
