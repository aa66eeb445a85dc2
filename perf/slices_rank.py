"""One process of the rows of `slices.py` that run in Python: a rank, or a plain load.

    slices_rank.py LOCATION STORE RANK WORLD BYTES plan|whole

It imports torch and joins the group, prints a line, waits for one, loads, and prints the figures.
So only loads are measured, and they begin at the same time. Before, it touches as much memory as
the load takes and frees it: a virtual machine may get memory that it has not used for some time at
less than 1 GB/s from its host, which is not what is measured.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import sys
import time
from pathlib import Path

os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")

import ringload
import torch
import torch.distributed as dist

PLAN = {
    "layers.*.self_attn.q_proj": "colwise",
    "layers.*.self_attn.k_proj": "colwise",
    "layers.*.self_attn.v_proj": "colwise",
    "layers.*.self_attn.o_proj": "rowwise",
    "layers.*.mlp.gate_proj": "colwise",
    "layers.*.mlp.up_proj": "colwise",
    "layers.*.mlp.down_proj": "rowwise",
}


def status(name: str) -> int:
    """Returns a size of this process from the kernel, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def touch(nbytes: int) -> mmap.mmap:
    """Returns memory of which each page was written."""
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    for at in range(0, nbytes, 4096):
        memory[at] = 1
    return memory


def main() -> None:
    """Loads, and prints the figures."""
    location, store, rank, world = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(1)
    options = {}
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
        options = {"group": dist.group.WORLD, "is_distributed": True}
        if sys.argv[6] == "plan":
            options["tp_plan"] = PLAN
    print("ready", flush=True)
    sys.stdin.readline()
    kept = int(sys.argv[5]) // (world if sys.argv[6] == "plan" else 1)
    touched = touch(kept + (256 << 20))
    if world > 1:
        dist.barrier()
    # Just before the load: the host takes freed memory back after a second or two.
    touched.close()
    if world > 1:
        dist.barrier()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    memory, used, began = (
        status("VmRSS"),
        resource.getrusage(resource.RUSAGE_SELF),
        time.monotonic(),
    )
    tensors = ringload.load(location, **options)
    ended, end = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    loaded = sum(tensor.nbytes for tensor in tensors.values())
    answer = {
        "began": began,
        "ended": ended,
        "read": 512 * (end.ru_inblock - used.ru_inblock),
        "cpu": end.ru_utime + end.ru_stime - used.ru_utime - used.ru_stime,
        "loaded": loaded,
        "beyond_share": status("VmHWM") - memory - loaded,
    }
    print(json.dumps(answer), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
