"""`load` and `stream` with `is_distributed`: ranks that load different parts read them once.

    every rank:  opens the files, resolves its slices -> agrees with the others -> the schedule
                 reads its pieces                     -> exchange, in rounds    -> has its parts

What a rank alone keeps, it begins to read to its place (`direct`) as soon as it knows what the
others keep. All else passes through the ring.

Whatever is wrong with the arguments of a rank is an error of all ranks before anything is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import _cache, _slices
from .._errors import InvalidInputError
from .._frameworks import NAMES, converter, device_name
from .._ringload import (
    Checkpoint,
    Loader,
    Progress,
    Stream,
    environment_memory_limit,
    parsed_memory_limit,
)
from .direct import Parts, direct_parts
from .finite import FiniteCheck
from .group import Group, check_member, find_group
from .parts import PartExchange, PartItem
from .runs import Runs
from .schedule import Schedule
from .segment import Address, Neighbours, hosts_of

if TYPE_CHECKING:
    import torch

#: The ring that pieces pass through, without a memory limit, and the least of it.
_RING_BYTES, _RING_BYTES_MIN = 64 << 20, 2 << 20

#: A batch is at most this, on one host and on several, where messages take memory, too; and at most
#: the ring divided by the divisor, as its pieces are held.
_BATCH_BYTES_MAX, _BATCH_DIVISOR = (16 << 20, 8 << 20), 4

#: A batch has at least as many pieces as this.
_PIECES_MIN = 4

#: Options of loads that compare checksums of whole tensors or files, which no rank reads.
_REFUSED = ("verify", "manifest")


class SharedParts:
    """This rank's part in a load, with what `load` asks a native stream for."""

    def __init__(self, group: Group, exchange: PartExchange, checkpoint: Checkpoint) -> None:
        self._group, self._exchange, self._checkpoint = group, exchange, checkpoint

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields the names and tensors that this rank keeps."""
        try:
            yield from self._exchange
        finally:
            self.close()

    def close(self) -> None:
        """Leaves the group. If the load has not finished, it ends on all ranks."""
        self._exchange.leave()
        self._group.close()

    def metadata(self) -> dict[str, str]:
        """Returns the metadata of the checkpoint."""
        return self._checkpoint.metadata()

    def has_tensor(self, name: str) -> bool:
        """Whether the checkpoint has a tensor of this name."""
        return name in self._checkpoint.keys()  # noqa: SIM118 - it is a native method


class _Opened(NamedTuple):
    """What a rank has prepared before it agrees with the others."""

    checkpoint: Checkpoint
    #: What this rank keeps, by the positions of tensors in the checkpoint.
    items: dict[int, PartItem]
    #: The runs of the parts of `items`; None for a whole tensor.
    parts: dict[int, tuple[Any, ...] | None]
    device: torch.device
    ring_bytes: int
    #: Whether what this rank alone keeps is read to its place, beside the ring.
    is_unlimited: bool
    #: Looks at the values of what this rank keeps, if they have to be finite.
    finite: FiniteCheck | None


def take(options: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
    """Takes the argument `is_distributed`.

    Returns:
        Whether the ranks of `group` share the load, and the other options.

    Raises:
        InvalidInputError: no group is given, or this rank is not in it.
        TypeError: it is not a bool.
    """
    rest = dict(options)
    is_distributed = rest.pop("is_distributed", False)
    if not isinstance(is_distributed, bool):
        raise TypeError(f"is_distributed must be a bool, not {type(is_distributed).__name__}")
    if is_distributed:
        if rest.get("group") is None:
            raise InvalidInputError(
                "is_distributed needs the ranks that share the load; give group=, such as "
                "torch.distributed.group.WORLD"
            )
        check_member(rest["group"])
    return is_distributed, rest


def start(
    locations: Sequence[str],
    framework: str,
    device: Any,
    options: dict[str, Any],
    progress: Progress,
) -> SharedParts | None:
    """Starts a load that the ranks of `options["group"]` share. This is a collective call.

    Returns:
        The load; None if there are no other ranks to share it with.

    Raises:
        InvalidInputError: the ranks load different checkpoints, or an argument of a rank is wrong.
        Error: a rank failed to open its files.
    """
    try:
        device_type = _device(device).type
    except InvalidInputError:
        device_type = "cpu"  # `_open` raises the error, which all ranks get
    group = find_group(device_type, options["group"])
    if group is None:
        return None
    # Tensors that are exchanged between GPUs do not pass through host memory.
    neighbours = Neighbours(are_wanted=group.device_type == "cpu")
    try:
        return _start(group, neighbours, locations, framework, device, options, progress)
    except BaseException:
        neighbours.close()
        group.close()
        raise


def _start(  # noqa: PLR0913, PLR0917 - those of `start`, and the ranks
    group: Group,
    neighbours: Neighbours,
    locations: Sequence[str],
    framework: str,
    device: Any,
    options: dict[str, Any],
    progress: Progress,
) -> SharedParts:
    opened: _Opened | None = None
    failure: BaseException | None = None
    about: Any = None
    try:
        opened = _open(locations, framework, device, options)
        digest, sizes = _digest(opened.checkpoint), (opened.ring_bytes, opened.is_unlimited)
        about = (digest, opened.device.type, *sizes, opened.parts)
    except BaseException as error:  # `agree` reports it to the other ranks
        failure = error
    answers = group.agree((about, neighbours.address), failure)
    assert opened is not None
    abouts = [of_rank for of_rank, _ in answers]
    _check_alike(group, abouts)
    streams: list[Stream] = []
    try:
        addresses = [address for _, address in answers]
        schedule = _start_reading(group, neighbours, opened, abouts, addresses, progress, streams)
    except BaseException:
        for stream in streams:
            stream.close()
        raise
    direct, pieces = map(_Pieces, streams)
    exchange = PartExchange(
        group,
        opened.items,
        schedule,
        pieces,
        neighbours,
        direct=direct,
        device=opened.device,
        finite=opened.finite,
    )
    return SharedParts(group, exchange, opened.checkpoint)


def _start_reading(  # noqa: PLR0913, PLR0917 - what ranks know of each other, and what they start
    group: Group,
    neighbours: Neighbours,
    opened: _Opened,
    abouts: Sequence[Any],
    addresses: Sequence[Address | None],
    progress: Progress,
    streams: list[Stream],
) -> Schedule:
    """Starts to read: what this rank reads to its place, and when it knows the schedule, the rest.

    Both streams are added to `streams`, also before an error.
    """
    checkpoint, rank, failure = opened.checkpoint, group.rank, None
    names = checkpoint.keys()
    parts = [_parts(checkpoint, names, of_rank) for *_, of_rank in abouts]
    direct = direct_parts(parts, [is_unlimited for *_, is_unlimited, _ in abouts])
    try:
        ranges = [(n, part.first, part.end) for n in direct[rank] if (part := parts[rank][n])]
        streams.append(_stream(checkpoint, names, ranges, "none", progress))
    except BaseException as error:  # the other ranks get it
        failure = error
    hosts = hosts_of(group.agree(neighbours.find(rank, addresses), failure))
    neighbours.keep(hosts, rank)
    ring_bytes = min(ring_bytes for _, _, ring_bytes, *_ in abouts)
    schedule = _schedule(parts, direct, hosts, ring_bytes)
    try:
        neighbours.resize([schedule.sizes(r) for r in range(len(parts))], rank)
        ranges = [(piece.tensor, piece.begin, piece.end) for piece in schedule.pieces_of(rank)]
        streams.append(_stream(checkpoint, names, ranges, opened.ring_bytes, progress))
    except BaseException as error:  # the other ranks get it
        failure = error
    group.confirm(failure)
    return schedule


def _check_alike(group: Group, abouts: Sequence[Any]) -> None:
    """Checks that all ranks load the same checkpoint to the same type of device.

    Raises:
        InvalidInputError: they do not, on all ranks.
    """
    for rank, about in zip(group.ranks, abouts):
        for ours, theirs, what in zip(
            abouts[0], about[:2], ("another checkpoint", "to another type of device")
        ):
            if ours != theirs:
                raise InvalidInputError(
                    f"rank {rank} loads {what} than rank {group.ranks[0]}; all ranks that share a "
                    "load have to name the same checkpoint, and the same type of device"
                )


def _schedule(
    parts: Sequence[Parts], direct: Sequence[Sequence[int]], hosts: Sequence[int], ring_bytes: int
) -> Schedule:
    has_messages = len(set(hosts)) > 1
    batch_bytes = min(ring_bytes // _BATCH_DIVISOR, _BATCH_BYTES_MAX[has_messages])
    # A rank receives at most its share of the batch of each sender at once.
    pieces = max(_PIECES_MIN, len(hosts)) if has_messages else _PIECES_MIN
    return Schedule(parts, direct, hosts, batch_bytes // pieces, batch_bytes)


def _stream(
    checkpoint: Checkpoint,
    names: Sequence[str],
    ranges: Sequence[tuple[int, int, int]],
    memory_limit: int | str,
    progress: Progress,
) -> Stream:
    """Starts to read ranges of tensors: the position of a tensor, and bytes from its beginning."""
    named = [(names[position], begin, end) for position, begin, end in ranges]
    return checkpoint.ranges(named).stream(memory_limit=memory_limit, progress=progress)


class _Pieces:
    """The pieces of a native stream as torch tensors."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._convert = stream, converter("torch")

    def __next__(self) -> torch.Tensor:
        converted: torch.Tensor = self._convert(next(self._stream))
        return converted

    def close(self) -> None:
        self._stream.close()


