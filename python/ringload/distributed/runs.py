"""The bytes of a part of a tensor, and how they are copied out of a piece of the tensor.

    tensor   ..##..##..##..##      a part: runs of equal length, repeated over some dimensions
    piece        [.##..##.]        a range of bytes of the tensor
    part     ##[####]##            the part's bytes of a piece are adjacent in the part

So a rank that receives its bytes of a piece receives them at their place in its part. The rank that
reads the piece copies the runs next to each other, a few blocks of equal runs at a time, with
torch's copies, which work in host memory and on GPUs.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

Repeats = tuple[tuple[int, int], ...]
"""How often runs repeat, and at which distance in bytes, over each dimension, outermost first."""


class Runs(NamedTuple):
    """Runs of bytes, in ascending order: a part of a tensor, or what a piece has of it."""

    first: int
    """The offset of the first run in the tensor."""
    length: int
    """The length of each run."""
    repeats: Repeats

    @property
    def nbytes(self) -> int:
        """The length of all runs."""
        nbytes = self.length
        for count, _ in self.repeats:
            nbytes *= count
        return nbytes

    @property
    def end(self) -> int:
        """The offset in the tensor of the end of the last run."""
        return self.first + sum((n - 1) * distance for n, distance in self.repeats) + self.length

    def bounds(self, nbytes_min: int) -> Iterator[int]:
        """Yields the offsets in the tensor where runs begin and end, if they are long."""
        if self.length < nbytes_min:
            return
        for numbers in product(*(range(count) for count, _ in self.repeats)):
            steps = zip(numbers, self.repeats)
            begin = self.first + sum(number * distance for number, (_, distance) in steps)
            yield begin
            yield begin + self.length

    def before(self, offset: int) -> int:
        """Returns how many bytes of the runs lie before an offset in the tensor."""
        rest, passed, nbytes = offset - self.first, 0, self.nbytes
        if rest <= 0 or nbytes == 0:
            return 0
        for count, distance in self.repeats:
            nbytes //= count
            whole = min(rest // distance, count)
            passed += whole * nbytes
            if whole == count:
                return passed
            rest -= whole * distance
        return passed + min(rest, self.length)

    def within(self, begin: int, end: int) -> Iterator[Runs]:
        """Yields the runs, cut at the offsets `begin` and `end`, as few blocks in their order."""
        if self.nbytes == 0 or begin >= self.end or end <= self.first:
            return
        if begin <= self.first and self.end <= end:
            yield self
            return
        if not self.repeats:
            first = max(self.first, begin)
            yield Runs(first, min(self.first + self.length, end) - first, ())
            return
        (count, distance), inner = self.repeats[0], self.repeats[1:]
        extent = Runs(0, self.length, inner).end
        # The repetitions that lie partly, and those that lie entirely, within the range.
        some = range(
            max((begin - self.first - extent) // distance + 1, 0),
            min(-(-(end - self.first) // distance), count),
        )
        first_whole = max(some.start, -(-(begin - self.first) // distance))
        end_whole = min(some.stop, (end - self.first - extent) // distance + 1)
        if first_whole >= end_whole:
            first_whole = end_whole = some.stop
        for number in range(some.start, first_whole):
            yield from Runs(self.first + number * distance, self.length, inner).within(begin, end)
        if first_whole < end_whole:
            first = self.first + first_whole * distance
            yield Runs(first, self.length, ((end_whole - first_whole, distance), *inner))
        for number in range(end_whole, some.stop):
            yield from Runs(self.first + number * distance, self.length, inner).within(begin, end)


def view(runs: Runs, piece: torch.Tensor, begin: int) -> torch.Tensor:
    """Returns a view of the bytes of `runs` in a piece of the tensor.

    Args:
        runs: runs that lie within the piece.
        piece: the bytes of the piece, one-dimensional.
        begin: the offset of the piece in the tensor.
    """
    sizes = [count for count, _ in runs.repeats]
    strides = [distance for _, distance in runs.repeats]
    offset = piece.storage_offset() + runs.first - begin
    return piece.as_strided([*sizes, runs.length], [*strides, 1], offset)


def gather(runs: Runs, piece: torch.Tensor, begin: int, out: torch.Tensor) -> None:
    """Copies the bytes that `piece` has of `runs` next to each other to `out`, which they fill."""
    at = 0
    for block in runs.within(begin, begin + piece.numel()):
        source = view(block, piece, begin)
        out[at : at + block.nbytes].view(source.shape).copy_(source)
        at += block.nbytes
    assert at == out.numel(), (at, out.numel())
