"""The exchange of parts: each rank gets what it keeps of what the others have read.

    round:  1. each rank takes its batch of pieces from its own loads: parts that it keeps as they
               are, and pieces of which it copies what it keeps to its tensors, what other ranks
               of its host keep into memory that they share, and what ranks of other hosts keep
               into messages
            2. all ranks exchange status messages: whether they go on, or have failed or left
            3. each rank reads what it keeps in the memory of the other ranks of its host,
               sends its messages to other hosts, and receives theirs

Shared memory has two buffers for pieces, which rounds use in turn. So a buffer is written to again
when the status messages of the next round have told that all ranks have copied from it. Tensors are
yielded only then, too: of a rank that has failed meanwhile, nothing is seen. Files are read into
the ring, and not into shared memory, as the pages of that are small, and direct reads into small
pages take up to three times as long.

Of the messages between hosts, what is long and for one rank is received at its place in the final
tensor, and sent from the slot of the ring if it is contiguous there. The rest is received into
shared staging memory, out of which all ranks of the host that keep it copy it in the next round.
Every rank knows the schedule of all ranks, so messages have no headers.

A rank needs memory for the tensors that its caller holds or that are being received, the ring of
its load, and two buffers of shared memory, each as long as a batch; and with ranks on several hosts
two buffers to send from and two to receive to, each at most as long as a batch. No rank has more
than pieces of a tensor of which it keeps a part.

Whatever can fail on one rank happens before the status messages of a round, so that all ranks
learn of it and none waits for a message that nobody sends. Each rank has to iterate to the end or
call `leave`. If a rank is killed, or does neither, the others fail after the timeout of the group.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .._errors import Error, IoError
from .._frameworks import torch_dtype_of
from .memory import aligned, new_memory, tensor_of
from .runs import gather, view
from .schedule import Batch, Delivery, Schedule

if TYPE_CHECKING:
    import torch

    from .finite import FiniteCheck
    from .group import Group
    from .segment import Neighbours


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
    """The messages of a round between hosts that are ready to be sent and received."""

    sends: list[tuple[int, torch.Tensor]]
    receives: list[tuple[int, torch.Tensor]]
    #: The position of a tensor, and how many of its bytes are received at their place.
    arriving: list[tuple[int, int]]


class PartExchange:
    """One rank's part in a load of which each rank keeps something else: an iterator over that."""

    def __init__(  # noqa: PLR0913 - what `load` has made
        self,
        group: Group,
        items: dict[int, PartItem],
        schedule: Schedule,
        source: PieceSource,
        neighbours: Neighbours,
        *,
        direct: PieceSource,
        device: torch.device,
        finite: FiniteCheck | None,
    ) -> None:
        """Prepares an exchange.

        Args:
            group: the ranks.
            items: what this rank keeps, by the positions of the tensors in the schedule.
            schedule: the schedule, the same on all ranks.
            source: this rank's pieces that pass through its ring.
            neighbours: the ranks of this host. The exchange closes it.
            direct: this rank's pieces that are read to their place.
            device: the device that tensors are loaded to.
            finite: looks at the values of what this rank keeps, before a cast.
        """
        import torch

        self._group, self._items, self._schedule = group, items, schedule
        self._source, self._direct = source, direct
        self._neighbours, self._target = neighbours, device
        self._finite = finite
        #: The device that messages are on.
        self._device = device if group.device_type == device.type else torch.device("cpu")
        self._missing = {position: item.nbytes for position, item in items.items()}
        #: The bytes of the tensors that are being received.
        self._memory: dict[int, torch.Tensor] = {}
        #: The tensors that are complete, and not confirmed yet.
        self._completed: list[tuple[int, torch.Tensor]] = []
        #: The buffers that rounds send from in turn.
        self._outgoing: list[torch.Tensor] = []
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
        self._source.close()
        self._direct.close()
        self._memory.clear()
        self._outgoing = []
        self._neighbours.close()

    def _rounds(self) -> Iterator[list[tuple[int, torch.Tensor]]]:
        """Does one round after the other; yields the tensors that are complete and confirmed."""
        upcoming, error = self._prepared(0)
        for number in range(self._schedule.all_rounds):
            confirmed = self._confirm(error)
            # This frees the slots of the pieces that were sent.
            current, upcoming = upcoming, None
            assert current is not None
            try:
                transfers = self._group.start_transfers(current.sends, current.receives)
                upcoming, error = self._prepared(number + 1)
                transfers.wait()
            except BaseException:
                # The state of the others is unknown: the exchange cannot go on.
                self._end()
                raise
            for position, nbytes in current.arriving:
                self._count(position, nbytes)
            yield confirmed
        if self._finite is not None:
            error = error or self._finite.error()
        confirmed = self._confirm(error)
        # No rank waits for another any more.
        self._end()
        yield confirmed

    def _confirm(self, error: BaseException | None) -> list[tuple[int, torch.Tensor]]:
        """Learns that all ranks go on; returns the tensors that were complete before."""
        try:
            self._group.confirm(error)
        except BaseException:
            self._end()
            raise
        confirmed, self._completed = self._completed, []
        return confirmed

    def _prepared(self, number: int) -> tuple[_Round | None, BaseException | None]:
        """Prepares a round; returns it, or the error for which there is none."""
        try:
            return self._prepare(number), None
        except BaseException as error:  # the status message reports it to the other ranks
            return None, error

    def _prepare(self, number: int) -> _Round:
        if number == 0:
            self._begin()
        else:
            self._copy_from_neighbours(number - 1)
        prepared = _Round([], [], [])
        self._receive(number, prepared)
        batch = self._schedule.batch(self._group.rank, number)
        if batch is not None:
            self._send(batch, self._read(batch, number), self._outgoing[number % 2], prepared)
        elif number == self._schedule.rounds:
            for source in (self._source, self._direct):
                if next(source, None) is not None:
                    raise IoError("the load has more pieces than its schedule; this is a bug")
        return prepared

    def _begin(self) -> None:
        """Maps and allocates memory, and completes the tensors without elements."""
        import torch

        self._neighbours.map(self._device)
        send_bytes = self._schedule.send_bytes(self._group.rank)
        for _ in range(2):
            buffer = torch.empty(send_bytes, dtype=torch.uint8, device=self._device)
            self._outgoing.append(buffer)
        for position, item in self._items.items():
            if item.nbytes == 0:
                self._place(position, 0, 0)
                self._count(position, 0)

    def _place(self, position: int, start: int, end: int) -> torch.Tensor:
        """Returns the place of bytes of the part at `position`."""
        memory = self._memory.get(position)
        if memory is None:
            nbytes = self._items[position].nbytes
            memory = self._memory[position] = new_memory(nbytes, self._device)
        return memory[start:end]

    def _count(self, position: int, nbytes: int) -> None:
        """Counts bytes that are at their place in the part at `position`."""
        self._missing[position] -= nbytes
        if self._missing[position] > 0:
            return
        memory = self._memory.pop(position)
        if self._finite is not None:
            self._finite.look(self._items[position].name, self._items[position].dtype, memory)
        self._completed.append((position, memory))

    def _read(self, batch: Batch, number: int) -> dict[int, torch.Tensor]:
        """Reads a batch, and copies what this rank and its neighbours keep.

        Returns:
            The pieces of which other hosts get something, by their positions.
        """
        rank, held = self._group.rank, dict[int, "torch.Tensor"]()
        shared = deque(self._schedule.shared(rank, number))
        sent = {one.number for message in batch.messages for one in message.deliveries}
        for position, piece in enumerate(batch.pieces):
            if piece.is_direct:
                item = self._items[piece.tensor]
                self._memory[piece.tensor] = aligned(next(self._direct), item.dtype, item.name)
                self._count(piece.tensor, item.nbytes)
                continue
            content = next(self._source).to(self._device)
            for take in piece.takes:
                if take.rank == rank:
                    place = self._place(piece.tensor, take.start, take.end)
                    gather(self._schedule.part(piece, take), content, piece.begin, place)
                    self._count(piece.tensor, take.nbytes)
            while shared and shared[0][1].number == position:
                at, (_, _, take, _) = shared.popleft()
                memory = self._neighbours.pieces(number)[at : at + take.nbytes]
                gather(self._schedule.part(piece, take), content, piece.begin, memory)
            if position in sent:
                held[position] = content
            del content
        return held

    def _copy_from_neighbours(self, number: int) -> None:
        """Copies what the other ranks of this host have read for a round, or received before it."""
        neighbours, own = self._neighbours, self._group.rank
        for rank in neighbours.others:
            for at, one in self._schedule.shared(rank, number):
                if own in one.takers:
                    neighbours.read_pieces(rank, number, at, self._place_of(one))
                    self._count(one.piece.tensor, one.take.nbytes)
        for rank in (own, *neighbours.others) if number > 0 else ():
            for _, message, start in self._schedule.staged(rank, number - 1):
                at = start
                for one in message.deliveries:
                    if own in one.takers:
                        neighbours.read_incoming(rank, number - 1, at, self._place_of(one))
                        self._count(one.piece.tensor, one.take.nbytes)
                    at += one.take.nbytes

    def _place_of(self, one: Delivery) -> torch.Tensor:
        return self._place(one.piece.tensor, one.take.start, one.take.end)

    def _receive(self, number: int, prepared: _Round) -> None:
        """Adds the messages that this rank receives from other hosts."""
        rank = self._group.rank
        places = {id(message): at for _, message, at in self._schedule.staged(rank, number)}
        for sender in range(self._group.size):
            batch = self._schedule.batch(sender, number)
            for message in () if batch is None else batch.messages:
                if message.receiver != rank:
                    continue
                if message.is_staged:
                    start = places[id(message)]
                    incoming = self._neighbours.incoming(number)
                    place = incoming[start : start + message.nbytes]
                else:
                    first, last = message.deliveries[0], message.deliveries[-1]
                    tensor = first.piece.tensor
                    place = self._place(tensor, first.take.start, last.take.end)
                    prepared.arriving.append((tensor, message.nbytes))
                prepared.receives.append((sender, place))

    def _send(
        self,
        batch: Batch,
        pieces: dict[int, torch.Tensor],
        buffer: torch.Tensor,
        prepared: _Round,
    ) -> None:
        """Adds the messages that this rank sends to other hosts."""
        end = 0
        for message in batch.messages:
            start = end
            for number, piece, take, _ in message.deliveries:
                part, content = self._schedule.part(piece, take), pieces[number]
                if not message.is_copied:
                    block = next(part.within(piece.begin, piece.end))
                    prepared.sends.append((message.receiver, view(block, content, piece.begin)))
                    continue
                gather(part, content, piece.begin, buffer[end : end + take.nbytes])
                end += take.nbytes
            if message.is_copied:
                prepared.sends.append((message.receiver, buffer[start:end]))

    def _finished(self, position: int, memory: torch.Tensor) -> torch.Tensor:
        """Returns the bytes of a part as the tensor that the caller gets."""
        item = self._items[position]
        tensor = tensor_of(item.name, item.dtype, item.shape, memory).to(self._target)
        if item.loaded_dtype != item.dtype:
            tensor = tensor.to(torch_dtype_of(item.loaded_dtype, item.name))
        return tensor
