"""The parts of `ringload.ray` that need no cluster: plans, views, what stays, arguments."""

from __future__ import annotations

import os
import warnings
from types import SimpleNamespace

import pytest
import torch
from conftest import TORCH_TYPES, random_tensor, same
from needs import need
from safetensors.torch import save_file

import ringload

NOW = 1000.0


@pytest.fixture(autouse=True)
def ray_is_installed():
    need("RINGLOAD_TEST_EXAMPLES", "ray", "numpy")


@pytest.fixture
def many(tmp_path):
    """A checkpoint with tensors of all types, short, long and empty ones."""
    tensors = {}
    for dtype in TORCH_TYPES:
        # safetensors writes scalars of four bits as if they were cut.
        is_packed = dtype is torch.float4_e2m1fn_x2
        for shape in ((2,) if is_packed else (), (3,), (5, 2), (0, 4), (300, 400)):
            tensors[f"{dtype}.{len(tensors)}"] = random_tensor(dtype, *shape)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"a": "b"})
    return tmp_path / "model.safetensors", tensors


def plan(path, chunk_bytes=256 << 10):
    from ringload.ray.plan import plan_of
    from ringload.ray.request import identity_of

    opened = ringload.Loader().open([str(path)])
    return opened, plan_of(opened, identity_of(opened), chunk_bytes)


class TestPlan:
    def test_chunks_have_all_tensors_once_and_keep_to_their_length(self, many):
        path, tensors = many
        _, found = plan(path)
        names = [e.name for n in range(found.chunk_count) for e in found.of_chunk(n)]
        assert sorted(names) == sorted(tensors)
        assert found.chunk_count > 10
        for number in range(found.chunk_count):
            entries = found.of_chunk(number)
            assert entries
            assert len(entries) == 1 or sum(e.nbytes for e in entries) <= 256 << 10

    def test_it_survives_the_way_to_another_process(self, many):
        from ringload.ray.plan import of_plain

        _, found = plan(many[0])
        assert of_plain(found.plain()) == found

    def test_a_replaced_file_has_another_identity_and_a_copy_of_a_name_the_same(self, tmp_path):
        path = tmp_path / "a.safetensors"
        save_file({"a": torch.zeros(4)}, path)
        before = plan(path)[1].identity
        assert plan(path)[1].identity == before
        other = tmp_path / "b.safetensors"
        save_file({"a": torch.ones(4)}, other)
        # Machines know a file by its length and its modification time; both files could be written
        # within one tick of the clock.
        later = path.stat().st_mtime_ns + 1
        os.utime(other, ns=(later, later))
        other.rename(path)
        assert plan(path)[1].identity != before

    def chunks(self, path, monkeypatch):
        """The plan of a checkpoint, and its chunks as Ray gives them."""
        import numpy
        import ray

        from ringload.ray.fill import fill

        opened, found = plan(path)
        # Ray's arrays may not be written to, and begin at multiples of 64 bytes.
        monkeypatch.setattr(ray, "put", lambda arrays: [frozen(numpy, one) for one in arrays])
        room, chunks = [], {}
        fill(opened, found, range(found.chunk_count), room.append, chunks.__setitem__)
        assert sorted(chunks) == list(range(found.chunk_count))
        assert sum(room) == sum(map(found.chunk_bytes, range(found.chunk_count)))
        return found, chunks

    def test_views_of_chunks_are_what_was_written(self, many, monkeypatch):
        from ringload.ray.views import MARK, maker, views_of

        path, tensors = many
        found, chunks = self.chunks(path, monkeypatch)
        make = maker("torch")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            got = {
                entry.name: tensor
                for number, arrays in chunks.items()
                for entry, tensor in zip(
                    found.of_chunk(number),
                    views_of(found.of_chunk(number), arrays, None, make, read_only=False),
                )
            }
        assert got.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert same(got[name], tensor), name
            assert hasattr(got[name], MARK)
            assert got[name].data_ptr() % max(tensor.element_size(), 1) == 0

    def test_chunks_are_loaded_as_files_are(self, many, monkeypatch):
        from ringload._frameworks import converter
        from ringload.ray.plan import described

        path, tensors = many
        found, chunks = self.chunks(path, monkeypatch)
        loader, convert = ringload.Loader(memory_limit="none"), converter("torch")
        got = {}
        for number, arrays in chunks.items():
            placed = described(found.of_chunk(number), [array.nbytes for array in arrays])
            with loader.in_memory(str(path), placed, arrays).stream() as stream:
                got |= {tensor.name: convert(tensor) for tensor in stream}
        assert got.keys() == tensors.keys()
        assert all(same(got[name], tensor) for name, tensor in tensors.items())

    def test_arrays_of_numpy_stay_read_only(self, many):
        import numpy

        from ringload.ray.views import maker, views_of

        _, found = plan(many[0])
        entries = [e for e in found.entries if e.dtype == "F32" and e.nbytes > 64 << 10]
        memory = frozen(numpy, numpy.zeros(entries[0].nbytes, dtype=numpy.uint8))
        make = maker("numpy")
        (array,) = views_of(entries[:1], [memory], None, make, read_only=True)
        assert (array.dtype, array.shape) == (numpy.float32, (300, 400))
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1.0