def _open(
    locations: Sequence[str], framework: str, device: Any, options: dict[str, Any]
) -> _Opened:
    if NAMES.get(framework) != "torch":
        raise InvalidInputError(f"is_distributed loads tensors of torch, not of {framework}")
    for name in _REFUSED:
        if options.get(name):
            raise InvalidInputError(
                f"{name} needs whole tensors or files on one rank, as checksums cover all of them; "
                "leave it or is_distributed out"
            )
    target = _device(device)
    parts, options = _slices.take(_cache.with_cache(options))
    limit_bytes = _limit_bytes(options.pop("memory_limit", None))
    finite = FiniteCheck() if options.pop("check_finite", False) else None
    loader = Loader(slices=parts.rules, **options)
    opened = loader.open(locations)
    _cache.flush_at_exit(loader)
    positions = {name: position for position, name in enumerate(opened.keys())}
    items, runs = {}, {}
    for name, loaded_dtype, shape, (first, length, repeats) in opened.runs():
        info = opened.info(name)
        if parts.accepts is not None and not parts.accepts(name, info["dtype"], info["shape"]):
            continue
        part = Runs(first, length, tuple(repeats))
        position = positions[name]
        items[position] = PartItem(name, info["dtype"], loaded_dtype, tuple(shape), part.nbytes)
        runs[position] = None if part.nbytes == info["nbytes"] else tuple(part)
    ring_bytes = _RING_BYTES if limit_bytes is None else limit_bytes
    # A GPU's part would be in host memory first.
    is_unlimited = limit_bytes is None and target.type == "cpu"
    return _Opened(opened, items, runs, target, ring_bytes, is_unlimited, finite)


