"""`SafetensorError`, and the messages of safetensors in front of those of ringload."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._errors import (
    Error,
    InvalidCheckpointError,
    InvalidInputError,
    NotFoundError,
    UnsupportedError,
)

if TYPE_CHECKING:
    _Stock = Exception
else:
    try:
        from safetensors import SafetensorError as _Stock
    except ImportError:  # it is needed for saving only
        _Stock = Exception


class SafetensorError(Error, _Stock):
    """An error of loading, which handlers of both packages catch."""


def error_of_opening(filename: object, error: Exception) -> Exception:
    """Returns the exception for a file that cannot be opened, in the words of safetensors."""
    if isinstance(error, NotFoundError):
        return NotFoundError(f"No such file or directory: {filename}")
    if isinstance(error, (InvalidCheckpointError, InvalidInputError)):
        return SafetensorError(f"Error while deserializing header: {error}")
    return error


def no_such_tensor(name: str) -> SafetensorError:
    """Returns the exception for a name that the file does not have."""
    return SafetensorError(f"File does not contain tensor {name}")


def error_of_type(dtype: str, error: UnsupportedError) -> SafetensorError:
    """Returns the exception for a type that a framework does not have."""
    return SafetensorError(f"Dtype not understood: {dtype}: {error}")


def closed() -> SafetensorError:
    """Returns the exception for the use of a file after it was closed."""
    return SafetensorError("File is closed")