def frozen(numpy, array):
    """A copy at an aligned address that may not be written to."""
    memory = numpy.empty(array.nbytes + 64, dtype=numpy.uint8)
    first = -memory.ctypes.data % 64
    copy = memory[first : first + array.nbytes]
    copy[:] = array
    copy.flags.writeable = False
    return copy


class TestInMemory:
    """Tensors of the memory of arrays."""

    def arrays(self):
        import numpy

        return [numpy.arange(24, dtype=numpy.uint8), numpy.arange(24, 64, dtype=numpy.uint8)]

    TENSORS = (("a", "F32", (2, 3), 0), ("b", "I16", (20,), 24))

    def test_slices_casts_and_rules_of_other_tensors(self):
        import numpy

        slices = [("b", [(4, 10, 2)]), ("elsewhere", [(0, 1, 1)])]
        loader = ringload.Loader(dtype="f16", slices=slices)
        arrays = self.arrays()
        with loader.in_memory("/a", self.TENSORS, arrays).stream() as stream:
            got = {tensor.name: numpy.asarray(tensor.array()) for tensor in stream}
        assert got["b"].tobytes() == arrays[1].view(numpy.int16)[4:10:2].tobytes()
        assert got["a"].dtype == numpy.float16
        # What can be planned is checked as if all tensors were there.
        with pytest.raises(ringload.NotFoundError, match="elsewhere"):
            loader.in_memory("/a", self.TENSORS).planned()

    def test_tensors_outlive_the_memory(self):
        import gc
        import weakref

        import numpy

        class Array(numpy.ndarray):
            pass

        arrays = [one.view(Array) for one in self.arrays()]
        gone = [weakref.ref(one) for one in arrays]
        opened = ringload.Loader().in_memory("/a", self.TENSORS, arrays)
        del arrays
        with opened.stream() as stream:
            got = {tensor.name: tensor for tensor in stream}
        assert all(one() is not None for one in gone)
        del opened, stream
        gc.collect()
        assert [one() for one in gone] == [None, None], "the tensors keep the memory"
        assert bytes(numpy.asarray(got["a"].array()).view(numpy.uint8).ravel()) == bytes(range(24))

    @pytest.mark.parametrize(
        ("tensors", "message"),
        [
            ([("a", "F32", (17,), 0)], "does not lie within"),
            ([("a", "F32", (2**62, 4), 0)], "does not lie within"),
            ([("a", "F32", (1,), 2**64 - 2)], "does not lie within"),
            ([("a", "F32", (2,), 0), ("b", "F32", (2,), 4)], "begins before the end"),
            ([("a", "F32", (2,), 0), ("a", "F32", (2,), 8)], "'a'|\"a\""),
            ([("a", "F33", (2,), 0)], "F33"),
        ],
    )
    def test_tensors_that_the_memory_does_not_have(self, tensors, message):
        with pytest.raises(ringload.Error, match=message):
            ringload.Loader().in_memory("/a", tensors, self.arrays())

    def test_only_arrays_of_bytes_are_taken(self):
        import numpy

        for array in (numpy.zeros(64, numpy.int8), numpy.zeros(128, numpy.uint8)[::2]):
            with pytest.raises(TypeError, match="contiguous arrays of uint8"):
                ringload.Loader().in_memory("/a", self.TENSORS, [array])


