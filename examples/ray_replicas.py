"""A Ray Serve app whose replicas share one load of their weights.

    python examples/ray_replicas.py                                # writes and loads 64 MB
    python examples/ray_replicas.py s3://bucket/llama-8b/          # any location

The app starts with one replica and is scaled to four, on two nodes of a small Ray cluster on this
machine. The first replica creates the owner of the weights, which reads them from the store. The
other replicas take them from Ray's object store: on the same node without a copy, and on the other
node once for all of its replicas. The program prints what each replica got from where.

How it works: `ringload.ray.load_file` has the arguments of `ringload.load_file`. The tensors that
it returns are views of memory that all processes of a node share, so nothing may write to them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import ringload.ray
import torch
from ray import get_runtime_context, init, serve, shutdown
from ray.cluster_utils import Cluster
from safetensors.torch import save_file

REPLICAS = 4
CPUS_OF_NODE = 2
OBJECT_STORE_BYTES = 300 << 20


@serve.deployment(ray_actor_options={"num_cpus": 1})
class Model:
    """Has weights, and tells where they came from.

    Args:
        weights: the location of the weights: any path or URI that ringload supports.
    """

    def __init__(self, weights: str) -> None:
        self._state_dict = ringload.ray.load_file(weights)
        # A real app builds its model here: model.load_state_dict(self._state_dict, assign=True)

    def report(self) -> dict[str, Any]:
        """Returns where the bytes of this replica came from."""
        node = get_runtime_context().get_node_id()
        return {"pid": os.getpid(), "node": node, **self._state_dict.report.as_dict()}


def reports(weights: str, replicas: int) -> list[dict[str, Any]]:
    """Scales the app to a number of replicas, and returns the report of each."""
    handle = serve.run(Model.options(num_replicas=replicas).bind(weights), name="model")
    found: dict[int, dict[str, Any]] = {}
    for _ in range(100 * replicas):  # each call goes to a replica that Serve chooses
        report = handle.report.remote().result(timeout_s=60)
        found[report["pid"]] = report
        if len(found) == replicas:
            return list(found.values())
    raise RuntimeError(f"only {len(found)} of {replicas} replicas have answered")


def show(found: list[dict[str, Any]]) -> None:
    """Prints a line for each replica, and one for the owner."""
    for one in found:
        print(
            f"replica {one['pid']} on node {one['node'][:6]}: {one['seconds']:.2f} s, MB from "
            f"this node {one['node_bytes'] / 1e6:.1f}, from another node "
            f"{one['other_node_bytes'] / 1e6:.1f}, from the store {one['store_bytes'] / 1e6:.1f}"
        )
    for owner in ringload.ray.status():
        print(
            f"owner {owner['pid']} on node {owner['node'][:6]}: MB from the store "
            f"{owner['read_bytes'] / 1e6:.1f}, in memory {owner['resident_bytes'] / 1e6:.1f}"
        )


def write_weights(folder: str) -> str:
    """Writes a checkpoint of 64 MB; returns its path."""
    path = Path(folder) / "model.safetensors"
    tensors = {f"layers.{n}.weight": torch.randn(1000, 1000) for n in range(16)}
    save_file(tensors, path)
    return str(path)


def main() -> None:
    """Starts a cluster of two nodes, scales the app from one replica to four, and stops it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", nargs="?", help="a location; by default a file is written")
    parser.add_argument("--object-store", type=int, default=OBJECT_STORE_BYTES, metavar="BYTES")
    arguments = parser.parse_args()
    # Ray creates sockets in this folder, and the paths of sockets have to be short.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        os.environ["RAY_TMPDIR"] = folder
        weights = arguments.weights or write_weights(folder)
        node = {"num_cpus": CPUS_OF_NODE, "object_store_memory": arguments.object_store}
        head = {**node, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            cluster.add_node(**node)
            init(address=cluster.address, log_to_driver=False)
            serve.start(proxy_location="Disabled")
            for replicas in (1, REPLICAS):
                print(f"{replicas} replicas:")
                show(reports(weights, replicas))
        finally:
            serve.shutdown()
            shutdown()
            cluster.shutdown()


if __name__ == "__main__":
    main()
