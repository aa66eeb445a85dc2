"""Which rank reads which piece, when ranks load different parts of tensors.

    tensor, by rows      | kept by 0 | kept by 1 | kept by 2 |   each rank reads what it alone keeps
    tensor, by columns   | 0 | 1 | 2 | 0 | 1 | 2 | 0 | 1 | 2 |   the others are read in turn

A piece that one rank keeps alone is read by that rank, so that it is not exchanged; one that ranks
of one host keep, by one of these. All ranks read about the same number of bytes: what exceeds a
rank's share of all is read in turn, as the other pieces are. Of these, the next one goes to the
rank that has most left to read. So all ranks proceed through the files together, and tensors are
complete in about the order of the files. Where pieces are short, a rank reads adjacent ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Readable(NamedTuple):
    """A piece that has to be read."""

    nbytes: int
    owners: tuple[int, ...]
    """The ranks one of which should read it; empty if it does not matter."""
    is_fixed: bool = False
    """Whether the first of them has to."""


def readers(pieces: Sequence[Readable], ranks: int, turn_bytes: int) -> list[int]:
    """Returns the rank that reads each of the pieces.

    Args:
        pieces: the pieces, in the order of the files.
        ranks: the number of ranks; at least 1.
        turn_bytes: a rank reads about this many bytes before it is another one's turn.

    Returns:
        The ranks, none of which reads more than its share of all bytes and one more piece.
    """
    share = -(-sum(piece.nbytes for piece in pieces) // ranks)
    left = [share] * ranks
    for piece in pieces:
        if piece.is_fixed:
            left[piece.owners[0]] -= piece.nbytes

    def most_left(among: Sequence[int]) -> int:
        return max(among, key=left.__getitem__)

    found: list[int | None] = []
    for nbytes, owners, is_fixed in pieces:
        owner = most_left(owners) if owners else None
        if is_fixed:
            owner = owners[0]
        elif owner is not None and left[owner] < nbytes:
            owner = None
        elif owner is not None:
            left[owner] -= nbytes
        found.append(owner)
    current, turn = 0, turn_bytes
    for position, (nbytes, *_) in enumerate(pieces):
        if found[position] is None:
            if turn + nbytes > turn_bytes or left[current] <= 0:
                current, turn = most_left(range(ranks)), 0
            turn += nbytes
            left[current] -= nbytes
            found[position] = current
    return [rank for rank in found if rank is not None]