class TestResident:
    """Chunks of 10 bytes in a budget of 30."""

    @pytest.fixture
    def resident(self):
        from ringload.ray.resident import Resident

        return Resident(30)

    def add(self, resident, identity="one", count=5, now=NOW):
        chunks = SimpleNamespace(
            identity=identity, chunk_count=count, chunk_bytes=lambda _number: 10
        )
        return resident.add(object(), chunks, now)

    def fill(self, version, chunks, now=NOW):
        for number in chunks:
            version.chunks[number].ref = object()
            version.chunks[number].used_at = now + number

    def tell(self, resident, identity="one", load="load", now=NOW, **state):
        from ringload.ray.resident import Load

        told = Load("process", set(state.get("missing", ())), set(state.get("pending", ())), now)
        resident.tell(identity, load, told, state.get("held", ()))

    def test_the_least_recently_used_goes_first(self, resident):
        version = self.add(resident)
        self.fill(version, [0, 1, 2])
        resident.use(version, [0], NOW + 50)
        assert resident.over_budget(10) == 10
        assert resident.give_up(10, wanted=False) == 0
        assert version.absent(range(5)) == [1, 3, 4]

    def test_nothing_in_use_is_given_up(self, resident):
        version = self.add(resident)
        self.fill(version, [0, 1, 2])
        self.tell(resident, pending=[0], held=[1, 2])
        assert resident.give_up(10, wanted=True) == 10
        assert version.absent(range(3)) == []
        resident.leave("one", "load", NOW + 1)
        assert resident.give_up(20, wanted=True) == 10
        assert version.absent(range(3)) == [0]

    def test_a_load_that_has_ended_stays_ended(self, resident):
        # A call that waits for the checkpoint to be opened, or for chunks to be looked at, goes on
        # after the one that ends the load.
        version = self.add(resident)
        resident.leave("one", "load", NOW)
        self.tell(resident, missing=[0], pending=[1])
        assert not resident.is_used()
        assert version.loads == {}
        self.tell(resident, load="other", missing=[0])
        assert list(version.loads) == ["other"]

    def test_what_loads_wait_for_goes_last(self, resident):
        version = self.add(resident)
        self.fill(version, [0, 1])
        self.tell(resident, missing=[0])
        assert resident.give_up(20, wanted=False) == 10
        assert version.absent(range(2)) == [1]
        assert resident.give_up(10, wanted=True) == 0
        assert version.absent(range(2)) == [0, 1]

    def test_a_process_that_says_nothing_more_counts_as_ended(self, resident):
        from ringload.ray.resident import LEASE_SECONDS

        version = self.add(resident)
        self.fill(version, [0])
        self.tell(resident, held=[0], missing=[1])
        resident.expire(NOW + LEASE_SECONDS - 1)
        assert resident.is_used()
        assert resident.in_use("one") == {0}
        resident.tell_held("process", {"one": [0]}, NOW + 30)
        resident.expire(NOW + LEASE_SECONDS + 1)
        assert resident.in_use("one") == {0}, "the process has repeated it"
        assert version.wanted() == set(), "the load has not"
        resident.expire(NOW + 30 + LEASE_SECONDS + 1)
        assert not resident.is_used()

    def test_a_replaced_version_goes_when_nobody_uses_it(self, resident):
        one = self.add(resident)
        self.fill(one, [0])
        self.tell(resident, held=[0])
        self.add(resident, "two", now=NOW + 1)
        assert one.superseded_at == NOW + 1
        assert resident.drop_superseded(NOW + 100, 60) == []
        resident.tell_held("process", {}, NOW + 2)
        resident.leave("one", "load", NOW + 1)
        assert resident.drop_superseded(NOW + 30, 60) == []
        assert resident.drop_superseded(NOW + 61, 60) == ["one"]
        assert list(resident.versions) == ["two"]

    def test_a_version_that_comes_back_is_the_latest_again(self, resident):
        one = self.add(resident)
        two = self.add(resident, "two", now=NOW + 1)
        assert resident.make_latest("one", NOW + 2) is one
        assert (one.superseded_at, two.superseded_at) == (None, NOW + 2)


class TestLink:
    # Two loads create the owner at once, and the one whose call Ray has taken first is killed.
    def test_an_owner_whose_creation_was_lost_is_created_by_another_load(self, monkeypatch):
        import ray

        from ringload.ray import cluster, link, request

        answer = {"incarnation": "one", "node": "node", "plan": ()}
        handle = SimpleNamespace(attach=SimpleNamespace(remote=lambda *_: "call"))
        tries = []

        def create(_settings):
            tries.append(1)
            if len(tries) == 1:
                raise ValueError("Failed to look up actor with name")
            return handle

        actor = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=create))
        monkeypatch.setattr(ray, "remote", lambda _class: actor)
        monkeypatch.setattr(ray, "get", lambda call, timeout: answer)
        monkeypatch.setattr(cluster, "find_owner", lambda _name: None)
        monkeypatch.setattr(cluster, "this_node", lambda: "ab" * 28)
        asked = link.Link(request.request("s3://a/b", "torch", "cpu", {}, writable=False))
        assert asked.ask("attach") is None, "it may be repeated"
        assert asked.ask("attach") == answer
        assert asked.answered is handle


