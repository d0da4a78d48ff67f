"""What is tried before a prefix of an object store becomes a slice: that guests can read there, and nowhere else."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from broker.base.errors import Invalid
from broker.kinds.discovery import kinds
from broker.kinds.s3 import kind as s3_kind
from broker.kinds.s3.binding import S3Binding, session_policy
from broker.kinds.s3.store import Store, StoreRefused, key_of
from broker.kinds.values import BoundSlice
from broker.runtime.parts import vault_of
from tests.credentials.test_s3 import lease_for, refused
from tests.support.doors import refusing_to_read
from tests.support.objects import opened
from tests.support.world import PICTURES as BINDING
from tests.support.world import World

KIND = kinds["s3"]
KEY = "arn:aws:kms:eu-central-1:111122223333:key/0f6c1a2b-1111-2222-3333-444455556666"


@pytest.fixture
def bucket(world: World) -> Iterator[str]:
    """A bucket of its own, empty, and gone afterwards."""
    name, owner = f"tried-{secrets.token_hex(4)}", world.stack.store.client()
    owner.create_bucket(Bucket=name)
    yield name
    for found in owner.list_objects_v2(Bucket=name).get("Contents", []):
        owner.delete_object(Bucket=name, Key=found["Key"])
    owner.delete_bucket(Bucket=name)


def put(world: World, bucket: str, *keys: str) -> None:
    """Objects with their own names as content."""
    for key in keys:
        world.stack.store.client().put_object(Bucket=bucket, Key=key, Body=key.encode())


def register(world: World, bucket: str, prefix: str, **place: str) -> int | None:
    """Register a slice as the worker does."""
    binding = BINDING | {"bucket": bucket, "prefix": prefix}
    bound = BoundSlice(binding, {**world.settings.place("s3", binding), **place})
    return KIND.register(vault_of(world.settings, "setup"), "sl_1", bound)


@pytest.mark.parametrize(("prefix", "other"), [("scans/", "Scans/"), ("a/scans/", "A/SCANS/"), ("é/", "É/")])
def test_prefix_differing_only_in_case_is_refused_on_case_insensitive_stores(
    world: World, bucket: str, prefix: str, other: str
) -> None:
    put(world, bucket, f"{prefix}0", "scans-of-others/0")
    assert register(world, bucket, prefix) == 1
    put(world, bucket, f"{other}0")
    # That they would is the store's doing: once it minds the case, this shows it, and nothing is refused any more.
    lease = lease_for(world, binding=BINDING | {"bucket": bucket, "prefix": prefix})
    guest = opened(KIND.issue(world.parts.vault, None, lease).values)
    assert guest.get_object(Bucket=bucket, Key=f"{other}0")["Body"].read() == f"{other}0".encode()
    with pytest.raises(Invalid, match="without regard to case") as said:
        register(world, bucket, prefix)
    assert other in said.value.detail


def test_case_difference_in_another_folder_is_allowed(world: World, bucket: str) -> None:
    put(world, bucket, "a/scans/0", "A/other/0", "b/SCANS/0", "scans/0", "a/scans2/0")
    assert register(world, bucket, "a/scans/") == 1


def test_bucket_with_too_many_prefixes_to_check_is_refused(
    world: World, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(world, bucket, "scans/0")
    monkeypatch.setattr(s3_kind, "_PAGES", 0)
    with pytest.raises(Invalid, match="too many"):
        register(world, bucket, "scans/")


def test_folder_listing_follows_pagination(world: World, bucket: str) -> None:
    put(world, bucket, *(f"{n:04d}/0" for n in range(1001)))
    store = Store(world.settings.place("s3", BINDING), world.stack.store.key("owner"))
    found, all_of_them = store.folders(bucket, "", 2)
    assert (len(found), all_of_them) == (1001, True)
    assert store.folders(bucket, "", 1)[1] is False


def test_a_prefix_that_can_be_listed_and_not_read_is_refused(world: World) -> None:
    """As at AWS where the key a bucket is encrypted with is not the session's to use."""
    with (
        refusing_to_read() as address,
        pytest.raises(Invalid, match="not read from it: the store answers AccessDenied"),
    ):
        register(world, "clinic", "trials/", endpoint_url=address)


def test_prefix_with_an_empty_object_is_accepted(world: World, bucket: str) -> None:
    world.stack.store.client().put_object(Bucket=bucket, Key="scans/0", Body=b"")
    assert register(world, bucket, "scans/") == 1


def test_test_read_needs_the_right_to_read(world: World) -> None:
    key = key_of(world.ender.vault, "objects", "ender")
    with pytest.raises(StoreRefused, match="AccessDenied"):
        Store(world.settings.place("s3", BINDING), key).read_byte("clinic", "trials/0.json")


@pytest.mark.parametrize(
    ("action", "rights"), [("read", ["kms:Decrypt"]), ("write", ["kms:Decrypt", "kms:GenerateDataKey"])]
)
def test_session_policy_allows_only_the_buckets_kms_key_through_the_store(action: str, rights: list[str]) -> None:
    text = session_policy(S3Binding.parse(BINDING), action, ["10.0.0.0/8"], kms_keys=[KEY])
    *_, statement = json.loads(text)["Statement"]
    assert (statement["Action"], statement["Resource"]) == (rights, [KEY])
    assert statement["Condition"] == {"StringLike": {"kms:ViaService": ["s3.*.amazonaws.com*"]}}
    assert "kms" not in session_policy(S3Binding.parse(BINDING), action)


def test_session_with_a_kms_key_has_no_more_access(world: World) -> None:
    place: dict[str, Any] = {**world.settings.place("s3", BINDING), "kms_keys": KEY}
    values = KIND.issue(world.parts.vault, None, lease_for(world, place=place)).values
    guest = opened(values)
    assert guest.get_object(Bucket="clinic", Key="trials/0.json")["Body"].read()
    assert refused(lambda: guest.get_object(Bucket="clinic", Key="secret.json"))
