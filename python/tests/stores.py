"""A real S3 (moto) for tests, as `tests/servers.sh` of the crate installs it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
BUCKET = "models"

_PATIENCE_SECONDS = 60


def installed(program: str) -> Path:
    """A program of the test servers; without it the test is skipped, or fails if it is required."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target")
    path = target / "test-servers" / "python" / "bin" / program
    if not path.exists():
        why = f"{program} is not installed; tests/servers.sh does that"
        if os.environ.get("RINGLOAD_TEST_SERVERS") == "require":
            pytest.fail(why)
        pytest.skip(why)
    return path


class Moto:
    """A running server that has the files of a directory in its bucket."""

    def __init__(self, port: int, keys: dict[str, str]) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.key_id, self.secret = keys["key"], keys["secret"]
        self.denied = keys["denied_key"], keys["denied_secret"]

    def environment(self, home: Path) -> dict[str, str]:
        """What a process has to know, and nothing else of AWS."""
        return {
            "HOME": str(home),
            "AWS_EC2_METADATA_DISABLED": "true",
            "RUNAI_STREAMER_S3_ENDPOINT": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret,
        }


@contextmanager
def moto(files: Path, scratch: Path) -> Iterator[Moto]:
    """Starts a server with `files`, which checks signatures, and ends it."""
    server, python = installed("moto_server"), installed("python")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "HOME": str(scratch), "INITIAL_NO_AUTH_ACTION_COUNT": "3"}
    with open(scratch / "moto.log", "wb") as log:
        process = subprocess.Popen(
            [server, "-H", "127.0.0.1", "-p", str(port)],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_for(port, process)
        fill = REPOSITORY / "tests" / "support" / "moto.py"
        filling = subprocess.run(
            [python, fill, f"http://127.0.0.1:{port}", BUCKET, str(files)],
            env=environment,
            check=True,
            capture_output=True,
            timeout=_PATIENCE_SECONDS,
        )
        yield Moto(port, json.loads(filling.stdout))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server does not listen"
            time.sleep(0.05)
