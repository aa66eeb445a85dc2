"""Loads the checkpoint of `write_checkpoint` with the installed package.

    test_wheel.py [--torch] CHECKPOINT

With --torch, the drop-in for Run:ai Model Streamer loads it; otherwise numpy does.
"""

import importlib.metadata
import re
import sys

import ringload
from ringload.runai_model_streamer import SafetensorsStreamer, list_safetensors

location = sys.argv[-1]
[file] = list_safetensors(location)
if "--torch" in sys.argv:
    with SafetensorsStreamer() as streamer:
        streamer.stream_files([file])
        tensors = {name: tensor.clone() for name, tensor in streamer.get_tensors()}
else:
    tensors = ringload.load(location, framework="numpy")
assert {name: tensor.tolist() for name, tensor in tensors.items()} == {"weight": [1.0, 2.0]}
print("loaded", ", ".join(tensors), "by", ringload.__file__)
# The links to files of the repository led nowhere in the description of the package.
metadata = importlib.metadata.distribution("ringload").read_text("METADATA")
links = re.findall(r"\]\(([^()\s:#]+)", metadata)
assert metadata.count("# ringload") and not links, links
