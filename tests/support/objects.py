"""An object store as the holder of a session sees it: the real boto3, as guests use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.support.data import PICTURES


def opened(values: Mapping[str, str], service: str = "s3") -> Any:
    """A client with what was handed over."""
    return boto3.client(
        service,
        endpoint_url=values["endpoint_url"],
        region_name=values["region"],
        aws_access_key_id=values["access_key_id"],
        aws_secret_access_key=values["secret_access_key"],
        aws_session_token=values["session_token"],
        config=Config(signature_version="s3v4", retries={"total_max_attempts": 1}, proxies={}),
    )


def readable(values: Mapping[str, str]) -> bool:
    """Whether the whole slice can be listed and read."""
    s3 = opened(values)
    try:
        found = s3.list_objects_v2(Bucket=values["bucket"], Prefix=values["prefix"])["Contents"]
        texts = [s3.get_object(Bucket=values["bucket"], Key=item["Key"])["Body"].read() for item in found]
    except ClientError as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 403
        return False
    return len(texts) >= PICTURES and all(text.startswith(b"{") for text in texts)
