"""`SafetensorsStreamer`: a session of loads, which hand their tensors out as they complete."""

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
from .devices import Device
from .errors import as_value_errors
from .session import Opened, Tensors, checked_names
from .sharing import Sharing, share

if TYPE_CHECKING:
    from os import PathLike

    import torch

    from ..distributed import Item

_logger = logging.getLogger("ringload")


class SafetensorsStreamer:
    """Streams the tensors of safetensors files to host memory or a GPU.

    Use it as a context manager; one session may do several loads, one after the other:

        with SafetensorsStreamer() as streamer:
            streamer.stream_files(["a.safetensors", "s3://bucket/b.safetensors"])
            for name, tensor in streamer.get_tensors():
                ...

    Every tensor is the caller's: its memory is not written to again, and stays as long as the
    tensor does, also after the session. All errors are `ValueError`s, besides what they are in
    ringload.
    """

    def __init__(self) -> None:
        """A session that has not begun yet."""
        #: The device of the last load, as text.
        self.device_str: str | None = None
        self._is_entered = False
        self._opened: Opened | None = None
        self._tensors: Tensors | Sharing | None = None
        self._device: Device | None = None
        self._began = monotonic()

    def __enter__(self) -> SafetensorsStreamer:
        """Begins the session."""
        self._is_entered = True
        return self

    def __exit__(self, *_exception: object) -> None:
        """Ends the session, and a load that is under way."""
        self._is_entered = False
        self._stop()

    @property
    def files_to_tensors_metadata(self) -> dict[int, list[Item]]:
        """What the headers say of the last load's tensors: `name`, `dtype`, `shape`, `nbytes`.

        By the number of the file, in the order in which they were named.
        """
        return {} if self._opened is None else self._opened.items_by_file()

    @property
    def total_size(self) -> int:
        """Bytes of the tensors of the last load."""
        return 0 if self._opened is None else sum(item.nbytes for item in self._opened.items())

    def stream_file(  # noqa: PLR0913, PLR0917 - as Run:ai's
        self,
        path: str | PathLike[str],
        s3_credentials: Any | None = None,
        device: str | torch.device | None = "cpu",
        is_distributed: bool = False,
        tensor_names: Collection[str] | None = None,
        owned: bool = True,
    ) -> None:
        """As `stream_files` of one file."""
        self.stream_files(
            [path],
            s3_credentials=s3_credentials,
            device=device,
            is_distributed=is_distributed,
            tensor_names=tensor_names,
            owned=owned,
        )

    def stream_files(  # noqa: PLR0913, PLR0917 - as Run:ai's
        self,
        paths: Sequence[str | PathLike[str]],
        s3_credentials: Any | None = None,
        device: str | torch.device | None = "cpu",
        is_distributed: bool = False,
        tensor_names: Collection[str] | None = None,
        owned: bool = True,
    ) -> None:
        """Starts to load the tensors of files; `get_tensors` hands them out.

        Args:
            paths: files, directories, patterns or URIs, also of different stores.
            s3_credentials: for `s3://`; without them, those that the AWS SDKs find.
            device: where tensors end up: "cpu", "cuda:N", a `torch.device`.
            is_distributed: whether the ranks of the `torch.distributed` group each read a part, and
                give it to the others. All of them have to make this call.
            tensor_names: only these tensors; None for all.
            owned: whether the memory limit leaves out what the caller holds. If not, holding all
                that the limit allows is an error. No tensor is overwritten in either case.

        Raises:
            InvalidInputError: for `tensor_names` that are a `str`, empty, in no file or in several;
                for a device that does not exist; where the last load was not taken to its end.
            Error: what opening the files raises.
        """
        with as_value_errors():
            if not self._is_entered:
                raise InvalidInputError("the streamer is not in use; call it in its with block")
            if self._tensors is not None and not self._tensors.is_over:
                raise InvalidInputError(
                    "cannot start a new stream before the previous one was taken to its end; "
                    "consume or close get_tensors() before calling stream_files again"
                )
            self._stop()
            self._began = monotonic()

            def open_files() -> tuple[Opened, Device]:
                return self._open(paths, s3_credentials, device, tensor_names, owned)

            shared = share(open_files, device) if is_distributed else None
            if shared is None:
                opened, target = open_files()
                self._tensors = opened.tensors(limits.of_one(is_gpu=target.is_gpu))
            else:
                self._tensors = shared

    def _open(
        self,
        paths: Sequence[str | PathLike[str]],
        s3_credentials: Any | None,
        device: str | torch.device | None,
        tensor_names: Collection[str] | None,
        owned: bool,
    ) -> tuple[Opened, Device]:
        """Opens the files, and remembers what is loaded, and where to."""
        names = checked_names(tensor_names)
        target = Device(device)
        locations = [fsdecode(path) for path in paths]
        options = _cache.with_cache(loader_options(s3_credentials, locations))
        loader = Loader(device=target.native, keep=owned, runai_env=True, **options)
        _cache.remember(loader)
        opened = Opened(loader, locations)
        if names is not None:
            opened.select(names)
        self._opened, self._device, self.device_str = opened, target, target.text
        return opened, target

    def get_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors of the load by name, as they complete.

        Leaving the loop early ends the load. With `is_distributed`, all ranks get all tensors, in
        the same order, and a rank that leaves early or fails ends the load of all.

        Raises:
            InvalidInputError: outside of the session.
            Error: what reading raises.
        """
        with as_value_errors():
            if not self._is_entered:
                raise InvalidInputError("the streamer is not in use; call it in its with block")
        tensors, device = self._tensors, self._device
        if tensors is None or device is None or tensors.is_over:
            return
        given = iter(tensors)
        try:
            with as_value_errors():
                if device.is_elsewhere:
                    for name, tensor in given:
                        yield name, device.bring(tensor)
                else:
                    yield from given
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
