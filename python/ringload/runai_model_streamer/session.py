"""A load of a streamer: opening the files, selecting tensors, and loading them.

    OpenedFiles          the checkpoints, and the names of the tensors to load from each
    OpenedFiles.items    the header entries of the tensors
    OpenedFiles.tensors  starts the native load: TensorStream

All files are opened as one checkpoint. This fails if two files have a tensor of the same name,
which Run:ai's streamer loads twice; then each file is opened as a checkpoint of its own, and the
checkpoints are loaded one after the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .._errors import InvalidCheckpointError, InvalidInputError
from .._frameworks import converter
from .._ringload import Checkpoint, Loader, Stream
from ..distributed import Item
from .limits import Limit

if TYPE_CHECKING:
    import torch


class Part(NamedTuple):
    """A checkpoint, and the names of the tensors to load from it, in the order of its files."""

    checkpoint: Checkpoint
    names: list[str]


def checked_names(tensor_names: Collection[str] | None) -> frozenset[str] | None:
    """Returns the requested names as a set; None requests all tensors.

    Raises:
        InvalidInputError: `tensor_names` is empty, or a `str` (a collection of its characters).
        TypeError: `tensor_names` is not a collection.
    """
    if tensor_names is None:
        return None
    if isinstance(tensor_names, str):
        raise InvalidInputError("tensor_names must be a collection of names, not a single str")
    if len(tensor_names) == 0:
        raise InvalidInputError("tensor_names must not be empty; pass None to load every tensor")
    return frozenset(tensor_names)


class OpenedFiles:
    """Files whose headers have been read."""

    def __init__(self, loader: Loader, paths: Sequence[str]) -> None:
        """Opens `paths` with the options of `loader`."""
        self.parts = [Part(opened, opened.keys()) for opened in _open(loader, paths)]
        #: Whether `select` was called.
        self.is_selection = False

    def select(self, names: frozenset[str]) -> None:
        """Removes all tensors except those called `names`.

        Raises:
            InvalidInputError: a name is in no file, or in more than one.
        """
        self.parts = [
            Part(part.checkpoint, [name for name in part.names if name in names])
            for part in self.parts
        ]
        self.is_selection = True
        counts = Counter(name for part in self.parts for name in part.names)
        missing = sorted(map(str, names - counts.keys()))
        if missing:
            raise InvalidInputError(f"tensor_names not found in checkpoint: {missing}")
        repeated = sorted(name for name, count in counts.items() if count > 1)
        if repeated:
            raise InvalidInputError(
                f"tensor_names requested tensors that appear in more than one file: {repeated}"
            )

    def items(self) -> list[Item]:
        """Returns the header entries of the tensors, in the order of the files."""
        return [item for _, item in self._items_with_files()]

    def items_by_file(self) -> dict[int, list[Item]]:
        """Returns the header entries of each file; files are numbered in the order of the paths."""
        numbers: dict[tuple[int, str], int] = {}
        files: dict[int, list[Item]] = {}
        for file, item in self._items_with_files():
            files.setdefault(numbers.setdefault(file, len(numbers)), []).append(item)
        return files

    def _items_with_files(self) -> Iterator[tuple[tuple[int, str], Item]]:
        for number, (checkpoint, names) in enumerate(self.parts):
            for name in names:
                info = checkpoint.info(name)
                item = Item(name, info["dtype"], info["shape"], info["nbytes"])
                yield (number, info["shard"]), item

    def tensors(self, memory_limit: Limit, span: range | None = None) -> TensorStream:
        """Starts to load all tensors, or only those at the positions `span`."""
        loads, start = [], 0
        for checkpoint, names in self.parts:
            selected = range(start, start + len(names)) if span is None else span
            first = max(selected.start, start)
            part = names[first - start : max(selected.stop - start, 0)]
            start += len(names)
            if part:
                is_whole = span is None and not self.is_selection
                selection = None if is_whole else part
                loads.append(_PartLoad(checkpoint, part, selection, first, memory_limit))
        return TensorStream(loads)


class _PartLoad(NamedTuple):
    """The arguments of the native load of a part."""

    checkpoint: Checkpoint
    names: list[str]
    #: `names`, or None if they are all names of the checkpoint.
    selection: list[str] | None
    #: The position of the first name among all tensors of all parts.
    first: int
    memory_limit: Limit


class TensorStream:
    """The tensors of a load in the order of completion; the parts are loaded one by one."""

    def __init__(self, loads: Sequence[_PartLoad]) -> None:
        """Starts the load of the first part; each of the others starts when the last has ended."""
        self._convert = converter("torch")
        self._loads = list(loads)
        self._remaining = sum(len(load.names) for load in loads)
        self._stream: Stream | None = None
        self._start_next()

    def _start_next(self) -> None:
        self._stream = None
        if self._loads:
            self._load = self._loads.pop(0)
            self._positions: dict[str, int] | None = None
            self._stream = self._load.checkpoint.stream(
                names=self._load.selection, memory_limit=self._load.memory_limit
            )

    @property
    def is_finished(self) -> bool:
        """Whether the load has no more tensors to deliver."""
        return self._remaining == 0

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields the names and tensors."""
        while self._stream is not None:
            for tensor in self._stream:
                name, converted = tensor.name, self._convert(tensor)
                self._remaining -= 1
                del tensor
                yield name, converted
                # Drops the last reference here before the next tensor needs memory.
                del converted
            self._start_next()

    def __next__(self) -> tuple[int, torch.Tensor]:
        """Returns the position of a tensor among all tensors of all parts, and the tensor."""
        while self._stream is not None:
            tensor = next(self._stream, None)
            if tensor is not None:
                self._remaining -= 1
                return self._position(tensor.name), self._convert(tensor)
            self._start_next()
        raise StopIteration

    def _position(self, name: str) -> int:
        if self._positions is None:
            first = self._load.first
            self._positions = {name: first + n for n, name in enumerate(self._load.names)}
        return self._positions[name]

    def close(self) -> None:
        """Stops the load. Tensors that it has delivered stay valid."""
        self._loads.clear()
        self._remaining = 0
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()


def _open(loader: Loader, paths: Sequence[str]) -> list[Checkpoint]:
    if not paths:
        return []
    if len(set(paths)) == len(paths):
        try:
            return [loader.open(paths)]
        except InvalidCheckpointError:
            if len(paths) == 1:
                raise
    # Two files may have a tensor of the same name. If a file is invalid itself, this raises.
    return [loader.open([path]) for path in paths]
