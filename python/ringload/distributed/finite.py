"""Looks for NaN and infinity in what a rank keeps of a load, as the native loads do in theirs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from .._errors import NotFiniteError

if TYPE_CHECKING:
    import torch


class _Float(NamedTuple):
    """A type of floats as integers: the bits of the exponent, or what a value with NaN equals."""

    integer: str
    mask: int
    """The bits that are looked at."""
    value: int
    """What they are in NaN and infinity."""
    infinite: int | None
    """What all bits but the sign are in infinity; None for types without."""


def _ieee(integer: str, exponent: int) -> _Float:
    return _Float(integer, exponent, exponent, exponent)


_FLOATS = {
    "F64": _ieee("int64", 0x7FF0_0000_0000_0000),
    "F32": _ieee("int32", 0x7F80_0000),
    "C64": _ieee("int32", 0x7F80_0000),
    "F16": _ieee("int16", 0x7C00),
    "BF16": _ieee("int16", 0x7F80),
    "F8_E5M2": _ieee("uint8", 0x7C),
    "F8_E4M3": _Float("uint8", 0x7F, 0x7F, None),
    "F8_E4M3FNUZ": _Float("uint8", 0xFF, 0x80, None),
    "F8_E5M2FNUZ": _Float("uint8", 0xFF, 0x80, None),
    "F8_E8M0": _Float("uint8", 0xFF, 0xFF, None),
}

#: Values are looked at in steps of this many bytes, which bounds the memory that this takes.
_STEP_BYTES = 1 << 20

_NAMED_MAX = 5


class FiniteCheck:
    """The tensors with values that are not finite."""

    def __init__(self) -> None:
        #: The number of NaN and of infinite values, by the name of the tensor.
        self._found: dict[str, tuple[int, int]] = {}

    def look(self, name: str, dtype: str, memory: torch.Tensor) -> None:
        """Looks at the bytes of a part, which are one-dimensional and of a type of safetensors."""
        import torch

        kind = _FLOATS.get(dtype)
        if kind is None:
            return
        total = infinite = 0
        for start in range(0, memory.numel(), _STEP_BYTES):
            values = memory[start : start + _STEP_BYTES].view(getattr(torch, kind.integer))
            found = int(((values & kind.mask) == kind.value).sum())
            if found and kind.infinite is not None:
                sign = 1 << (8 * values.element_size() - 1)
                positive = values & (sign - 1)
                infinite += int((positive == kind.infinite).sum())
            total += found
        if total:
            self._found[name] = total - infinite, infinite

    def error(self) -> NotFiniteError | None:
        """Returns the error that names the tensors; None if there are none."""
        count = len(self._found)
        if count == 0:
            return None
        named = [
            f"{json.dumps(name)} ({nan} NaN, {infinite} infinite)"
            for name, (nan, infinite) in sorted(self._found.items())[:_NAMED_MAX]
        ]
        tensors = "1 tensor holds" if count == 1 else f"{count} tensors hold"
        more = ", and others" if count > _NAMED_MAX else ""
        return NotFiniteError(
            f"{tensors} values that are not finite: {', '.join(named)}{more}; load without "
            "check_finite=True if they are meant to be there"
        )
