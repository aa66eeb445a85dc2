"""Listing and downloading from a real S3 server, and directories that many processes share."""

from __future__ import annotations

import multiprocessing as mp
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import models
import pytest
import stores
from ranks import CONTEXT
from stores import BUCKET, Moto

import ringload
from ringload.runai_model_streamer import (
    ObjectStorageModel,
    S3Credentials,
    SafetensorsStreamer,
    list_safetensors,
    pull_files,
)

MODEL = models.of_all_types()
MODEL_URI = f"s3://{BUCKET}/org/model"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Moto, Path]]:
    files = tmp_path_factory.mktemp("files")
    below = files / "org" / "model"
    models.shards(below, MODEL, 2)
    (below / "config.json").write_text('{"a": 1}')
    (below / "empty.txt").write_text("")
    (below / "sub" / "deep").mkdir(parents=True)
    (below / "sub" / "deep" / "tokenizer é+1.json").write_bytes(os.urandom(20 << 20))
    models.write(below / "sub" / "other.safetensors", {"x": models.noise(1, (4,))})
    models.write(files / "org" / "model-2" / "no.safetensors", {"y": models.noise(1, (4,))})
    with stores.moto(files, tmp_path_factory.mktemp("moto")) as moto:
        yield moto, files


@pytest.fixture
def moto(served: tuple[Moto, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Moto:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in served[0].environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    return served[0]


def relative(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def test_safetensors_of_a_directory_are_listed(moto: Moto, tmp_path: Path) -> None:
    expected = [f"{MODEL_URI}/model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    assert list_safetensors(MODEL_URI) == expected
    assert list_safetensors(MODEL_URI + "/") == expected
    assert list_safetensors(f"s3://{BUCKET}/none") == []
    with pytest.raises(ringload.Error):
        list_safetensors("s3://no-such-bucket/none")
    paths = models.shards(tmp_path / "lo[c]al", MODEL, 2)
    (tmp_path / "lo[c]al" / "config.json").write_text("{}")
    assert list_safetensors(str(tmp_path / "lo[c]al")) == paths
    assert list_safetensors(tmp_path / "lo[c]al") == paths
    assert list_safetensors("no such directory") == []
    for other in ["consolidated", "adapter_model", "optimizer", "tmp_7"]:
        # vLLM loaded a Mistral model twice, by the names of both formats.
        shutil.copy(paths[0], tmp_path / "lo[c]al" / f"{other}.safetensors")
    assert list_safetensors(tmp_path / "lo[c]al") == paths
    for path in paths:
        os.unlink(path)
    [only] = list_safetensors(tmp_path / "lo[c]al")
    assert only.endswith("/consolidated.safetensors")


def test_listed_files_are_streamed(moto: Moto) -> None:
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(list_safetensors(MODEL_URI))
        got = dict(streamer.get_tensors())
    assert models.digests(got) == models.digests(MODEL)


def test_all_files_are_pulled(moto: Moto, served: tuple[Moto, Path], tmp_path: Path) -> None:
    pull_files(MODEL_URI, str(tmp_path / "to"))
    assert relative(tmp_path / "to") == relative(served[1] / "org" / "model")
    (tmp_path / "to" / "config.json").write_text("old")
    pull_files(MODEL_URI, tmp_path / "to", allow_pattern=["*.json"])
    assert (tmp_path / "to" / "config.json").read_text() == '{"a": 1}'


@pytest.mark.parametrize(
    ("allow", "ignore", "expected"),
    [
        (["*.json"], None, {"config.json", "sub/deep/tokenizer é+1.json"}),
        (["*.json"], ["*token*"], {"config.json"}),
        ("config.json", None, {"config.json"}),
        (["org/model/sub/*"], ["*.json"], {"sub/other.safetensors"}),
        (None, ["*.safetensors", "sub/*"], {"config.json", "empty.txt"}),
        ([], None, set()),
        (["*.nothing"], None, set()),
    ],
)
def test_patterns_select_files(
    moto: Moto,
    tmp_path: Path,
    allow: list[str] | str | None,
    ignore: list[str] | None,
    expected: set[str],
) -> None:
    pull_files(MODEL_URI, str(tmp_path / "to"), allow, ignore)
    assert set(relative(tmp_path / "to")) == expected


def test_credentials_of_any_class_are_taken(
    moto: Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "RUNAI_STREAMER_S3_ENDPOINT"):
        monkeypatch.delenv(name)
    given = {
        "access_key_id": moto.key_id,
        "secret_access_key": moto.secret,
        "session_token": None,
        "region_name": "us-east-1",
        "endpoint": moto.endpoint,
    }
    classes = [S3Credentials, SimpleNamespace]
    try:
        from runai_model_streamer.s3_utils.s3_utils import S3Credentials as Theirs

        classes.append(Theirs)
    except ImportError:
        pass
    for kind in classes:
        credentials = kind(**given)
        files = list_safetensors(MODEL_URI, credentials)
        assert len(files) == 2
        with SafetensorsStreamer() as streamer:
            streamer.stream_files(files, credentials)
            assert models.digests(dict(streamer.get_tensors())) == models.digests(MODEL)
        pull_files(MODEL_URI, tmp_path / kind.__module__, ["*.txt"], None, credentials)
        assert set(relative(tmp_path / kind.__module__)) == {"empty.txt"}
        assert moto.secret not in repr(S3Credentials(**given))

    with pytest.raises(ringload.PermissionDeniedError):
        denied = dict(zip(("access_key_id", "secret_access_key"), moto.denied))
        list_safetensors(MODEL_URI, S3Credentials(**{**given, **denied}))
    with pytest.raises(ValueError, match="no secret_access_key"):
        list_safetensors(MODEL_URI, S3Credentials(access_key_id="x"))


def test_files_outside_of_the_directory_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from ringload.runai_model_streamer import files

    fake = SimpleNamespace(list=lambda *_a, **_o: [("s3://b/m/../../x", 1)], download=None)
    monkeypatch.setattr(files, "_loader", lambda *_: fake)
    with pytest.raises(ValueError, match="outside"):
        pull_files("s3://b/m", tmp_path)
    with pytest.raises(NotImplementedError):
        pull_files(str(tmp_path), "to")


def test_a_failed_download_leaves_no_files(moto: Moto, tmp_path: Path) -> None:
    loader = ringload.Loader()
    with pytest.raises(ringload.NotFoundError):
        loader.download(
            tmp_path / "to",
            [(f"{MODEL_URI}/config.json", "a"), (f"{MODEL_URI}/none.json", "b")],
        )
    assert relative(tmp_path / "to") == {}


def fill(directory: str, environment: dict[str, str], downloads: mp.Queue[int]) -> None:
    os.environ.update(environment)
    with ObjectStorageModel(MODEL_URI, directory) as model:
        assert model.dir == directory
        downloads.put(0 if model._is_complete else 1)
        model.pull_files(ignore_pattern=["*.safetensors"])
        model.pull_files(allow_pattern=["*1-of*.safetensors"])
    assert len(relative(Path(directory))) == 5


def test_many_processes_fill_a_directory_once(moto: Moto, tmp_path: Path) -> None:
    downloads: mp.Queue[int] = CONTEXT.Queue()
    target = str(tmp_path / "model")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "left over").write_text("of an interrupted download")
    arguments = (target, moto.environment(tmp_path), downloads)
    processes = [CONTEXT.Process(target=fill, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert sorted(downloads.get(timeout=300) for _ in processes) == [0, 0, 1]


def test_an_attempt_that_fails_is_made_again(moto: Moto, tmp_path: Path) -> None:
    target = str(tmp_path / "model")

    def pull(pattern: str) -> None:
        with ObjectStorageModel(MODEL_URI + "/", target + "/") as model:
            model.pull_files([pattern])

    with pytest.raises(KeyError), ObjectStorageModel(MODEL_URI, target) as model:
        model.pull_files(["*.txt"])
        raise KeyError("mine")
    with pytest.raises(ringload.NotFoundError, match="check the path"):
        pull("*.nothing")
    pull("config.json")
    assert set(relative(tmp_path / "model")) == {"config.json", ".runai_complete"}
    pull("*.txt")  # the directory is complete
    assert set(relative(tmp_path / "model")) == {"config.json", ".runai_complete"}
    abandoned = ObjectStorageModel(MODEL_URI, target)
    del abandoned
    with pytest.raises(ValueError, match="not in an object store"):
        ObjectStorageModel("/local", target)
