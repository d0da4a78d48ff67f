"""How a session of the object store ends, when nobody can ask for it back and all is against it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from broker.base.errors import BackendDown
from broker.kinds.discovery import kinds
from broker.kinds.s3.binding import LONGEST_BUCKET_POLICY, Denial, UnreadablePolicy, denied_in, lapses, with_denied
from broker.kinds.s3.ending import CONFIRMED, LET_IN, OVER
from broker.kinds.s3.kind import S3Kind
from broker.kinds.values import Exposed, Issued, LeaseToEnd, LeaseToIssue, NotEnded
from tests.credentials.test_s3 import lease_for
from tests.support.data import BUCKET
from tests.support.doors import answering
from tests.support.freezing import freeze
from tests.support.objects import opened, readable
from tests.support.world import PICTURES as BINDING
from tests.support.world import World

KIND = kinds["s3"]
pytestmark = pytest.mark.usefixtures("bare")
OTHERS = {
    "Sid": "TheirOwn",
    "Effect": "Deny",
    "Principal": "*",
    "Action": "s3:DeleteObject",
    "Resource": "arn:aws:s3:::clinic/kept/*",
}


def issued(world: World, **changes: Any) -> tuple[LeaseToIssue, Issued]:
    """A session in use."""
    lease = lease_for(world, **changes)
    return lease, KIND.issue(world.parts.vault, None, lease)


def to_end(lease: LeaseToIssue, session: Issued | None = None, **place: str) -> LeaseToEnd:
    """The lease as the worker would hand it to the kind."""
    told = session.backend_lease_id if session else None
    return LeaseToEnd(
        lease.id, lease.handle, lease.binding, told, {**lease.place, **place}, lease.action, lease.expires_at
    )


def policy(world: World) -> dict[str, Any]:
    """The bucket's policy now."""
    found: dict[str, Any] = json.loads(world.stack.store.client().get_bucket_policy(Bucket=BUCKET)["Policy"])
    return found


@contextmanager
def stopped(world: World) -> Iterator[None]:
    """Nobody listens at the store's address."""
    world.stack.store.stop()
    try:
        yield
    finally:
        world.stack.store.start()


@contextmanager
def frozen(world: World) -> Iterator[None]:
    """The store takes connections and says nothing."""
    freeze(world.stack.store)
    try:
        yield
    finally:
        freeze(world.stack.store, thaw=True)


# -- ending ---------------------------------------------------------------------------------------------------------


def test_nothing_of_the_session_works_after_a_confirmed_end(world: World) -> None:
    lease, session = issued(world)
    _, other = issued(world)
    s3 = opened(session.values)
    address = s3.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": "trials/0.json"}, ExpiresIn=3600)
    assert requests.get(address, timeout=5).status_code == 200
    began = time.monotonic()
    assert KIND.end(world.ender.vault, to_end(lease, session)) == CONFIRMED
    took = time.monotonic() - began
    assert not readable(session.values)
    # An address signed while it lived outlives its maker nowhere.
    assert requests.get(address, timeout=5).status_code == 403
    assert readable(other.values)
    assert took < KIND.ending.open_sessions


