"""A progress bar of its own: one line on stderr, for terminals and notebooks.

It is drawn by a thread, as a load may wait long for one large tensor, and only once the load has
taken a second. It needs nothing installed: notebooks, too, show a line that is written over.
"""

from __future__ import annotations

import sys
import time
from threading import Event, Thread
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from ._ringload import Stream

PATIENCE_SECONDS = 1.0
"""Loads that take less show nothing."""

REDRAW_SECONDS = 0.2
WIDTH = 24


def is_wanted(progress: bool | None) -> bool:
    """Whether to show a bar, where the caller says yes, no or nothing."""
    return progress if progress is not None else _is_terminal() or _is_notebook()


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # no stderr, or a closed one
        return False


def _is_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def line(done_bytes: int, total_bytes: int, seconds: float) -> str:
    """One state of the bar."""
    share = done_bytes / total_bytes if total_bytes else 1.0
    full = int(share * WIDTH)
    speed = done_bytes / seconds if seconds > 0 else 0.0
    left = f"{(total_bytes - done_bytes) / speed:.0f} s left" if speed else "waiting"
    return (
        f"loading {share:4.0%} |{'#' * full}{' ' * (WIDTH - full)}| "
        f"{done_bytes / 1e9:.2f} of {total_bytes / 1e9:.2f} GB, {speed / 1e9:.2f} GB/s, {left}"
    )


_bars: WeakSet[Bar] = WeakSet()


def end() -> None:
    """Stops all bars, as the interpreter ends: what is written to stderr after it may crash it."""
    for bar in list(_bars):
        bar.stop()


class Bar:
    """Shows how far a stream is while the context is entered."""

    def __init__(self, stream: Stream, progress: bool | None = None) -> None:
        """Of `stream`; `progress` says whether, None leaves it to what stderr is."""
        self._stream = stream
        self._done = Event()
        self._began = time.monotonic()
        self._thread: Thread | None = None
        if is_wanted(progress):
            _bars.add(self)
            self._thread = Thread(target=self._draw, name="ringload-progress", daemon=True)

    def __enter__(self) -> Bar:
        if self._thread:
            self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Draws nothing more."""
        self._done.set()
        if self._thread and self._thread.is_alive():
            self._thread.join()

    def _draw(self) -> None:
        if self._done.wait(PATIENCE_SECONDS):
            return
        while not self._done.wait(REDRAW_SECONDS):
            self._write("\r")
        self._write("\r", "\n")

    def _write(self, before: str, after: str = "") -> None:
        stream = self._stream
        text = line(stream.done_bytes, stream.total_bytes, time.monotonic() - self._began)
        try:
            print(f"{before}{text}\x1b[K", end=after, file=sys.stderr, flush=True)
        except (OSError, ValueError):  # a terminal that is gone is no reason to fail a load
            self._done.set()
