"""Bytes of one rank reach all others: through shared memory within a host, and once to each host.

    sender  copies the bytes to a buffer of its segment, and sends them to a rank of each other host
    relay   receives them into a buffer of its segment
    all     exchange messages without content: the buffers are filled
    others  read the bytes in the buffer of the sender or relay of their host

The two buffers of a segment are used in turn. So a buffer is filled again when the messages of the
next bytes have told that all ranks have read it. Where no host has several ranks, and between GPUs,
torch's broadcast carries the bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from .group import Group
    from .segment import Neighbours


class Broadcast:
    """One rank's part in the broadcasts of a group."""

    def __init__(
        self,
        group: Group,
        neighbours: Neighbours,
        hosts: Sequence[int],
        buffer_bytes: int,
        device: torch.device,
    ) -> None:
        """Prepares broadcasts, when all ranks have set the sizes of their segments.

        Args:
            group: the ranks.
            neighbours: those of this host. `close` closes it.
            hosts: the number of the host of each rank.
            buffer_bytes: the size of each of the two buffers, the same on all ranks.
            device: the device of the bytes.
        """
        import torch

        self._group, self._neighbours, self._hosts = group, neighbours, hosts
        self._is_shared = len(set(hosts)) < len(hosts)
        self._number = 0
        #: The maximum number of bytes of a broadcast.
        self.buffer_bytes = buffer_bytes
        neighbours.map(torch.device("cpu") if self._is_shared else device)

    def close(self) -> None:
        """Closes the segments."""
        self._neighbours.close()

    def __call__(self, sender: int, nbytes: int, piece: torch.Tensor | None = None) -> torch.Tensor:
        """Takes part in a broadcast.

        Args:
            sender: the position of the rank whose bytes they are.
            nbytes: their number, at most the size of a buffer.
            piece: the bytes, or at other ranks their place; None if they are wanted in a buffer.

        Returns:
            The bytes. In a buffer, they are valid until the next broadcast.

        Raises:
            UnreachableError: a rank has ended, or does not take part in time.
        """
        import torch

        group, rank, neighbours = self._group, self._group.rank, self._neighbours
        number, self._number = self._number, self._number + 1
        own = neighbours.incoming(number)[:nbytes]
        if not self._is_shared:
            received = own if piece is None else piece
            group.broadcast(received, sender)
            return received
        # The rank of each host whose buffer has the bytes.
        holders = {host: self._hosts.index(host) for host in self._hosts}
        holders[self._hosts[sender]] = sender
        holder = holders[self._hosts[rank]]
        sends, receives = [], []
        if rank == sender:
            assert piece is not None
            own.copy_(piece)
            sends = [(other, own) for other in holders.values() if other != sender]
        elif rank == holder:
            receives = [(sender, own)]
        group.start_transfers(sends, receives).wait()
        group.all_gather(torch.zeros(1, dtype=torch.uint8))
        if rank == sender:
            assert piece is not None
            return piece
        if rank == holder:
            return own if piece is None else piece.copy_(own)
        # Nobody reads this rank's own buffer now.
        place = own if piece is None or piece.device.type != "cpu" else piece
        neighbours.read_incoming(holder, number, 0, place)
        return place if piece is None or place is piece else piece.copy_(place)
