"""Where programs import `S3Credentials` from."""

from ..credentials import S3Credentials

__all__ = ["S3Credentials"]
