"""Files whose tensors are read into memory of their own.

These are files in stores and on web servers, files for CUDA devices, files whose tensors go to
other frameworks than torch, and all files with `backend="pread"`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .._errors import InvalidInputError, NotFoundError
from .._frameworks import packed_shape
from . import _index
from ._ahead import ReadAhead
from ._error import SafetensorError, no_such_tensor

if TYPE_CHECKING:
    from .._frameworks import Converter
    from .._ringload import Checkpoint, Loader, Stream, Tensor, _TensorInfo
    from ._devices import Target


class ReadFile:
    """An open file. A forked child opens it anew when it reads from it."""

    def __init__(  # noqa: PLR0913 - they are what a file consists of
        self,
        loader: Loader,
        locations: list[str],
        checkpoint: Checkpoint,
        convert: Converter,
        *,
        framework: str,
        target: Target,
    ) -> None:
        """Wraps the checkpoint that `loader` opened at `locations`."""
        self._loader = loader
        self._locations = locations
        self._checkpoint = checkpoint
        self._convert = convert
        self._target = target
        self._is_host = target.load == "cpu"
        self._process = os.getpid()
        self._ahead = ReadAhead(checkpoint, is_host=self._is_host)
        self._metadata = checkpoint.metadata()
        self.framework = framework
        self.names = checkpoint.keys()

    def moved_to(self, target: Target) -> ReadFile:
        """Returns the same file for another device."""
        loader, checkpoint = self._loader, self._opened()
        if target.load != self._target.load:
            # Tensors are moved by their framework, as this loader is not one for that device.
            target = target._replace(load=self._target.load, move=target.load)
        return ReadFile(
            loader,
            self._locations,
            checkpoint,
            self._convert,
            framework=self.framework,
            target=target,
        )

    def metadata(self) -> dict[str, str]:
        """Returns the `__metadata__` of the header."""
        return dict(self._metadata)

    def info(self, name: str) -> _TensorInfo:
        """Returns the header entry of a tensor."""
        try:
            return self._opened().info(name)
        except NotFoundError:
            raise no_such_tensor(name) from None

    def get_tensor(self, name: str) -> Any:
        """Returns a tensor."""
        try:
            self._opened()
            return self._converted(self._ahead.read(name))
        except NotFoundError as error:
            raise self._missing(name, error) from None

    def get_tensors(self) -> dict[str, Any]:
        """Returns all tensors by name, in the order of the file."""
        with self._opened().stream() as started:
            found = {tensor.name: self._converted(tensor) for tensor in started}
        return {name: found[name] for name in self.names}

    def get_part(self, name: str, index: Any) -> Any:
        """Returns what safetensors selects by `index`."""
        checkpoint = self._opened()
        info = self.info(name)
        ranges, shape = _index.resolve(index, list(info["shape"]))
        try:
            native = checkpoint.read(name, ranges, at_once=self._is_host)
        except InvalidInputError as error:
            raise SafetensorError(f"Error during slicing: {error}") from error
        part = self._convert(native)
        if hasattr(part, "reshape"):
            part = part.reshape(packed_shape(info["dtype"], shape))
        elif len(shape) < len(ranges):
            dropped = _index.dropped(index, len(ranges))
            part = part[tuple(0 if one in dropped else slice(None) for one in range(len(ranges)))]
        move = self._target.move if self._is_host else self._target.load
        return part if move is None or self.framework == "numpy" else _moved(part, move)

    def start(self, names: list[str]) -> Stream | None:
        """Begins to read tensors in the background."""
        return self._opened().stream(names=names) if names else None

    def converted(self, native: Tensor) -> Any:
        """Returns the framework's tensor on its device."""
        return self._converted(native)

    def _converted(self, native: Tensor) -> Any:
        tensor = self._convert(native)
        return tensor if self._target.move is None else _moved(tensor, self._target.move)

    def _missing(self, name: str, error: NotFoundError) -> Exception:
        return error if name in self.names else no_such_tensor(name)

    def _opened(self) -> Checkpoint:
        if os.getpid() != self._process:
            self._checkpoint = self._loader.open(self._locations)
            self._ahead = ReadAhead(self._checkpoint, is_host=self._is_host)
            self._process = os.getpid()
        return self._checkpoint


def _moved(tensor: Any, device: str | int) -> Any:
    return tensor.to(device)
