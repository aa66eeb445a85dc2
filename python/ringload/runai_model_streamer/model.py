"""`ObjectStorageModel`: files of a model in a local directory, downloaded once by many processes.

    lock beside the directory (flock)
    shared:     a mark in it says "complete" --> nothing is to be done, and nobody waits
    exclusive:  no mark --> it is emptied, filled, marked on a clean exit

The mark and the lock are those of Run:ai's streamer, so both may be used on one directory. Between
machines that share a file system the lock does nothing.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from types import TracebackType
from typing import IO, Any

from .._errors import InvalidInputError, IoError, NotFoundError
from .files import Patterns, pull_files

_STORES = ("s3://", "gs://", "az://", "hf://")


class ObjectStorageModel:
    """A directory that holds files of a model in a store.

    Processes of one machine that use the same directory at once download once; the others wait, and
    find it complete. To be used as a context manager: the directory is complete once the block was
    left without an exception; else the next process begins anew.

        with ObjectStorageModel(model_path="s3://bucket/model", dst="/models/model") as model:
            model.pull_files(ignore_pattern=["*.safetensors"])
    """

    #: The file that says that the directory is complete.
    SENTINEL_NAME = ".runai_complete"

    def __init__(self, model_path: str, dst: str, s3_credentials: Any | None = None) -> None:
        """Waits for other processes. Unless the directory is complete, it is emptied.

        Args:
            model_path: the directory in the store.
            dst: the local directory.
            s3_credentials: for `s3://`; without them, those that the AWS SDKs find.

        Raises:
            InvalidInputError: where `model_path` is in no store.
            OSError: where lock or directory cannot be made.
        """
        self._lock: IO[str] | None = None
        if not model_path.startswith(_STORES):
            raise InvalidInputError(
                f"model_path {model_path!r} is in no object store; use one of {', '.join(_STORES)}"
            )
        #: The local directory.
        self.dir = dst.rstrip("/") or "/"
        self._model_path, self._s3_credentials = model_path, s3_credentials
        self._sentinel = os.path.join(self.dir, self.SENTINEL_NAME)
        self._is_complete = False
        self._lock = open(f"{self.dir}.lock", "a")  # noqa: SIM115 - it stays open
        try:
            self._settle(self._lock)
        except BaseException:
            self._release()
            raise

    def _settle(self, lock: IO[str]) -> None:
        """Finds out who is to download: waits for whoever does."""
        fcntl.flock(lock, fcntl.LOCK_SH)
        if os.path.exists(self._sentinel):
            self._is_complete = True
            return
        # Given up first: two that both wanted to turn theirs into an exclusive one would wait for
        # ever.
        fcntl.flock(lock, fcntl.LOCK_UN)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(self._sentinel):
            self._is_complete = True
            fcntl.flock(lock, fcntl.LOCK_SH)
            return
        if os.path.exists(self.dir):
            shutil.rmtree(self.dir)
        os.makedirs(self.dir)

    def pull_files(self, allow_pattern: Patterns = None, ignore_pattern: Patterns = None) -> None:
        """Downloads files as `pull_files` does; nothing, where the directory is complete.

        Raises:
            Error: what the store or the file system says.
        """
        if self._is_complete:
            return
        pull_files(self._model_path, self.dir, allow_pattern, ignore_pattern, self._s3_credentials)

    def __enter__(self) -> ObjectStorageModel:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Marks the directory as complete, where nothing went wrong, and lets others go on.

        Raises:
            NotFoundError: where nothing was downloaded.
            IoError: where the mark cannot be written.
        """
        try:
            if kind is None and not self._is_complete:
                self._mark()
        finally:
            self._release()

    def _mark(self) -> None:
        if not os.listdir(self.dir):
            raise NotFoundError(
                f"no file of {self._model_path} was downloaded to {self.dir}; check the path"
            )
        try:
            with open(self._sentinel, "w"):
                pass
        except OSError as error:
            raise IoError(f"cannot write {self._sentinel}: {error.strerror}") from error
        self._is_complete = True

    def _release(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()  # which unlocks it

    def __del__(self) -> None:
        """Lets others go on."""
        if getattr(self, "_lock", None) is not None:
            self._release()
