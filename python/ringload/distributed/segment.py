"""Memory that the ranks of a host share, and how they find each other.

    header    a random token
    incoming  what the rank has received from other hosts in each of two rounds
    pieces    what the rank has read for each of two rounds, and its neighbours keep

Each rank has one segment of memory, to which only it writes, and in which the other ranks of its
host read. The segment is a file in memory that has no name, so the kernel frees it with the last
process that has it, however that one ends.

Two ranks are on the same host if each can open the other's segment through /proc and finds the
other's token in it. Names of hosts do not tell: containers of one host have different ones, and
containers of different hosts may have the same. Ranks that cannot open each other's segments, such
as those of containers that do not share their processes, exchange messages.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from .._errors import IoError

if TYPE_CHECKING:
    import torch

#: The name that the kernel shows for a segment.
_NAME = "ringload-exchange"

_TOKEN_BYTES, _PAGE_BYTES = 32, 4096


class Address(NamedTuple):
    """Where a process of the same host finds a segment."""

    process: int
    descriptor: int
    token: bytes


class Sizes(NamedTuple):
    """The sizes of the buffers in a segment, of each of which there are two."""

    incoming: int
    pieces: int

    def incoming_at(self, number: int) -> int:
        """Returns where a segment has what is received from other hosts in a round."""
        return _PAGE_BYTES + number % 2 * self.incoming

    def pieces_at(self, number: int) -> int:
        """Returns where a segment has what was read for a round."""
        return _PAGE_BYTES + 2 * self.incoming + number % 2 * self.pieces


class Segment:
    """The segment of this rank, or of another rank of its host."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._memory: mmap.mmap | None = None
        self._bytes: torch.Tensor | None = None

    @staticmethod
    def create() -> tuple[Segment, Address] | None:
        """Returns a new segment; None where the kernel or a sandbox refuses one."""
        try:
            descriptor = os.memfd_create(_NAME, os.MFD_CLOEXEC)
        except (AttributeError, OSError):
            return None
        token = secrets.token_bytes(_TOKEN_BYTES)
        os.pwrite(descriptor, token, 0)
        return Segment(descriptor), Address(os.getpid(), descriptor, token)

    @staticmethod
    def open(address: Address) -> Segment | None:
        """Opens the segment of another rank; None if that is not on this host."""
        path = f"/proc/{address.process}/fd/{address.descriptor}"
        try:
            # In another namespace of processes, the number is that of something else, which opening
            # must not touch.
            if not os.readlink(path).startswith(f"/memfd:{_NAME}"):
                return None
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        segment = Segment(descriptor)
        if os.pread(descriptor, _TOKEN_BYTES, 0) != address.token:
            segment.close()
            return None
        return segment

    def resize(self, sizes: Sizes) -> None:
        """Sets the size of this rank's segment."""
        os.ftruncate(self._descriptor, _PAGE_BYTES + 2 * sizes.incoming + 2 * sizes.pieces)

    def map(self) -> None:
        """Maps the segment, whose size is set."""
        import torch

        self._memory = mmap.mmap(self._descriptor, os.fstat(self._descriptor).st_size)
        self._bytes = torch.frombuffer(self._memory, dtype=torch.uint8)

    def part(self, offset: int, nbytes: int) -> torch.Tensor:
        """Returns a view of the segment's bytes."""
        assert self._bytes is not None
        return self._bytes[offset : offset + nbytes]

    def read(self, offset: int, place: torch.Tensor) -> None:
        """Reads bytes of the segment of another rank into host memory.

        It is not mapped, as the memory of other ranks would count for this rank, too.
        """
        nbytes = place.numel()
        rest = memoryview((ctypes.c_char * nbytes).from_address(place.data_ptr())).cast("B")
        while len(rest) > 0:
            done = os.preadv(self._descriptor, [rest], offset)
            if done == 0:
                raise IoError("the memory of another rank is shorter than it has to be")
            rest, offset = rest[done:], offset + done

    def close(self) -> None:
        """Closes the segment. May be called repeatedly; views of it stay valid."""
        self._memory = self._bytes = None
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)


