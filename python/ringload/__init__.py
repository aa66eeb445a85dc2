"""Loads safetensors checkpoints as fast as the hardware allows, under a hard memory cap."""

from ._errors import (
    CancelledError,
    ChangedError,
    CorruptError,
    DeviceError,
    Error,
    InvalidCheckpointError,
    InvalidInputError,
    IoError,
    MemoryLimitError,
    NotFoundError,
    OutOfMemoryError,
    PermissionDeniedError,
    UnreachableError,
    UnsupportedError,
)
from ._ringload import Checkpoint, Loader, Stream, Tensor, __version__

__all__ = [
    "CancelledError",
    "ChangedError",
    "Checkpoint",
    "CorruptError",
    "DeviceError",
    "Error",
    "InvalidCheckpointError",
    "InvalidInputError",
    "IoError",
    "Loader",
    "MemoryLimitError",
    "NotFoundError",
    "OutOfMemoryError",
    "PermissionDeniedError",
    "Stream",
    "Tensor",
    "UnreachableError",
    "UnsupportedError",
    "__version__",
]
