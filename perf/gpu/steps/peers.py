"""The same files by ringload and its peers, in turns: from tmpfs, the page cache and the disk.

Each client is a process that stays (client.py), so that imports and contexts take no time of the
turns. Before the turns, each client's tensors are compared with the file. During each load this
process watches how much memory the machine has left: what is missing at the worst moment is what
the client pinned or took, however it did so. Memory that a client keeps after its first load, such
as a pool of pinned memory for all later loads, counts in each of its loads.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import step

#: How many files are loaded from tmpfs, the page cache, and the disk, where clients take seconds.
FILES, CACHED_FILES, DISK_FILES = 4, 2, 1
#: A client that takes so many times as long as the quickest is left out after so many turns.
SLOW, SLOW_TURNS = 2.0, 2
#: The name of the client that is compared with the quickest of the others.
OWN = "ringload"
START_SECONDS = 40
LOAD_SECONDS = 30
PAUSE_SECONDS = 0.002
#: The share of the bytes that may stay in the page cache.
RESIDENT_MOST = 0.002
#: Of the pinned memory of the quickest peer.
MEMORY_MOST = 0.25


class FailedError(Exception):
    """A client that cannot be measured."""


class Client:
    """The process of a client."""

    def __init__(self, name: str) -> None:
        self.name = name
        script = Path(__file__).with_name("client.py")
        self.errors = (step.WORK / f"client-{os.getpid()}-{id(self)}.log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-B", script, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            bufsize=0,
        )
        self.rest = b""
        #: The least memory that the machine had left while an answer was awaited.
        self.least_bytes = 0
        #: What the client keeps after its first load.
        self.kept_bytes: int | None = None

    def answer(self, seconds: float) -> dict[str, Any]:
        """The next object that the client prints; other lines are its packages'."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            line, found, rest = self.rest.partition(b"\n")
            if found:
                self.rest = rest
                if line.startswith(b"{"):
                    return json.loads(line)
                continue
            ready, _, _ = select.select([self.process.stdout], [], [], PAUSE_SECONDS)
            self.least_bytes = min(self.least_bytes, available_bytes())
            if ready:
                data = os.read(self.process.stdout.fileno(), 1 << 20)
                if not data:
                    raise FailedError(self.last_words())
                self.rest += data
        raise FailedError(f"no answer within {seconds:.0f} s")

    def last_words(self) -> str:
        """The last line of its error output."""
        self.process.wait()
        self.errors.seek(0)
        lines = [line.strip() for line in self.errors if line.strip()]
        return lines[-1] if lines else f"ended with {self.process.returncode}"

    def load(self, files: list[str], *, digest: bool = False) -> dict[str, Any]:
        """Makes a load, and returns its figures with the memory that it took."""
        before = self.least_bytes = available_bytes()
        request = json.dumps({"files": files, "digest": digest}) + "\n"
        self.process.stdin.write(request.encode())
        answer = self.answer(LOAD_SECONDS)
        if answer.pop("loaded", None):
            taken_bytes = max(before - self.least_bytes, 0) + (self.kept_bytes or 0)
            answer = {"memory_bytes": taken_bytes, **self.answer(LOAD_SECONDS)}
        if "error" in answer:
            raise FailedError(answer["error"])
        if self.kept_bytes is None:
            self.kept_bytes = max(before - available_bytes(), 0)
        return answer

    def end(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()


def available_bytes() -> int:
    """The memory that the machine has left."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def expected(files: list[str]) -> dict[str, int]:
    """The digests of the tensors in the files, read without any of the clients."""
    import numpy
    import torch
    from client import digest

    digests = {}
    for file in files:
        data = numpy.memmap(file, mode="r")
        start = 8 + int.from_bytes(bytes(data[:8]), "little")
        header = json.loads(bytes(data[8:start]))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = (start + offset for offset in entry["data_offsets"])
            digests[name] = digest(torch.from_numpy(numpy.array(data[begin:end])))
    return digests


def start() -> list[Client]:
    """The clients that can be measured, started at the same time."""
    from client import CLIENTS

    started = [Client(name) for name in CLIENTS]
    ready = []
    for client in started:
        try:
            client.answer(START_SECONDS)
            ready.append(client)
        except FailedError as error:
            step.skip(f"peers: {client.name}: {error}")
            client.end()
    return ready


def compare(clients: list[Client], files: list[str]) -> list[Client]:
    """The clients whose tensors are those of the files; other peers are left out."""
    wanted = expected(files)
    right = []
    for client in clients:

        def work(client: Client = client) -> int:
            found = client.load(files, digest=True)["digests"]
            wrong = [name for name in wanted if found.get(name) != wanted[name]]
            if wrong or len(found) != len(wanted):
                raise AssertionError(
                    f"{len(wrong)} of {len(wanted)} tensors are wrong: {wrong[:3]}"
                )
            return len(found)

        if client.name.startswith(OWN):
            if step.check(f"peers: the bytes of {client.name}", work):
                right.append(client)
            continue
        try:
            step.note(f"peers: {client.name}: the bytes of {work()} tensors are right")
            right.append(client)
        except (FailedError, AssertionError) as error:
            step.skip(f"peers: {client.name}: {error}")
            client.end()
    return right


def make_warm(files: list[str]) -> None:
    """Reads the files into the page cache."""
    for file in files:
        with open(file, "rb", buffering=0) as opened:
            while opened.read(8 << 20):
                pass


def make_cold(files: list[str]) -> None:
    """Removes the files from the page cache."""
    resident = total = 0
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        size = os.fstat(descriptor).st_size
        with mmap.mmap(descriptor, size, prot=mmap.PROT_READ) as mapped:
            resident += resident_bytes(mapped, size)
        total += size
        os.close(descriptor)
    if resident > total * RESIDENT_MOST:
        raise FailedError(f"{resident} of {total} bytes stay in the page cache")


def resident_bytes(mapped: mmap.mmap, size: int) -> int:
    """How many bytes of a mapped file are in memory."""
    import numpy

    pages = -(-size // mmap.PAGESIZE)
    vector = (ctypes.c_ubyte * pages)()
    address = numpy.frombuffer(mapped, dtype=numpy.uint8).ctypes.data
    if ctypes.CDLL(None).mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), vector) != 0:
        return 0
    return int((numpy.frombuffer(vector, dtype=numpy.uint8) & 1).sum()) * mmap.PAGESIZE


class Row:
    """The turns of one source of the files."""

    def __init__(self, source: str, files: list[str], figures: step.Figures) -> None:
        self.source, self.files, self.figures = source, files, figures
        self.gibibytes = sum(os.path.getsize(file) for file in files) / (1 << 30)
        self.seconds: dict[str, list[float]] = {}
        self.memory: dict[str, list[float]] = {}

    def prepare(self) -> None:
        """Puts the files into the state that the row names."""
        if self.source == "the page cache":
            make_warm(self.files)
        elif self.source == "the disk":
            make_cold(self.files)

    def turn(self, clients: list[Client]) -> None:
        """One load by each client."""
        for client in [one for one in clients if not self.is_slow(one.name)]:
            try:
                self.prepare()
                # The driver clears the GPU's memory that the last client freed.
                time.sleep(step.SETTINGS["settle"] * self.gibibytes)
                answer = client.load(self.files)
            except FailedError as error:
                step.skip(f"peers, from {self.source}: {client.name}: {error}")
                client.end()
                clients.remove(client)
                continue
            name, where = client.name, f"from {self.source} by {client.name}"
            self.seconds.setdefault(name, []).append(answer["seconds"])
            self.memory.setdefault(name, []).append(answer["memory_bytes"] / (1 << 20))
            speed = answer["bytes"] / 1e9 / answer["seconds"]
            self.figures.add(where, "GB/s", speed)
            self.figures.add(f"{where}: host memory", "MiB", self.memory[name][-1])
            cpu = answer["cpu_seconds"] / (answer["bytes"] / 1e9)
            self.figures.add(f"{where}: CPU time", "CPU-s/GB", cpu)
        self.judge()

    def is_slow(self, name: str) -> bool:
        """Whether more turns of a client would say nothing new."""
        turns = self.seconds.get(name, [])
        quickest = min((median(one) for one in self.seconds.values()), default=0.0)
        has_enough = len(turns) >= SLOW_TURNS and not name.startswith(OWN)
        return has_enough and median(turns) > SLOW * quickest

    def judge(self) -> None:
        """Compares ringload's last turn with that of the peer that is quickest so far."""
        count = len(self.seconds.get(OWN, []))
        peers = [
            name
            for name, turns in self.seconds.items()
            if not name.startswith(OWN) and len(turns) == count
        ]
        if not peers or not count:
            return
        quickest = min(peers, key=lambda name: median(self.seconds[name]))
        best = min(self.seconds[name][-1] for name in peers)
        ratio = self.seconds[OWN][-1] / best
        what = f"from {self.source}: seconds of ringload / of the quickest peer of the turn"
        self.figures.add(what, "", ratio, ("at_most", 1.0))
        theirs = self.memory[quickest][-1]
        if theirs == 0:  # some sandboxes do not tell
            return
        what = f"from {self.source}: host memory of ringload / of the quickest peer"
        self.figures.add(what, "", self.memory[OWN][-1] / theirs, ("at_most", MEMORY_MOST))


def main() -> None:
    """Measures the rows, each in its share of the time."""
    settings = step.SETTINGS
    on_tmpfs, on_disk = settings["tmpfs_files"][:FILES], settings["disk_files"]
    clients = compare(start(), on_tmpfs[:1])
    step.note(
        "peers: each client loads on request in a process that has a context; all tensors are kept"
    )
    figures = step.Figures()
    rows = [
        ("tmpfs", on_tmpfs),
        ("the page cache", on_disk[:CACHED_FILES]),
        ("the disk", on_disk[:DISK_FILES]),
    ]
    for number, (source, files) in enumerate(rows):
        row = Row(source, files, figures)
        end = time.monotonic() + step.seconds_left() / (len(rows) - number)
        for _ in range(settings["turns"]):
            if time.monotonic() >= end:
                break
            row.turn(clients)
    for client in clients:
        client.end()


if __name__ == "__main__":
    main()
