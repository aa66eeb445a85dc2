"""A real S3 server (moto) for tests, which `tests/servers.sh` installs."""

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

_TIMEOUT_SECONDS = 300


def installed(program: str) -> Path:
    """Returns the path of a program of the test servers.

    If the program is not installed, the test is skipped, or fails if the servers are required.
    """
    target = Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target")
    path = target / "test-servers" / "python" / "bin" / program
    if not path.exists():
        reason = f"{program} is not installed; tests/servers.sh installs it"
        if os.environ.get("RINGLOAD_TEST_SERVERS") == "require":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


class Moto:
    """A running server whose bucket has the files of a directory."""

    def __init__(self, port: int, keys: dict[str, str]) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.key_id, self.secret = keys["key"], keys["secret"]
        self.denied = keys["denied_key"], keys["denied_secret"]

    def environment(self, home: Path) -> dict[str, str]:
        """Returns the environment variables with which a process can use the server."""
        return {
            "HOME": str(home),
            "AWS_EC2_METADATA_DISABLED": "true",
            "RUNAI_STREAMER_S3_ENDPOINT": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret,
        }


@contextmanager
def moto(files: Path, scratch: Path) -> Iterator[Moto]:
    """Runs a server that has `files` and checks signatures."""
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
            timeout=_TIMEOUT_SECONDS,
        )
        yield Moto(port, json.loads(filling.stdout))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            assert process.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, "the server does not listen"
            time.sleep(0.05)
