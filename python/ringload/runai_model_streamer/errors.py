"""Errors for programs that expect Run:ai's streamer, which raises a `ValueError` for every failure.

A streamer raises each of ringload's errors as an instance of both its own class and `ValueError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .._errors import Error


@contextmanager
def as_value_errors() -> Iterator[None]:
    """Makes ringload's errors that the block raises instances of `ValueError`, too."""
    try:
        yield
    except Error as error:
        if isinstance(error, ValueError):
            raise
        raise _value_error_class(type(error))(str(error)).with_traceback(
            error.__traceback__
        ) from error.__cause__


def _value_error_class(error_class: type[Error]) -> type[Error]:
    return type(
        error_class.__name__, (error_class, ValueError), {"__module__": error_class.__module__}
    )
