"""Fixtures and helpers of all tests: files, a web server, and programs in separate processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable

import pytest
import torch
from safetensors.torch import save_file

# The developer's environment must not affect the tests.
for variable in list(os.environ):
    if variable.startswith(("RINGLOAD_", "RUNAI_", "AWS_")) and "TEST" not in variable:
        del os.environ[variable]

TORCH_TYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.complex64,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint64,
    torch.uint32,
    torch.uint16,
    torch.uint8,
    torch.bool,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
    torch.float4_e2m1fn_x2,
]


def random_tensor(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Returns a tensor of random bytes (for bools 0 and 1)."""
    size = torch.empty(0, dtype=dtype).element_size()
    if dtype is torch.bool:
        return torch.randint(0, 2, shape).bool()
    whole = (*shape[:-1], shape[-1] * size) if shape else (size,)
    raw = torch.randint(0, 256, whole, dtype=torch.uint8)
    return raw.view(dtype) if shape else raw.view(dtype)[0]


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Returns whether two tensors have the same type and shape, and the same bytes."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.numel() == 0:
        return True
    dense = [t.clone(memory_format=torch.contiguous_format).flatten() for t in (a, b)]
    return torch.equal(*[t.view(torch.uint8) for t in dense])


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A file with a few tensors."""
    tensors = {
        "a": torch.arange(12, dtype=torch.float32).reshape(3, 4),
        "b": torch.arange(5).to(torch.bfloat16),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(3.5),
    }
    path = tmp_path / "small.safetensors"
    save_file(tensors, path, metadata={"format": "pt", "made": "by a test"})
    return path


def sharded(directory: Path, count: int = 3) -> dict[str, torch.Tensor]:
    """Writes shards with an index; returns their tensors."""
    directory.mkdir(exist_ok=True)
    everything, weight_map = {}, {}
    for number in range(count):
        name = f"model-{number + 1:05}-of-{count:05}.safetensors"
        tensors = {f"layer.{number}.{i}": torch.randn(50, 40 + i) for i in range(4)}
        save_file(tensors, directory / name)
        everything.update(tensors)
        weight_map.update(dict.fromkeys(tensors, name))
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return everything


class Server:
    """A web server of files that supports ranges and can delay its responses."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.delay_seconds: Callable[[int], float] = lambda _start: 0.0
        self.required_header: tuple[str, str] | None = None
        self.ranges: list[tuple[int, int]] = []
        self.released = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                server.answer(self, body=False)

            def do_GET(self) -> None:
                server.answer(self, body=True)

            def log_message(self, *_arguments: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}/{name}"

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        if self.required_header:
            name, value = self.required_header
            if request.headers.get(name) != value:
                return self.refuse(request, 401)
        path = self.directory / request.path.lstrip("/")
        if not path.is_file():
            return self.refuse(request, 404)
        data = path.read_bytes()
        first, last = 0, len(data) - 1
        requested = request.headers.get("Range")
        if requested:
            start, _, end = requested.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(end) if end else last, last)
            self.ranges.append((first, last))
        self.released.wait(self.delay_seconds(first))
        try:
            request.send_response(206 if requested else 200)
            request.send_header("Content-Length", str(last - first + 1))
            request.send_header("Accept-Ranges", "bytes")
            request.send_header("ETag", '"one"')
            if requested:
                request.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            request.end_headers()
            if body:
                request.wfile.write(data[first : last + 1])
        except OSError:
            pass  # the client has closed the connection, which some tests provoke

    def refuse(self, request: BaseHTTPRequestHandler, status: int) -> None:
        request.send_response(status)
        request.send_header("Content-Length", "0")
        request.end_headers()

    def stop(self) -> None:
        self.released.set()
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A web server of the files in `tmp_path`."""
    server = Server(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def slow(server: Server) -> Server:
    """A server with a file `slow.safetensors`, whose part after 64 KiB it delays by a minute."""
    tensors = {f"t{i:02}": torch.zeros(1 << 18, dtype=torch.uint8) for i in range(32)}
    save_file(tensors, server.directory / "slow.safetensors")
    server.delay_seconds = lambda start: 1200.0 if start > 64 << 10 else 0.0
    return server


# A background process of a shell ignores SIGINT, and so do its children. This restores the default.
DEFAULT_SIGINT = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"


def program(text: str, **environment: str) -> subprocess.Popen[str]:
    """Starts a Python program in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-c", DEFAULT_SIGINT + text],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


# The time after which a test counts as hanging, however busy the machine is.
HANG_SECONDS = 300.0


def finished(process: subprocess.Popen[str], seconds: float = HANG_SECONDS) -> tuple[int, str, str]:
    """Waits for a program; kills it and fails the test if it takes longer than `seconds`."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"the program hangs\n{out}\n{err}")
    return process.returncode, out, err


def run(text: str, seconds: float = HANG_SECONDS, **environment: str) -> str:
    """Runs a program, which has to exit with status 0; returns its output."""
    status, out, err = finished(program(text, **environment), seconds)
    assert status == 0, f"exit {status}\n{out}\n{err}"
    return out


def until(condition: Callable[[], object], seconds: float = HANG_SECONDS) -> None:
    """Waits until a condition is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition never became true"
        time.sleep(0.01)
