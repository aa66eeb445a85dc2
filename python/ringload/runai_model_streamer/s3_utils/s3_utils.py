"""The module from which programs for Run:ai's streamer import `S3Credentials`."""

from ..credentials import S3Credentials

__all__ = ["S3Credentials"]
