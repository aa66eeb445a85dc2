"""One load shared by the ranks of a `torch.distributed` group.

    every rank:  opens the headers -> agrees with the others -> its span of the tensors (partition)
                 reads its span -> exchange, round by round -> every tensor, on every rank

The ranks are found and kept by `group`, who reads what is said by `partition`, and `exchange` moves
the bytes, by torch's collectives, in bounded staging. `failure` carries errors from one rank to
all.
"""

from .exchange import Exchange
from .group import Group, find_group
from .partition import Item, spans

__all__ = ["Exchange", "Group", "Item", "find_group", "spans"]
