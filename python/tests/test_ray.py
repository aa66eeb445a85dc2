"""`ringload.ray` on a cluster of two nodes on this machine."""

from __future__ import annotations

import time
import warnings

import pytest
import torch
from conftest import random_tensor, same, until
from needs import need
from safetensors.torch import save_file

import ringload

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own

MIB = 1 << 20
COUNT = 24
#: A chunk has two tensors of a MiB. On a busy machine an owner may take long to answer.
OPTIONS = {"chunk_size": 2 * MIB, "timeout_seconds": 120.0}
#: What a header and the validation of an object may cost, in addition to the tensors.
OPENING = 80 << 10
#: What the store sends for one load. A range whose answer is late is requested again, which a busy
#: machine makes happen now and then.
SENT_ONCE = 1.02 * COUNT * MIB + OPENING + 4 * MIB


@pytest.fixture(scope="module")
def nodes():
    need("RINGLOAD_TEST_EXAMPLES", "ray", "numpy")
    from ray_support import cluster

    with cluster(2, 200 * MIB) as started:
        yield started


@pytest.fixture
def store(tmp_path):
    from ray_support import Store

    started = Store(tmp_path)
    yield started
    started.close()


@pytest.fixture
def weights(tmp_path, store, nodes):
    """The location of a checkpoint of 24 MiB, and its tensors."""
    import ringload.ray

    tensors = write(tmp_path)
    yield store.url("model.safetensors"), tensors
    ringload.ray.release()


def write(folder, seed=0):
    torch.manual_seed(seed)
    tensors = {
        f"layer.{n:02}.weight": random_tensor(torch.bfloat16, 512, 1024) for n in range(COUNT)
    }
    tensors |= {"norm": random_tensor(torch.float32, 17), "empty": torch.zeros(0, 3)}
    save_file(tensors, folder / "new", metadata={"lm.weight": "layer.00.weight"})
    (folder / "new").rename(folder / "model.safetensors")
    return tensors


def get(*refs, seconds=180):
    import ray

    found = ray.get(list(refs), timeout=seconds)
    return found[0] if len(refs) == 1 else found


def replica(node):
    from ray_support import replica

    return replica(node)


def the_owner():
    from ray_support import the_owner

    return the_owner()


def owner_count():
    from ray_support import owner_count

    return owner_count()


def end(*actors):
    import ray

    for actor in actors:
        ray.kill(actor)


class TestLoad:
    def test_tensors_are_those_of_ringload_and_views_of_the_store(self, weights):
        location, tensors = weights
        expected = ringload.load_file(location)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loaded = ringload.ray.load_file(location, **OPTIONS)
        assert loaded.keys() == expected.keys() == {*tensors, "lm.weight"}
        assert all(same(loaded[name], tensor) for name, tensor in expected.items())
        assert loaded["lm.weight"] is loaded["layer.00.weight"]
        assert all(tensor.is_shared_memory for tensor in loaded.values())
        assert (
            loaded["norm"].data_ptr() == ringload.ray.load(location, **OPTIONS)["norm"].data_ptr()
        )
        report = loaded.report
        assert report.node_bytes + report.other_node_bytes >= COUNT * MIB
        assert report.read_for_this_load_bytes >= COUNT * MIB
        assert (report.store_bytes, report.reason) == (0, None)

    def test_copies_may_be_written_to(self, weights):
        location, tensors = weights
        copied = ringload.ray.load(location, writable=True, **OPTIONS)
        copied["norm"].zero_()
        again = ringload.ray.load(location, **OPTIONS)
        assert same(again["norm"], tensors["norm"])

    def test_streams_names_filters_and_numpy(self, weights):
        import numpy

        location, tensors = weights
        streamed = dict(ringload.ray.stream(location, **OPTIONS))
        assert streamed.keys() == tensors.keys()
        named = ringload.ray.load(location, names=["norm", "layer.03.weight"], **OPTIONS)
        assert {"norm", "layer.03.weight"} == set(named)
        short = ringload.ray.load(
            location, filter=lambda name, dtype, shape: dtype == "F32", **OPTIONS
        )
        assert set(short) == {"norm", "empty"}
        norm = ringload.ray.load(location, names=["norm"], framework="numpy", **OPTIONS)["norm"]
        assert not norm.flags.writeable
        assert norm.tobytes() == tensors["norm"].numpy().tobytes()
        assert isinstance(norm, numpy.ndarray)
        with pytest.raises(ringload.NotFoundError, match="nothing"):
            ringload.ray.load(location, names=["nothing"], **OPTIONS)

    def test_parts_and_casts_are_those_of_ringload(self, store, weights):
        location, _ = weights
        part = {
            "tensors": ["layer.0*", "norm"],
            "slices": {"layer.*": 1, "norm": slice(3, 9)},
            "dtype": "f16",
            "rank": 1,
            "world": 2,
            "device": {"norm": "cpu"},
        }
        expected = ringload.load(location, **part)
        loaded = ringload.ray.load(location, **part, **OPTIONS)
        assert loaded.keys() == expected.keys()
        assert all(same(loaded[name], tensor) for name, tensor in expected.items())
        assert not any(hasattr(tensor, "is_shared_memory") for tensor in loaded.values())
        assert (loaded.report.store_bytes, loaded.report.reason) == (0, None)
        with pytest.raises(ringload.NotFoundError, match="elsewhere"):
            ringload.ray.load(location, slices={"elsewhere": slice(1)}, **OPTIONS)
        with pytest.raises(ringload.NotFiniteError, match="layer"):  # they are random bytes
            ringload.ray.load(location, check_finite=True, **OPTIONS)

    @pytest.mark.parametrize("writable", [False, True])
    def test_progress_counts_what_has_arrived(self, weights, writable):
        location, tensors = weights
        total = sum(tensor.nbytes for tensor in tensors.values())
        progress, seen = ringload.Progress(), [0]
        for _, tensor in ringload.ray.stream(
            location, progress=progress, writable=writable, **OPTIONS
        ):
            seen.append(progress.done_bytes)
            assert seen[-1] - seen[-2] == tensor.nbytes
            assert progress.total_bytes == total
        assert seen[-1] == total

    def test_local_files_work_too(self, tmp_path, weights):
        loaded = ringload.ray.load(tmp_path / "model.safetensors", **OPTIONS)
        assert all(same(loaded[name], tensor) for name, tensor in weights[1].items())

    def test_what_cannot_be_opened_is_the_error_of_ringload(self, store, weights):
        with pytest.raises(ringload.NotFoundError, match=r"none\.safetensors.*node"):
            ringload.ray.load(store.url("none.safetensors"), **OPTIONS)

    def test_a_closed_stream_leaves_its_tensors_and_no_load(self, weights):
        location, tensors = weights
        stream = ringload.ray.stream(location, **OPTIONS)
        name, tensor = next(stream)
        stream.close()
        until(lambda: the_owner()["loads"] == 0, 120)
        assert same(tensor, tensors[name])