def test_writer_is_ended_during_an_upload(world: World) -> None:
    lease, session = issued(world, action="write")
    s3 = opened(session.values)
    of = {"Bucket": BUCKET, "Key": "trials/parts.json"}
    of["UploadId"] = s3.create_multipart_upload(**of)["UploadId"]
    tag = s3.upload_part(**of, PartNumber=1, Body=b"{}")["ETag"]
    KIND.end(world.ender.vault, to_end(lease, session))
    with pytest.raises(s3.exceptions.ClientError, match="AccessDenied"):
        s3.upload_part(**of, PartNumber=2, Body=b"{}")
    with pytest.raises(s3.exceptions.ClientError, match="AccessDenied"):
        s3.complete_multipart_upload(**of, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": tag}]})
    world.stack.store.client().abort_multipart_upload(**of)


def test_ended_session_stays_refused_after_a_store_restart(world: World) -> None:
    lease, session = issued(world)
    KIND.end(world.ender.vault, to_end(lease, session))
    world.stack.store.stop()
    world.stack.store.start()
    assert not readable(session.values)
    fresh = issued(world)[1].values
    assert readable(fresh)


def test_session_opened_after_its_end_is_refused(world: World) -> None:
    """The call that opens it may still be in flight when the lease is ended."""
    lease = lease_for(world)
    assert KIND.end(world.ender.vault, to_end(lease)) == CONFIRMED
    assert not readable(KIND.issue(world.parts.vault, None, lease).values)


def test_other_policy_statements_are_unchanged(world: World) -> None:
    owner = world.stack.store.client()
    owner.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": [OTHERS]}))
    lease, session = issued(world)
    KIND.end(world.ender.vault, to_end(lease, session))
    kept = [statement for statement in policy(world)["Statement"] if statement.get("Sid") == "TheirOwn"]
    assert len(kept) == 1
    assert kept[0]["Action"] in ("s3:DeleteObject", ["s3:DeleteObject"])
    assert not readable(session.values)


def test_slow_policy_makes_the_lease_show_until_when_it_is_exposed(world: World) -> None:
    """As on AWS: written and read back is not yet in force."""
    lease, session = issued(world)
    with pytest.raises(Exposed) as exposed:
        KIND.end(world.ender.vault, to_end(lease, session, settles="4"))
    left = (exposed.value.until - datetime.now(UTC)).total_seconds()
    assert 2 < left <= 5
    with pytest.raises(Exposed) as again:
        KIND.end(world.ender.vault, to_end(lease, session, settles="4"))
    assert again.value.until == exposed.value.until
    time.sleep(max(0.0, left) + 1)
    assert KIND.end(world.ender.vault, to_end(lease, session, settles="4")) == CONFIRMED


def test_session_that_cannot_be_refused_is_exposed_until_its_end(world: World) -> None:
    lease, session = issued(world)
    with pytest.raises(Exposed) as exposed:
        KIND.end(world.ender.vault, to_end(lease, session, ended_by="nothing"))
    assert session.backend_lease_id is not None
    assert exposed.value.until.timestamp() >= int(session.backend_lease_id)
    gone = replace(to_end(lease, ended_by="nothing"), backend_lease_id=str(int(world.now().timestamp()) - 300))
    with pytest.raises(Exposed):
        KIND.end(world.ender.vault, gone)
    early = replace(gone, now=world.now() - timedelta(hours=1))
    with pytest.raises(Exposed):
        # By the records' clock, whatever this machine's says.
        KIND.end(world.ender.vault, early)
    assert KIND.end(world.ender.vault, replace(gone, now=world.now())) == f"s3: the session is past its own end{LET_IN}"


def test_unrecorded_session_is_exposed_for_the_longest_session(world: World) -> None:
    lease = lease_for(world)
    with pytest.raises(Exposed) as exposed:
        KIND.end(world.ender.vault, to_end(lease, ended_by="nothing"))
    assert exposed.value.until >= lease.expires_at + timedelta(seconds=900)


def test_a_session_past_its_end_needs_no_refusal(world: World) -> None:
    lease = lease_for(world)
    past = replace(to_end(lease), backend_lease_id=str(int(time.time()) - 300))
    assert KIND.end(world.ender.vault, past) == OVER
    with pytest.raises(world.stack.store.client().exceptions.ClientError, match="NoSuchBucketPolicy"):
        policy(world)


def test_refusals_are_removed_when_their_sessions_have_expired(world: World) -> None:
    stale = with_denied("", BUCKET, "aws:username", {"gk-long-gone": Denial(lapses(time.time() - 9000))})
    world.stack.store.client().put_bucket_policy(Bucket=BUCKET, Policy=stale)
    lease, session = issued(world)
    KIND.end(world.ender.vault, to_end(lease, session))
    assert denied_in(json.dumps(policy(world))).keys() == {lease.handle}


def test_full_bucket_policy_is_reported_and_unchanged(world: World) -> None:
    known: dict[str, Denial] = {}
    lapse, full = lapses(time.time() + 60), ""
    while len(full) + 40 < LONGEST_BUCKET_POLICY:
        known[f"{world.parts.tag}-l{len(known):026d}"] = Denial(lapse)
        full = with_denied("", BUCKET, "aws:username", known)
    assert len(known) > 500
    world.stack.store.client().put_bucket_policy(Bucket=BUCKET, Policy=full)
    lease, session = issued(world)
    told = replace(to_end(lease, session), backend_lease_id=str(int(time.time()) + 7200))
    with pytest.raises(Exposed, match="no room") as exposed:
        KIND.end(world.ender.vault, told)
    assert exposed.value.until.timestamp() == int(told.backend_lease_id or 0)
    assert 0 < exposed.value.again.timestamp() - lapse < 20, "asked again when others have made room"
    assert denied_in(json.dumps(policy(world))).keys() == known.keys()


def test_sessions_that_fit_the_policy_are_refused_if_not_all_fit(world: World) -> None:
    ended = [issued(world) for _ in range(14)]
    known: dict[str, Denial] = {}
    lapse, full = lapses(float(ended[0][1].backend_lease_id or 0)), ""
    # A group of its own takes 300 letters, should some lapse in the next one.
    while len(full) + 5 * 45 + 300 < LONGEST_BUCKET_POLICY:
        known[f"{world.parts.tag}-l{len(known):026d}"] = Denial(lapse)
        full = with_denied("", BUCKET, "aws:username", known)
    world.stack.store.client().put_bucket_policy(Bucket=BUCKET, Policy=full)
    outcomes = S3Kind().end_many(world.ender.vault, [to_end(*of) for of in ended])
    refused = {lease.id for lease, session in ended if not readable(session.values)}
    assert 0 < len(refused) < len(ended)
    assert {id_ for id_, outcome in outcomes.items() if outcome == CONFIRMED} == refused
    assert all(isinstance(outcomes[lease.id], Exposed) for lease, _ in ended if lease.id not in refused)


def test_worker_ends_the_lease_and_records_the_confirmation(world: World) -> None:
    vendor = world.vendor()
    signed = world.person(vendor)
    dataset = world.dataset(vendor, kind="s3", slices={"deidentified": BINDING})
    world.grant(dataset, signed)
    handed = world.issue(signed, dataset, kind="s3", lifetime=2)
    assert handed.values is not None
    assert readable(handed.values)
    world.wait_sweeping(handed.lease.id, "expired")
    assert not readable(handed.values)
    assert world.lease(handed.lease.id).confirmed_by == CONFIRMED


def test_manual_command_contains_the_policy_statement(world: World) -> None:
    lease, session = issued(world)
    told = KIND.by_hand(to_end(lease, session))
    statement = json.loads(told.partition("added: ")[2])
    whole = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    world.stack.store.client().put_bucket_policy(Bucket=BUCKET, Policy=whole)
    time.sleep(1)
    assert not readable(session.values)
    assert KIND.by_hand(to_end(lease, session, ended_by="nothing")) == ""


# -- a store that is not well ---------------------------------------------------------------------------------------


@pytest.mark.whole
def test_unreachable_or_frozen_store_is_reported_within_a_request_timeout(world: World) -> None:
    lease, session = issued(world)
    for state in (stopped, frozen):
        with state(world):
            for act in (
                lambda: KIND.issue(world.parts.vault, None, lease_for(world)),
                lambda: KIND.end(world.ender.vault, to_end(lease, session)),
            ):
                began = time.monotonic()
                with pytest.raises(BackendDown) as down:
                    act()
                assert time.monotonic() - began < 4
                assert down.value.backend == "s3"
    assert KIND.end(world.ender.vault, to_end(lease, session)) == CONFIRMED


@pytest.mark.whole
def test_hanging_store_delays_few_callers_then_fails_fast(world: World) -> None:
    """Else every thread of a replica would wait for it, and the portal with them."""
    with frozen(world), ThreadPoolExecutor(24) as pool:

        def asked(_: int) -> float:
            began = time.monotonic()
            with pytest.raises(BackendDown):
                KIND.issue(world.parts.vault, None, lease_for(world))
            return time.monotonic() - began

        assert max(pool.map(asked, range(24))) < 5
        assert asked(0) < 0.5, "after a run of faults it is not even asked"
    end = time.monotonic() + 10
    while True:
        try:
            assert readable(issued(world)[1].values)
            break
        except BackendDown:
            assert time.monotonic() < end
            time.sleep(0.2)


ASSUMED = (
    "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>A</AccessKeyId>"
    "<SecretAccessKey>B</SecretAccessKey>{token}<Expiration>{end}</Expiration></Credentials>"
    "<AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/guest/{name}</Arn></AssumedRoleUser>"
    "</AssumeRoleResult></AssumeRoleResponse>"
)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Welcome to the guest network</html>",
        b"{}",
        b"<AssumeRoleResponse/>",
        b"<AssumeRoleResponse><AssumeRoleResult>",
        ASSUMED.format(token="", end="2026-11-27T12:00:00Z", name="x").encode(),
        ASSUMED.format(token="<SessionToken/>", end="2026-11-27T12:00:00Z", name="x").encode(),
        ASSUMED.format(token="<SessionToken>C</SessionToken>", end="soon", name="x").encode(),
    ],
)
def test_invalid_store_answer_is_no_credential(world: World, body: bytes) -> None:
    with answering(body) as address:
        place = {**world.settings.place("s3", BINDING), "endpoint_url": address}
        with pytest.raises(BackendDown):
            KIND.issue(world.parts.vault, None, lease_for(world, place=place))


