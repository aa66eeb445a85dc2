"""The native module: loads, and tensors that frameworks import through DLPack."""

from collections.abc import Iterator, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, TypedDict, final

__version__: str

class _TensorInfo(TypedDict):
    """The header entry of a tensor."""

    dtype: str
    """The name of the element type in safetensors, such as "BF16"."""
    shape: tuple[int, ...]
    nbytes: int
    shard: str
    data_offset: int
    """The location of the file that contains the tensor."""

@final
class Tensor:
    """A loaded tensor. It owns its memory and stays valid after its load is closed."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str:
        """The name of the element type in safetensors, such as "BF16"."""
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def device(self) -> str:
        """The device of the tensor's memory: "cpu" or "cuda:N"."""
    @property
    def nbytes(self) -> int: ...
    @property
    def address(self) -> int:
        """The address of the first byte, in the memory of the tensor's device."""
    def __dlpack__(
        self,
        *,
        stream: object = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    def array(self, *, as_integers: bool = False) -> Array:
        """Returns the memory for `numpy.asarray`, whose arrays may be written to."""
    def dlpack_as_integers(self, *, max_version: tuple[int, int] | None = None) -> Any:
        """Exports the tensor as `__dlpack__` does, but as integers of the same width or bytes."""

@final
class Array:
    """The memory of a tensor as numpy imports it; arrays of it keep it alive."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...

@final
class Progress:
    """Shows the progress of loads while they run, from any thread."""

    def __new__(cls) -> Progress: ...
    @property
    def done_bytes(self) -> int:
        """The bytes that have arrived."""
    @property
    def total_bytes(self) -> int:
        """The bytes of all tensors; 0 until the headers were read."""
    @property
    def header_bytes(self) -> int:
        """The bytes of headers that were read."""
    def part(self, total_bytes: int) -> ProgressPart:
        """Adds the bytes of a load that another part of the package makes."""

@final
class ProgressPart:
    """The part of one load in a `Progress`."""

    def deliver(self, nbytes: int) -> None:
        """Counts bytes that have arrived."""

@final
class Stream(Iterator[Tensor]):
    """An iterator over the tensors of a load, in the order in which they complete."""

    def __iter__(self) -> Stream: ...
    def __next__(self) -> Tensor: ...
    def rest(self) -> dict[str, Tensor]:
        """Waits for the end of the load; returns the tensors that were not taken, by name."""
    def __enter__(self) -> Stream: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def close(self) -> None:
        """Stops the load. May be called from any thread; iteration ends in all threads."""
    @property
    def total_bytes(self) -> int: ...
    @property
    def done_bytes(self) -> int: ...
    @property
    def tensor_count(self) -> int: ...
    def summary(self) -> dict[str, Any]: ...
    def metadata(self) -> dict[str, str]: ...
    def has_tensor(self, name: str) -> bool:
        """Whether the checkpoint has a tensor of this name, which the load may leave out."""

@final
class Checkpoint:
    """An open checkpoint whose tensors are read on request."""

    def keys(self) -> list[str]: ...
    def lengths(self) -> list[int]:
        """Returns the lengths of the tensors in bytes, in the order of `keys`."""
    def info(self, name: str) -> _TensorInfo: ...
    def metadata(self) -> dict[str, str]: ...
    def versions(self) -> list[tuple[str, str]]:
        """Returns each shard's location, and a text that distinguishes its bytes from others."""
    def read(
        self,
        name: str,
        slices: Sequence[tuple[int, int, int]] | None = None,
        *,
        at_once: bool = False,
    ) -> Tensor:
        """Reads a tensor, or the slice given by (start, count, step) for each dimension."""
    def keep_open(self) -> None:
        """Keeps the local files open, so that they can be renamed and removed."""
    def map(self) -> Mapped:
        """Maps the files, which have to be local."""
    def stream(
        self,
        *,
        names: Sequence[str] | None = None,
        memory_limit: int | str | None = None,
        slices: Sequence[tuple[Any, ...]] | None = None,
        keep_all: bool = False,
        progress: Progress | None = None,
    ) -> Stream: ...
    def planned(self) -> list[tuple[str, list[int], int, int]]: ...
    def runs(
        self,
    ) -> list[tuple[str, str, list[int], tuple[int, int, list[tuple[int, int]]]]]:
        """Returns name, type, shape and runs (first, length, repeats) of each part of a load."""
    def ranges(self, ranges: Sequence[tuple[str, int, int]]) -> Checkpoint:
        """Returns a checkpoint whose tensors are ranges (name, start, end) of bytes of tensors."""
    def __len__(self) -> int: ...

@final
class Mapped:
    """A checkpoint whose files are mapped. A forked child can use it, too."""

    def keys(self) -> list[str]: ...
    def info(self, name: str) -> _TensorInfo: ...
    def metadata(self) -> dict[str, str]: ...
    def tensor(self, name: str, *, is_used: bool = True) -> Tensor:
        """Returns a tensor, which was read if other threads read ahead of the program."""
    def expect(self, name: str, start: int, count: int) -> None:
        """Lets other threads read bytes of a tensor, and what follows them; waits for the bytes."""
    def prefetch(self, names: Sequence[str] | None = None) -> None:
        """Lets other threads read tensors, in this order; all of them for None."""
    def wait(self) -> None:
        """Waits until other threads have read everything that was requested."""
    def check_unchanged(self) -> None: ...

@final
class Loader:
    """Options of loads, and the calls that start loads."""

    def __new__(
        cls,
        *,
        device: str | dict[str, str] | None = None,
        memory_limit: int | str | None = None,
        keep: bool = False,
        runai_env: bool = False,
        dtype: str | Any = None,
        allocation: str | None = None,
        tensors: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        slices: Sequence[tuple[Any, ...]] | None = None,
        variant: str | None = None,
        all_files: bool = False,
        strict: bool = False,
        order: str | None = None,
        read_path: str | None = None,
        immutable: bool = False,
        read_size: int | str | None = None,
        engines: int | None = None,
        hold_timeout_seconds: float | None = None,
        verify: bool = False,
        manifest: str | PathLike[str] | None = None,
        check_finite: bool = False,
        region: str | None = None,
        endpoint: str | None = None,
        headers: dict[str, str] | None = None,
        connections: int | None = None,
        pin: str | None = None,
        unpinned: bool | None = None,
        s3_credentials: tuple[str, str, str | None] | None = None,
        cache_dir: str | PathLike[str] | None = None,
        cache_size: int | str | None = None,
        cache_validate: str | None = None,
        cache_shared: bool | None = None,
    ) -> Loader: ...
    def stream(
        self,
        locations: Sequence[str],
        *,
        keep_all: bool = False,
        progress: Progress | None = None,
    ) -> Stream: ...
    def open(self, locations: Sequence[str], *, progress: Progress | None = None) -> Checkpoint: ...
    def in_memory(
        self,
        location: str,
        tensors: Sequence[tuple[str, str, Sequence[int], int]],
        arrays: Sequence[Any] | None = None,
    ) -> Checkpoint:
        """Returns a checkpoint of tensors in memory: name, type, shape and offset of each.

        Nobody may write to the arrays of bytes as long as the checkpoint and its streams live.
        """
    def list(self, location: str, *, recursive: bool = False) -> list[tuple[str, int]]:
        """Lists the files in a directory, each with its length in bytes."""
    def download(
        self, directory: str | PathLike[str], files: Sequence[tuple[str, str | PathLike[str]]]
    ) -> int:
        """Downloads each location to its file name in `directory`; returns the total in bytes."""
    def flush(self, seconds: float | None = None) -> bool: ...
    def cache_warning(self) -> str | None: ...

def environment_memory_limit() -> int | str | None:
    """Returns the environment's memory limit: bytes, "min", "none"; None if it sets no limit."""

def parsed_memory_limit(text: str) -> int | str:
    """Returns the memory limit in a text: bytes, "min" or "none"."""

def stop_loads() -> None:
    """Stops all loads of the process. The package registers this with `atexit`."""
