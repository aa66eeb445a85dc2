"""Reads weights in the real SGLang, for `test_sglang.py`.

    SGLANG_PLUGINS=ringload python sglang_child.py FOLDER RESULT

Writes to the JSON file `RESULT`, for SGLang's loader with its plugins and for its own iterator, the
digest of every tensor, and how many streams of ringload were started for it. SGLang needs a GPU for
more than that.
"""

import hashlib
import json
import sys
from pathlib import Path

from sglang.srt.model_loader import loader
from sglang.srt.plugins import load_plugins

import ringload

ITERATORS = ("safetensors_weights_iterator", "buffered_multi_thread_safetensors_weights_iterator")


def main():
    folder, result = sys.argv[1:]
    files = sorted(map(str, Path(folder).glob("*.safetensors")))
    theirs = {name: digest(tensor) for name, tensor in loader.safetensors_weights_iterator(files)}
    answer = {"theirs": theirs}
    load_plugins()
    stream, streams = ringload.stream, []
    ringload.stream = lambda *given, **options: streams.append(given) or stream(*given, **options)
    for name in ITERATORS:
        streams.clear()
        tensors = getattr(loader, name)(files, disable_mmap=False, prefetch=False)
        digests = {name: digest(tensor) for name, tensor in tensors}
        answer[name] = {"streams": len(streams), "tensors": digests}
    Path(result).write_text(json.dumps(answer))


def digest(tensor):
    bytes_digest = hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
    return f"{tensor.dtype} {list(tensor.shape)} {bytes_digest}"


if __name__ == "__main__":
    main()