class TestReplicas:
    def test_the_store_sends_once_to_four_replicas_and_nothing_to_a_fifth(self, store, weights):
        from ray_support import digest

        location, tensors = weights
        store.rate = 20.0
        replicas = [replica(node) for node in (0, 0, 1, 1)]
        get(*[one.pid.remote() for one in replicas])
        answers = get(*[one.load_and_digest.remote(location, OPTIONS) for one in replicas])
        expected = digest({**tensors, "lm.weight": tensors["layer.00.weight"]})
        assert {found for found, _ in answers} == {expected}
        assert store.sent_bytes <= SENT_ONCE
        assert [report["store_bytes"] for _, report in answers] == [0] * 4
        owner = the_owner()
        assert owner["read_bytes"] == owner["resident_bytes"] >= COUNT * MIB
        assert owner["processes"] == 4
        sent = store.sent_bytes
        store.rate = None
        late = replica(1)
        found, report = get(late.load_and_digest.remote(location, OPTIONS))
        assert found == expected
        assert store.sent_bytes - sent <= OPENING
        assert report["read_for_this_load_bytes"] == 0
        end(late, *replicas)

    def test_a_replica_that_starts_again_finds_everything_in_memory(self, store, weights):
        location, _ = weights
        first = replica(1)
        before, _ = get(first.load_and_digest.remote(location, OPTIONS))
        end(first)
        sent = store.sent_bytes
        second = replica(1)
        after, report = get(second.load_and_digest.remote(location, OPTIONS))
        assert after == before
        assert store.sent_bytes - sent <= OPENING
        assert report["node_bytes"] + report["other_node_bytes"] >= COUNT * MIB
        end(second)


class TestReplacedObjects:
    def test_new_loads_get_the_new_object_and_old_tensors_stay(self, tmp_path, weights):
        location, tensors = weights
        old = ringload.ray.load(location, **OPTIONS)
        changed = write(tmp_path, seed=1)
        new = ringload.ray.load(location, **OPTIONS)
        assert all(same(new[name], tensor) for name, tensor in changed.items())
        assert all(same(old[name], tensor) for name, tensor in tensors.items())
        assert the_owner()["versions"] == 2

    # An owner that starts again opens what the store has then. A load that has begun with the
    # object before must not take chunks of it.
    def test_a_load_never_has_tensors_of_two_versions(self, tmp_path, store, weights):
        location, tensors = weights
        store.rate = 10.0
        stream = ringload.ray.stream(location, **OPTIONS)
        name, tensor = next(stream)
        assert same(tensor, tensors[name])
        store.rate = None
        write(tmp_path, seed=1)
        kill_owner()
        got = {}
        with pytest.raises(ringload.ChangedError, match="load it again"):
            got.update(stream)
        assert all(same(found, tensors[name]) for name, found in got.items())


