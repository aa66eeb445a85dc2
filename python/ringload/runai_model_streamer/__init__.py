"""Run:ai Model Streamer's Python API (as of 0.17) on this engine.

A program changes its import, from `runai_model_streamer` to `ringload.runai_model_streamer`, and
nothing else: the names are the same down to `s3_utils.s3_utils`, where programs get `S3Credentials`
from. The names are in `ringload`, too. The package does not put itself in the other one's place in
`sys.modules`: what a program imports is what it says. Frameworks that import the other package
themselves run on this engine by its C library (`STREAMER_LIBRARY`), or by a plugin of their own.

    streamer     SafetensorsStreamer: the session          session   one load of it
    files        list_safetensors, pull_files              model     ObjectStorageModel
    credentials  S3Credentials                             errors    all errors are ValueErrors here
"""

from .credentials import S3Credentials
from .files import list_safetensors, pull_files
from .model import ObjectStorageModel
from .streamer import SafetensorsStreamer

__all__ = [
    "ObjectStorageModel",
    "S3Credentials",
    "SafetensorsStreamer",
    "list_safetensors",
    "pull_files",
]
