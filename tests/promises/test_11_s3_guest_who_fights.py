"""Promise 11: access is taken back for certain, even from a guest who fights with all that S3 lets it do."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from botocore import xform_name
from botocore.exceptions import ClientError, ParamValidationError

from broker.kinds.discovery import kinds
from broker.kinds.s3.binding import LONGEST_BUCKET_POLICY, Denial, lapses, with_denied
from broker.kinds.s3.ending import CONFIRMED
from broker.kinds.s3.store import Store, key_of
from broker.leases.issuing import Handed
from broker.models import Lease
from tests.faults.guests import guest, labeller
from tests.support.data import BUCKET
from tests.support.fighting_s3 import EDGES, LISTINGS, arguments, ask, in_a_loop, method, presigned
from tests.support.objects import opened, readable
from tests.support.world import PICTURES, World

# What the kind declares, and what issuing may take: see S3Kind.ending and docs/issuance.md.
DECLARED_SECONDS = float(kinds["s3"].ending.open_sessions)
ISSUE_SECONDS = 4.0
PREFIX = PICTURES["prefix"]
OTHERS = 20
# What SeaweedFS lets a session do at its prefix, by boto3's names. It takes one that it does not know for the plain
# reading or writing of the object, and answers DeleteObjects with a refusal for each.
READING = {"GetObject", "HeadObject", "GetObjectAnnotation", "GetObjectTorrent"}
WRITING = {
    "PutObject",
    "PutObjectAnnotation",
    "UpdateObjectEncryption",
    "CreateMultipartUpload",
    "UploadPart",
    "ListParts",
}
WRITING |= {"CompleteMultipartUpload", "AbortMultipartUpload"}
# They name no bucket, so no bucket's policy is asked; the list is empty.
NAMELESS = {"ListBuckets", "ListDirectoryBuckets"}
# Signed for an address of their own, which is not the store's.
ELSEWHERE = {"WriteGetObjectResponse"}


@dataclass(frozen=True)
class Fighter:
    """Somebody's lease, and a client with its keys."""

    handed: Handed
    s3: Any

    @property
    def values(self) -> dict[str, str]:
        """What was handed over."""
        return dict(self.handed.values or {})


def fighter(world: World, action: str = "read") -> Fighter:
    """A guest who may read, or hand in."""
    one = guest(world, "s3") if action == "read" else labeller(world)
    handed = one.issue(world, lifetime=300)
    return Fighter(handed, opened(handed.values or {}))


