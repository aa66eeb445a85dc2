"""`safe_open`: a file whose tensors, and slices of them, are loaded on request."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple, Union

from .. import _cache
from .._errors import Error, IoError, UnsupportedError
from .._frameworks import SUB_BYTE_BITS
from .._load import paths
from .._ringload import Loader
from ._convert import converter_to
from ._devices import HOST, framework_of, target_of
from ._error import SafetensorError, closed, error_of_opening, no_such_tensor
from ._mapped import MappedFile
from ._prefetch import Plan, PrefetchLoader
from ._reading import ReadFile

if TYPE_CHECKING:
    from types import TracebackType

    from ._devices import Target

File = Union[MappedFile, ReadFile]
"""The two ways in which the bytes of a file are loaded."""

BACKENDS = ("mmap", "pread")

_loaders: dict[str, Loader] = {}
"""The loader of local files for each device."""


class TensorMeta(NamedTuple):
    """A tensor's header entry. No data is read to make it."""

    dtype: str
    """The name of the type in safetensors, such as "F32"."""
    shape: list[int]
    data_offsets: tuple[int, int]
    """Where the bytes of the tensor start and end in the data of the file."""


class safe_open:  # noqa: N801 - safetensors calls it so
    """Opens a safetensors file, whose tensors are loaded on request.

    The object owns its file: what happens to the name of the file later does not matter, and slices
    can be taken after it was closed. It works in a forked child, too.
    """

    def __init__(
        self,
        filename: str | os.PathLike[str],
        framework: str,
        device: Any = "cpu",
        *,
        backend: str = "mmap",
    ) -> None:
        """Opens a file, reading its header only.

        Args:
            filename: a path, or a location such as `s3://bucket/model.safetensors`.
            framework: "pt", "np", "flax", "tf", "mlx" or "paddle", or a longer name of one.
            device: the device of the tensors, such as "cuda:1", or its number.
            backend: "mmap": torch tensors of local files are views of the mapped file, which other
                threads read ahead. They may be written to, which leaves the file as it is; but
                where nobody wrote to them, they change with the file. "pread": tensors have memory
                of their own.

        Raises:
            FileNotFoundError: there is no such file.
            SafetensorError: the file is not of this format, or an argument cannot be used.
        """
        if not isinstance(filename, (str, os.PathLike)):
            raise TypeError(f"a file name is a str or a path, not {type(filename).__name__}")
        if backend not in BACKENDS:
            raise SafetensorError(
                f'backend "{backend}" is invalid (expected one of: "mmap", "pread")'
            )
        kind = framework_of(framework)
        target = target_of(device, kind)
        self._file: File | None = None
        try:
            self._file = _opened(filename, kind, target, is_mapped=backend == "mmap")
        except Error as error:
            if isinstance(error, SafetensorError):
                raise
            raise error_of_opening(os.fspath(filename), error) from error

    def __enter__(self) -> safe_open:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._file = None

    @property
    def _open_file(self) -> File:
        if self._file is None:
            raise closed()
        return self._file

    def keys(self) -> list[str]:
        """Returns the names of the tensors, sorted."""
        return sorted(self._open_file.names)

    def offset_keys(self) -> list[str]:
        """Returns the names of the tensors, in the order of the file."""
        return list(self._open_file.names)

    def metadata(self) -> dict[str, str] | None:
        """Returns the `__metadata__` of the header; None if it has none."""
        return self._open_file.metadata() or None

    def get_tensor(self, name: str) -> Any:
        """Returns a tensor.

        Raises:
            SafetensorError: the file has no tensor of this name.
        """
        file = self._file
        if file is None:
            raise closed()
        return file.get_tensor(name)

    def get_tensors(self) -> dict[str, Any]:
        """Returns all tensors by name, in the order of the file."""
        return self._open_file.get_tensors()

    def get_slice(self, name: str) -> Slice:
        """Returns a tensor whose slices can be taken: `get_slice(name)[a:b, c:d]`.

        Raises:
            SafetensorError: the file has no tensor of this name.
        """
        return Slice(self._open_file, name)

    def get_tensor_meta(self, name: str) -> TensorMeta:
        """Returns the header entry of a tensor.

        Raises:
            SafetensorError: the file has no tensor of this name.
        """
        info = self._open_file.info(name)
        start = info["data_offset"]
        return TensorMeta(info["dtype"], list(info["shape"]), (start, start + info["nbytes"]))

    def prefetch(
        self, plan: Plan | None = None, *, device: Any = None, threads: int = 8
    ) -> PrefetchLoader:
        """Starts loading tensors in the background.

        Args:
            plan: the names of the tensors, and for each an index as `get_slice` takes it, or None
                for the whole tensor. None: all tensors.
            device: the device of the tensors, if not that of this file.
            threads: has no effect, as ringload chooses the number of threads.

        Returns:
            The loader, from which each tensor is taken once.

        Raises:
            SafetensorError: the file has no such tensor, the framework has no such type, or a slice
                of a scalar was requested.
        """
        del threads
        file = self._open_file
        planned = dict.fromkeys(file.names) if plan is None else dict(plan)
        for name, index in planned.items():
            info = file.info(name)
            if SUB_BYTE_BITS.get(info["dtype"]) == 6:
                raise SafetensorError(f"Dtype not understood: {info['dtype']} (tensor {name})")
            if index is not None and not info["shape"]:
                raise SafetensorError(f"Cannot slice the scalar tensor {name}")
        if device is not None:
            file = file.moved_to(target_of(device, file.framework))
        return PrefetchLoader(file, planned)


