"""S3 through boto3, with credentials that are replaced before they end. Needs `guestkey[s3]`.

place = guestkey.s3.open_slice(client, "trial-images")
place.client.download_file(place.bucket, place.prefix + "scan-001.png", "scan-001.png")
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import botocore.config
import botocore.session
from botocore.credentials import CredentialProvider, CredentialResolver, RefreshableCredentials

from guestkey.client import Client
from guestkey.credentials import Credentials

_METHOD = "guestkey"
_CONNECT_SECONDS, _READ_SECONDS = 5, 60


@dataclass(frozen=True, slots=True)
class Place:
    """A slice in a store: boto3's session and S3 client, and where in there it is. Every key begins with `prefix`."""

    session: Any
    client: Any
    bucket: str
    prefix: str
    credentials: Credentials


def open_slice(
    client: Client,
    dataset: str,
    *,
    slice: str | None = None,
    action: str = "read",
    lifetime: int | None = None,
) -> Place:
    """A slice of kind `s3`, ready to be used for as long as the client is open.

    Raises:
        guestkey.Error: no credential could be had.
    """
    credentials = client.credentials(dataset, kind="s3", slice=slice, action=action, lifetime=lifetime)
    values = credentials.current().values
    made = session(credentials)
    s3 = made.client(
        "s3",
        region_name=values.get("region") or None,
        endpoint_url=values.get("endpoint_url") or None,
        # Of an authority of the store's own, the file it came in; else as botocore does by itself.
        verify=values.get("ca_file") or None,
        config=botocore.config.Config(connect_timeout=_CONNECT_SECONDS, read_timeout=_READ_SECONDS),
    )
    return Place(made, s3, values["bucket"], values["prefix"], credentials)


def session(credentials: Credentials) -> Any:
    """A boto3 session with these credentials alone: none of the environment, of a profile or of the machine."""
    found = botocore.session.Session()
    found.register_component("credential_provider", CredentialResolver([_Provider(credentials)]))
    return boto3.Session(botocore_session=found)


class _Provider(CredentialProvider):  # type: ignore[misc]  # botocore has no types
    METHOD = _METHOD

    def __init__(self, credentials: Credentials) -> None:
        super().__init__()
        self._credentials = credentials

    def load(self) -> Any:
        """What botocore asks for once, and refreshes by itself."""
        # botocore's own windows of 15 and 10 minutes before the end would replace a lease of 15 minutes at each call.
        first = self._metadata()
        spare = int(self._credentials.spare)
        return RefreshableCredentials.create_from_metadata(
            first, self._metadata, _METHOD, advisory_timeout=spare, mandatory_timeout=spare
        )

    def _metadata(self) -> dict[str, str]:
        lease = self._credentials.current()
        # botocore compares with this machine's clock, which need not agree with the server's.
        ends = datetime.now(UTC) + timedelta(seconds=lease.seconds_left())
        return {
            "access_key": lease.values["access_key_id"],
            "secret_key": lease.values["secret_access_key"],
            "token": lease.values["session_token"],
            "expiry_time": ends.isoformat(),
        }
