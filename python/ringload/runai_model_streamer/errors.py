"""Errors as Run:ai's programs expect them: whatever goes wrong in a stream is a `ValueError` there.

So each of ringload's errors that leaves a streamer is of its own class and a `ValueError` at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .._errors import Error


@contextmanager
def as_value_errors() -> Iterator[None]:
    """Raises ringload's errors as `ValueError`s, too."""
    try:
        yield
    except Error as error:
        if isinstance(error, ValueError):
            raise
        raise _both(type(error))(str(error)).with_traceback(
            error.__traceback__
        ) from error.__cause__


def _both(kind: type[Error]) -> type[Error]:
    return type(kind.__name__, (kind, ValueError), {"__module__": kind.__module__})
