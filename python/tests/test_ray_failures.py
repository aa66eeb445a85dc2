"""Processes and nodes that end while loads of `ringload.ray` run.

Each turn starts loads on two nodes from a slow store, and ends something at a random moment: a
replica, the owner of the weights, or a whole node. Every load that is left has to end with the
right tensors before a limit. `--full` makes 50 turns.
"""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
import torch
from conftest import random_tensor, until
from needs import need
from safetensors.torch import save_file

import ringload

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own

MIB = 1 << 20
COUNT = 16
TIMEOUT_SECONDS = 15.0
OPTIONS = {"chunk_size": 2 * MIB, "timeout_seconds": TIMEOUT_SECONDS}
#: The longest that a load may take: it waits for the owner, and then reads by itself.
LIMIT_SECONDS = 120.0
TURNS = int(
    os.environ.get("RINGLOAD_TEST_RAY_TURNS") or (50 if os.environ.get("RINGLOAD_TEST_LONG") else 6)
)


@pytest.fixture(scope="module")
def nodes():
    need("RINGLOAD_TEST_EXAMPLES", "ray", "numpy")
    from ray_support import cluster

    with cluster(1, 100 * MIB) as started:
        yield started


@pytest.fixture
def weights(tmp_path, nodes):
    from ray_support import Store, digest

    import ringload.ray

    torch.manual_seed(0)
    tensors = {f"layer.{n:02}": random_tensor(torch.bfloat16, 512, 1024) for n in range(COUNT)}
    save_file(tensors, tmp_path / "model.safetensors")
    store = Store(tmp_path)
    store.rate = 16.0  # a second
    yield store.url("model.safetensors"), digest(tensors)
    ringload.ray.release()
    store.close()


@pytest.mark.parametrize("seed", range(TURNS))
def test_whatever_ends_no_load_hangs_or_has_wrong_bytes(seed, nodes, weights):
    import ray
    from ray_support import replica

    location, expected = weights
    chosen = random.Random(seed)
    node = nodes.add_node(
        num_cpus=4, object_store_memory=100 * MIB, resources={f"node{seed + 1}": 100}
    )
    # The owner is on the node of the load that comes first.
    numbers = [0, seed + 1, 0, seed + 1]
    if seed % 2:
        numbers.reverse()
    replicas = [replica(number) for number in numbers]
    ray.get([one.pid.remote() for one in replicas], timeout=LIMIT_SECONDS)
    loads = [one.load_and_digest.remote(location, OPTIONS) for one in replicas]
    time.sleep(chosen.random() * 1.5)
    victim = ("replica", "owner", "node")[seed % 3]
    ended = set()
    if victim == "replica":
        which = chosen.randrange(4)
        ray.kill(replicas[which])
        ended = {which}
    elif victim == "owner":
        for owner in ringload.ray.status():
            os.kill(owner["pid"], signal.SIGKILL)
    else:
        nodes.remove_node(node, allow_graceful=False)
        ended = {which for which, number in enumerate(numbers) if number == seed + 1}
    began = time.monotonic()
    for which, load in enumerate(loads):
        left = max(began + LIMIT_SECONDS - time.monotonic(), 1)
        try:
            found, _ = ray.get(load, timeout=left)
            assert found == expected, f"{victim}, replica {which}: wrong bytes"
        except ray.exceptions.GetTimeoutError:
            pytest.fail(f"{victim}, replica {which}: hangs")
        except ray.exceptions.RayActorError:
            assert which in ended, f"{victim}: replica {which} has ended too"
    for one in replicas:
        ray.kill(one)
    if victim != "node":
        nodes.remove_node(node, allow_graceful=True)


def test_an_owner_whose_node_is_lost_starts_on_another_and_the_load_goes_on(nodes, weights):
    import ray
    from ray_support import owner_count, replica, the_owner

    location, expected = weights
    node = nodes.add_node(num_cpus=4, object_store_memory=100 * MIB, resources={"lost": 100})
    (lost,) = [one["NodeID"] for one in ray.nodes() if "lost" in one["Resources"]]
    one = replica(0)
    ray.get(one.pid.remote(), timeout=LIMIT_SECONDS)
    # Ray takes some seconds to notice that a node is gone.
    options = {**OPTIONS, "owner_node": lost, "timeout_seconds": 90.0}
    load = one.load_and_digest.remote(location, options)
    until(lambda: the_owner()["read_bytes"] > 0, LIMIT_SECONDS)
    assert the_owner()["node"] == lost
    nodes.remove_node(node, allow_graceful=False)
    found, report = ray.get(load, timeout=LIMIT_SECONDS)
    assert found == expected
    assert (report["store_bytes"], report["reason"]) == (0, None)
    assert the_owner()["node"] != lost
    # The same arguments still serve when the owner has to be created anew.
    ringload.ray.release()
    until(lambda: owner_count() == 0, LIMIT_SECONDS)
    again = one.load_and_digest.remote(location, options)
    assert ray.get(again, timeout=LIMIT_SECONDS)[0] == expected
    assert the_owner()["node"] != lost
    ray.kill(one)
