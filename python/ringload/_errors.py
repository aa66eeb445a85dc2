"""The errors: one class for each kind that the crate knows, all of them `Error`.

The native module raises them, with the crate's own sentences. Where Python has a class for the same
thing (a file that is not there, a value that cannot be used), it is a parent too.
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
    "NotFoundError",
    "OutOfMemoryError",
    "PermissionDeniedError",
    "UnreachableError",
    "UnsupportedError",
]


class Error(Exception):
    """What can go wrong in ringload; the text says what to do about it."""


class NotFoundError(Error, FileNotFoundError):
    """A file, directory, shard or tensor that was asked for does not exist."""


class PermissionDeniedError(Error, PermissionError):
    """The operating system, or a store, refused access."""


class InvalidInputError(Error, ValueError):
    """An option or argument cannot be used as given."""


class InvalidCheckpointError(Error, ValueError):
    """The bytes are not a valid checkpoint."""


class ChangedError(Error, OSError):
    """A source changed (shrank, was rewritten) while it was being read."""


class CorruptError(Error, OSError):
    """The bytes that came are not those that their store says it keeps."""


class MemoryLimitError(Error, MemoryError):
    """The tensors do not fit under the memory limit."""


class OutOfMemoryError(Error, MemoryError):
    """Memory could not be allocated, mapped or locked."""


class UnsupportedError(Error, NotImplementedError):
    """This build or machine cannot do what was asked."""


class UnreachableError(Error, ConnectionError):
    """A server cannot be reached."""


class IoError(Error, OSError):
    """Storage failed to deliver the bytes."""


class DeviceError(Error, RuntimeError):
    """A GPU or its driver failed."""


class CancelledError(Error):
    """The load was stopped before it was done, or belongs to another process."""


for _name in __all__:
    globals()[_name].__module__ = "ringload"
