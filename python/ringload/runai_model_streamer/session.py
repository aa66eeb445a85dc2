"""One load of a streamer: its files opened, their tensors found, and what brings them.

    open_files --> Opened: checkpoints, and of each the names to load
    Opened.items: what the headers say        Opened.tensors: the load itself, natively

Files are opened as one checkpoint. Where that cannot be, since two of them have a tensor of the
same name (which Run:ai's streamer loads twice), each is a checkpoint by itself, and they are loaded
one after the other.
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
    """A checkpoint, and the names of its tensors that are to be loaded, in its order."""

    checkpoint: Checkpoint
    names: list[str]


def checked_names(tensor_names: Collection[str] | None) -> frozenset[str] | None:
    """The names that were asked for; None for all.

    Raises:
        InvalidInputError: for a `str`, which is a collection of its letters, and for no names.
        TypeError: for what is no collection.
    """
    if tensor_names is None:
        return None
    if isinstance(tensor_names, str):
        raise InvalidInputError("tensor_names must be a collection of names, not a single str")
    if len(tensor_names) == 0:
        raise InvalidInputError("tensor_names must not be empty; pass None to load every tensor")
    return frozenset(tensor_names)


class Opened:
    """Files whose headers were read."""

    def __init__(self, loader: Loader, paths: Sequence[str]) -> None:
        """Opens `paths` with the options of `loader`."""
        self.parts = [Part(opened, opened.keys()) for opened in _open(loader, paths)]
        #: Whether a part of the tensors was asked for.
        self.is_selection = False

    def select(self, wanted: frozenset[str]) -> None:
        """Leaves out all tensors but the `wanted` ones.

        Raises:
            InvalidInputError: for a name that no file has, or more than one.
        """
        self.parts = [
            Part(part.checkpoint, [name for name in part.names if name in wanted])
            for part in self.parts
        ]
        self.is_selection = True
        counts = Counter(name for part in self.parts for name in part.names)
        missing = sorted(map(str, wanted - counts.keys()))
        if missing:
            raise InvalidInputError(f"tensor_names not found in checkpoint: {missing}")
        repeated = sorted(name for name, count in counts.items() if count > 1)
        if repeated:
            raise InvalidInputError(
                f"tensor_names requested tensors that appear in more than one file: {repeated}"
            )

    def items(self) -> list[Item]:
        """What the headers say of the tensors, file after file."""
        return [item for _, item in self._described()]

    def items_by_file(self) -> dict[int, list[Item]]:
        """The same for each file, by its number; files are numbered as they were named."""
        numbers: dict[tuple[int, str], int] = {}
        files: dict[int, list[Item]] = {}
        for file, item in self._described():
            files.setdefault(numbers.setdefault(file, len(numbers)), []).append(item)
        return files

    def _described(self) -> Iterator[tuple[tuple[int, str], Item]]:
        for number, (checkpoint, names) in enumerate(self.parts):
            for name in names:
                info = checkpoint.info(name)
                item = Item(name, info["dtype"], info["shape"], info["nbytes"])
                yield (number, info["shard"]), item

    def tensors(self, memory_limit: Limit, span: range | None = None) -> Tensors:
        """Starts to load the tensors, or those at the positions of `span`, under a limit."""
        loads, start = [], 0
        for checkpoint, names in self.parts:
            wanted = range(start, start + len(names)) if span is None else span
            first = max(wanted.start, start)
            part = names[first - start : max(wanted.stop - start, 0)]
            start += len(names)
            if part:
                is_whole = span is None and not self.is_selection
                selection = None if is_whole else part
                loads.append(_Load(checkpoint, part, selection, first, memory_limit))
        return Tensors(loads)


class _Load(NamedTuple):
    checkpoint: Checkpoint
    names: list[str]
    #: The same, or None where they are all.
    selection: list[str] | None
    #: The position of the first one among all tensors of the load.
    first: int
    memory_limit: Limit


class Tensors:
    """The tensors of a load as they complete; those of one part after those of the other."""

    def __init__(self, loads: Sequence[_Load]) -> None:
        """Starts the first part; the others start when it is done."""
        self._convert = converter("torch")
        self._loads = list(loads)
        self._left = sum(len(load.names) for load in loads)
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
    def is_over(self) -> bool:
        """Whether nothing more comes."""
        return self._left == 0

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Tensors by name."""
        while self._stream is not None:
            for tensor in self._stream:
                name, converted = tensor.name, self._convert(tensor)
                self._left -= 1
                del tensor
                yield name, converted
                # The caller's alone, before the next one needs its memory.
                del converted
            self._start_next()

    def __next__(self) -> tuple[int, torch.Tensor]:
        """A tensor, and its position among all tensors of the load."""
        while self._stream is not None:
            tensor = next(self._stream, None)
            if tensor is not None:
                self._left -= 1
                return self._position(tensor.name), self._convert(tensor)
            self._start_next()
        raise StopIteration

    def _position(self, name: str) -> int:
        if self._positions is None:
            first = self._load.first
            self._positions = {name: first + n for n, name in enumerate(self._load.names)}
        return self._positions[name]

    def close(self) -> None:
        """Stops reading; tensors that were handed out stay valid."""
        self._loads.clear()
        self._left = 0
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
    # One that is invalid by itself says so here.
    return [loader.open([path]) for path in paths]
