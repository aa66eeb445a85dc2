"""The exceptions: one class for each kind of error of the crate, all derived from `Error`.

The native module raises them with the crate's messages. Where Python has a built-in exception for
the same error (`FileNotFoundError`, `ValueError`), the class derives from that, too.
"""

__all__ = [
    "CancelledError",
    "ChangedError",
    "CorruptError",
    "DeviceError",
    "Error",
    "InvalidCheckpointError",
    "InvalidInputError",
    "IoError",
    "MemoryLimitError",
    "NotFiniteError",
    "NotFoundError",
    "OutOfMemoryError",
    "PermissionDeniedError",
    "UnreachableError",
    "UnsupportedError",
]


class Error(Exception):
    """The base class of ringload's errors. The message says what to do about the error."""


class NotFoundError(Error, FileNotFoundError):
    """A requested file, directory, shard or tensor does not exist."""


class PermissionDeniedError(Error, PermissionError):
    """The operating system, or an object store, denied access."""


class InvalidInputError(Error, ValueError):
    """An option or argument cannot be used as given."""


class InvalidCheckpointError(Error, ValueError):
    """The files are not a valid checkpoint."""


class ChangedError(Error, OSError):
    """A file or object was truncated or rewritten while it was being read."""


class CorruptError(Error, OSError):
    """The bytes that were read do not match a checksum of their store, file or manifest."""


class NotFiniteError(Error, ValueError):
    """Tensors hold NaN or infinity, and the load was to check that."""


class MemoryLimitError(Error, MemoryError):
    """The tensors do not fit under the memory limit."""


class OutOfMemoryError(Error, MemoryError):
    """Memory could not be allocated, mapped or locked."""


class UnsupportedError(Error, NotImplementedError):
    """This build or machine does not support the requested operation."""


class UnreachableError(Error, ConnectionError):
    """A server, or another rank, cannot be reached."""


class IoError(Error, OSError):
    """Reading or writing storage failed."""


class DeviceError(Error, RuntimeError):
    """A GPU or its driver failed."""


class CancelledError(Error):
    """The load was stopped before its end, or it belongs to another process."""


for _name in __all__:
    globals()[_name].__module__ = "ringload"