#: Options of `Loader` with which the owner opens the checkpoint, and reads it.
OF_THE_OWNER = {
    "all_files",
    "cache_dir",
    "cache_shared",
    "cache_size",
    "cache_validate",
    "connections",
    "endpoint",
    "engines",
    "headers",
    "immutable",
    "pin",
    "read_path",
    "read_size",
    "region",
    "s3_credentials",
    "strict",
    "unpinned",
    "variant",
}


class TestRequest:
    def request(self, **options):
        from ringload.ray.request import request

        framework, device = options.pop("framework", "torch"), options.pop("device", "cpu")
        return request("s3://a/b", framework, device, options, writable=False)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"verify": True}, "verify does not go with.*check them with ringload.load"),
            ({"manifest": "m"}, "manifest does not go with.*check them with ringload.load"),
            ({"is_distributed": True}, "is_distributed does not go with.*rank and world"),
            ({"keep": True}, "keep does not go with.*leave it out"),
            ({"hold_timeout_seconds": 3}, "hold_timeout_seconds does not go with.*leave it out"),
            ({"runai_env": True}, "runai_env does not go with.*leave it out"),
            ({"memory_limit": "1GiB"}, "memory_limit does not go with.*budget"),
            ({"order": "file"}, "order='file' does not go with.*leave it out"),
            ({"read_path": "mapped"}, "read_path='mapped' does not go with.*use auto"),
            ({"read_path": "gds"}, "read_path='gds' does not go with.*use auto"),
            ({"slices": {"a": 0}}, "give rank= and world="),
            ({"dtype": "f33"}, "dtype"),
            ({"order": "sideways"}, "order"),
            ({"budget": "much"}, "budget"),
            ({"budget": 0}, "budget"),
            ({"timeout_seconds": 0}, "timeout_seconds"),
            ({"keep_seconds": float("nan")}, "keep_seconds"),
            ({"framework": "mxnet"}, "not a framework"),
            ({"framework": "numpy", "device": "cuda:0"}, "use torch"),
            ({"framework": "numpy", "device": {"a": "cuda:0"}}, "use torch"),
            ({"cache_validate": "sometimes"}, "cache_validate"),
        ],
    )
    def test_what_does_not_go_is_refused(self, options, message):
        with pytest.raises(ringload.InvalidInputError, match=message):
            self.request(**options)

    # A further option of `Loader` has to be looked at: it works here, or is refused.
    def test_every_option_of_loads_is_taken_or_refused(self):
        import inspect

        from ringload.ray import request

        known = set(inspect.signature(ringload.Loader).parameters) - {"device"}
        own = {*request._REFUSED, *request._SELECTING, *request._OF_TENSORS, "slices"}
        assert known - own == {*OF_THE_OWNER, "order"}
        assert own - known <= {"is_distributed"}

    @pytest.mark.parametrize(
        ("options", "maps"),
        [
            ({}, True),
            ({"names": ["a"], "tensors": ["b.*"], "filter": lambda *_: True}, True),
            ({"order": "completion", "allocation": "tensor", "device": {"*": "cpu"}}, True),
            ({"framework": "jax"}, False),
            ({"dtype": "bf16"}, False),
            ({"check_finite": True}, False),
            ({"slices": {"a": 0}, "rank": 0, "world": 2}, False),
            ({"tp_plan": {"a": "colwise"}, "rank": 0, "world": 2}, False),
            ({"device": "cuda:0", "memory_limit": "64MiB"}, False),
            ({"device": {"a": "cuda:0"}}, False),
        ],
    )
    def test_what_changes_tensors_copies_them(self, options, maps):
        assert self.request(**options).maps == maps

    def test_loads_of_the_same_have_the_same_owner(self):
        base = self.request(endpoint="http://a").name()
        assert self.request(endpoint="http://a", budget="1GiB", names=["a"]).name() == base
        keys = {"s3_credentials": ("id", "secret", None)}
        assert self.request(endpoint="http://a", **keys).name() == base
        assert self.request(endpoint="http://b").name() != base

    def test_no_secret_is_in_the_name(self):
        name = self.request(headers={"Authorization": "Bearer secret"}).name()
        assert "secret" not in name