@pytest.mark.parametrize(
    ("name", "lives"), [("somebody-else", 1800), ("", 1800), ("{handle}", 90000), ("{handle}", -5)]
)
def test_session_other_than_requested_is_not_returned(world: World, name: str, lives: int) -> None:
    lease = lease_for(world)
    end = (lease.issued_at + timedelta(seconds=lives)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    token = "<SessionToken>C</SessionToken>"
    body = ASSUMED.format(token=token, end=end, name=name.format(handle=lease.handle)).encode()
    with answering(body) as address, pytest.raises(BackendDown, match="another session"):
        KIND.issue(world.parts.vault, None, replace(lease, place={**lease.place, "endpoint_url": address}))


@pytest.mark.parametrize(
    ("body", "status", "cut"),
    [
        (b"", 200, 0),
        (b"<html/>", 200, 0),
        (b"[]", 200, 0),
        (b'{"Version": "2012"', 200, 500),
        (b"", 500, 0),
        (b"", 503, 0),
    ],
)
def test_invalid_bucket_policy_is_not_overwritten_and_nothing_is_confirmed(
    world: World, body: bytes, status: int, cut: int
) -> None:
    lease = lease_for(world)
    with answering(body, status=status, cut=cut) as address, pytest.raises((BackendDown, NotEnded)):
        KIND.end(world.ender.vault, to_end(lease, endpoint_url=address))


def test_invalid_store_key_is_reported(world: World) -> None:
    body = b"<Error><Code>InvalidAccessKeyId</Code></Error>"
    with answering(body, status=403) as address:
        place = {**world.settings.place("s3", BINDING), "endpoint_url": address}
        with pytest.raises(BackendDown, match="refused"):
            KIND.issue(world.parts.vault, None, lease_for(world, place=place))
        with pytest.raises(NotEnded, match="InvalidAccessKeyId"):
            KIND.end(world.ender.vault, to_end(lease_for(world), endpoint_url=address))


# -- the document ---------------------------------------------------------------------------------------------------


def test_policy_that_cannot_be_preserved_is_not_changed() -> None:
    for broken in ("nonsense", "[]", "{}", '{"Statement": "x"}', '{"Statement": ["x"]}'):
        with pytest.raises(UnreadablePolicy):
            with_denied(broken, BUCKET, "aws:username", {"gk-a": Denial(900)})


def test_policy_document_round_trips_and_keeps_its_id() -> None:
    denied = {"gk-a": Denial(1795777200), "gk-b": Denial(1795777200, 1795776000), "gk-c": Denial(1795778100)}
    single = json.dumps({"Version": "2008-10-17", "Id": "theirs", "Statement": OTHERS})
    for key in ("aws:userid", "aws:username"):
        document = with_denied(single, BUCKET, key, denied)
        assert denied_in(document) == denied
        whole = json.loads(document)
        assert (whole["Id"], whole["Version"], whole["Statement"][0]) == ("theirs", "2008-10-17", OTHERS)
        assert json.loads(with_denied(document, BUCKET, key, {}))["Statement"] == [OTHERS]
    assert with_denied("", BUCKET, "aws:userid", {}) == ""
    assert '"*:gk-a"' in with_denied("", BUCKET, "aws:userid", denied)
