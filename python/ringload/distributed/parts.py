"""The exchange of parts: each rank sends every other what that one keeps of what it has read.

    round:  1. each rank takes its batch of pieces from its own load, copies what other ranks keep
               of them into messages, and allocates the tensors that it receives for the first time
            2. all ranks exchange status messages: whether they go on, or have failed or left
            3. each rank sends its messages and receives those of the others. While they are on
               their way, it prepares the next round

What is long is received at its place in the final tensor, and sent from the slot of the ring if it
is contiguous there; what is short is sent together, through staging buffers. Every rank knows the
schedule of all ranks, so messages have no headers.

A rank needs memory for the tensors that its caller holds or that are being received, the ring of
its load, and staging: two buffers to send from and one to receive to, each at most as long as a
batch. No rank has more than pieces of a tensor of which it keeps a part.

Whatever can fail on one rank happens before the status messages of a round, so that all ranks
learn of it and none waits for a message that nobody sends. Each rank has to iterate to the end or
call `leave`. If a rank is killed, or does neither, the others fail after the timeout of the group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .._errors import Error, IoError
from .._frameworks import torch_dtype_of
from .memory import new_memory, tensor_of
from .runs import gather, view
from .schedule import Batch, Schedule

if TYPE_CHECKING:
    import torch

    from .group import Group


class PartItem(NamedTuple):
    """A part of a tensor that this rank keeps."""

    name: str
    dtype: str
    """The name of the element type in the file, such as "BF16"."""
    loaded_dtype: str
    """The name of the type that the part is cast to, or `dtype`."""
    shape: tuple[int, ...]
    """The shape of the part."""
    nbytes: int
    """The length of the part in the file."""


class PieceSource(Protocol):
    """The pieces that a rank reads."""

    def __next__(self) -> torch.Tensor:
        """Returns the bytes of the next piece in host memory, in the order of the schedule."""

    def close(self) -> None:
        """Stops reading."""


class _Round(NamedTuple):
    """The messages of a round that are ready to be sent and received."""

    sends: list[tuple[int, torch.Tensor]]
    receives: list[tuple[int, torch.Tensor]]
    #: What was received into the staging buffer: where it belongs, in order.
    short: list[tuple[torch.Tensor, torch.Tensor]]
    #: The position of a tensor, and how many of its bytes the round brings.
    arriving: list[tuple[int, int]]


class PartExchange:
    """One rank's part in a load of which each rank keeps something else: an iterator over that."""

    def __init__(
        self,
        group: Group,
        items: dict[int, PartItem],
        schedule: Schedule,
        source: PieceSource,
        *,
        device: torch.device,
    ) -> None:
        """Prepares an exchange.

        Args:
            group: the ranks.
            items: what this rank keeps, by the positions of the tensors in the schedule.
            schedule: the schedule, the same on all ranks.
            source: this rank's pieces.
            device: the device that tensors are loaded to.
        """
        import torch

        self._group, self._items, self._schedule = group, items, schedule
        self._source, self._target = source, device
        #: The device that messages are on.
        self._device = device if group.device_type == device.type else torch.device("cpu")
        self._missing = {position: item.nbytes for position, item in items.items()}
        #: The bytes of the tensors that are being received.
        self._memory: dict[int, torch.Tensor] = {}
        #: The buffers that rounds send from in turn, and the one that they receive to.
        self._outgoing: list[torch.Tensor] = []
        self._incoming: torch.Tensor | None = None
        self._is_finished = False

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields what this rank keeps, by name. Closing the iterator early leaves the exchange.

        Raises:
            Error: this rank's load failed; the other ranks raise the error with its rank number.
            CancelledError: another rank left.
            UnreachableError: another rank has ended, or does not take part in time.
        """
        try:
            for tensors in self._rounds():
                tensors.reverse()
                while tensors:
                    position, memory = tensors.pop()
                    name, tensor = self._items[position].name, self._finished(position, memory)
                    del memory
                    yield name, tensor
                    # Drops the last reference here before the next tensor needs memory.
                    del tensor
        finally:
            self.leave()

    @property
    def is_finished(self) -> bool:
        """Whether the exchange has no more tensors to yield."""
        return self._is_finished

    def leave(self) -> None:
        """Ends this rank's part so that no other rank waits for it. May be called repeatedly."""
        if self._is_finished:
            return
        try:
            self._group.confirm(None, is_leaving=True)
        except Error:
            # The other ranks have ended, so none of them waits for this one.
            pass
        finally:
            self._end()

    def _end(self) -> None:
        self._is_finished = True
        self._memory.clear()
        self._outgoing, self._incoming = [], None
        self._source.close()

    def _rounds(self) -> Iterator[list[tuple[int, torch.Tensor]]]:
        """Does one round after the other; yields the tensors that each of them has completed."""
        upcoming, error = self._prepared(0)
        completed: list[tuple[int, torch.Tensor]] = []
        for number in range(self._schedule.rounds + 1):
            self._confirm(error)
            assert upcoming is not None
            try:
                transfers = self._group.start_transfers(upcoming.sends, upcoming.receives)
                current, (upcoming, error) = upcoming, self._prepared(number + 1)
                transfers.wait()
                for incoming, place in current.short:
                    place.copy_(incoming)
            except BaseException:
                # The state of the others is unknown: the exchange cannot go on.
                self._end()
                raise
            completed += self._completed(current.arriving)
            # Frees the slots of the pieces that were sent.
            del current, transfers
            # What the last messages complete is yielded when no rank waits for another any more.
            if number != self._schedule.rounds - 1:
                if number == self._schedule.rounds:
                    self._end()
                yield completed

    def _confirm(self, error: BaseException | None) -> None:
        try:
            self._group.confirm(error)
        except BaseException:
            self._end()
            raise

    def _prepared(self, number: int) -> tuple[_Round | None, BaseException | None]:
        """Returns the messages of a round, or the error for which there are none."""
        try:
            return self._prepare(number), None
        except BaseException as error:  # the status message reports it to the other ranks
            return None, error

    def _prepare(self, number: int) -> _Round:
        prepared = _Round([], [], [], [])
        if number > self._schedule.rounds:
            return prepared
        if number == 0:
            self._begin(prepared)
        received = 0
        for sender in range(self._group.size):
            batch = self._schedule.batch(sender, number)
            if batch is not None and sender != self._group.rank:
                received = self._receive(sender, batch, prepared, received)
        batch = self._schedule.batch(self._group.rank, number)
        if batch is not None:
            self._send(batch, self._outgoing[number % 2], prepared)
        if number == self._schedule.rounds and next(self._source, None) is not None:
            raise IoError("the load has more pieces than its schedule; this is a bug")
        return prepared

    def _begin(self, prepared: _Round) -> None:
        """Allocates the staging buffers, and notes the tensors without elements as arriving."""
        import torch

        def buffer(nbytes: int) -> torch.Tensor:
            return torch.empty(nbytes, dtype=torch.uint8, device=self._device)

        rank = self._group.rank
        send_bytes = self._schedule.send_bytes(rank)
        self._outgoing = [buffer(send_bytes), buffer(send_bytes)]
        self._incoming = buffer(self._schedule.receive_bytes(rank))
        for position, item in self._items.items():
            if item.nbytes == 0:
                self._place(position, 0, 0)
                prepared.arriving.append((position, 0))

    def _place(self, position: int, start: int, end: int) -> torch.Tensor:
        """Returns the place of bytes of the part at `position`."""
        memory = self._memory.get(position)
        if memory is None:
            nbytes = self._items[position].nbytes
            memory = self._memory[position] = new_memory(nbytes, self._device)
        return memory[start:end]

    def _receive(self, sender: int, batch: Batch, prepared: _Round, begin: int) -> int:
        """Adds what this rank receives of a batch, with what is short at `begin` of the buffer.

        Returns:
            The end of what is short in the buffer.
        """
        assert self._incoming is not None
        rank, end = self._group.rank, begin
        gathered: dict[int, int] = {}
        for piece in batch.pieces:
            for take in piece.takes:
                if take.rank != rank:
                    continue
                prepared.arriving.append((piece.tensor, take.nbytes))
                place = self._place(piece.tensor, take.start, take.end)
                if self._schedule.is_contiguous(piece, take):
                    prepared.receives.append((sender, place))
                elif (rank, piece.tensor) in batch.gathered:
                    gathered.setdefault(piece.tensor, take.start)
                else:
                    prepared.short.append((self._incoming[end : end + take.nbytes], place))
                    end += take.nbytes
        for tensor, start in gathered.items():
            place = self._place(tensor, start, start + batch.gathered[rank, tensor])
            prepared.receives.append((sender, place))
        if end > begin:
            prepared.receives.append((sender, self._incoming[begin:end]))
        return end

    def _send(self, batch: Batch, buffer: torch.Tensor, prepared: _Round) -> None:
        """Reads a batch, keeps this rank's bytes of it, and adds what others receive."""
        messages: list[tuple[int, torch.Tensor]] = []
        # The rest of each message that is copied to the buffer.
        gathered, short, end = {}, {}, 0
        for (peer, tensor), nbytes in batch.gathered.items():
            gathered[peer, tensor] = buffer[end : end + nbytes]
            messages.append((peer, gathered[peer, tensor]))
            end += nbytes
        for peer, nbytes in batch.short.items():
            short[peer] = buffer[end : end + nbytes]
            messages.append((peer, short[peer]))
            end += nbytes
        for piece in batch.pieces:
            content = next(self._source).to(self._device)
            for take in piece.takes:
                part = self._schedule.part(piece, take)
                message = take.rank, piece.tensor
                if take.rank == self._group.rank:
                    place = self._place(piece.tensor, take.start, take.end)
                    prepared.arriving.append((piece.tensor, take.nbytes))
                elif self._schedule.is_contiguous(piece, take):
                    block = next(part.within(piece.begin, piece.end))
                    prepared.sends.append((take.rank, view(block, content, piece.begin)))
                    continue
                elif message in gathered:
                    place, gathered[message] = _split(gathered[message], take.nbytes)
                else:
                    place, short[take.rank] = _split(short[take.rank], take.nbytes)
                gather(part, content, piece.begin, place)
        prepared.sends.extend(messages)

    def _completed(self, arriving: Sequence[tuple[int, int]]) -> list[tuple[int, torch.Tensor]]:
        """Counts what a round has brought; returns the tensors that are complete."""
        completed = []
        for position, nbytes in arriving:
            self._missing[position] -= nbytes
            if self._missing[position] == 0 and position in self._memory:
                completed.append((position, self._memory.pop(position)))
        return completed

    def _finished(self, position: int, memory: torch.Tensor) -> torch.Tensor:
        """Returns the bytes of a part as the tensor that the caller gets."""
        item = self._items[position]
        tensor = tensor_of(item.name, item.dtype, item.shape, memory).to(self._target)
        if item.loaded_dtype != item.dtype:
            tensor = tensor.to(torch_dtype_of(item.loaded_dtype, item.name))
        return tensor


def _split(message: torch.Tensor, nbytes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the next `nbytes` of a message, and the rest."""
    return message[:nbytes], message[nbytes:]
