"""Loads that the replicas of a Ray cluster share: the store is read once.

    tensors = ringload.ray.load_file("s3://bucket/llama-8b/")

The first load of a checkpoint creates its owner, a detached actor. The owner reads the checkpoint
from the store and puts it into Ray's object store, chunk by chunk. All loads of all replicas take
the chunks from there while the owner goes on: on the owner's node they are mapped, and Ray moves
them to other nodes once each. The owner stays when replicas end, so that later ones find the
checkpoint in memory.

    request   what a load asks for, and the name of its owner
    plan      which tensors a chunk has, and where
    owner     the actor; `resident` is the part of it that knows what is in memory and who uses it
    cluster   what is asked of Ray: nodes, their object stores, the owners
    fill      reads chunks and puts them into the object store, for the owner
    reader    a load: takes chunks from the owner, or else tensors from the store
    arrivals  the chunks of a load as they come; `link` has the calls of the owner
    leases    tells owners which chunks this process maps
    views     tensors that are views of chunks
    report    where the bytes of a load came from
    loads     the functions of this package
"""

try:
    import ray  # noqa: F401 - only whether it is there
except ImportError as error:
    raise ImportError(
        "ringload.ray needs Ray, which cannot be imported; pip install 'ringload[ray]'"
    ) from error

from .loads import Loaded, SharedStream, load, load_file, release, status, stream
from .report import Report

__all__ = [
    "Loaded",
    "Report",
    "SharedStream",
    "load",
    "load_file",
    "release",
    "status",
    "stream",
]
