"""One load shared by the ranks of a `torch.distributed` group.

    every rank:  reads the headers -> agrees with the others -> gets a span of the tensors
                 reads its span    -> exchange, in rounds    -> has every tensor

`group` has the ranks, and creates their process groups where the caller has none. `partition`
assigns a span of the tensors to each rank. `exchange` sends whole tensors to all ranks with torch's
collectives, through staging buffers of a fixed size. `failure` encodes an error of one rank for
the others.

`load` is a load of which each rank keeps other parts: `runs` has the bytes of a part, `schedule`
says which rank reads what and sends it to whom, and `parts` is the exchange.
"""

from .exchange import Exchange
from .group import Group, find_group
from .partition import Item, spans

__all__ = ["Exchange", "Group", "Item", "find_group", "spans"]
