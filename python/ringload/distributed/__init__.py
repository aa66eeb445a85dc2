"""One load shared by the ranks of a `torch.distributed` group.

    every rank:  reads the headers -> agrees with the others -> gets a span of the tensors
                 reads its span    -> exchange, in rounds    -> has every tensor

`group` has the ranks, and creates their process groups where the caller has none. `segment` finds
those of the same host, and has the memory that they share. `partition` assigns a span of the
tensors to each rank. `exchange` sends whole tensors to all ranks through staging buffers of a fixed
size, by the transport of `broadcast`. `failure` encodes an error of one rank for the others.

`load` is a load of which each rank keeps other parts: `runs` has the bytes of a part, `direct` has
parts that need no exchange, `schedule` says which rank reads what and sends it to whom, and `parts`
is the exchange.
"""

from .broadcast import Broadcast
from .exchange import Exchange
from .group import Group, find_group
from .partition import Item, spans
from .segment import Neighbours, Sizes, hosts_of

__all__ = [
    "Broadcast",
    "Exchange",
    "Group",
    "Item",
    "Neighbours",
    "Sizes",
    "find_group",
    "hosts_of",
    "spans",
]
