"""The Python API of Run:ai Model Streamer 0.17, implemented by ringload.

A program only changes its import from `runai_model_streamer` to `ringload.runai_model_streamer`.
All names are the same, including `s3_utils.s3_utils`, from which programs import `S3Credentials`.
The names are in `ringload`, too. This package does not replace `runai_model_streamer` in
`sys.modules`. Frameworks that import `runai_model_streamer` themselves use ringload through its C
library (`STREAMER_LIBRARY`), or through a plugin for the framework.

    streamer     SafetensorsStreamer            session   opening files and loading their tensors
    sharing      loads shared by ranks          limits    memory limits
    devices      torch devices                  errors    errors that are ValueErrors, too
    files        list_safetensors, pull_files   model     ObjectStorageModel
    credentials  S3Credentials
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
