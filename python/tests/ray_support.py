"""A Ray cluster on this machine, a web server that counts what it sends, and replicas that load."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MIB = 1 << 20


class Store:
    """Serves the files of a directory in ranges. A file that is replaced gets another ETag."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.sent_bytes = 0
        #: MB/s of all connections together.
        self.rate: float | None = None
        self.refuses = False
        self._next = 0.0
        self._lock = threading.Lock()
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                store.answer(self, body=False)

            def do_GET(self) -> None:
                store.answer(self, body=True)

            def log_message(self, *_arguments: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}/{name}"

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        path = self.directory / request.path.lstrip("/")
        if self.refuses or not path.is_file():
            request.send_response(503 if self.refuses else 404)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            size = status.st_size
            begin, end = 0, size
            ranged = request.headers.get("Range")
            if ranged:
                first, _, last = ranged.removeprefix("bytes=").partition("-")
                begin, end = int(first), min(size, int(last) + 1 if last else size)
            try:
                request.send_response(206 if ranged else 200)
                request.send_header("Content-Length", str(end - begin))
                request.send_header("Accept-Ranges", "bytes")
                request.send_header("ETag", f'"{status.st_ino}-{status.st_mtime_ns}"')
                if ranged:
                    request.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
                request.end_headers()
                if body:
                    self._send(request, file, begin, end)
            except OSError:
                request.close_connection = True  # the client has ended

    def _send(self, request: BaseHTTPRequestHandler, file: Any, begin: int, end: int) -> None:
        request.wfile.flush()
        file.seek(begin)
        while begin < end:
            piece = file.read(min(256 << 10, end - begin))
            self._pace(len(piece))
            request.wfile.write(piece)
            begin += len(piece)
            with self._lock:
                self.sent_bytes += len(piece)

    def _pace(self, nbytes: int) -> None:
        if self.rate is None:
            return
        with self._lock:
            now = time.monotonic()
            self._next = max(self._next, now) + nbytes / (self.rate * 1e6)
            wait = self._next - now
        time.sleep(wait)

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


def digest(tensors: dict[str, Any]) -> str:
    """Returns a digest of the names, types, shapes and bytes of tensors of torch."""
    import torch

    text = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        text.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            text.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return text.hexdigest()


class Replica:
    """An actor that loads, keeps the tensors, and tells what it has."""

    def pid(self) -> int:
        return os.getpid()

    def load(self, location: str, options: dict[str, Any]) -> dict[str, Any]:
        import ringload.ray

        began = time.monotonic()
        self.tensors = ringload.ray.load_file(location, **options)
        seconds = time.monotonic() - began
        return {**self.tensors.report.as_dict(), "call_seconds": seconds}

    def digest(self) -> str:
        return digest(self.tensors)

    def load_and_digest(self, location: str, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        report = self.load(location, options)
        return self.digest(), report

    def drop(self) -> None:
        del self.tensors


@contextmanager
def cluster(nodes: int, store_bytes: int) -> Iterator[Any]:
    """Starts a cluster whose nodes have the resources `node0`, `node1`; this one is `node0`."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    # Workers import ringload, and this module, from the same paths as this process.
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        head = {"include_dashboard": False}
        os.environ["RAY_TMPDIR"] = folder
        started = None
        try:
            for number in range(nodes):
                arguments = {
                    "num_cpus": 4,
                    "object_store_memory": store_bytes,
                    "resources": {f"node{number}": 100},
                }
                if started is None:
                    arguments |= head
                    started = Cluster(initialize_head=True, head_node_args=arguments)
                else:
                    started.add_node(**arguments)
            ray.init(address=started.address, log_to_driver=False)
            yield started
        finally:
            ray.shutdown()
            if started is not None:
                started.shutdown()
            del os.environ["RAY_TMPDIR"]


def the_owner() -> dict[str, Any]:
    """Waits until there is one owner that answers; returns its status."""
    import ringload.ray

    end = time.monotonic() + 120
    while len(found := ringload.ray.status()) != 1:
        assert time.monotonic() < end, f"{len(found)} owners answer"
    return found[0]


def owner_count() -> int:
    """Returns how many owners there are, whether or not they answer."""
    from ringload.ray.cluster import owners

    return len(owners())


def replica(node: int) -> Any:
    """Starts a replica on a node."""
    import ray

    return ray.remote(Replica).options(num_cpus=0.1, resources={f"node{node}": 1}).remote()