def _device(device: Any) -> torch.device:
    import torch

    name = device_name(device)
    if isinstance(name, dict):
        raise InvalidInputError("is_distributed loads to one device; give one, not a dict of globs")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise InvalidInputError(f"{name!r} is not a device of torch: {error}") from error


def _limit_bytes(limit: Any) -> int | None:
    """Returns the bytes of a memory limit, which is bytes, text, or None; None if there is none.

    Raises:
        InvalidInputError: the limit is no size, or too small.
    """
    size: int | str | None
    if limit is None or limit == "none":
        size = environment_memory_limit() if limit is None else None
    else:
        size = parsed_memory_limit(str(limit))
    if size is None or size == "none":
        return None
    if not isinstance(size, int):
        return _RING_BYTES_MIN
    if size < _RING_BYTES_MIN:
        raise InvalidInputError(
            f"memory_limit: {size} bytes are fewer than {_RING_BYTES_MIN >> 20} MiB, the least "
            "with which ranks share a load"
        )
    return size


def _digest(checkpoint: Checkpoint) -> bytes:
    """Returns a hash of the names, types and shapes of the tensors."""
    digest = hashlib.sha256()
    for name in checkpoint.keys():  # noqa: SIM118 - it is a native method
        info = checkpoint.info(name)
        digest.update(repr((name, info["dtype"], info["shape"])).encode())
    return digest.digest()


def _parts(checkpoint: Checkpoint, names: Sequence[str], of_rank: dict[int, Any]) -> list[Any]:
    """Returns the runs of a rank's part of each tensor."""
    parts: list[Runs | None] = [None] * len(names)
    for position, part in of_rank.items():
        if part is None:
            parts[position] = Runs(0, checkpoint.info(names[position])["nbytes"], ())
        else:
            parts[position] = Runs(*part)
    return parts
