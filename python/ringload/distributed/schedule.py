"""What each rank reads, and what it sends to whom, when ranks load different parts of tensors.

    tensors   |   A    | B |      C      |  D  |     the bytes that at least one rank keeps
    pieces    |  |  |  | | |  |  |  |  | |  |  |     cut into pieces
    ranks     | rank 0     | rank 1      | rank 2    each reads a span of adjacent pieces
    rounds      1  2  3      1  2  3       1  2  3   in each round a rank sends one batch

Every rank computes the same schedule from the parts of all ranks. So only the state of a rank has
to be sent in a round, and the sizes of all buffers are known before anything is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Optional

from .partition import spans
from .runs import Runs

#: Tensors are cut at multiples of this, which is a multiple of the size of every element.
_CUT_BYTES = 4096

#: Pieces are at least this long where they are short because many ranks keep the same bytes.
_PIECE_BYTES_MIN = 64 << 10

#: Messages from this size on are received at their final place. What is shorter is sent with other
#: short ones: gloo takes four times as long per byte for messages of 256 KiB as for those of 4 MiB.
DIRECT_BYTES = 128 << 10

Parts = Sequence[Optional[Runs]]
"""The part of each tensor that a rank keeps; None where it keeps nothing."""


class Take(NamedTuple):
    """What a rank keeps of a piece."""

    rank: int
    """The position of the rank."""
    start: int
    """The offset of the bytes in the rank's part."""
    end: int

    @property
    def nbytes(self) -> int:
        """The number of bytes."""
        return self.end - self.start


class Piece(NamedTuple):
    """A range of bytes of a tensor, which one rank reads."""

    tensor: int
    """The position of the tensor."""
    begin: int
    end: int
    takes: tuple[Take, ...]
    """What ranks keep of it, in the order of the ranks."""


class Batch(NamedTuple):
    """The pieces that a rank sends in a round.

    There are three kinds of messages to a rank, which are sent in this order: what is contiguous in
    a piece and long; what is gathered from the pieces of a tensor, if it is long; and all the rest.
    """

    pieces: list[Piece]
    gathered: dict[tuple[int, int], int]
    """The bytes of each message that is gathered, by the positions of rank and tensor."""
    short: dict[int, int]
    """The bytes of the message of the rest, by the position of the rank."""

    @property
    def copied_bytes(self) -> int:
        """The bytes that are copied before they are sent."""
        return sum(self.gathered.values()) + sum(self.short.values())


