"""The native module: loads, and tensors that frameworks take by DLPack."""

from collections.abc import Iterator, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Optional, TypedDict, Union, final

__version__: str

class TensorInfo(TypedDict):
    """What a header says of a tensor."""

    dtype: str
    """As safetensors calls it: "BF16"."""
    shape: tuple[int, ...]
    nbytes: int
    shard: str
    """The file that it is in."""

@final
class Tensor:
    """A loaded tensor. It keeps its memory, whatever becomes of the load that it is from."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str:
        """As safetensors calls it: "BF16"."""
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def device(self) -> str:
        """Where it is: "cpu" or "cuda:N"."""
    @property
    def nbytes(self) -> int: ...
    @property
    def address(self) -> int:
        """Of its first byte, in its device's address space."""
    def __dlpack__(
        self,
        *,
        stream: object = None,
        max_version: Optional[tuple[int, int]] = None,
        dl_device: Optional[tuple[int, int]] = None,
        copy: Optional[bool] = None,
    ) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    def plain_dlpack(self) -> Any:
        """A capsule of DLPack before 1.0, of elements that every framework knows."""

@final
class Stream(Iterator[Tensor]):
    """The tensors of a load, as they complete."""

    def __iter__(self) -> Stream: ...
    def __next__(self) -> Tensor: ...
    def __enter__(self) -> Stream: ...
    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None: ...
    def close(self) -> None:
        """Stops the load, from any thread; whoever waits for a tensor gets none."""
    @property
    def total_bytes(self) -> int: ...
    @property
    def done_bytes(self) -> int: ...
    @property
    def tensor_count(self) -> int: ...
    def summary(self) -> dict[str, Any]: ...

@final
class Checkpoint:
    """An open checkpoint: its headers, and its tensors one by one."""

    def keys(self) -> list[str]: ...
    def info(self, name: str) -> TensorInfo: ...
    def metadata(self) -> dict[str, str]: ...
    def read(
        self, name: str, slices: Optional[Sequence[tuple[int, int, int]]] = None
    ) -> Tensor:
        """A tensor, or the part of it that (start, count, step) of each dimension say."""
    def stream(self) -> Stream: ...
    def __len__(self) -> int: ...

@final
class Loader:
    """Options of loads, and what starts them."""

    def __new__(
        cls,
        *,
        device: Union[str, dict[str, str], None] = None,
        memory_limit: Union[int, str, None] = None,
        dtype: Optional[str] = None,
        read_path: Optional[str] = None,
        engines: Optional[int] = None,
        order: str = "completion",
        tensors: Optional[Sequence[str]] = None,
        names: Optional[Sequence[str]] = None,
        region: Optional[str] = None,
        endpoint: Optional[str] = None,
        headers: Optional[dict[str, str]] = None,
        connections: Optional[int] = None,
        verify: bool = False,
        s3_credentials: Optional[tuple[str, str, Optional[str]]] = None,
        cache_dir: Union[str, PathLike[str], None] = None,
        cache_size: Union[int, str, None] = None,
        cache_validate: Optional[str] = None,
    ) -> Loader: ...
    def stream(self, locations: Sequence[str]) -> Stream: ...
    def open(self, locations: Sequence[str]) -> Checkpoint: ...
    def flush(self, seconds: Optional[float] = None) -> bool: ...
    def cache_trouble(self) -> Optional[str]: ...

def end() -> None:
    """Stops all loads, as the interpreter ends. For `atexit`."""
