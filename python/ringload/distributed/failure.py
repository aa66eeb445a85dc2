"""Errors on their way from the rank that met them to all others.

They travel as text in the fixed room that every rank sends in every round: the class by its name,
and the sentence. The others raise the same class where it is one of ringload's or Python's own, and
say whose error it is.
"""

from __future__ import annotations

import builtins
import json

from .. import _errors

#: How many bytes of text are left to a sentence at least: a name of a class takes the rest.
_NAME_ROOM_BYTES = 128


def encode(error: BaseException, room_bytes: int) -> bytes:
    """`error` as at most `room_bytes` of text; a sentence that is too long is cut off."""
    name = type(error).__name__[:_NAME_ROOM_BYTES]
    sentence = str(error) or name
    while True:
        text = json.dumps([name, sentence]).encode()
        if len(text) <= room_bytes:
            return text
        excess = len(text) - room_bytes
        # One character takes at most twelve bytes of JSON (a pair of surrogates).
        sentence = sentence[: max(len(sentence) - max(excess // 12, 1), 0)]


def decode(text: bytes, rank: int) -> Exception:
    """The error that `rank` met, to be raised on another one."""
    name, sentence = json.loads(text)
    return _class_named(name)(f"rank {rank} failed: {sentence}")


def _class_named(name: str) -> type[Exception]:
    known = getattr(_errors, name, None) or getattr(builtins, name, None)
    is_error = isinstance(known, type) and issubclass(known, Exception)
    # Of others (UnicodeDecodeError) it is not known what they are made of.
    takes_text = is_error and known not in (UnicodeDecodeError, UnicodeEncodeError)
    return known if takes_text and known is not None else _errors.Error