def kill_owner():
    """Kills the process of the only owner."""
    import os
    import signal

    os.kill(the_owner()["pid"], signal.SIGKILL)


class TestOwnerNode:
    def test_the_owner_starts_on_the_node_that_is_named(self, weights):
        location, tensors = weights
        other = node_with("node1")
        loaded = ringload.ray.load(location, owner_node=other, **OPTIONS)
        assert all(same(loaded[name], tensor) for name, tensor in tensors.items())
        assert the_owner()["node"] == other
        assert loaded.report.other_node_bytes >= COUNT * MIB

    def test_the_owner_starts_on_the_node_of_the_load_each_time(self, weights):
        one = replica(1)
        for _ in range(5):
            get(one.load.remote(weights[0], OPTIONS))
            assert the_owner()["node"] == node_with("node1")
            ringload.ray.release()
            until(lambda: owner_count() == 0, 120)
        end(one)

    def test_a_node_that_is_not_there_is_an_error(self, weights):
        with pytest.raises(ringload.InvalidInputError, match=r"owner_node.*ray\.nodes"):
            ringload.ray.load(weights[0], owner_node="none", **OPTIONS)


def node_with(resource):
    """The NodeID of the node that has a resource."""
    import ray

    (found,) = [n["NodeID"] for n in ray.nodes() if n["Alive"] and resource in n["Resources"]]
    return found


class TestBounds:
    def test_a_checkpoint_beyond_the_budget_is_read_by_each_and_warned_of(self, store, weights):
        location, tensors = weights
        with pytest.warns(RuntimeWarning, match=r"owner may use.*object_store_memory.*writable"):
            loaded = ringload.ray.load(location, budget="8MiB", **OPTIONS)
        assert all(same(loaded[name], tensor) for name, tensor in tensors.items())
        assert loaded.report.store_bytes >= COUNT * MIB
        assert the_owner()["resident_bytes"] == 0

    def test_copies_pass_through_a_budget_that_is_smaller(self, store, weights):
        location, tensors = weights
        loaded = ringload.ray.load(location, budget="8MiB", writable=True, **OPTIONS)
        assert all(same(loaded[name], tensor) for name, tensor in tensors.items())
        assert loaded.report.store_bytes == 0
        owner = the_owner()
        assert 0 < owner["resident_bytes"] <= 8 * MIB
        assert store.sent_bytes <= SENT_ONCE

    def test_what_is_mapped_stays_when_others_need_memory(self, store, weights):
        location, tensors = weights
        mapped = ringload.ray.load(
            location, names=["layer.02.weight", "layer.03.weight"], budget="8MiB", **OPTIONS
        )
        for number in range(4, COUNT, 2):
            name = f"layer.{number:02}.weight"
            other = ringload.ray.load(location, names=[name], **OPTIONS)
            assert same(other[name], tensors[name])
        assert all(same(tensor, tensors[name]) for name, tensor in mapped.items())
        sent = store.sent_bytes
        again = ringload.ray.load(location, names=list(mapped), **OPTIONS)
        assert store.sent_bytes - sent <= OPENING, "it was given up"
        assert all(again[name].data_ptr() == mapped[name].data_ptr() for name in mapped)

    def test_a_budget_full_of_mapped_chunks_is_no_hang(self, weights):
        location, tensors = weights
        held = []
        with pytest.warns(RuntimeWarning, match="in use; raise budget"):
            for name, tensor in ringload.ray.stream(location, budget="8MiB", **OPTIONS):
                held.append((name, tensor))
        assert sorted(name for name, _ in held) == sorted(tensors)
        assert all(same(tensor, tensors[name]) for name, tensor in held)

    def test_an_owner_that_nobody_uses_ends(self, weights):
        location, _ = weights
        loaded = ringload.ray.load(location, keep_seconds=1, **OPTIONS)
        time.sleep(8)
        assert owner_count() == 1, "its chunks are mapped"
        del loaded
        until(lambda: owner_count() == 0, 120)

    def test_release_ends_an_owner_and_mapped_tensors_stay(self, weights):
        location, tensors = weights
        loaded = ringload.ray.load(location, **OPTIONS)
        assert ringload.ray.release("s3://other/model") == 0
        assert ringload.ray.release(location) == 1
        until(lambda: owner_count() == 0, 120)
        assert all(same(loaded[name], tensor) for name, tensor in tensors.items())
