"""Runs a function in each rank of a gloo group on the loopback interface.

Each rank is a process of its own, forked from a server that has imported torch, which saves the
time of the import. The value that the function returns, or its exception, is returned to the test.
A process that does not end in time is killed, and the test fails.
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

import ringload

#: The time limit of the ranks, which suffices on a busy machine.
TIMEOUT_SECONDS = 300

CONTEXT = mp.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch.distributed", "safetensors.torch", "ringload", "models"])


class Outcome(NamedTuple):
    """The result of a rank."""

    value: Any
    #: The names of the exception's classes, and its message; None if the function returned.
    error: tuple[list[str], str] | None
    seconds: float
    #: The exit code of the process; negative for a signal.
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


def values(outcomes: list[Outcome]) -> list[Any]:
    """Returns what each rank returned; none of them has failed."""
    for outcome in outcomes:
        assert outcome.error is None, outcome.error
    return [outcome.value for outcome in outcomes]


def assert_failed(outcome: Outcome, kind: str, text: str) -> None:
    """Checks that a rank has raised an error of a class that is called `kind`, with `text`."""
    assert outcome.error is not None, outcome
    classes, message = outcome.error
    assert kind in classes, outcome.error
    assert text in message, message


def _outcomes(processes: list[Any], pipes: list[Connection]) -> list[Outcome]:
    answers: dict[int, Any] = {}
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while len(answers) < len(pipes):
        open_pipes = [pipe for rank, pipe in enumerate(pipes) if rank not in answers]
        ready = wait(open_pipes, timeout=max(deadline - time.monotonic(), 0))
        assert ready, f"only {sorted(answers)} of {len(pipes)} ranks ended"
        for pipe in ready:
            try:
                answers[pipes.index(pipe)] = pipe.recv()
            except EOFError:  # the process was killed
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
    # Exits without cleanup, so the rank's connections end with the process.
    os._exit(0)


def fail_at(rank: int, who: int, at: int) -> None:
    """Makes rank `who` fail when it asks for the piece number `at` that it reads."""
    from ringload.distributed import load

    real, count = load._Pieces.__next__, 0

    def failing(pieces: Any) -> Any:
        nonlocal count
        count += 1
        if rank == who and count == at:
            raise ringload.IoError("the disk is gone; mend it")
        return real(pieces)

    load._Pieces.__next__ = failing  # type: ignore[method-assign]
