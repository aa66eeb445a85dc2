"""Where the bytes of a load came from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Report:
    """Where the bytes of a load came from. Those of chunks count with the chunk."""

    location: str
    seconds: float = 0.0
    #: Bytes that were in the object store of this node.
    node_bytes: int = 0
    #: Bytes that Ray moved to this node from others.
    other_node_bytes: int = 0
    #: Bytes that this process read from the store, or the local file cache.
    store_bytes: int = 0
    #: Bytes of the first two that the owner read after this load began.
    read_for_this_load_bytes: int = 0
    #: Why this process read from the store; None if it did not.
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields by name."""
        return asdict(self)

    def __str__(self) -> str:
        """Returns one line for logs."""
        text = (
            f"{self.location}: {self.node_bytes} bytes from this node, {self.other_node_bytes} "
            f"from other nodes, {self.store_bytes} from the store, in {self.seconds:.2f} s; "
            f"the owner read {self.read_for_this_load_bytes} of them for this load"
        )
        return text if self.reason is None else f"{text}; {self.reason}"
