#!/usr/bin/env python3
"""One load in this process, timed: what perf/python.py compares.

    perf/python_client.py ringload|runai|stream FILE [--sums]

Drops every tensor before it takes the next one. With --sums it also tells the CRC-32 of each.
"""

import json
import resource
import sys
import time
import zlib

import torch

which, path, *more = sys.argv[1:]
if which == "runai":
    from runai_model_streamer import SafetensorsStreamer
else:
    import ringload
    from ringload import SafetensorsStreamer


def tensors():
    if which == "stream":
        yield from ringload.stream(path)
        return
    with SafetensorsStreamer() as streamer:
        streamer.stream_file(path)
        yield from streamer.get_tensors()


def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


torch.set_num_threads(1)
sums = {} if "--sums" in more else None
total, count = 0, 0
began, cpu = time.perf_counter(), used()
for name, tensor in tensors():
    total, count = total + tensor.nbytes, count + 1
    if sums is not None:
        sums[name] = zlib.crc32(tensor.flatten().view(torch.uint8).numpy())
    del tensor
told = {
    "seconds": time.perf_counter() - began,
    "cpu_seconds": used() - cpu,
    "bytes": total,
    "tensors": count,
    "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
}
if sums is not None:
    told["sums"] = sums
print(json.dumps(told))
