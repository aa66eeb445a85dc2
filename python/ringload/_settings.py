"""The environment variables that the Python package reads, all in this module.

The native module reads the variables of loads (memory limit, engines, object stores, cache), which
the documentation of the crate's module `ringload::options` lists. The variables here configure
loads that `torch.distributed` ranks share. They have the names that Run:ai's streamer uses.

| variable | meaning |
| --- | --- |
| `RUNAI_STREAMER_DIST` | `0`: each rank reads all tensors; `1`, `auto` (default): ranks share |
| `RUNAI_STREAMER_DIST_GLOBAL` | `1`: all ranks share; `0` (default): the ranks of a host share |
| `RUNAI_STREAMER_DIST_TIMEOUT` | seconds that a rank waits for the others; default 600 |

They are read when a load starts, so a program may change them before that.
"""

from __future__ import annotations

import os
from datetime import timedelta

from ._errors import InvalidInputError

_DIST_TIMEOUT_SECONDS = 600


def is_distribution_enabled() -> bool:
    """Returns whether ranks share loads that request it (`RUNAI_STREAMER_DIST`).

    Raises:
        InvalidInputError: the variable has another value.
    """
    return _flag("RUNAI_STREAMER_DIST", {"0": False, "1": True, "auto": True}, default=True)


def is_group_global() -> bool:
    """Returns whether the ranks of all hosts share a load (`RUNAI_STREAMER_DIST_GLOBAL`).

    Raises:
        InvalidInputError: the variable has another value.
    """
    return _flag("RUNAI_STREAMER_DIST_GLOBAL", {"0": False, "1": True}, default=False)


def distribution_timeout() -> timedelta:
    """Returns how long a rank waits for the others (`RUNAI_STREAMER_DIST_TIMEOUT`, in seconds).

    Raises:
        InvalidInputError: the variable is not a positive integer.
    """
    name = "RUNAI_STREAMER_DIST_TIMEOUT"
    text = os.environ.get(name, "").strip() or str(_DIST_TIMEOUT_SECONDS)
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise InvalidInputError(f"{name}={text}: use a number of seconds, at least 1")
    return timedelta(seconds=int(text))


def _flag(name: str, meanings: dict[str, bool], *, default: bool) -> bool:
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if text not in meanings:
        raise InvalidInputError(f"{name}={text}: use {' or '.join(meanings)}")
    return meanings[text]
