"""What each rank reads, and what it sends to whom, when ranks load different parts of tensors.

    tensors   |   A    | B |      C      |  D  |     the bytes that at least one rank keeps
    pieces    |  |  |  | | |  |  |  |  | |  |  |     cut into pieces
    ranks      0  0  1  1 2  0  1 2  0  1 2  0       each piece is read by one rank (`readers`)
    rounds      in each round, a rank reads the next pieces of its own and sends one batch

Tensors are cut where a long part of a rank begins or ends. So what one rank keeps alone is pieces,
which that rank reads, and which are not sent to any other; or a single one that is read to its
place (`direct`).

Ranks of the same host read the pieces of each other where they are. To other hosts a rank sends
messages: what several ranks of a host keep is sent to one of them, in turn, and its neighbours copy
it from there. So each byte crosses once between two hosts if their ranks keep the same part of the
tensor or parts that do not overlap.

Every rank computes the same schedule from the parts and hosts of all ranks. So only the state of a
rank has to be sent in a round, and the sizes of all buffers are known before anything is read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .direct import OWN_BYTES_MIN, Parts
from .readers import Readable, readers
from .runs import Runs
from .segment import Sizes

#: Tensors are cut at multiples of this, which is a multiple of the size of every element.
_CUT_BYTES = 4096

#: Pieces are at least this long where they are short because many ranks keep the same bytes.
_PIECE_BYTES_MIN = 64 << 10

#: A rank reads at most as many batches of bytes for a round, if it does not hold what it has read.
_READ_BATCHES_MAX = 4

#: Messages from this size on are received at their final place. What is shorter is sent with other
#: short ones: gloo takes four times as long per byte for messages of 256 KiB as for those of 4 MiB.
DIRECT_BYTES = 128 << 10


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
    is_direct: bool = False
    """Whether it is the part of the rank that reads it, which reads it to its place."""

    @property
    def nbytes(self) -> int:
        """The number of bytes."""
        return self.end - self.begin


class Delivery(NamedTuple):
    """What ranks of a host get of a piece that another rank reads, once if they keep the same."""

    number: int
    """The position of the piece in its batch."""
    piece: Piece
    take: Take
    """The bytes, and the rank that receives them if they are sent to another host."""
    takers: tuple[int, ...]
    """The ranks that keep it."""


class Message(NamedTuple):
    """Deliveries that are sent together."""

    receiver: int
    deliveries: list[Delivery]
    is_copied: bool
    """Whether the bytes are copied next to each other before they are sent."""
    is_staged: bool
    """Whether they are received into staging memory, and not at their place in the part."""

    @property
    def nbytes(self) -> int:
        """The length of the message."""
        return sum(delivery.take.nbytes for delivery in self.deliveries)


class Batch(NamedTuple):
    """The pieces that a rank reads for a round, and what others get of them.

    There are three kinds of messages to other hosts: what is contiguous in a piece and long; what
    is gathered from adjacent pieces of a tensor, if it is long; and all the rest for a rank.
    """

    pieces: list[Piece]
    messages: list[Message]
    shared: list[Delivery]
    """What other ranks of its host get, in the order of the pieces."""

    @property
    def copied_bytes(self) -> int:
        """The bytes that are copied before they are sent."""
        return sum(message.nbytes for message in self.messages if message.is_copied)


class Schedule:
    """The pieces and batches of all ranks."""

    def __init__(
        self,
        parts: Sequence[Parts],
        direct: Sequence[Sequence[int]],
        hosts: Sequence[int],
        piece_bytes: int,
        batch_bytes: int,
    ) -> None:
        """Makes the schedule.

        Args:
            parts: the parts of each rank.
            direct: the positions of the tensors whose parts each rank reads to their place.
            hosts: the number of the host of each rank.
            piece_bytes: the maximum length of a piece that is not read to its place.
            batch_bytes: the maximum number of bytes of a batch that a rank sends from its pieces,
                and of those that it copies to send them, unless a single piece has more.
        """
        self._parts, self._hosts = parts, hosts
        self._direct = [frozenset(of_rank) for of_rank in direct]
        self._has_messages = len(set(hosts)) > 1
        pieces = [
            piece for tensor in range(len(parts[0])) for piece in self._pieces(tensor, piece_bytes)
        ]
        of_ranks: list[list[Piece]] = [[] for _ in parts]
        readable = [self._readable(piece) for piece in pieces]
        for piece, rank in zip(pieces, readers(readable, len(parts), batch_bytes)):
            of_ranks[rank].append(piece)
        #: The batches of each rank, by position.
        self.batches = [
            self._batches(_mixed(own), rank, batch_bytes) for rank, own in enumerate(of_ranks)
        ]
        #: The number of rounds in which ranks read.
        self.rounds = max(map(len, self.batches))
        #: The number of all rounds: what the last one brings is copied to its place in another one.
        self.all_rounds = self.rounds + self._has_messages

    def _pieces(self, tensor: int, piece_bytes: int) -> list[Piece]:
        takers = [
            (rank, part)
            for rank, parts in enumerate(self._parts)
            if (part := parts[tensor]) is not None and part.nbytes > 0
        ]
        if not takers:
            return []
        begin, end = min(part.first for _, part in takers), max(part.end for _, part in takers)
        # What is copied of a piece: for each host what is not contiguous, and all for one's own.
        gathered = {(self._hosts[rank], part) for rank, part in takers if part.repeats}
        different = {part for _, part in takers}
        packed = max(
            sum(part.nbytes for _, part in gathered), sum(part.nbytes for part in different)
        )
        length = piece_bytes
        if packed > end - begin:
            length = max(piece_bytes * (end - begin) // packed, _PIECE_BYTES_MIN)
        length = max(length // _CUT_BYTES, 1) * _CUT_BYTES
        bounds = {at for _, part in takers for at in part.bounds(OWN_BYTES_MIN)} - {begin}
        direct = {part.first for rank, part in takers if tensor in self._direct[rank]}
        pieces, stops = [], sorted({*bounds, end}, reverse=True)
        while begin < end:
            is_direct = begin in direct
            cut = stops[-1] if is_direct else min(begin + length, stops[-1])
            if cut == stops[-1]:
                stops.pop()
            takes = []
            for rank, part in takers:
                start, stop = part.before(begin), part.before(cut)
                if start < stop:
                    takes.append(Take(rank, start, stop))
            if takes:
                pieces.append(Piece(tensor, begin, cut, tuple(takes), is_direct))
            begin = cut
        return pieces

    def _readable(self, piece: Piece) -> Readable:
        """Returns which ranks should read a piece: those that keep it, if they are on one host."""
        owners = tuple(take.rank for take in piece.takes)
        if piece.is_direct:
            return Readable(piece.nbytes, owners, is_fixed=True)
        is_near = all(self._are_near(rank, owners[0]) for rank in owners)
        is_long = all(self.part(piece, take).length >= OWN_BYTES_MIN for take in piece.takes)
        is_owned = is_near and is_long and len(owners) < len(self._parts)
        return Readable(piece.nbytes, owners if is_owned else ())

    def _batches(self, pieces: Sequence[Piece], reader: int, batch_bytes: int) -> list[Batch]:
        batches: list[Batch] = []
        batch = Batch([], [], [])
        sent: list[Delivery] = []
        # The bytes that are read, those of pieces that are held, those that are copied for
        # neighbours and into messages, and those that other ranks receive into staging memory.
        filled, staged = [0, 0, 0, 0], dict[int, int]()
        filled_max = [_READ_BATCHES_MAX * batch_bytes, batch_bytes, batch_bytes, batch_bytes]
        staged_max = batch_bytes // len(self._parts)
        for turn, piece in enumerate(pieces):
            deliveries = self._deliveries(piece, reader, turn)
            near = [one for one in deliveries if self._are_near(reader, one.take.rank)]
            far = [one for one in deliveries if not self._are_near(reader, one.take.rank)]
            copied = [one for one in far if not self._is_contiguous(one)]
            nbytes = piece.nbytes
            new = [
                nbytes,
                nbytes if far else 0,
                *(sum(o.take.nbytes for o in x) for x in (near, copied)),
            ]
            is_full = any(old + more > most for old, more, most in zip(filled, new, filled_max))
            for one in filter(self._is_staged, far):
                is_full |= staged.get(one.take.rank, 0) + one.take.nbytes > staged_max
            if batch.pieces and is_full:
                batches.append(batch._replace(messages=self._messages(sent)))
                batch, sent, filled, staged = Batch([], [], []), [], [0, 0, 0, 0], {}
            number = len(batch.pieces)
            batch.pieces.append(piece)
            batch.shared.extend(one._replace(number=number) for one in near)
            sent.extend(one._replace(number=number) for one in far)
            filled = [old + more for old, more in zip(filled, new)]
            for one in filter(self._is_staged, far):
                staged[one.take.rank] = staged.get(one.take.rank, 0) + one.take.nbytes
        if batch.pieces:
            batches.append(batch._replace(messages=self._messages(sent)))
        return batches

    def _are_near(self, one: int, other: int) -> bool:
        return self._hosts[one] == self._hosts[other]

    def _deliveries(self, piece: Piece, reader: int, turn: int) -> list[Delivery]:
        """Returns what others get of a piece, for each host once what its ranks keep alike."""
        takes: dict[tuple[int, Runs], list[Take]] = {}
        for take in piece.takes:
            if take.rank != reader:
                key = self._hosts[take.rank], self.part(piece, take)
                takes.setdefault(key, []).append(take)
        return [
            Delivery(0, piece, same[turn % len(same)], tuple(take.rank for take in same))
            for same in takes.values()
        ]

    def _messages(self, deliveries: Sequence[Delivery]) -> list[Message]:
        direct: list[Message] = []
        gathered: list[tuple[int, list[Delivery]]] = []
        # The last of them for each receiver and tensor.
        last: dict[tuple[int, int], list[Delivery]] = {}
        short: dict[int, list[Delivery]] = {}
        for one in deliveries:
            receiver, is_staged = one.take.rank, len(one.takers) > 1
            if self._is_contiguous(one):
                direct.append(Message(receiver, [one], is_copied=False, is_staged=is_staged))
            elif self.part(one.piece, one.take).repeats and not is_staged:
                together = last.get((receiver, one.piece.tensor))
                # A message is received at one place.
                if together is None or together[-1].take.end != one.take.start:
                    together = last[receiver, one.piece.tensor] = []
                    gathered.append((receiver, together))
                together.append(one)
            else:
                short.setdefault(receiver, []).append(one)
        long: list[Message] = []
        for receiver, together in gathered:
            message = Message(receiver, together, is_copied=True, is_staged=False)
            if message.nbytes < DIRECT_BYTES:
                short.setdefault(receiver, []).extend(together)
            else:
                long.append(message)
        rest = [
            Message(receiver, together, is_copied=True, is_staged=True)
            for receiver, together in short.items()
        ]
        return [*direct, *long, *rest]

    def _is_staged(self, one: Delivery) -> bool:
        """Whether a delivery may be received into staging memory."""
        return len(one.takers) > 1 or one.take.nbytes < DIRECT_BYTES

    def _is_contiguous(self, one: Delivery) -> bool:
        """Whether the bytes are contiguous and long, so that they are sent from the piece."""
        return one.take.nbytes >= DIRECT_BYTES and not self.part(one.piece, one.take).repeats

    def part(self, piece: Piece, take: Take) -> Runs:
        """Returns the part of the rank of `take`."""
        part = self._parts[take.rank][piece.tensor]
        assert part is not None
        return part

    def batch(self, rank: int, number: int) -> Batch | None:
        """Returns the batch of a rank in a round; None if it has read all of its pieces."""
        batches = self.batches[rank]
        return batches[number] if number < len(batches) else None

    def pieces_of(self, rank: int) -> list[Piece]:
        """Returns the pieces that a rank reads through its ring, in the order of the files."""
        pieces = (piece for batch in self.batches[rank] for piece in batch.pieces)
        return [piece for piece in pieces if not piece.is_direct]

    def send_bytes(self, rank: int) -> int:
        """Returns the size of the buffer that a rank needs for a round to send from."""
        return max((batch.copied_bytes for batch in self.batches[rank]), default=0)

    def shared(self, rank: int, number: int) -> Iterator[tuple[int, Delivery]]:
        """Yields what other ranks of its host get of a batch, with the places in shared memory."""
        place, batch = 0, self.batch(rank, number)
        for one in () if batch is None else batch.shared:
            yield place, one
            place += one.take.nbytes

    def sizes(self, rank: int) -> Sizes:
        """Returns the sizes of the buffers that a rank needs for a round."""
        shared = (sum(one.take.nbytes for one in batch.shared) for batch in self.batches[rank])
        return Sizes(self._staged_max(rank), max(shared, default=0))

    def staged(self, rank: int, number: int) -> Iterator[tuple[int, Message, int]]:
        """Yields sender, message, and its place in the staging memory of its receiver.

        Args:
            rank: the receiver.
            number: the number of the round.
        """
        place = 0
        for sender in range(len(self.batches)):
            batch = self.batch(sender, number)
            for message in () if batch is None else batch.messages:
                if message.receiver == rank and message.is_staged:
                    yield sender, message, place
                    place += message.nbytes

    def _staged_max(self, rank: int) -> int:
        rounds = range(self.rounds if self._has_messages else 0)
        return max((self._staged_bytes(rank, number) for number in rounds), default=0)

    def _staged_bytes(self, rank: int, number: int) -> int:
        return sum(message.nbytes for _, message, _ in self.staged(rank, number))


def _mixed(own: Sequence[Piece]) -> list[Piece]:
    """Returns the pieces of a rank in the order in which it takes them.

    Those that are read to their place come late: a disk gives them as much as the ring, and they
    are taken when the ring has had twice as much. So no round waits for them, and when all is read,
    nothing is left to be exchanged.
    """
    direct = deque(piece for piece in own if piece.is_direct)
    mixed: list[Piece] = []
    lead_bytes = 0
    for piece in own:
        if not piece.is_direct:
            mixed.append(piece)
            lead_bytes += piece.nbytes
            while direct and 2 * direct[0].nbytes <= lead_bytes:
                lead_bytes -= 2 * direct[0].nbytes
                mixed.append(direct.popleft())
    return [*mixed, *direct]
