"""`SafetensorsStreamer`: a session of loads that deliver tensors as they complete."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from os import fsdecode
from time import monotonic
from typing import TYPE_CHECKING, Any

from .. import _cache
from .._errors import InvalidInputError
from .._ringload import Loader
from . import limits
from .credentials import loader_options
from .devices import TargetDevice
from .errors import as_value_errors
from .session import OpenedFiles, TensorStream, checked_names
from .sharing import SharedLoad, start_shared_load

if TYPE_CHECKING:
    from os import PathLike

    import torch

    from ..distributed import Item

_logger = logging.getLogger("ringload")

NOT_ACTIVE = "the streamer is not active; call it in its with block"


class SafetensorsStreamer:
    """Streams the tensors of safetensors files to host memory or a GPU.

    Use it as a context manager. A session may do several loads, one after the other:

        with SafetensorsStreamer() as streamer:
            streamer.stream_files(["a.safetensors", "s3://bucket/b.safetensors"])
            for name, tensor in streamer.get_tensors():
                ...

    The caller owns every tensor: its memory is not written to again, and stays valid as long as the
    tensor exists, even after the session. Every error is an instance of `ValueError` and of its
    class in ringload.
    """

    def __init__(self) -> None:
        """Creates a streamer whose session has not begun."""
        #: The name of the device of the last load.
        self.device_str: str | None = None
        self._is_entered = False
        self._opened: OpenedFiles | None = None
        self._tensors: TensorStream | SharedLoad | None = None
        self._device: TargetDevice | None = None
        self._began = monotonic()

    def __enter__(self) -> SafetensorsStreamer:
        """Begins the session."""
        self._is_entered = True
        return self

    def __exit__(self, *_exception: object) -> None:
        """Ends the session, and stops a load that has not finished."""
        self._is_entered = False
        self._stop()

    @property
    def files_to_tensors_metadata(self) -> dict[int, list[Item]]:
        """The header entries of the last load: `name`, `dtype`, `shape`, `nbytes` of each tensor.

        The key is the number of the file, in the order in which the files were named.
        """
        return {} if self._opened is None else self._opened.items_by_file()

    @property
    def total_size(self) -> int:
        """The number of bytes of all tensors of the last load."""
        return 0 if self._opened is None else sum(item.nbytes for item in self._opened.items())

    def stream_file(  # noqa: PLR0913, PLR0917 - Run:ai's signature
        self,
        path: str | PathLike[str],
        s3_credentials: Any | None = None,
        device: str | torch.device | None = "cpu",
        is_distributed: bool = False,
        tensor_names: Collection[str] | None = None,
        owned: bool = True,
        *,
        group: Any = None,
    ) -> None:
        """Starts to load the tensors of one file; see `stream_files`."""
        self.stream_files(
            [path],
            s3_credentials=s3_credentials,
            device=device,
            is_distributed=is_distributed,
            tensor_names=tensor_names,
            owned=owned,
            group=group,
        )

    def stream_files(  # noqa: PLR0913, PLR0917 - Run:ai's signature
        self,
        paths: Sequence[str | PathLike[str]],
        s3_credentials: Any | None = None,
        device: str | torch.device | None = "cpu",
        is_distributed: bool = False,
        tensor_names: Collection[str] | None = None,
        owned: bool = True,
        *,
        group: Any = None,
    ) -> None:
        """Starts to load the tensors of files; `get_tensors` yields them.

        Args:
            paths: files, directories, patterns or URIs, which may be in different stores.
            s3_credentials: the credentials for `s3://`; None for those that the AWS SDKs would use.
            device: the device that tensors are loaded to: "cpu", "cuda:N", or a `torch.device`.
            is_distributed: whether each rank of the group reads a part of the tensors and sends it
                to the others. All ranks have to make this call.
            tensor_names: the names of the tensors to load; None for all.
            owned: whether tensors that the caller holds are exempt from the memory limit. If not,
                holding more than the limit allows is an error. Tensors are never overwritten.
            group: the process group of torch whose ranks share the load, which Run:ai's package
                does not have. By default, as in that package, the ranks of the default group that
                are on the same host.

        Raises:
            InvalidInputError: `tensor_names` is a `str` or empty, or a name is in no file or in
                several; the device does not exist; this rank is not in the group; or the previous
                load has not finished.
            Error: the files cannot be opened.
        """
        with as_value_errors():
            if not self._is_entered:
                raise InvalidInputError(NOT_ACTIVE)
            if self._tensors is not None and not self._tensors.is_finished:
                raise InvalidInputError(
                    "cannot start a new stream before the previous one has finished; "
                    "consume or close get_tensors() before calling stream_files again"
                )
            self._stop()
            self._began = monotonic()

            def open_files() -> tuple[OpenedFiles, TargetDevice]:
                return self._open(paths, s3_credentials, device, tensor_names, owned)

            if group is not None and not is_distributed:
                raise InvalidInputError(
                    "group is for is_distributed=True; leave it out, or set that"
                )
            shared = start_shared_load(open_files, device, group) if is_distributed else None
            if shared is None:
                opened, target = open_files()
                self._tensors = opened.tensors(limits.single_limit(is_gpu=target.is_gpu))
            else:
                self._tensors = shared

    def _open(
        self,
        paths: Sequence[str | PathLike[str]],
        s3_credentials: Any | None,
        device: str | torch.device | None,
        tensor_names: Collection[str] | None,
        owned: bool,
    ) -> tuple[OpenedFiles, TargetDevice]:
        """Opens the files, and sets the attributes that describe the load."""
        names = checked_names(tensor_names)
        target = TargetDevice(device)
        locations = [fsdecode(path) for path in paths]
        options = _cache.with_cache(loader_options(s3_credentials, locations))
        loader = Loader(device=target.native, keep=owned, runai_env=True, **options)
        _cache.flush_at_exit(loader)
        opened = OpenedFiles(loader, locations)
        if names is not None:
            opened.select(names)
        self._opened, self._device, self.device_str = opened, target, target.name
        return opened, target

    def get_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields the names and tensors of the load, in the order in which they complete.

        Closing the iterator early stops the load. With `is_distributed`, all ranks get all tensors
        in the same order, and a rank that stops early or fails ends the load on all ranks.

        Raises:
            InvalidInputError: the session has not begun or has ended.
            Error: reading failed.
        """
        with as_value_errors():
            if not self._is_entered:
                raise InvalidInputError(NOT_ACTIVE)
        tensors, device = self._tensors, self._device
        if tensors is None or device is None or tensors.is_finished:
            return
        pairs = iter(tensors)
        try:
            with as_value_errors():
                if device.needs_copy:
                    for name, tensor in pairs:
                        yield name, device.copy(tensor)
                else:
                    yield from pairs
                if not self._is_entered:
                    # The session was over before the load was.
                    raise InvalidInputError(NOT_ACTIVE)
                self._log()
        finally:
            tensors.close()

    def _stop(self) -> None:
        tensors, self._tensors = self._tensors, None
        if tensors is not None:
            tensors.close()

    def _log(self) -> None:
        seconds = monotonic() - self._began
        _logger.info("streamed all tensors to %s in %.2f s", self.device_str, seconds)
