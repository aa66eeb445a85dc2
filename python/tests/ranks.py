"""Runs a function as each rank of a gloo group on loopback, each in a process of its own.

The processes come from a server that has imported torch, so that a test does not wait for that.
What a function returns, or raises, comes back; a process that is not done in time is killed, and
that is an error.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

#: Longer than anything here may take, on a machine busy with other builds.
PATIENCE_SECONDS = 90

CONTEXT = mp.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch.distributed", "safetensors.torch", "ringload", "models"])


class Outcome(NamedTuple):
    """How a rank ended."""

    value: Any
    #: The names of the classes of what it raised, and its text; None where it returned.
    error: tuple[list[str], str] | None
    seconds: float
    #: Of its process; negative is a signal.
    exit_code: int | None


def run(
    function: Callable[..., Any],
    count: int,
    directory: Path,
    *arguments: Any,
    environment: Mapping[str, str] = {},
) -> list[Outcome]:
    """Calls `function(rank, *arguments)` in `count` ranks, which meet in `directory`."""
    store = directory / f"store-{time.monotonic_ns()}"
    processes, pipes = [], []
    for rank in range(count):
        ours, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(
            target=_rank,
            args=(theirs, function, rank, count, str(store), dict(environment), arguments),
            daemon=True,
        )
        process.start()
        theirs.close()
        processes.append(process)
        pipes.append(ours)
    try:
        return _outcomes(processes, pipes)
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
            process.join()


def _outcomes(processes: list[Any], pipes: list[Connection]) -> list[Outcome]:
    answers: dict[int, Any] = {}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(answers) < len(pipes):
        left = [pipe for rank, pipe in enumerate(pipes) if rank not in answers]
        ready = wait(left, timeout=max(deadline - time.monotonic(), 0))
        assert ready, f"only {sorted(answers)} of {len(pipes)} ranks ended"
        for pipe in ready:
            try:
                answers[pipes.index(pipe)] = pipe.recv()
            except EOFError:  # it was killed
                answers[pipes.index(pipe)] = (None, None, 0.0)
    for process in processes:
        process.join(30)
    return [Outcome(*answers[n], process.exitcode) for n, process in enumerate(processes)]


def _rank(
    pipe: Connection,
    function: Callable[..., Any],
    rank: int,
    count: int,
    store: str,
    environment: dict[str, str],
    arguments: tuple[Any, ...],
) -> None:
    os.environ.update(environment, GLOO_SOCKET_IFNAME="lo")
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)
    began = time.monotonic()
    try:
        value, error = function(rank, *arguments), None
    except BaseException as raised:
        traceback.print_exc()
        classes = [kind.__name__ for kind in type(raised).__mro__]
        value, error = None, (classes, str(raised))
    pipe.send((value, error, time.monotonic() - began))
    pipe.close()
    # As a program that has something else to do: its connections end with it.
    os._exit(0)
