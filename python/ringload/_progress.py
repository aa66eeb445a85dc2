"""The progress bar: one line on stderr, for terminals and notebooks.

A thread draws the bar, because a load may wait for a large tensor for a long time. The bar appears
once the load has taken a second, also while it reads headers. It needs no other package: the line
is overwritten in place, which terminals and notebooks both support.
"""

from __future__ import annotations

import sys
import time
from threading import Event, Thread
from typing import Union
from weakref import WeakSet

from ._ringload import Progress

Shown = Union[bool, Progress, None]
"""Whether to show a bar, or a handle that the caller watches instead of it."""

DELAY_SECONDS = 1.0
"""Loads that take less time than this show no bar."""

REDRAW_SECONDS = 0.2
WIDTH = 24


def is_enabled(progress: Shown) -> bool:
    """Returns whether to show a bar; None shows it if stderr is a terminal or a notebook."""
    if isinstance(progress, Progress):
        return False
    return progress if progress is not None else _is_terminal() or _is_notebook()


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # stderr is None or closed
        return False


def _is_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def opening(header_bytes: int) -> str:
    """Returns the text of the bar while headers are read."""
    return f"loading, {header_bytes / 1e6:.2f} MB of headers so far"


def line(done_bytes: int, total_bytes: int, seconds: float) -> str:
    """Returns the text of the bar."""
    share = done_bytes / total_bytes if total_bytes else 1.0
    full = int(share * WIDTH)
    speed = done_bytes / seconds if seconds > 0 else 0.0
    left = f"{(total_bytes - done_bytes) / speed:.0f} s left" if speed else "waiting"
    return (
        f"loading {share:4.0%} |{'#' * full}{' ' * (WIDTH - full)}| "
        f"{done_bytes / 1e9:.2f} of {total_bytes / 1e9:.2f} GB, {speed / 1e9:.2f} GB/s, {left}"
    )


_bars: WeakSet[Bar] = WeakSet()


def stop_all() -> None:
    """Stops all bars. A thread that writes to stderr while the interpreter ends may crash it."""
    for bar in list(_bars):
        bar.stop()


class Bar:
    """A context manager that shows the progress of a load.

    Its `progress` is the handle that the load has to be given.
    """

    def __init__(self, progress: Shown = None) -> None:
        """Prepares a bar if `is_enabled(progress)`."""
        self.progress = progress if isinstance(progress, Progress) else Progress()
        self._done = Event()
        self._began = time.monotonic()
        self._thread: Thread | None = None
        if is_enabled(progress):
            _bars.add(self)
            self._thread = Thread(target=self._draw, name="ringload-progress", daemon=True)

    def __enter__(self) -> Bar:
        if self._thread:
            self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stops drawing and waits for the thread to end. The last line stays on the screen."""
        self._done.set()
        if self._thread and self._thread.is_alive():
            self._thread.join()

    def _draw(self) -> None:
        if self._done.wait(DELAY_SECONDS):
            return
        while not self._done.wait(REDRAW_SECONDS):
            self._write("\r")
        self._write("\r", "\n")

    def _write(self, before: str, after: str = "") -> None:
        done, total = self.progress.done_bytes, self.progress.total_bytes
        if total or after:
            text = line(done, total, time.monotonic() - self._began)
        else:
            text = opening(self.progress.header_bytes)
        try:
            print(f"{before}{text}\x1b[K", end=after, file=sys.stderr, flush=True)
        except (OSError, ValueError):  # stderr is closed; the load goes on without a bar
            self._done.set()
