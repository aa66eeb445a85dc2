"""The exchange: every rank sends the tensors that it reads to all others, in rounds.

    round:  1. each rank takes tensors from its own load and packs small ones into its staging
               buffer, up to the first large tensor
            2. all ranks exchange status messages (a small all-gather): which tensors they send in
               this round, or that they have failed or left
            3. one rank after the other broadcasts (`broadcast`): its packed tensors in one piece,
               its large tensor in pieces of the size of a staging buffer

Small tensors are copied out of the staging buffers, and large ones received into their final
memory. So every tensor that an exchange yields has its own memory, which is never written to again.
All ranks yield the tensors in the same order.

A rank needs memory for the tensors that its caller holds, the ring of its load, three staging
buffers (one for packing, and two of broadcasts), and the large tensor that it is receiving.

To keep the collectives matched, each rank has to iterate to the end or call `leave`. A rank that
leaves or fails takes part in the broadcasts of the current round without keeping tensors; its next
status message tells the other ranks, which then stop, too. If a rank is killed, or neither iterates
nor leaves, the other ranks fail after the group's timeout at the latest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .._errors import CancelledError, Error, IoError
from . import failure
from .group import FAILED, LEFT, RUNNING, left
from .memory import tensor_of
from .partition import Item

if TYPE_CHECKING:
    import torch

    from .broadcast import Broadcast
    from .group import Group

#: Tensors are packed if their size is at most that of a staging buffer divided by this.
_SMALL_DIVISOR = 8

#: The alignment of packed tensors in a staging buffer, which suits all types and devices.
_ALIGNMENT_BYTES = 256

#: The maximum number of tensors that a rank packs in a round.
_COUNT_MAX = 512

#: A status message has 64-bit integers. The header is the state of the rank, a length, and the
#: position of its large tensor (-1 for none). The payload is the positions of the packed tensors,
#: and the length their number; or the encoded error, and the length that of its text in bytes.
_HEADER_LENGTH = 3
_PAYLOAD_LENGTH = _COUNT_MAX


class TensorSource(Protocol):
    """The tensors that a rank reads."""

    def __next__(self) -> tuple[int, torch.Tensor]:
        """Returns the position of a tensor among all items, and the contiguous tensor."""

    def close(self) -> None:
        """Stops reading."""


class _Broadcast(NamedTuple):
    """The tensors that a rank broadcasts in a round."""

    sender: int
    #: The positions of the packed tensors among all items.
    packed: tuple[int, ...]
    #: The position of the large tensor.
    large: int | None


class Exchange:
    """One rank's part in a load that a group shares: an iterator over all tensors."""

    def __init__(
        self,
        group: Group,
        items: Sequence[Item],
        source: TensorSource,
        broadcast: Broadcast,
        *,
        device: torch.device,
    ) -> None:
        """Prepares an exchange.

        Args:
            group: the ranks.
            items: all tensors of the load, the same on all ranks.
            source: this rank's span of the tensors, in any order.
            broadcast: the transport of the bytes of each rank to all others.
            device: the device that tensors are loaded to.
        """
        self._group, self._items = group, items
        self._source, self._broadcast, self._device = source, broadcast, device
        self._staging_bytes = broadcast.buffer_bytes
        #: The buffer that small tensors are packed into.
        self._packing: torch.Tensor | None = None
        #: The broadcasts of this round that are still to be done.
        self._pending: deque[_Broadcast] = deque()
        #: A tensor that was read but did not fit into this round.
        self._carried_over: tuple[int, torch.Tensor] | None = None
        #: The large tensor that this rank broadcasts in this round.
        self._large: torch.Tensor | None = None
        self._exchanged = 0
        self._error: BaseException | None = None
        self._is_finished = len(items) == 0

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields all tensors by name. Closing the iterator early leaves the exchange.

        Raises:
            Error: this rank's load failed; the other ranks raise the error with its rank number.
            CancelledError: another rank left.
            UnreachableError: another rank has ended, or does not take part in time.
        """
        try:
            while not self._is_finished:
                received = deque(self._step())
                while received:
                    position, tensor = received.popleft()
                    yield self._items[position].name, tensor
                    # Drops the last reference here before the next tensor needs memory.
                    del tensor
        finally:
            self.leave()

    @property
    def is_finished(self) -> bool:
        """Whether the exchange has no more tensors to yield."""
        return self._is_finished

    def leave(self) -> None:
        """Ends this rank's part so that no other rank waits for it. May be called repeatedly.

        Takes part in the rest of the current round, which lasts up to the group's timeout.
        """
        if self._is_finished:
            self._broadcast.close()
            return
        self._error = CancelledError("left the load before its end")
        try:
            self._source.close()
            while self._pending:
                self._transfer(self._pending.popleft(), keep=False)
            if self._exchanged < len(self._items):
                self._group.all_gather(self._status_message(LEFT, (), None))
        except Error:
            # The other ranks have ended, so none of them waits for this one.
            pass
        finally:
            self._end()

    def _end(self) -> None:
        self._is_finished = True
        self._carried_over = self._large = self._packing = None
        self._pending.clear()
        self._source.close()
        self._broadcast.close()

    def _step(self) -> list[tuple[int, torch.Tensor]]:
        """Does the next broadcast, and begins a round first if the last one is complete."""
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
            # Either the other ranks know of the error, or their state is unknown: the exchange
            # cannot go on.
            self._end()
            raise

    def _begin_round(self) -> None:
        packed: tuple[int, ...] = ()
        large = None
        if self._error is None:
            try:
                packed, large = self._fill()
            except BaseException as error:  # the status message reports it to the other ranks
                self._error, packed, large = error, (), None
        state = RUNNING if self._error is None else FAILED
        messages = self._group.all_gather(self._status_message(state, packed, large))
        if self._error is not None:
            raise self._error
        broadcasts = [self._read(sender, message) for sender, message in enumerate(messages)]
        self._pending.extend(b for b in broadcasts if b.packed or b.large is not None)
        if not self._pending:
            missing = len(self._items) - self._exchanged
            raise IoError(f"the load ended {missing} tensors early; this is a bug")

    def _fill(self) -> tuple[tuple[int, ...], int | None]:
        """Takes the tensors that this rank broadcasts in the next round from its load.

        Returns:
            The positions of the packed tensors, and the position of the large one.
        """
        packed: list[int] = []
        end = 0
        outgoing = self._packing_buffer()
        while len(packed) < _COUNT_MAX:
            taken = self._carried_over or next(self._source, None)
            self._carried_over = None
            if taken is None:
                break
            position, tensor = taken
            size = self._items[position].nbytes
            if size > self._staging_bytes // _SMALL_DIVISOR:
                self._large = tensor
                return tuple(packed), position
            start = _aligned(end)
            if start + size > self._staging_bytes:
                self._carried_over = taken
                break
            if size > 0:
                outgoing[start : start + size].copy_(_bytes_of(tensor))
            packed.append(position)
            end = start + size
        return tuple(packed), None

    def _packing_buffer(self) -> torch.Tensor:
        """Returns the buffer that small tensors are packed into, which the first call allocates."""
        import torch

        if self._packing is None:
            self._packing = torch.empty(self._staging_bytes, dtype=torch.uint8, device=self._device)
        return self._packing

    def _status_message(self, state: int, packed: Sequence[int], large: int | None) -> torch.Tensor:
        import torch

        message = torch.zeros(_HEADER_LENGTH + _PAYLOAD_LENGTH, dtype=torch.int64)
        if state == RUNNING:
            content = torch.tensor([state, len(packed), -1 if large is None else large, *packed])
            message[: len(content)] = content
            return message
        assert self._error is not None
        text = failure.encode(self._error, _PAYLOAD_LENGTH * message.element_size())
        message[:_HEADER_LENGTH] = torch.tensor([state, len(text), -1])
        payload = message[_HEADER_LENGTH:].view(torch.uint8)
        payload[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        return message

    def _read(self, sender: int, message: torch.Tensor) -> _Broadcast:
        """Returns the broadcast that the status message of `sender` announces.

        Raises:
            CancelledError: `sender` has left.
            Exception: `sender` has failed with this error.
        """
        import torch

        state, length, large = message[:_HEADER_LENGTH].tolist()
        if state == RUNNING:
            packed = tuple(message[_HEADER_LENGTH : _HEADER_LENGTH + length].tolist())
            return _Broadcast(sender, packed, None if large < 0 else large)
        text = bytes(message[_HEADER_LENGTH:].view(torch.uint8)[:length].tolist())
        rank = self._group.ranks[sender]
        if state == LEFT:
            raise left(rank)
        raise failure.decode(text, rank)

    def _transfer(self, broadcast: _Broadcast, *, keep: bool) -> list[tuple[int, torch.Tensor]]:
        """Takes part in a broadcast and returns its tensors, or none of them without `keep`.

        A rank that has no memory to keep a tensor takes part nevertheless, and reports the error in
        the next round.
        """
        tensors = self._transfer_packed(broadcast, keep=keep)
        if broadcast.large is not None:
            tensor = self._transfer_large(broadcast.sender, broadcast.large, keep=keep)
            if tensor is not None:
                tensors.append((broadcast.large, tensor))
        self._exchanged += len(broadcast.packed) + (broadcast.large is not None)
        return tensors if self._error is None else []

    def _transfer_packed(
        self, broadcast: _Broadcast, *, keep: bool
    ) -> list[tuple[int, torch.Tensor]]:
        ranges, end = [], 0
        for position in broadcast.packed:
            start = _aligned(end)
            end = start + self._items[position].nbytes
            ranges.append((position, start, end))
        is_here = end == 0 or broadcast.sender == self._group.rank
        packed = self._packing_buffer()[:end] if is_here else None
        if end > 0:
            packed = self._broadcast(broadcast.sender, end, packed)
        assert packed is not None
        tensors = []
        try:
            for position, start, stop in ranges if keep else ():
                memory = packed[start:stop].to(self._device, copy=True)
                item = self._items[position]
                tensor = tensor_of(item.name, item.dtype, item.shape, memory)
                tensors.append((position, tensor))
        except Exception as error:
            self._error = self._error or error
        return tensors

    def _transfer_large(self, sender: int, position: int, *, keep: bool) -> torch.Tensor | None:
        item = self._items[position]
        tensor: torch.Tensor | None = None
        memory: torch.Tensor | None = None
        if sender == self._group.rank:
            tensor, self._large = self._large, None
            assert tensor is not None
            memory = _bytes_of(tensor)
        elif keep:
            tensor = self._allocate(item)
            memory = None if tensor is None else _bytes_of(tensor)
        for start in range(0, item.nbytes, self._staging_bytes):
            size = min(self._staging_bytes, item.nbytes - start)
            piece = None if memory is None else memory[start : start + size]
            self._broadcast(sender, size, piece)
        return tensor if keep else None

    def _allocate(self, item: Item) -> torch.Tensor | None:
        """Allocates the tensor that `item` describes; None, and an error, if this fails."""
        import torch

        try:
            memory = torch.empty(item.nbytes, dtype=torch.uint8, device=self._device)
            return tensor_of(item.name, item.dtype, item.shape, memory)
        except Exception as error:
            self._error = self._error or error
            return None


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    """Returns a one-dimensional view of the bytes of a contiguous tensor."""
    import torch

    return tensor.reshape(-1).view(torch.uint8)


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
