"""`S3Credentials`, and the loader options for them.

Functions that take credentials accept any object with the attributes of `S3Credentials`, such as
Run:ai's own class. Missing credentials come from the sources that the AWS SDKs use.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .._errors import InvalidInputError


class S3Credentials:
    """Credentials, region and endpoint of an S3 bucket. All of them are optional."""

    def __init__(
        self,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        session_token: str | None = None,
        region_name: str | None = None,
        endpoint: str | None = None,
    ) -> None:
        """Stores the arguments as attributes.

        Args:
            access_key_id: the access key; requires `secret_access_key`.
            secret_access_key: the secret key; requires `access_key_id`.
            session_token: the session token of temporary credentials.
            region_name: the region of the bucket.
            endpoint: the base URL of an S3-compatible store.
        """
        self.access_key_id = access_key_id
        self.secret_access_key = secret_access_key
        self.session_token = session_token
        self.region_name = region_name
        self.endpoint = endpoint

    def __repr__(self) -> str:
        """Returns a description without keys and tokens."""
        return f"S3Credentials(region_name={self.region_name!r}, endpoint={self.endpoint!r})"


def loader_options(credentials: Any | None, locations: Iterable[str]) -> dict[str, Any]:
    """Returns the loader options that carry `credentials`; empty if no location is in S3.

    Raises:
        InvalidInputError: `credentials` have a key id without a secret, or the reverse.
    """
    if credentials is None or not any(location.startswith("s3://") for location in locations):
        return {}
    key_id, secret, token, region, endpoint = (
        getattr(credentials, name, None) or None
        for name in (
            "access_key_id",
            "secret_access_key",
            "session_token",
            "region_name",
            "endpoint",
        )
    )
    if (key_id is None) != (secret is None):
        missing = "access_key_id" if key_id is None else "secret_access_key"
        raise InvalidInputError(f"s3_credentials have no {missing}; set both keys or neither")
    options: dict[str, Any] = {"region": region, "endpoint": endpoint}
    if key_id is not None:
        options["s3_credentials"] = (key_id, secret, token)
    return {name: value for name, value in options.items() if value is not None}
