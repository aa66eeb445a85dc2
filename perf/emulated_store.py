"""The emulated store of `ringload-perf`, for programs that measure loads from a store.

It serves the files of a folder over HTTP and counts the bytes that it sends.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path


class Store:
    """The emulated store, as a process of its own."""

    def __init__(self, program: str, folder: Path, rate: float = 0) -> None:
        """Starts the program, which sends at most `rate` MB/s in all; 0 for no limit."""
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("", 0)) as two:
            self._port, https = one.getsockname()[1], two.getsockname()[1]
        flags = ["--http", str(self._port), "--https", str(https), "--first-byte", "5"]
        if rate:
            flags += ["--total", str(rate)]
        self._process = subprocess.Popen([program, "emulated-store", *flags, str(folder)])
        self.wait()

    def wait(self) -> None:
        """Waits until the store answers."""
        for _ in range(100):
            try:
                self.sent_bytes()
            except OSError:
                time.sleep(0.1)
            else:
                return
        sys.exit("the emulated store does not start")

    def url(self, name: str) -> str:
        """Returns the location of a file."""
        return f"http://127.0.0.1:{self._port}/{name}"

    def sent_bytes(self) -> int:
        """Returns the bytes that were sent since the last call."""
        with urllib.request.urlopen(self.url(".counts"), timeout=10) as answer:
            return int(json.load(answer)["sent_bytes"])

    def close(self) -> None:
        """Ends the store."""
        self._process.kill()
        self._process.wait()
