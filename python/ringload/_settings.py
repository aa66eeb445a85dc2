"""The environment variables of the Python part, read here and nowhere else.

Those of loads (memory limit, engines, stores, cache) are read by the native module, which the
crate's documentation of `ringload::options` lists. What is left is about `torch.distributed`, in
the words of Run:ai's streamer, since that is where these loads come from.

| variable | meaning |
| --- | --- |
| `RUNAI_STREAMER_DIST` | `0`: every rank reads everything; `1`, `auto` (default): the ranks share |
| `RUNAI_STREAMER_DIST_GLOBAL` | `1`: all ranks are one group; `0` (default): those of each host |
| `RUNAI_STREAMER_DIST_TIMEOUT` | seconds that a rank waits for the others; default 600 |

They are read when a load starts, so a program may set them.
"""

from __future__ import annotations

import os
from datetime import timedelta

from ._errors import InvalidInputError

_DIST_TIMEOUT_SECONDS = 600


def is_distribution_enabled() -> bool:
    """Whether loads that ask for it are shared by the ranks (`RUNAI_STREAMER_DIST`).

    Raises:
        InvalidInputError: for a value that says neither.
    """
    return _flag("RUNAI_STREAMER_DIST", {"0": False, "1": True, "auto": True}, default=True)


def is_group_global() -> bool:
    """Whether the ranks of all hosts share one load (`RUNAI_STREAMER_DIST_GLOBAL`).

    Raises:
        InvalidInputError: for a value that says neither.
    """
    return _flag("RUNAI_STREAMER_DIST_GLOBAL", {"0": False, "1": True}, default=False)


def distribution_timeout() -> timedelta:
    """How long a rank waits for the others (`RUNAI_STREAMER_DIST_TIMEOUT`, in seconds).

    Raises:
        InvalidInputError: for what is no positive number.
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
