"""What is asked of Ray: nodes, their object stores, and the owners of checkpoints.

Ray's statistics of a node's object store have no public function. Where the private one is missing
or fails, they are None, and only the capacity of the store counts.
"""

from __future__ import annotations

import shutil
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from .._errors import InvalidInputError

#: The namespace of the owners, which all jobs of a cluster share.
NAMESPACE = "ringload"


class StoreUse(NamedTuple):
    """What is in the object store of a node, in bytes."""

    used: int
    spilled: int
    """What Ray has written to disk in all, as the store was full."""


def check_connected() -> None:
    """Checks that this process belongs to a cluster.

    Raises:
        InvalidInputError: it does not.
    """
    if not ray.is_initialized():
        raise InvalidInputError(
            "this process is in no Ray cluster; call ray.init() first, or use ringload.load"
        )


def this_node() -> str:
    """Returns the identifier of the node of this process."""
    node: str = ray.get_runtime_context().get_node_id()
    return node


def check_node(node: str | None) -> None:
    """Checks that a node belongs to the cluster, or has belonged to it.

    Raises:
        InvalidInputError: it does not.
    """
    if node is not None and node not in [one["NodeID"] for one in ray.nodes()]:
        raise InvalidInputError(
            f"owner_node is {node!r}, which is no node of this cluster; ray.nodes() has the "
            "NodeID of each"
        )


def find_owner(name: str) -> Any | None:
    """Returns the owner of this name, if there is one."""
    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return None


def owner(name: str, settings: dict[str, Any], node: str | None) -> Any:
    """Returns the owner of this name.

    If there is none, it is created on `node`, or else on this one. Ray chooses another node if that
    one has ended.

    Raises:
        RayError: Ray has no owner at the moment; the call may be repeated.
    """
    found = find_owner(name)
    if found is not None:
        return found
    from .owner import Owner

    actor = ray.remote(Owner).options(
        name=name,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        # One byte: Ray puts an actor that takes nothing on a node of its choice.
        memory=1,
        max_restarts=-1,
        max_task_retries=0,
        # Soft: after the node is gone, the owner starts again on another one.
        scheduling_strategy=NodeAffinitySchedulingStrategy(node or this_node(), soft=True),
    )
    try:
        return actor.remote(settings)
    except ValueError as error:
        # Another process was creating it, and has not finished yet, or has ended meanwhile.
        raise RayError(f"there is no actor called {name} yet") from error


def owners() -> list[tuple[str, Any]]:
    """Returns the names and handles of all owners of the cluster."""
    listed = ray.util.list_named_actors(all_namespaces=True)
    names = [one["name"] for one in listed if one["namespace"] == NAMESPACE]
    found = [(name, find_owner(name)) for name in sorted(names) if name]
    return [(name, handle) for name, handle in found if handle is not None]


def store_bytes(node: str) -> int | None:
    """Returns how large the object store of a node is; None if the node has none."""
    for one in ray.nodes():
        if one["NodeID"] == node:
            size = one.get("Resources", {}).get("object_store_memory")
            return None if size is None else int(size)
    return None


def store_use(node: str) -> StoreUse | None:
    """Returns what is in the object store of a node; None if Ray does not tell."""
    try:
        from ray._private.internal_api import node_stats

        for one in ray.nodes():
            if one["NodeID"] == node and one["Alive"]:
                address, port = one["NodeManagerAddress"], one["NodeManagerPort"]
                stats = node_stats(address, port, include_memory_info=False).store_stats
                return StoreUse(stats.object_store_bytes_used, stats.spilled_bytes_total)
    except Exception:  # a private function may change in any way
        return None
    return None


def shared_memory_bytes() -> int | None:
    """Returns the size of /dev/shm, in which Ray keeps objects if they fit."""
    try:
        return shutil.disk_usage("/dev/shm").total
    except OSError:
        return None


def has(ref: Any) -> bool:
    """Whether the object of a reference is there, on this node or soon."""
    try:
        ready, _ = ray.wait([ref], timeout=5, fetch_local=True)
        if ready:
            ray.get(ready, timeout=5)
    except RayError:
        return False
    return bool(ready)


def end_this_actor() -> None:
    """Ends the actor that calls this, for good."""
    ray.kill(ray.get_runtime_context().current_actor, no_restart=True)
