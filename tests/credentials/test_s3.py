"""Sessions of the object store: exactly the prefix and the action, tried by a hostile holder with boto3."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError

from broker.base.errors import BackendDown, Invalid
from broker.kinds.discovery import kinds
from broker.kinds.s3 import ending as s3_ending
from broker.kinds.s3.binding import (
    LONGEST_PREFIX,
    LONGEST_SESSION_POLICY,
    Denial,
    S3Binding,
    session_policy,
    with_denied,
)
from broker.kinds.s3.store import AccessKey, Store
from broker.kinds.values import BoundSlice, LeaseToEnd, LeaseToIssue
from broker.models import Slice
from broker.runtime.parts import vault_of
from tests.support.data import BUCKET, PICTURES
from tests.support.doors import open_to_all
from tests.support.objects import opened, readable
from tests.support.world import PICTURES as BINDING
from tests.support.world import World

KIND = kinds["s3"]


def refused(act: Callable[[], object]) -> bool:
    """Whether the store says no, and not that something was merely not there."""
    try:
        act()
    except ClientError as error:
        return int(error.response["ResponseMetadata"]["HTTPStatusCode"]) in (400, 403)
    return False


def lease_for(world: World, action: str = "read", **changes: Any) -> LeaseToIssue:
    """A lease on the pictures, for half an hour."""
    lease_id, now = "l" + secrets.token_hex(13), world.now()
    fields: dict[str, Any] = {
        "id": lease_id,
        "handle": f"{world.parts.tag}-{lease_id}",
        "subject": "person:pe_1",
        "dataset": "trials",
        "slice": "pictures",
        "slice_id": "sl_1",
        "binding": BINDING,
        "action": action,
        "issued_at": now,
        "expires_at": now + timedelta(minutes=30),
        "place": world.settings.place("s3", BINDING),
    }
    return LeaseToIssue(**(fields | changes))


@pytest.fixture
def reader(world: World) -> dict[str, str]:
    """What a guest who may read was handed."""
    return dict(KIND.issue(world.parts.vault, None, lease_for(world)).values)


@pytest.fixture
def writer(world: World) -> dict[str, str]:
    """What a guest who may write was handed."""
    return dict(KIND.issue(world.parts.vault, None, lease_for(world, "write")).values)


# -- what a session may do ------------------------------------------------------------------------------------------


@pytest.mark.fast
def test_reader_can_read_its_prefix_with_the_calls_of_common_tools(reader: dict[str, str]) -> None:
    s3 = opened(reader)
    assert readable(reader)
    assert len(s3.list_objects(Bucket=BUCKET, Prefix="trials/")["Contents"]) >= PICTURES
    assert s3.head_object(Bucket=BUCKET, Key="trials/0.json")["ContentLength"]
    assert s3.get_object(Bucket=BUCKET, Key="trials/0.json", Range="bytes=0-3")["Body"].read() == b'{"la'
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix="trials/", Delimiter="/")["KeyCount"] >= PICTURES


@pytest.mark.parametrize(
    "beyond",
    [
        lambda s3: s3.get_object(Bucket=BUCKET, Key="secret.json"),
        lambda s3: s3.get_object(Bucket=BUCKET, Key="trials2/0.json"),
        lambda s3: s3.get_object(Bucket=BUCKET, Key="trials/../secret.json"),
        lambda s3: s3.get_object(Bucket="others", Key="trials/0.json"),
        lambda s3: s3.head_object(Bucket=BUCKET, Key="trials2/0.json"),
        lambda s3: s3.list_objects_v2(Bucket=BUCKET),
        lambda s3: s3.list_objects_v2(Bucket=BUCKET, Prefix=""),
        lambda s3: s3.list_objects_v2(Bucket=BUCKET, Prefix="tri"),
        lambda s3: s3.list_objects_v2(Bucket=BUCKET, Prefix="trials"),
        lambda s3: s3.list_objects_v2(Bucket=BUCKET, Prefix="trials2/"),
        lambda s3: s3.list_objects_v2(Bucket="others", Prefix="trials/"),
        lambda s3: s3.list_object_versions(Bucket=BUCKET, Prefix="trials/"),
        lambda s3: s3.list_multipart_uploads(Bucket=BUCKET),
        lambda s3: s3.get_bucket_policy(Bucket=BUCKET),
        lambda s3: s3.get_bucket_acl(Bucket=BUCKET),
        lambda s3: s3.get_object_acl(Bucket=BUCKET, Key="trials/0.json"),
        lambda s3: s3.put_object(Bucket=BUCKET, Key="trials/new.json", Body=b"x"),
        lambda s3: s3.delete_object(Bucket=BUCKET, Key="trials/0.json"),
        lambda s3: s3.create_multipart_upload(Bucket=BUCKET, Key="trials/new.json"),
        lambda s3: s3.copy_object(Bucket=BUCKET, Key="trials/new.json", CopySource=f"{BUCKET}/trials/0.json"),
        lambda s3: s3.copy_object(Bucket="others", Key="new.json", CopySource=f"{BUCKET}/trials/0.json"),
        lambda s3: s3.put_bucket_policy(Bucket=BUCKET, Policy="{}"),
        lambda s3: s3.delete_bucket_policy(Bucket=BUCKET),
        lambda s3: s3.create_bucket(Bucket="mine"),
    ],
)
def test_reader_is_refused_outside_its_prefix(reader: dict[str, str], beyond: Callable[[Any], object]) -> None:
    assert refused(lambda: beyond(opened(reader)))


def test_reader_cannot_bulk_delete_or_list_buckets(world: World, reader: dict[str, str]) -> None:
    gone = opened(reader).delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "trials/0.json"}]})
    assert [error["Code"] for error in gone["Errors"]] == ["AccessDenied"]
    assert not opened(reader).list_buckets()["Buckets"]
    assert readable(reader)


def test_writer_can_put_and_abort_uploads_under_its_prefix(world: World, writer: dict[str, str]) -> None:
    s3 = opened(writer)
    s3.put_object(Bucket=BUCKET, Key="trials/written.json", Body=b"{}")
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="trials/parts.json")["UploadId"]
    of = {"Bucket": BUCKET, "Key": "trials/parts.json", "UploadId": upload}
    part = s3.upload_part(**of, PartNumber=1, Body=b"{}")
    s3.complete_multipart_upload(**of, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]})
    begun = s3.create_multipart_upload(Bucket=BUCKET, Key="trials/never.json")["UploadId"]
    s3.abort_multipart_upload(Bucket=BUCKET, Key="trials/never.json", UploadId=begun)
    owner = world.stack.store.client()
    assert owner.get_object(Bucket=BUCKET, Key="trials/parts.json")["Body"].read() == b"{}"


@pytest.mark.parametrize(
    "beyond",
    [
        lambda s3: s3.get_object(Bucket=BUCKET, Key="trials/0.json"),
        lambda s3: s3.list_objects_v2(Bucket=BUCKET, Prefix="trials/"),
        lambda s3: s3.delete_object(Bucket=BUCKET, Key="trials/0.json"),
        lambda s3: s3.put_object(Bucket=BUCKET, Key="trials2/0.json", Body=b"x"),
        lambda s3: s3.put_object(Bucket=BUCKET, Key="trials", Body=b"x"),
        lambda s3: s3.put_object(Bucket=BUCKET, Key="trials/../secret.json", Body=b"x"),
        lambda s3: s3.put_object(Bucket="others", Key="trials/0.json", Body=b"x"),
        # Into one's own prefix, out of what one may not read.
        lambda s3: s3.copy_object(Bucket=BUCKET, Key="trials/stolen.json", CopySource=f"{BUCKET}/secret.json"),
        lambda s3: s3.copy_object(Bucket=BUCKET, Key="trials/stolen.json", CopySource=f"{BUCKET}/trials/0.json"),
        lambda s3: s3.put_object_acl(Bucket=BUCKET, Key="trials/0.json", ACL="public-read"),
    ],
)
def test_writer_is_refused_outside_its_prefix(writer: dict[str, str], beyond: Callable[[Any], object]) -> None:
    assert refused(lambda: beyond(opened(writer)))


def test_a_session_cannot_make_another_one_or_a_key(reader: dict[str, str]) -> None:
    sts, iam = opened(reader, "sts"), opened(reader, "iam")
    wide = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]})
    role = "arn:aws:iam::000000000000:role/guestkey-guest"
    attempts: tuple[Callable[[], object], ...] = (
        lambda: sts.assume_role(RoleArn=role, RoleSessionName="chained"),
        lambda: sts.get_federation_token(Name="federated", Policy=wide),
        lambda: iam.create_user(UserName="mine"),
        lambda: iam.create_access_key(UserName="owner"),
    )
    for beyond in attempts:
        with pytest.raises(ClientError):
            beyond()


def test_session_cannot_change_long_term_keys(world: World, reader: dict[str, str]) -> None:
    """Left without a user's name, SeaweedFS takes these for one's own keys, and asks no policy."""
    iam, issuer = opened(reader, "iam"), world.stack.store.key("issuer").access_key_id
    attempts: tuple[Callable[[], object], ...] = (
        lambda: iam.create_access_key(),
        lambda: iam.update_access_key(AccessKeyId=issuer, Status="Inactive"),
        lambda: iam.delete_access_key(AccessKeyId=issuer),
    )
    for beyond in attempts:
        with pytest.raises(ClientError, match="AccessDenied"):
            beyond()
    shown = str(iam.list_access_keys()["AccessKeyMetadata"])
    assert all(world.stack.store.key(name).secret_access_key not in shown for name in ("owner", "issuer", "ender"))
    assert KIND.issue(world.parts.vault, None, lease_for(world)).values


def test_network_of_the_rule_applies_to_the_session(world: World) -> None:
    here = KIND.issue(world.parts.vault, None, lease_for(world, networks=("127.0.0.0/8",)))
    away = KIND.issue(world.parts.vault, None, lease_for(world, networks=("10.0.0.0/8", "192.0.2.0/24")))
    assert readable(here.values)
    assert not readable(away.values)


def test_store_denies_requests_without_a_key(world: World) -> None:
    store = world.stack.store
    for path in ("", BUCKET, f"{BUCKET}/trials/0.json"):
        assert requests.get(f"{store.address}/{path}", timeout=5).status_code == 403


def test_each_long_term_key_can_do_only_its_task(world: World) -> None:
    store = world.stack.store
    issuer, ender = store.client(store.key("issuer")), store.client(store.key("ender"))
    for s3 in (issuer, ender):
        assert refused(partial(s3.get_object, Bucket=BUCKET, Key="trials/0.json"))
        assert refused(partial(s3.list_objects_v2, Bucket=BUCKET))
        assert refused(partial(s3.put_object, Bucket=BUCKET, Key="trials/x", Body=b"x"))
    assert refused(lambda: issuer.get_bucket_policy(Bucket=BUCKET))
    assert refused(lambda: issuer.put_bucket_policy(Bucket=BUCKET, Policy="{}"))


def test_session_has_the_lease_handle_and_expires_with_the_lease(world: World) -> None:
    lease = lease_for(world)
    issued = KIND.issue(world.parts.vault, None, lease)
    assert opened(issued.values, "sts").get_caller_identity()["Arn"].endswith(f"/{lease.handle}")
    assert issued.backend_lease_id is not None
    lived = int(issued.backend_lease_id) - lease.issued_at.timestamp()
    assert 1789 <= lived <= 1795
    over = lease.expires_at.timestamp() - s3_ending.SKEW.total_seconds()
    assert int(issued.backend_lease_id) < over, "nothing is left to refuse then"
    assert issued.values["expires_at"] <= lease.expires_at.isoformat()


def test_lease_shorter_than_the_minimum_session_shows_its_own_expiry(world: World) -> None:
    now = world.now()
    lease = lease_for(world, issued_at=now, expires_at=now + timedelta(minutes=2))
    issued = KIND.issue(world.parts.vault, None, lease)
    assert issued.values["expires_at"] == lease.expires_at.isoformat()
    assert issued.backend_lease_id is not None
    assert 898 <= int(issued.backend_lease_id) - now.timestamp() <= 905


@pytest.mark.parametrize("prefix", ["trials/", "a b/`id`/", "it's/", 'say "x"/', "a!b;c&d|e>f/"])
def test_shown_command_escapes_the_prefix(prefix: str) -> None:
    binding = S3Binding.parse({**BINDING, "prefix": prefix})
    _, command = KIND.tool({"region": "us-east-1", "bucket": binding.bucket, "prefix": binding.prefix})
    spelled = ["sh", "-c", f"aws() {{ printf '%s\\n' \"$@\"; }}; {command}"]
    words = subprocess.run(spelled, capture_output=True, text=True, check=True).stdout.splitlines()
    assert words[-1] == f"s3://{binding.bucket}/{prefix}"


# -- what a slice may be --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        ("", "missing"),
        (None, "missing"),
        (7, "missing"),
        ("trials", "ends with /"),
        ("/trials/", "does not begin with /"),
        ("/", "does not begin with /"),
        ("trials//", "no empty part"),
        ("a//b/", "no empty part"),
        ("*/", "cannot contain *"),
        ("trials*/", "cannot contain *"),
        ("trial?/", "cannot contain ?"),
        ("${aws:username}/", "cannot contain $"),
        ("a\\b/", "backslash"),
        ("../", "no part . or .."),
        ("trials/../", "no part . or .."),
        ("./trials/", "no part . or .."),
        ("trials/./", "no part . or .."),
        ("trials/\n", "control or invisible"),
        ("tri\x00als/", "control or invisible"),
        ("tri\x7fals/", "control or invisible"),
        ("tri\u200bals/", "control or invisible"),
        ("tri\u202eals/", "control or invisible"),
        ("tri\ufeffals/", "control or invisible"),
        ("tri\u2028als/", "control or invisible"),
        ("tri\ud800als/", "control or invisible"),
        ("tri\u00a0als/", "no space but the plain"),
        ("tria\u0300ls/", "NFC"),
        (" trials/", "begins or ends with a space"),
        ("trials /", "begins or ends with a space"),
        ("x" * LONGEST_PREFIX + "/", "at most 400"),
    ],
)
def test_ambiguous_prefix_is_refused_with_its_reason(prefix: object, said: str) -> None:
    with pytest.raises(Invalid, match="prefix") as refusal:
        S3Binding.parse({**BINDING, "prefix": prefix})
    assert refusal.value.field == "/binding/prefix"
    assert said in refusal.value.detail


@pytest.mark.parametrize(
    "bucket",
    ["", None, "ab", "A-bucket", "a_b", "a..b", "-ab", "ab-", "a*b", "a/b", "127.0.0.1", "xn--abc", "abc-s3alias",
     "abc--x-s3", "x" * 64, "clinic\n", "arn:aws:s3:::clinic", "cli${a}nic"],
)  # fmt: skip
def test_ambiguous_bucket_name_is_refused(bucket: object) -> None:
    with pytest.raises(Invalid) as refusal:
        S3Binding.parse({**BINDING, "bucket": bucket})
    assert refusal.value.field == "/binding/bucket"


def test_binding_needs_a_connection_and_no_unknown_fields() -> None:
    for connection in ("", None, "Objects", "a/b", "../x", "x" * 40):
        with pytest.raises(Invalid) as refusal:
            S3Binding.parse({**BINDING, "connection": connection})
        assert refusal.value.field == "/binding/connection"
    with pytest.raises(Invalid, match="Unknown fields"):
        S3Binding.parse({**BINDING, "role_arn": "x"})


@pytest.mark.parametrize("prefix", ["trials/", "März 2026/ärzte/", 'quoted "x"/', "a'b/{c}/", "%2e%2e/", "a&b=c+d/"])
def test_session_policy_matches_exactly_the_prefix(prefix: str) -> None:
    binding = S3Binding.parse({**BINDING, "prefix": prefix})
    read, write = (json.loads(session_policy(binding, action)) for action in ("read", "write"))
    objects, bucket = f"arn:aws:s3:::clinic/{prefix}*", "arn:aws:s3:::clinic"
    assert [statement["Resource"] for statement in read["Statement"]] == [[objects], [bucket]]
    assert read["Statement"][1]["Condition"] == {"StringLike": {"s3:prefix": [f"{prefix}*"]}}
    assert [(s["Action"], s["Resource"]) for s in write["Statement"]] == [
        (["s3:PutObject", "s3:AbortMultipartUpload"], [objects])
    ]
    assert all(statement["Effect"] == "Allow" for statement in read["Statement"] + write["Statement"])


@pytest.mark.parametrize("partition", ["aws-cn", "aws-us-gov", "aws"])
def test_policies_name_buckets_in_the_partition_of_the_role(partition: str) -> None:
    """A bucket of China or GovCloud has no name that begins with arn:aws: it would open and refuse nothing."""
    role = f"arn:{partition}:iam::111122223333:role/guestkey-guest"
    store = Store({"role_arn": role, "region": "cn-north-1"}, AccessKey("id", "secret"))
    assert store.partition == partition
    opened = session_policy(S3Binding.parse(BINDING), "read", partition=store.partition)
    refused = with_denied("", "clinic", "aws:userid", {"gk-a": Denial(900)}, partition=store.partition)
    named = [arn for text in (opened, refused) for one in json.loads(text)["Statement"] for arn in one["Resource"]]
    assert named
    assert all(arn.startswith(f"arn:{partition}:s3:::clinic") for arn in named), named


def test_too_long_session_policy_is_not_sent(world: World) -> None:
    binding = S3Binding.parse({**BINDING, "prefix": "ä" * 199 + "/"})
    with pytest.raises(ValueError, match="too long"):
        session_policy(binding, "read", [f"10.{n}.0.0/16" for n in range(5)])
    fits = S3Binding.parse({**BINDING, "prefix": "x" * (LONGEST_PREFIX - 1) + "/"})
    assert len(session_policy(fits, "read", ["10.0.0.0/8"])) <= LONGEST_SESSION_POLICY


# -- making a slice real --------------------------------------------------------------------------------------------


def register(world: World, **changes: str) -> int | None:
    """Register a slice of the store."""
    binding = {**BINDING, **changes}
    bound = BoundSlice(binding, world.settings.place("s3", binding))
    return KIND.register(vault_of(world.settings, "setup"), "sl_1", bound)


def test_registering_counts_the_objects(world: World) -> None:
    assert register(world) is not None
    assert register(world, prefix="nothing/here/") == 0


def test_registering_says_what_is_wrong(world: World) -> None:
    with pytest.raises(Invalid, match="no such bucket"):
        register(world, bucket="nonesuch")
    with pytest.raises(Invalid, match="No object store named elsewhere"):
        register(world, connection="elsewhere")


def test_store_without_session_policies_is_refused(world: World) -> None:
    with open_to_all() as address:
        bound = BoundSlice(BINDING, {**world.settings.place("s3", BINDING), "endpoint_url": address})
        with pytest.raises(Invalid, match="does not heed session policies"):
            KIND.register(vault_of(world.settings, "setup"), "sl_1", bound)


def test_slice_registration_waits_for_an_unreachable_store(world: World) -> None:
    bound = BoundSlice(BINDING, {**world.settings.place("s3", BINDING), "endpoint_url": "http://127.0.0.1:1"})
    with pytest.raises(BackendDown):
        KIND.register(vault_of(world.settings, "setup"), "sl_1", bound)


def test_without_the_connection_setting_nothing_is_issued_and_ending_waits(world: World) -> None:
    lease = lease_for(world, place={})
    with pytest.raises(BackendDown, match="no longer in the settings"):
        KIND.issue(world.parts.vault, None, lease)
    with pytest.raises(BackendDown, match="no longer in the settings"):
        KIND.end(world.ender.vault, LeaseToEnd(lease.id, lease.handle, BINDING, expires_at=lease.expires_at))


def test_guest_gets_a_session_end_to_end(world: World) -> None:
    vendor = world.vendor()
    signed = world.person(vendor)
    dataset = world.dataset(vendor, kind="s3", slices={"deidentified": BINDING})
    world.grant(dataset, signed)
    with world.database.transaction() as tx:
        assert tx.get_one(Slice, world.slice_id(dataset)).state == "ready"
    handed = world.issue(signed, dataset, kind="s3")
    assert handed.values is not None
    assert readable(handed.values)
    assert not any(handed.values[name] in repr(world.lease(handed.lease.id).__dict__) for name in KIND.use.secrets)