class Neighbours:
    """The ranks of this host, and their segments."""

    def __init__(self, *, are_wanted: bool) -> None:
        """Creates this rank's segment.

        Args:
            are_wanted: whether ranks of the same host share memory. It is of no use for tensors
                that are exchanged between GPUs.
        """
        self._own: Segment | None = None
        #: Where other ranks find this rank's segment; None without one.
        self.address: Address | None = None
        created = Segment.create() if are_wanted else None
        if created is not None:
            self._own, self.address = created
        self._others: dict[int, Segment] = {}
        self._sizes: list[Sizes] = []
        self._rank = 0
        #: What a rank without neighbours receives to.
        self._private: list[torch.Tensor] = []

    @property
    def others(self) -> list[int]:
        """The positions of the other ranks of this host."""
        return list(self._others)

    def find(self, rank: int, addresses: Sequence[Address | None]) -> frozenset[int]:
        """Opens the segments of the others; returns the positions of this rank and of those."""
        for other, address in enumerate(addresses):
            if other != rank and address is not None and self._own is not None:
                segment = Segment.open(address)
                if segment is not None:
                    self._others[other] = segment
        return frozenset({rank, *self._others})

    def keep(self, hosts: Sequence[int], rank: int) -> None:
        """Closes the segments of ranks that are not on this host after all."""
        for other in self.others:
            if hosts[other] != hosts[rank]:
                self._others.pop(other).close()

    def resize(self, sizes: Sequence[Sizes], rank: int) -> None:
        """Sets the size of this rank's segment.

        Args:
            sizes: those of the buffers of each rank.
            rank: the position of this rank.
        """
        self._rank = rank
        self._sizes = [Sizes(*(_whole_pages(nbytes) for nbytes in one)) for one in sizes]
        if self._others and self._own is not None:
            self._own.resize(self._sizes[rank])

    def map(self, device: torch.device) -> None:
        """Maps this rank's segment, whose size is set."""
        import torch

        if self._own is not None and self._others:
            self._own.map()
            return
        shape = (2, self._sizes[self._rank].incoming)
        self._private = list(torch.empty(shape, dtype=torch.uint8, device=device))

    def incoming(self, number: int) -> torch.Tensor:
        """Returns the buffer for what this rank receives from other hosts in a round."""
        if self._private or self._own is None:
            return self._private[number % 2]
        sizes = self._sizes[self._rank]
        return self._own.part(sizes.incoming_at(number), sizes.incoming)

    def pieces(self, number: int) -> torch.Tensor:
        """Returns the buffer for what this rank has read for its neighbours in a round."""
        assert self._own is not None
        sizes = self._sizes[self._rank]
        return self._own.part(sizes.pieces_at(number), sizes.pieces)

    def read_incoming(self, rank: int, number: int, at: int, place: torch.Tensor) -> None:
        """Copies what a rank of this host, or this one, has received from other hosts."""
        if rank == self._rank:
            place.copy_(self.incoming(number)[at : at + place.numel()])
        else:
            self._others[rank].read(self._sizes[rank].incoming_at(number) + at, place)

    def read_pieces(self, rank: int, number: int, at: int, place: torch.Tensor) -> None:
        """Copies what a neighbour has read for a round."""
        self._others[rank].read(self._sizes[rank].pieces_at(number) + at, place)

    def close(self) -> None:
        """Closes all segments."""
        segments = [*self._others.values(), *([] if self._own is None else [self._own])]
        self._others, self._own, self._private = {}, None, []
        for segment in segments:
            segment.close()


def hosts_of(reached: Sequence[frozenset[int]]) -> list[int]:
    """Returns a number for the host of each rank.

    Args:
        reached: the positions of the ranks whose segments each rank has opened, and its own.

    Returns:
        Equal numbers for ranks of which each has opened the segments of all others, and of no more.
    """
    hosts = list(range(len(reached)))
    for rank, ranks in enumerate(reached):
        if all(reached[other] == ranks for other in ranks):
            hosts[rank] = min(ranks)
    return hosts


def _whole_pages(nbytes: int) -> int:
    return -(-nbytes // _PAGE_BYTES) * _PAGE_BYTES
