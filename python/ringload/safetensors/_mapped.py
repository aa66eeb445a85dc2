"""Local files whose tensors are views of a private mapping, which other threads read ahead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._errors import NotFoundError
from ._error import no_such_tensor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._frameworks import Converter
    from .._ringload import Mapped, _TensorInfo
    from ._devices import Target


class MappedFile:
    """A mapped file. It works in a forked child, too, as it needs no thread."""

    def __init__(self, mapped: Mapped, convert: Converter, framework: str, target: Target) -> None:
        """Wraps a native mapping, whose tensors go to `target`, which is not a CUDA device."""
        self._mapped = mapped
        self._tensor = mapped.tensor
        self._convert = convert
        self._target = target
        self._move = target.move
        self.framework = framework
        self.names = mapped.keys()

    def moved_to(self, target: Target) -> MappedFile:
        """Returns the same file for another device."""
        return MappedFile(self._mapped, self._convert, self.framework, target)

    def metadata(self) -> dict[str, str]:
        """Returns the `__metadata__` of the header."""
        return self._mapped.metadata()

    def info(self, name: str) -> _TensorInfo:
        """Returns the header entry of a tensor."""
        try:
            return self._mapped.info(name)
        except NotFoundError:
            raise no_such_tensor(name) from None

    def get_tensor(self, name: str) -> Any:
        """Returns a tensor."""
        try:
            native = self._tensor(name)
        except NotFoundError:
            raise no_such_tensor(name) from None
        tensor = self._convert(native)
        return tensor if self._move is None else tensor.to(self._move)

    def get_tensors(self) -> dict[str, Any]:
        """Returns all tensors by name, in the order of the file."""
        self._mapped.prefetch()
        views = {name: self._convert(self._tensor(name, is_used=False)) for name in self.names}
        # A program that touches pages while they are being read slows the reading down.
        self._mapped.wait()
        move = self._move
        tensors = views if move is None else {name: each.to(move) for name, each in views.items()}
        self._mapped.check_unchanged()
        return tensors

    def get_part(self, name: str, index: Any) -> Any:
        """Returns what torch selects by `index`."""
        native = self._tensor(name, is_used=False)
        address, nbytes = native.address, native.nbytes
        part = self._convert(native)[index]
        first = part.data_ptr() - address
        if 0 <= first < nbytes:
            # Otherwise it is a copy: for lists and tensors of indices.
            elements = 1 + sum((n - 1) * by for n, by in zip(part.shape, part.stride()))
            self._mapped.expect(name, first, elements * part.element_size())
        return part if self._move is None else part.to(self._move)

    def prefetch(self, names: Iterable[str]) -> None:
        """Begins to read tensors in the background."""
        self._mapped.prefetch(list(names))

    def start(self, names: list[str]) -> None:
        """Begins to read tensors in the background. They are returned by `get_tensor`."""
        self.prefetch(names)
