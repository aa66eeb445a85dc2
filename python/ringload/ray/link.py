"""Calls of an owner by a load, which outlive the process of the owner.

A call that fails is repeated with a handle that is looked up again: Ray starts an owner again whose
process has ended, and a load creates one that is gone for good. Each wait has an end, and after
`timeout_seconds` without any news the load is told that the owner cannot be had.
"""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.exceptions import RayError

from .. import _errors
from .._errors import Error
from . import cluster
from .request import Request

#: How long a call of the owner waits for news.
WAIT_SECONDS = 2.0

_RETRY_SECONDS = 0.2


class Unavailable(Exception):  # noqa: N818 - it does not leave the package
    """The rest of a load cannot be had from the owner. The text says why."""


class Link:
    """The owner of what a load reads."""

    def __init__(self, request: Request) -> None:
        """Does not call the owner yet."""
        self._request = request
        self._handle: Any = None
        self._news_at = time.monotonic()
        #: Which process of the owner has answered last, and on which node it is.
        self.incarnation = self.node = ""
        #: The handle with which it has answered.
        self.answered: Any = None

    @property
    def handle(self) -> Any:
        """The actor, which is created if there is none."""
        if self._handle is None:
            request = self._request
            self._handle = cluster.owner(request.name(), request.settings, request.owner_node)
        return self._handle

    def ask(self, method: str, *arguments: Any) -> dict[str, Any] | None:
        """Calls the owner and waits.

        Returns:
            Its answer; None if the call may be repeated.

        Raises:
            Error: the answer is an error.
            Unavailable: there was no answer for too long.
        """
        try:
            call = getattr(self.handle, method).remote(*arguments)
            seconds = max(self._request.timeout_seconds / 3, 2 * WAIT_SECONDS)
            return self.answer(ray.get(call, timeout=seconds))
        except RayError as error:
            self.failed(error)
            return None

    def answer(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Looks at an answer of the owner, and returns it.

        Raises:
            Error: it is an error.
        """
        self.moved()
        self.answered = self._handle or self.answered
        self.incarnation, self.node = answer["incarnation"], answer["node"]
        if answer.get("error") is not None:
            kind, text = answer["error"]
            known = getattr(_errors, kind, None)
            found = known if isinstance(known, type) and issubclass(known, Error) else Error
            raise found(f"{text} (the owner of these weights on node {self.node[:8]})")
        return answer

    def moved(self) -> None:
        """Records that there was news."""
        self._news_at = time.monotonic()

    def failed(self, error: Exception) -> None:
        """Prepares for another call after one has failed.

        Raises:
            Unavailable: there was no news for too long.
        """
        self._handle = None
        self.check_news(error)
        time.sleep(_RETRY_SECONDS)

    def check_news(self, error: Exception | None = None) -> None:
        """Checks that there was news not too long ago.

        Raises:
            Unavailable: there was none.
        """
        seconds = time.monotonic() - self._news_at
        if seconds > self._request.timeout_seconds:
            cause = "" if error is None else f" ({type(error).__name__})"
            raise Unavailable(f"the owner of the weights gave no news for {seconds:.0f} s{cause}")
