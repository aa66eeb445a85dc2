"""`ObjectStorageModel`: a local directory of model files that many processes download once.

    A lock file beside the directory (flock) coordinates the processes:
    shared lock:     the directory has the sentinel file --> it is complete; nothing is downloaded
    exclusive lock:  no sentinel file --> the directory is emptied and filled, and the sentinel file
                     is written when the block ends without an exception

The sentinel file and the lock file are those of Run:ai's streamer, so both packages may use the
same directory. The lock does not coordinate machines that share a file system.
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
    """A local directory with files of a model in an object store.

    If several processes of a machine use the same directory at the same time, one of them downloads
    the files, and the others wait until the directory is complete. Use it as a context manager: the
    directory is complete when the block has ended without an exception. After an exception, the
    next process starts with an empty directory.

        with ObjectStorageModel(model_path="s3://bucket/model", dst="/models/model") as model:
            model.pull_files(ignore_pattern=["*.safetensors"])
    """

    #: The file that marks the directory as complete.
    SENTINEL_NAME = ".runai_complete"

    def __init__(self, model_path: str, dst: str, s3_credentials: Any | None = None) -> None:
        """Waits for other processes, and empties the directory unless it is complete.

        Args:
            model_path: the directory in the store.
            dst: the local directory.
            s3_credentials: the credentials for `s3://`; None for those that the AWS SDKs would use.

        Raises:
            InvalidInputError: `model_path` is not in an object store.
            OSError: the lock file or the directory cannot be created.
        """
        self._lock: IO[str] | None = None
        if not model_path.startswith(_STORES):
            raise InvalidInputError(
                f"model_path {model_path!r} is not in an object store; "
                f"use one of {', '.join(_STORES)}"
            )
        #: The local directory.
        self.dir = dst.rstrip("/") or "/"
        self._model_path, self._s3_credentials = model_path, s3_credentials
        self._sentinel = os.path.join(self.dir, self.SENTINEL_NAME)
        self._is_complete = False
        self._lock = open(f"{self.dir}.lock", "a")  # noqa: SIM115 - the file stays open
        try:
            self._lock_directory(self._lock)
        except BaseException:
            self._release()
            raise

    def _lock_directory(self, lock: IO[str]) -> None:
        """Waits for the lock: shared for a complete directory, exclusive for one to download."""
        fcntl.flock(lock, fcntl.LOCK_SH)
        if os.path.exists(self._sentinel):
            self._is_complete = True
            return
        # Two processes that both converted a shared lock to an exclusive one would deadlock.
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
        """Downloads files as the function `pull_files` does, unless the directory is complete.

        Raises:
            Error: the store or the file system failed.
        """
        if self._is_complete:
            return
        pull_files(self._model_path, self.dir, allow_pattern, ignore_pattern, self._s3_credentials)

    def __enter__(self) -> ObjectStorageModel:
        """Returns this object."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Marks the directory as complete if there was no exception, and releases the lock.

        Raises:
            NotFoundError: no file was downloaded.
            IoError: the sentinel file cannot be written.
        """
        try:
            if kind is None and not self._is_complete:
                self._write_sentinel()
        finally:
            self._release()

    def _write_sentinel(self) -> None:
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
            lock.close()  # this releases the lock

    def __del__(self) -> None:
        """Releases the lock."""
        if getattr(self, "_lock", None) is not None:
            self._release()
