"""Uploads and downloads of an object store that are under way at the moment of ending.

A store checks a request once, when it begins, and S3 has no means to stop one that was let in. What the end refuses is
every further request; what it does not, the lease and its kind say. Should a store begin to cut them, the words change.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from broker.leases.issuing import Handed
from broker.models import Lease
from tests.faults.guests import Guest, guest, labeller
from tests.faults.holding import settle
from tests.support.data import BUCKET
from tests.support.objects import opened
from tests.support.world import World

pytestmark = pytest.mark.whole
MIB = 1 << 20
# More than sockets and the store's own servers hold for a reader who does not read.
SIZE = 64 * MIB
# The smallest part that may be followed by another.
PART = 5 * MIB
KEY = "trials/under-way.bin"


def end(world: World, one: Guest, handed: Handed) -> Lease:
    """End a lease as the worker does; returns it, confirmed."""
    world.change(Lease, handed.lease.id, expires_at=world.now())
    began = time.monotonic()
    (lease,) = settle(world, one)
    assert time.monotonic() - began < one.kind.ending.open_sessions
    return lease


def says_what_goes_on(one: Guest, lease: Lease) -> bool:
    return "begun before" in lease.confirmed_by and "begun before" in one.kind.ending.how


def refused(act: Callable[[], object]) -> bool:
    try:
        act()
    except ClientError as error:
        return bool(error.response["Error"]["Code"] == "AccessDenied")
    return False


@contextmanager
def half_sent(s3: Any, operation: str, **of: Any) -> Iterator[HTTPConnection]:
    """An upload of two parts' size that the store has let in, half of it sent."""
    url = urlsplit(s3.generate_presigned_url(operation, {"Bucket": BUCKET, **of}))
    with closing(HTTPConnection(url.hostname or "", url.port, timeout=20)) as connection:
        connection.putrequest("PUT", f"{url.path}?{url.query}")
        connection.putheader("Content-Length", str(2 * PART))
        connection.endheaders(b"a" * PART)
        yield connection


def finish(connection: HTTPConnection) -> int:
    connection.send(b"b" * PART)
    return connection.getresponse().status


@pytest.fixture
def owner(world: World) -> Iterator[Any]:
    """The store's owner, who tidies up."""
    s3 = world.stack.store.client()
    yield s3
    s3.delete_object(Bucket=BUCKET, Key=KEY)
    for left in s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []):
        s3.abort_multipart_upload(Bucket=BUCKET, Key=left["Key"], UploadId=left["UploadId"])


def test_multipart_upload_cannot_be_completed_after_the_end(world: World, owner: Any) -> None:
    one = labeller(world)
    handed = one.issue(world, lifetime=300)
    s3 = opened(handed.values or {})
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=KEY)["UploadId"]
    of = {"Bucket": BUCKET, "Key": KEY, "UploadId": upload}
    tag = s3.upload_part(**of, PartNumber=1, Body=b"a" * PART)["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": tag}]}
    with half_sent(s3, "upload_part", Key=KEY, UploadId=upload, PartNumber=2) as under_way:
        end(world, one, handed)
        assert refused(lambda: s3.upload_part(**of, PartNumber=3, Body=b"c"))
        finish(under_way)
    assert refused(lambda: s3.complete_multipart_upload(**of, MultipartUpload=parts))
    assert refused(lambda: s3.create_multipart_upload(Bucket=BUCKET, Key=KEY))
    assert {part["PartNumber"] for part in owner.list_parts(**of)["Parts"]} <= {1, 2}
    assert "Contents" not in owner.list_objects_v2(Bucket=BUCKET, Prefix=KEY), "nobody ever sees any of it"


def test_single_upload_started_before_the_end_finishes_and_is_declared(world: World, owner: Any) -> None:
    one = labeller(world)
    handed = one.issue(world, lifetime=300)
    s3 = opened(handed.values or {})
    with half_sent(s3, "put_object", Key=KEY) as under_way:
        lease = end(world, one, handed)
        assert finish(under_way) == 200
    assert owner.head_object(Bucket=BUCKET, Key=KEY)["ContentLength"] == 2 * PART
    assert says_what_goes_on(one, lease)
    assert refused(lambda: s3.put_object(Bucket=BUCKET, Key=KEY, Body=b"again"))


def test_download_started_before_the_end_finishes_and_is_declared(world: World, owner: Any) -> None:
    owner.put_object(Bucket=BUCKET, Key=KEY, Body=b"{" + b"x" * (SIZE - 1))
    one = guest(world, "s3")
    handed = one.issue(world, lifetime=300)
    s3 = opened(handed.values or {})
    with closing(s3.get_object(Bucket=BUCKET, Key=KEY)["Body"]) as under_way:
        got = len(under_way.read(MIB))
        lease = end(world, one, handed)
        # Not one request more: who loses the connection cannot ask for the rest.
        assert refused(lambda: s3.get_object(Bucket=BUCKET, Key=KEY, Range=f"bytes={got}-"))
        while chunk := under_way.read(MIB):
            got += len(chunk)
    assert got == SIZE
    assert says_what_goes_on(one, lease)