class Schedule:
    """The pieces and batches of all ranks."""

    def __init__(self, parts: Sequence[Parts], piece_bytes: int, batch_bytes: int) -> None:
        """Makes the schedule.

        Args:
            parts: the parts of each rank.
            piece_bytes: the maximum length of a piece.
            batch_bytes: the maximum number of bytes that a rank reads for a batch, and of those
                that it copies to send them, unless a single piece has more.
        """
        self._parts = parts
        pieces = [
            piece for tensor in range(len(parts[0])) for piece in self._pieces(tensor, piece_bytes)
        ]
        sizes = [piece.end - piece.begin for piece in pieces]
        #: The batches of each rank, by position.
        self.batches = [
            self._batches([pieces[n] for n in span], rank, batch_bytes)
            for rank, span in enumerate(spans(sizes, len(parts)))
        ]
        #: The number of rounds.
        self.rounds = max(map(len, self.batches))

    def _pieces(self, tensor: int, piece_bytes: int) -> list[Piece]:
        takers = [
            (rank, part)
            for rank, parts in enumerate(self._parts)
            if (part := parts[tensor]) is not None and part.nbytes > 0
        ]
        if not takers:
            return []
        begin, end = min(part.first for _, part in takers), max(part.end for _, part in takers)
        packed = sum(part.nbytes for _, part in takers if part.repeats)
        length = piece_bytes
        if packed > end - begin:
            # Each rank's bytes of a piece are copied before they are sent.
            length = max(piece_bytes * (end - begin) // packed, _PIECE_BYTES_MIN)
        length = max(length // _CUT_BYTES, 1) * _CUT_BYTES
        pieces = []
        while begin < end:
            cut = min((begin // length + 1) * length, end)
            takes = []
            for rank, part in takers:
                start, stop = part.before(begin), part.before(cut)
                if start < stop:
                    takes.append(Take(rank, start, stop))
            if takes:
                pieces.append(Piece(tensor, begin, cut, tuple(takes)))
            begin = cut
        return pieces

    def _batches(self, pieces: Sequence[Piece], reader: int, batch_bytes: int) -> list[Batch]:
        batches: list[Batch] = []
        batch: list[Piece] = []
        read = copied = 0
        short: dict[int, int] = {}
        short_max = batch_bytes // len(self._parts)
        for piece in pieces:
            size, copies = piece.end - piece.begin, 0
            is_full = read + size > batch_bytes
            for take in piece.takes:
                if take.rank == reader or self.is_contiguous(piece, take):
                    continue
                copies += take.nbytes
                if take.nbytes < DIRECT_BYTES:
                    is_full |= short.get(take.rank, 0) + take.nbytes > short_max
            if batch and (is_full or copied + copies > batch_bytes):
                batches.append(self._batch(batch, reader))
                batch, read, copied, short = [], 0, 0, {}
            batch.append(piece)
            read, copied = read + size, copied + copies
            for take in piece.takes:
                if take.nbytes < DIRECT_BYTES and take.rank != reader:
                    short[take.rank] = short.get(take.rank, 0) + take.nbytes
        if batch:
            batches.append(self._batch(batch, reader))
        return batches

    def _batch(self, pieces: list[Piece], reader: int) -> Batch:
        gathered: dict[tuple[int, int], int] = {}
        short: dict[int, int] = {}
        for piece in pieces:
            for take in piece.takes:
                if take.rank == reader or self.is_contiguous(piece, take):
                    continue
                if self.part(piece, take).repeats:
                    message = take.rank, piece.tensor
                    gathered[message] = gathered.get(message, 0) + take.nbytes
                else:
                    short[take.rank] = short.get(take.rank, 0) + take.nbytes
        for message, nbytes in list(gathered.items()):
            if nbytes < DIRECT_BYTES:
                del gathered[message]
                short[message[0]] = short.get(message[0], 0) + nbytes
        return Batch(pieces, gathered, short)

    def part(self, piece: Piece, take: Take) -> Runs:
        """Returns the part of the rank of `take`."""
        part = self._parts[take.rank][piece.tensor]
        assert part is not None
        return part

    def is_contiguous(self, piece: Piece, take: Take) -> bool:
        """Whether the bytes are contiguous and long, so that they are sent from the piece."""
        return take.nbytes >= DIRECT_BYTES and not self.part(piece, take).repeats

    def batch(self, rank: int, number: int) -> Batch | None:
        """Returns the batch of a rank in a round; None if it has read all of its pieces."""
        batches = self.batches[rank]
        return batches[number] if number < len(batches) else None

    def pieces_of(self, rank: int) -> list[Piece]:
        """Returns the pieces that a rank reads, in the order of the files."""
        return [piece for batch in self.batches[rank] for piece in batch.pieces]

    def send_bytes(self, rank: int) -> int:
        """Returns the size of the buffer that a rank needs for a round to send from."""
        return max((batch.copied_bytes for batch in self.batches[rank]), default=0)

    def receive_bytes(self, rank: int) -> int:
        """Returns the size of the buffer that a rank needs for a round to receive to."""
        return max((self._short_bytes(rank, number) for number in range(self.rounds)), default=0)

    def _short_bytes(self, rank: int, number: int) -> int:
        senders = (self.batch(sender, number) for sender in range(len(self.batches)))
        return sum(batch.short.get(rank, 0) for batch in senders if batch is not None)