class _safe_open_handle(safe_open):  # noqa: N801 - safetensors calls it so
    """`safe_open` of the file that is open as `f`, which has a name."""

    def __init__(
        self, f: Any, framework: str, device: Any = "cpu", *, backend: str = "mmap"
    ) -> None:
        """Opens the file anew."""
        _ = f.fileno
        super().__init__(f.name, framework, device, backend=backend)


class Slice:
    """A tensor whose slices are loaded on request, also after its file was closed."""

    def __init__(self, file: File, name: str) -> None:
        """Refers to the tensor `name` of `file`."""
        self._file = file
        self._name = name
        self._info = file.info(name)

    def get_shape(self) -> list[int]:
        """Returns the dimensions of the tensor, outermost first; empty for a scalar."""
        return list(self._info["shape"])

    def get_dtype(self) -> str:
        """Returns the name of the type in safetensors, such as "BF16"."""
        return self._info["dtype"]

    def __getitem__(self, index: Any) -> Any:
        """Loads a slice.

        Args:
            index: for torch tensors that are views of a mapped file, all that torch takes;
                otherwise integers, slices with steps above 0, and at most one Ellipsis.
        """
        return self._file.get_part(self._name, index)


def _opened(
    filename: str | os.PathLike[str], framework: str, target: Target, *, is_mapped: bool
) -> File:
    convert = converter_to(framework)
    locations = paths(filename)
    is_local = "://" not in locations[0]
    loader = _loader(target.load, is_local=is_local)
    checkpoint = loader.open(locations)
    if is_mapped and is_local and framework == "pytorch" and target.load == HOST.load:
        try:
            return MappedFile(checkpoint.map(), convert, framework, target)
        except (IoError, UnsupportedError):
            pass  # a file system that does not map files
    if is_local:
        checkpoint.keep_open()
    return ReadFile(loader, locations, checkpoint, convert, framework=framework, target=target)


def _loader(device: str, *, is_local: bool) -> Loader:
    if is_local:
        known = _loaders.get(device)
        if known is None:
            known = _loaders[device] = Loader(device=device)
        return known
    loader = Loader(device=device, **_cache.with_cache({}))
    _cache.flush_at_exit(loader)
    return loader


__all__ = ["Slice", "TensorMeta", "_safe_open_handle", "no_such_tensor", "safe_open"]
