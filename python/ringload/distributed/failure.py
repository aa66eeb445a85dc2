"""Encodes an error of one rank so that the other ranks can raise it, too.

An error is encoded as text of limited length: the name of its class and its message. The other
ranks raise the same class if it is one of ringload's or Python's built-in classes, with the number
of the rank that failed in the message.
"""

from __future__ import annotations

import builtins
import json

from .. import _errors

#: Names of classes are cut off after this many characters, which leaves space for the message.
_NAME_LENGTH_MAX = 128


def encode(error: BaseException, max_bytes: int) -> bytes:
    """Returns `error` as text of at most `max_bytes`; a message that is too long is cut off."""
    name = type(error).__name__[:_NAME_LENGTH_MAX]
    message = str(error) or name
    while True:
        text = json.dumps([name, message]).encode()
        if len(text) <= max_bytes:
            return text
        excess = len(text) - max_bytes
        # A character takes at most twelve bytes of JSON (two escaped surrogates).
        message = message[: max(len(message) - max(excess // 12, 1), 0)]


def decode(text: bytes, rank: int) -> Exception:
    """Returns the error of `rank`, which another rank can raise."""
    name, message = json.loads(text)
    return _class_named(name)(f"rank {rank} failed: {message}")


def _class_named(name: str) -> type[Exception]:
    known = getattr(_errors, name, None) or getattr(builtins, name, None)
    is_error = isinstance(known, type) and issubclass(known, Exception)
    # The constructors of these classes do not take a single string.
    takes_text = is_error and known not in (UnicodeDecodeError, UnicodeEncodeError)
    return known if takes_text and known is not None else _errors.Error