def innocents(world: World, how_many: int = OTHERS) -> list[Fighter]:
    """Others with a lease each, five to a person."""
    people = [guest(world, "s3") for _ in range(-(-how_many // 5))]
    handed = [people[number // 5].issue(world, lifetime=300) for number in range(how_many)]
    return [Fighter(one, opened(one.values or {})) for one in handed]


def end(world: World, fighters: Sequence[Fighter]) -> float:
    """End their leases as the worker does. Returns after how many seconds the last was confirmed."""
    for one in fighters:
        world.change(Lease, one.handed.lease.id, expires_at=world.now())
    began = time.monotonic()
    left = {one.handed.lease.id for one in fighters}
    while left:
        assert time.monotonic() - began < 60, [world.lease(id_).last_error for id_ in left]
        world.sweep()
        left = {id_ for id_ in left if world.lease(id_).state != "expired"}
    took = time.monotonic() - began
    assert {world.lease(one.handed.lease.id).confirmed_by for one in fighters} == {CONFIRMED}
    return took


@pytest.fixture
def owner(world: World) -> Iterator[Any]:
    """The store's owner; afterwards everything is as it was."""
    s3 = world.stack.store.client()
    before = objects(s3)
    yield s3
    for found in s3.list_objects_v2(Bucket=BUCKET)["Contents"]:
        # Marks of folders, too: a writer can make them.
        if found["Key"] not in before:
            s3.delete_object(Bucket=BUCKET, Key=found["Key"])
    for key, content in before.items():
        s3.put_object(Bucket=BUCKET, Key=key, Body=content)
    for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=BUCKET):
        for left in page.get("Uploads", []):
            s3.abort_multipart_upload(Bucket=BUCKET, Key=left["Key"], UploadId=left["UploadId"])
    Store(world.settings.place("s3", PICTURES), key_of(world.ender.vault, "objects", "ender")).put_policy(BUCKET, "")


def objects(owner: Any) -> dict[str, bytes]:
    """Every object of the bucket but folders' own marks."""
    keys = [found["Key"] for found in owner.list_objects_v2(Bucket=BUCKET)["Contents"]]
    return {key: owner.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys if not key.endswith("/")}


def outside(owner: Any) -> dict[str, bytes]:
    """What is not the slice's."""
    return {key: content for key, content in objects(owner).items() if not key.startswith(PREFIX)}


def status(act: Any) -> int:
    """The HTTP status of a call; 0 for one that cannot be made."""
    try:
        return int(act()["ResponseMetadata"]["HTTPStatusCode"])
    except ClientError as error:
        return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
    except ParamValidationError:
        return 0


@pytest.mark.parametrize("action", ["read", "write"])
def test_guest_can_use_only_the_listed_s3_operations_and_none_after_the_end(
    world: World, owner: Any, action: str
) -> None:
    one, s3 = fighter(world, action), world.stack.store.client()
    names = sorted(set(one.s3.meta.service_model.operation_names) - ELSEWHERE)
    assert len(names) > 90
    signed, allowed = list[tuple[str, str]](), set[str]()
    before = outside(owner)
    for number, name in enumerate(names):
        key = f"{PREFIX}fight-{number}"
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"{")
        upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
        given = arguments(one.s3, name, BUCKET, key, upload)
        # No such upload or part is no refusal.
        if status(lambda name=name, given=given: getattr(one.s3, xform_name(name))(**given)) not in (
            0,
            400,
            403,
            405,
            500,
        ):
            allowed.add(name)
        try:
            signed.append((name, presigned(one.s3, name, **given)))
        except (ParamValidationError, ValueError):
            continue
    assert allowed - NAMELESS - {"DeleteObjects"} <= (READING if action == "read" else WRITING)
    assert allowed >= (
        {"GetObject", "HeadObject"} if action == "read" else WRITING - {"PutObjectAnnotation", "UpdateObjectEncryption"}
    )
    assert outside(owner) == before
    assert end(world, [one]) < DECLARED_SECONDS
    still = [name for name, url in signed if send(one.s3, name, url) not in (400, 403, 404, 405, 500)]
    assert set(still) <= NAMELESS | {"DeleteObjects"}
    assert {send(one.s3, name, url) for name, url in signed if name in allowed - NAMELESS - {"DeleteObjects"}} == {403}
    kept = objects(owner)
    assert [number for number in range(len(names)) if f"{PREFIX}fight-{number}" not in kept] == [], (
        "nothing was deleted"
    )


def send(s3: Any, name: str, url: str) -> int:
    """Use an address that was signed while its maker lived."""
    how = method(s3, name)
    with requests.request(how, url, data=b"x" if how in ("PUT", "POST") else None, timeout=20) as answer:
        return answer.status_code


def test_object_keys_cannot_escape_the_prefix(world: World, owner: Any) -> None:
    owner.put_object(Bucket=BUCKET, Key="secret.json", Body=b'{"secret": true}')
    reader, writer = fighter(world), fighter(world, "write")
    before = outside(owner)
    for edge in EDGES:
        path = edge.replace("{}", PREFIX)
        _, body = ask(reader.values, "GET", path)
        assert b'"secret": true' not in body, path
        ask(writer.values, "PUT", path, body=b"fought")
        assert outside(owner) == before, path
    for listing in LISTINGS:
        code, body = ask(reader.values, "GET", f"/{BUCKET}", f"list-type=2&{listing}")
        assert code == 403, (listing, body)


def test_thousands_of_uploads_and_endless_transfers_delay_no_end(world: World, owner: Any) -> None:
    one, reader, others = fighter(world, "write"), fighter(world), innocents(world)
    with ThreadPoolExecutor(8) as pool:
        uploads = list(pool.map(lambda n: begin_upload(one.s3, f"{PREFIX}never-{n}"), range(400)))
    many = {"Bucket": BUCKET, "Key": f"{PREFIX}many", "UploadId": begin_upload(one.s3, f"{PREFIX}many")}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: one.s3.upload_part(**many, PartNumber=n, Body=b"x"), range(1, 201)))
    later = {
        "part": presigned(one.s3, "UploadPart", **many, PartNumber=201),
        "complete": presigned(one.s3, "CompleteMultipartUpload", **many),
        "begun": presigned(
            one.s3, "UploadPart", **many | {"Key": f"{PREFIX}never-0", "UploadId": uploads[0]}, PartNumber=1
        ),
    }
    with ExitStack() as held:
        drips = [
            held.enter_context(dripping(presigned(one.s3, "PutObject", Bucket=BUCKET, Key=f"{PREFIX}drip-{n}")))
            for n in range(40)
        ]
        for _ in range(40):
            held.enter_context(unread(presigned(reader.s3, "GetObject", Bucket=BUCKET, Key=f"{PREFIX}0.json")))
        kept = [held.enter_context(kept_alive(reader)) for _ in range(20)]
        assert end(world, [one, reader, *others]) < DECLARED_SECONDS
        for drip in drips:
            drip.sendall(b"x")
        # Connections that were open before are asked for each request, too.
        path = urlsplit(presigned(reader.s3, "GetObject", Bucket=BUCKET, Key=f"{PREFIX}1.json"))
        for connection in kept:
            connection.request("GET", f"{path.path}?{path.query}")
            answer = connection.getresponse()
            assert (answer.status, answer.read()[:5]) == (403, b"<?xml")
    assert not any(readable(other.values) for other in (reader, *others))
    assert {send(one.s3, "UploadPart", later[name]) for name in ("part", "begun")} == {403}
    assert send(one.s3, "CompleteMultipartUpload", later["complete"]) == 403
    assert not [key for key in objects(owner) if "never" in key or "many" in key or "drip" in key], "none is ever seen"


def begin_upload(s3: Any, key: str) -> str:
    """Begin an upload in parts, and leave it."""
    made: str = s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    return made


def dripping(address: str) -> closing[socket.socket]:
    """An upload of ten gigabytes that the store has let in, of which hardly anything was sent."""
    url = urlsplit(address)
    connection = socket.create_connection((url.hostname or "", url.port or 80))
    head = f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: {10 << 30}\r\n\r\n"
    connection.sendall(head.encode() + b"x")
    return closing(connection)


def unread(address: str) -> closing[socket.socket]:
    """A download that nobody reads."""
    url = urlsplit(address)
    connection = socket.create_connection((url.hostname or "", url.port or 80))
    connection.sendall(f"GET {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
    return closing(connection)


def kept_alive(one: Fighter) -> closing[http.client.HTTPConnection]:
    """A connection on which a request was answered, and more may follow."""
    url = urlsplit(presigned(one.s3, "GetObject", Bucket=BUCKET, Key=f"{PREFIX}0.json"))
    connection = http.client.HTTPConnection(url.netloc, timeout=20)
    connection.request("GET", f"{url.path}?{url.query}")
    answer = connection.getresponse()
    assert (answer.status, answer.read()[:1]) == (200, b"{")
    return closing(connection)


LOOPS = {
    "uploading": ("write", "PutObject", {"Key": f"{PREFIX}loop"}),
    "being refused": ("read", "GetBucketPolicy", {}),
}


@pytest.mark.parametrize("loop", LOOPS)
def test_request_loop_delays_neither_ending_nor_issuing(world: World, owner: Any, loop: str) -> None:
    action, operation, of = LOOPS[loop]
    one, others, one_more = fighter(world, action), innocents(world), guest(world, "s3")
    with in_a_loop(method(one.s3, operation), [presigned(one.s3, operation, Bucket=BUCKET, **of)]):
        began = time.monotonic()
        fresh = one_more.issue(world).values or {}
        assert time.monotonic() - began < ISSUE_SECONDS
        assert listable(fresh)
        # What is refused costs the store as much as what is not: it goes on while the others end.
        took = end(world, [one, *others])
        assert took < DECLARED_SECONDS
    assert not any(readable(other.values) for other in others)


def listable(values: Mapping[str, str]) -> bool:
    """Whether a session is let in; what a writer's loop leaves there is no matter."""
    found: int = opened(values).list_objects_v2(Bucket=BUCKET, Prefix=PREFIX)["KeyCount"]
    return found > 0


def test_nearly_full_bucket_policy_delays_no_end(world: World, owner: Any) -> None:
    """Forty of one holder's are remembered at the most, so these are of many; there is room for those that end now."""
    others = innocents(world)
    known, lapse, full = dict[str, Denial](), lapses(time.time() + 900), ""
    room = (OTHERS + 5) * 45
    while len(full) < LONGEST_BUCKET_POLICY - room:
        known[f"{world.parts.tag}-l{len(known):026d}"] = Denial(lapse)
        full = with_denied("", BUCKET, "aws:username", known)
    owner.put_bucket_policy(Bucket=BUCKET, Policy=full)
    assert end(world, others) < DECLARED_SECONDS
    assert not any(readable(other.values) for other in others)
    kept = json.loads(owner.get_bucket_policy(Bucket=BUCKET)["Policy"])["Statement"]
    assert len(known) + OTHERS == sum(len(one["Condition"]["StringLike"]["aws:username"]) for one in kept)
