"""The exchange: every rank gives what it reads to all others, round by round, in bounded staging.

    round:  each rank takes tensors from its own load: small ones packed into its staging buffer,
            up to the first large one
            all say what they have (one small all-gather); that is also when a failure is told
            rank after rank broadcasts: its packed tensors in one go, its large one in pieces

Small tensors are copied out of the staging buffers; a large one is sent from where it was loaded
to, and received right into memory of its own. So every tensor that is handed out is its own, and is
never written to again. All ranks hand the tensors out in the same order.

Memory of a rank besides what its caller holds: its load's ring, two staging buffers, and on a
receiving rank the large tensor that is coming in.

What must hold for nobody to wait in vain: each rank goes on asking for tensors until there are no
more, or leaves (`leave`). A rank that leaves or fails takes part, without keeping anything, to the
end of the round; the others hear of it at the beginning of the next one and stop there, too. A rank
that is killed, or does neither, ends the others after the group's timeout at the latest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .._errors import CancelledError, Error, IoError
from .._frameworks import torch_dtype_of
from . import failure
from .partition import Item

if TYPE_CHECKING:
    import torch

    from .group import Group

#: Tensors of at most this share of a staging buffer are packed.
_SMALL_SHARE = 8

#: Packed tensors begin at multiples of this in a staging buffer: good for all types, on all
#: devices.
_ALIGNMENT_BYTES = 256

#: The most tensors that one rank packs for one round.
_COUNT_MAX = 512

#: A rank's word: its state, how many tensors it packed, its large tensor (-1: none), and the rest
#: of the room: what it packed, or the text of its error behind that text's length.
_HEAD = 3
_ROOM = _COUNT_MAX

_GOING_ON, _FAILED, _LEFT = range(3)


class Source(Protocol):
    """What a rank reads."""

    def __next__(self) -> tuple[int, torch.Tensor]:
        """The position of a tensor among all items, and the tensor, contiguous."""

    def close(self) -> None:
        """Stops reading."""


class _Message(NamedTuple):
    """What one rank broadcasts at once."""

    sender: int
    #: Positions of items.
    packed: tuple[int, ...]
    large: int | None


class Exchange:
    """The tensors of a load that a group shares, for one of its ranks."""

    def __init__(
        self,
        group: Group,
        items: Sequence[Item],
        source: Source,
        *,
        device: torch.device,
        staging_bytes: int,
    ) -> None:
        """An exchange that is about to begin.

        Args:
            group: the ranks.
            items: all tensors of the load, the same on all ranks.
            source: this rank's span of them, in any order.
            device: where tensors are.
            staging_bytes: the size of each of the two buffers, the same on all ranks.
        """
        self._group, self._items = group, items
        self._source, self._device = source, device
        self._staging_bytes = max(staging_bytes, _ALIGNMENT_BYTES)
        #: What goes out, and what comes in.
        self._staging: tuple[torch.Tensor, torch.Tensor] | None = None
        #: Messages of the round that are to come.
        self._pending: deque[_Message] = deque()
        #: What was read for the next round, and was too much for this one.
        self._early: tuple[int, torch.Tensor] | None = None
        #: The large tensor that this rank gives in this round.
        self._large: torch.Tensor | None = None
        self._exchanged = 0
        self._error: BaseException | None = None
        self._is_over = len(items) == 0

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All tensors by name. A loop that is left early leaves the group.

        Raises:
            Error: what this rank's load raises; the other ranks raise it with this rank's number.
            CancelledError: when another rank left.
            UnreachableError: when another rank is gone, or does not come in time.
        """
        try:
            while not self._is_over:
                ready = deque(self._step())
                while ready:
                    position, tensor = ready.popleft()
                    yield self._items[position].name, tensor
                    # The caller's alone, before the next one needs its memory.
                    del tensor
        finally:
            self.leave()

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes."""
        return self._is_over

    def leave(self) -> None:
        """Ends this rank's part, so that no other one waits for it. May be called again.

        Waits for the others to come to the end of the round, at most for the group's timeout.
        """
        if self._is_over:
            return
        self._error = CancelledError("left the load before its end")
        try:
            self._source.close()
            while self._pending:
                self._transfer(self._pending.popleft(), keep=False)
            if self._exchanged < len(self._items):
                self._group.all_words(self._word(_LEFT, (), None))
        except Error:
            # The others are gone: nobody waits.
            pass
        finally:
            self._end()

    def _end(self) -> None:
        self._is_over = True
        self._early = self._large = self._staging = None
        self._pending.clear()
        self._source.close()

    def _step(self) -> list[tuple[int, torch.Tensor]]:
        """Does what comes next: a message, after the beginning of a round if need be."""
        try:
            if not self._pending:
                self._begin_round()
            if not self._pending:
                return []
            tensors = self._transfer(self._pending.popleft(), keep=self._error is None)
            if self._exchanged == len(self._items) and not self._pending:
                if self._error is not None:
                    raise self._error
                self._end()
            return tensors
        except BaseException:
            # Where the others are is not known any more, or they have been told.
            self._end()
            raise

    def _begin_round(self) -> None:
        packed: tuple[int, ...] = ()
        large = None
        if self._error is None:
            try:
                packed, large = self._fill()
            except BaseException as error:  # the others are to hear of all of them
                self._error, packed, large = error, (), None
        state = _GOING_ON if self._error is None else _FAILED
        words = self._group.all_words(self._word(state, packed, large))
        if self._error is not None:
            raise self._error
        messages = [self._read(sender, word) for sender, word in enumerate(words)]
        self._pending.extend(m for m in messages if m.packed or m.large is not None)
        if not self._pending:
            missing = len(self._items) - self._exchanged
            raise IoError(f"the load ended {missing} tensors early; this is a bug")

    def _fill(self) -> tuple[tuple[int, ...], int | None]:
        """Takes what this rank gives in the next round."""
        packed: list[int] = []
        end = 0
        outgoing, _ = self._buffers()
        while len(packed) < _COUNT_MAX:
            taken = self._early or next(self._source, None)
            self._early = None
            if taken is None:
                break
            position, tensor = taken
            size = self._items[position].nbytes
            if size > self._staging_bytes // _SMALL_SHARE:
                self._large = tensor
                return tuple(packed), position
            start = _aligned(end)
            if start + size > self._staging_bytes:
                self._early = taken
                break
            if size > 0:
                outgoing[start : start + size].copy_(_bytes_of(tensor))
            packed.append(position)
            end = start + size
        return tuple(packed), None

    def _buffers(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The staging buffers, made when they are first needed."""
        import torch

        if self._staging is None:
            shape = (2, self._staging_bytes)
            both = torch.empty(shape, dtype=torch.uint8, device=self._device)
            self._staging = both[0], both[1]
        return self._staging

    def _word(self, state: int, packed: Sequence[int], large: int | None) -> torch.Tensor:
        import torch

        word = torch.zeros(_HEAD + _ROOM, dtype=torch.int64)
        if state == _GOING_ON:
            content = torch.tensor([state, len(packed), -1 if large is None else large, *packed])
            word[: len(content)] = content
            return word
        assert self._error is not None
        text = failure.encode(self._error, _ROOM * word.element_size())
        word[:_HEAD] = torch.tensor([state, len(text), -1])
        room = word[_HEAD:].view(torch.uint8)
        room[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        return word

    def _read(self, sender: int, word: torch.Tensor) -> _Message:
        """What `sender` is going to broadcast.

        Raises:
            Exception: its error.
        """
        import torch

        state, count, large = word[:_HEAD].tolist()
        if state == _GOING_ON:
            packed = tuple(word[_HEAD : _HEAD + count].tolist())
            return _Message(sender, packed, None if large < 0 else large)
        text = bytes(word[_HEAD:].view(torch.uint8)[:count].tolist())
        rank = self._group.ranks[sender]
        if state == _LEFT:
            raise CancelledError(
                f"rank {rank} left the load before its end, and with it ends on all ranks"
            )
        raise failure.decode(text, rank)

    def _transfer(self, message: _Message, *, keep: bool) -> list[tuple[int, torch.Tensor]]:
        """Takes part in a message; gives its tensors, or nothing where they are not to be kept.

        What cannot be kept for want of memory is this rank's error, told in the next round: it
        takes part in any case.
        """
        tensors = self._transfer_packed(message, keep=keep)
        if message.large is not None:
            tensor = self._transfer_large(message.sender, message.large, keep=keep)
            if tensor is not None:
                tensors.append((message.large, tensor))
        self._exchanged += len(message.packed) + (message.large is not None)
        return tensors if self._error is None else []

    def _transfer_packed(self, message: _Message, *, keep: bool) -> list[tuple[int, torch.Tensor]]:
        outgoing, incoming = self._buffers()
        buffer = outgoing if message.sender == self._group.rank else incoming
        places, end = [], 0
        for position in message.packed:
            start = _aligned(end)
            end = start + self._items[position].nbytes
            places.append((position, start, end))
        if end > 0:
            self._group.broadcast(buffer[:end], message.sender)
        tensors = []
        try:
            for position, start, stop in places if keep else ():
                memory = buffer[start:stop].clone()
                tensors.append((position, _of_bytes(self._items[position], memory)))
        except Exception as error:
            self._error = self._error or error
        return tensors

    def _transfer_large(self, sender: int, position: int, *, keep: bool) -> torch.Tensor | None:
        item = self._items[position]
        _, incoming = self._buffers()
        tensor: torch.Tensor | None = None
        memory: torch.Tensor | None = None
        if sender == self._group.rank:
            tensor, self._large = self._large, None
            assert tensor is not None
            memory = _bytes_of(tensor)
        elif keep:
            tensor = self._room_for(item)
            memory = None if tensor is None else _bytes_of(tensor)
        for start in range(0, item.nbytes, self._staging_bytes):
            size = min(self._staging_bytes, item.nbytes - start)
            piece = incoming[:size] if memory is None else memory[start : start + size]
            self._group.broadcast(piece, sender)
        return tensor if keep else None

    def _room_for(self, item: Item) -> torch.Tensor | None:
        import torch

        try:
            memory = torch.empty(item.nbytes, dtype=torch.uint8, device=self._device)
            return _of_bytes(item, memory)
        except Exception as error:
            self._error = self._error or error
            return None


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a contiguous tensor: one-dimensional, in the same memory."""
    import torch

    return tensor.reshape(-1).view(torch.uint8)


def _of_bytes(item: Item, memory: torch.Tensor) -> torch.Tensor:
    """The tensor that `item` describes, in `memory`: as many bytes, one-dimensional.

    Raises:
        UnsupportedError: where torch has no such type.
    """
    elements = memory.view(torch_dtype_of(item.dtype, item.name))
    shape = list(item.shape)
    if item.nbytes > 0 and elements.numel() != prod(shape):
        # Two elements of 4 bits are one of torch's.
        shape[-1] = elements.numel() // prod(shape[:-1])
    return elements.reshape(shape)


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
