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

#: What a rank keeps of a piece is a message of its own from this size on, which is received at its
#: final place. What is shorter is sent with other short ones.
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

    @property
    def is_direct(self) -> bool:
        """Whether the bytes are a message of their own."""
        return self.end - self.start >= DIRECT_BYTES


class Piece(NamedTuple):
    """A range of bytes of a tensor, which one rank reads."""

    tensor: int
    """The position of the tensor."""
    begin: int
    end: int
    takes: tuple[Take, ...]
    """What ranks keep of it, in the order of the ranks."""


class Batch(NamedTuple):
    """The pieces that a rank sends in a round."""

    pieces: list[Piece]
    small: dict[int, int]
    """The bytes of the short takes of each rank, by position."""
    packed: int
    """The bytes of the takes that are copied before they are sent."""


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
        small: dict[int, int] = {}
        batch: list[Piece] = []
        read = packed = 0
        small_max = batch_bytes // len(self._parts)
        for piece in pieces:
            size = piece.end - piece.begin
            copied = sum(
                take.nbytes
                for take in piece.takes
                if take.rank != reader and (not take.is_direct or self._is_gathered(piece, take))
            )
            is_full = any(
                small.get(take.rank, 0) + take.nbytes > small_max
                for take in piece.takes
                if not take.is_direct and take.rank != reader
            )
            if batch and (is_full or max(read + size, packed + copied) > batch_bytes):
                batches.append(Batch(batch, small, packed))
                batch, small, read, packed = [], {}, 0, 0
            batch.append(piece)
            read, packed = read + size, packed + copied
            for take in piece.takes:
                if not take.is_direct and take.rank != reader:
                    small[take.rank] = small.get(take.rank, 0) + take.nbytes
        if batch:
            batches.append(Batch(batch, small, packed))
        return batches

    def part(self, piece: Piece, take: Take) -> Runs:
        """Returns the part of the rank of `take`."""
        part = self._parts[take.rank][piece.tensor]
        assert part is not None
        return part

    def _is_gathered(self, piece: Piece, take: Take) -> bool:
        """Whether the bytes are not adjacent in the piece."""
        return len(self.part(piece, take).repeats) > 0

    def batch(self, rank: int, number: int) -> Batch | None:
        """Returns the batch of a rank in a round; None if it has read all of its pieces."""
        batches = self.batches[rank]
        return batches[number] if number < len(batches) else None

    def pieces_of(self, rank: int) -> list[Piece]:
        """Returns the pieces that a rank reads, in the order of the files."""
        return [piece for batch in self.batches[rank] for piece in batch.pieces]

    def send_bytes(self, rank: int) -> int:
        """Returns the size of the buffer that a rank needs for a round to send from."""
        return max((batch.packed for batch in self.batches[rank]), default=0)

    def receive_bytes(self, rank: int) -> int:
        """Returns the size of the buffer that a rank needs for a round to receive to."""
        return max((self._small_bytes(rank, number) for number in range(self.rounds)), default=0)

    def _small_bytes(self, rank: int, number: int) -> int:
        senders = (self.batch(sender, number) for sender in range(len(self.batches)))
        return sum(batch.small.get(rank, 0) for batch in senders if batch is not None)
