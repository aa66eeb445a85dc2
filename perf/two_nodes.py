"""Two nodes of a cluster on one machine, for programs that measure or test what crosses a network.

A node is a namespace of networks and of processes. A pair of virtual network devices connects both.
So processes of one node see each other, and reach those of the other node only by the network. The
nodes end with this process, however it ends. They need root, setpriv, unshare, nsenter and ip.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

#: The name of the network device in both nodes.
DEVICE = "node"


class TwoNodes:
    """The nodes 0 and 1."""

    def __init__(self) -> None:
        """Makes the nodes, or raises `OSError` or `subprocess.CalledProcessError`."""
        self._holders: list[subprocess.Popen[bytes]] = []
        try:
            self._inits = [self._make() for _ in range(2)]
            first, second = (str(init) for init in self._inits)
            pair = ["type", "veth", "peer", "name", DEVICE, "netns", second]
            run("ip", "link", "add", DEVICE, "netns", first, *pair)
            for node in range(2):
                address = f"10.231.7.{node + 1}/24"
                run(*self.command(node, ["ip", "addr", "add", address, "dev", DEVICE]))
                for device in (DEVICE, "lo"):
                    run(*self.command(node, ["ip", "link", "set", device, "up"]))
        except BaseException:
            self.close()
            raise

    def _make(self) -> int:
        """Makes a node, and returns the identity of its first process."""
        flags = ["--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", *flags, "sleep", "infinity"]
        )
        self._holders.append(holder)
        children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children")
        deadline = time.monotonic() + 10
        while holder.poll() is None and time.monotonic() < deadline:
            found = children.read_text().split()
            # It is another program as soon as its namespaces are complete.
            if found and Path(f"/proc/{found[0]}/comm").read_text() == "sleep\n":
                return int(found[0])
            time.sleep(0.01)
        raise OSError("cannot make a node: unshare has ended, or takes too long")

    def command(self, node: int, command: Sequence[str]) -> list[str]:
        """Returns the command that runs `command` on a node."""
        # Without the last one, the directory would be the root directory.
        namespaces = ["--net", "--pid", "--mount", f"--wd={Path.cwd()}"]
        return ["nsenter", "--target", str(self._inits[node]), *namespaces, *command]

    def sent_bytes(self) -> int:
        """Returns how many bytes both nodes have sent to each other."""
        total = 0
        for node in range(2):
            # A line has the name, eight counters of what was received, and those of what was sent.
            for line in run(*self.command(node, ["cat", "/proc/net/dev"])).splitlines():
                name, _, counters = line.partition(":")
                if name.strip() == DEVICE:
                    total += int(counters.split()[8])
        return total

    def close(self) -> None:
        """Ends the nodes with all their processes."""
        for holder in self._holders:
            holder.kill()
            holder.wait()

    def __enter__(self) -> TwoNodes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def run(*command: str) -> str:
    """Runs a command and returns what it prints."""
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout
