"""Credentials for S3, as Run:ai's programs give them.

Anything with the attributes of `S3Credentials` will do, Run:ai's own class among them: nothing asks
for the class. What is not given comes from where the AWS SDKs look.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .._errors import InvalidInputError


class S3Credentials:
    """Credentials, and where the store is; each of them may be left out."""

    def __init__(
        self,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        session_token: str | None = None,
        region_name: str | None = None,
        endpoint: str | None = None,
    ) -> None:
        """Keeps them as they are.

        Args:
            access_key_id: goes with `secret_access_key`.
            secret_access_key: goes with `access_key_id`.
            session_token: of temporary credentials.
            region_name: of the bucket.
            endpoint: the base URL of a compatible store.
        """
        self.access_key_id = access_key_id
        self.secret_access_key = secret_access_key
        self.session_token = session_token
        self.region_name = region_name
        self.endpoint = endpoint

    def __repr__(self) -> str:
        """Without anything secret."""
        return f"S3Credentials(region_name={self.region_name!r}, endpoint={self.endpoint!r})"


def loader_options(credentials: Any | None, locations: Iterable[str]) -> dict[str, Any]:
    """What a native loader is to be told of `credentials`: nothing where no location is in S3.

    Raises:
        InvalidInputError: where one of key id and secret is there without the other.
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
        raise InvalidInputError(f"s3_credentials have no {missing}; give both parts, or neither")
    options: dict[str, Any] = {"region": region, "endpoint": endpoint}
    if key_id is not None:
        options["s3_credentials"] = (key_id, secret, token)
    return {name: value for name, value in options.items() if value is not None}
