"""What the broker and guests need to know of an object store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, field_validator

from broker.base.settings import is_loopback
from broker.kinds.values import ConnectionSetting


class S3Connection(BaseModel):
    """An object store that holds datasets. Its long-term keys lie in OpenBao, never here.

    Durations are seconds. `ended_by` is the condition key by which a bucket's policy can refuse one session there;
    `guestkey connect-backend s3` finds out which, and prints all of this.
    """

    role_arn: str = Field(pattern=r"^arn:aws[a-z-]*:iam::[0-9]*:role/[\w+=,.@/-]{1,128}$")
    region: str = Field(default="us-east-1", pattern=r"^[a-z0-9-]{1,32}$")
    endpoint_url: str | None = None
    sts_endpoint_url: str | None = None
    longest_session: int = Field(default=3600, ge=900, le=43200)
    ended_by: Literal["aws:userid", "aws:username", "nothing"] = "nothing"
    settles: float = Field(default=120.0, ge=0, le=900)
    ca_file: Path | None = None
    # Keys that its buckets are encrypted with: at AWS a session needs a right to them, or reads nothing.
    kms_keys: tuple[Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]*:key/[\w-]+$")], ...] = ()

    @field_validator("endpoint_url", "sts_endpoint_url")
    @classmethod
    def _encrypted(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ValueError("this is no address of an object store")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ValueError("an object store on another machine is reached by https only")
        return url.rstrip("/")


SETTING = ConnectionSetting(S3Connection, "Object stores that hold datasets, by name.")
