"""`PrefetchLoader`: tensors of one file that are loaded in the background."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ._error import SafetensorError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from ._mapped import MappedFile
    from ._reading import ReadFile

Plan = Mapping[str, Any]
"""The names of tensors; for each None, or an index as `get_slice` takes it."""


class PrefetchLoader:
    """Tensors that are loading. Each is handed out once, by `take` or by iteration."""

    def __init__(self, file: MappedFile | ReadFile, plan: dict[str, Any]) -> None:
        """Starts loading what `plan` names."""
        self._file: MappedFile | ReadFile | None = file
        order = {name: number for number, name in enumerate(file.names)}
        self._plan = {name: plan[name] for name in sorted(plan, key=order.__getitem__)}
        self._left = dict(self._plan)
        self._complete: dict[str, Any] = {}
        self._stream = file.start([name for name, index in self._plan.items() if index is None])

    def names(self) -> list[str]:
        """Returns the names that are handed out, in the order of the file."""
        return list(self._plan)

    def __len__(self) -> int:
        return len(self._plan)

    def take(self, name: str) -> Any:
        """Returns a tensor, or its slice in the plan. Waits until it is loaded.

        Raises:
            SafetensorError: it is not in the plan, or was taken already.
        """
        if self._file is None:
            raise SafetensorError("the prefetch loader is closed")
        if name not in self._left:
            why = "was already taken" if name in self._plan else "is not in the prefetch plan"
            raise SafetensorError(f"tensor {name} {why}")
        index = self._left.pop(name)
        if index is not None:
            return self._file.get_part(name, index)
        return self._whole(name)

    def _whole(self, name: str) -> Any:
        file = self._file
        if self._stream is None or file is None:
            return None if file is None else file.get_tensor(name)
        while name not in self._complete:
            native = next(self._stream)
            self._complete[native.name] = file.converted(native)  # type: ignore[union-attr]
        return self._complete.pop(name)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Yields the names and tensors that were not taken yet."""
        for name in list(self._left):
            if name in self._left:
                yield name, self.take(name)

    def close(self) -> None:
        """Stops loading. Tensors that were taken keep their memory."""
        self._file = None
        self._left.clear()
        self._complete.clear()
        if self._stream is not None:
            self._stream.close()

    def __enter__(self) -> PrefetchLoader:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()
