"""A web server for one directory, on loopback: GET and HEAD with ranges, by sendfile on threads.

range_server.py DIRECTORY    prints its port, and ends with its standard input
"""

from __future__ import annotations

import os
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RANGE = re.compile(r"bytes=(\d+)-(\d*)$")


class Handler(BaseHTTPRequestHandler):
    """Answers with a file, or a range of it."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        """Answers without a body."""
        self.do_GET()

    def do_GET(self) -> None:
        """Answers with the requested bytes."""
        try:
            file = os.open(os.path.basename(self.path), os.O_RDONLY)
        except OSError:
            self.send_error(404)
            return
        try:
            self.send(file)
        finally:
            os.close(file)

    def send(self, file: int) -> None:
        """Sends the range of the file."""
        status = os.fstat(file)
        asked = RANGE.match(self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        last = int(asked[2]) if asked and asked[2] else status.st_size - 1
        last = min(last, status.st_size - 1)
        if first > last:
            self.send_error(416)
            return
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{status.st_mtime_ns:x}-{status.st_size:x}"')
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{status.st_size}")
        self.end_headers()
        self.wfile.flush()
        while self.command == "GET" and first <= last:
            sent = os.sendfile(self.connection.fileno(), file, first, last + 1 - first)
            if sent == 0:
                break
            first += sent

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


class Server(ThreadingHTTPServer):
    """Takes many connections at once."""

    request_queue_size = 256
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client may close a connection at any time."""


def main() -> None:
    """Serves until the standard input ends."""
    os.chdir(sys.argv[1])
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


main()
