"""`import guestkey`: leases that are renewed, replaced and given back, and errors by what a program can do."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import psycopg
import pytest

import guestkey
from broker.models import ApiToken, Grant, Lease
from guestkey import Client
from tests.cli import broken
from tests.sdk.conftest import ClientOf
from tests.support.world import World
from tests.web.conftest import Replica

pytestmark = pytest.mark.usefixtures("worker")
_LIGHT = """
import json, sys
import guestkey
loaded = {name.partition(".")[0] for name in sys.modules}
print(json.dumps(sorted(loaded & set(%r))))
"""
_HEAVY = ("boto3", "botocore", "fastapi", "fsspec", "hvac", "psycopg", "pyarrow", "pydantic", "sqlalchemy", "typer")


def open_session(lease: guestkey.Lease) -> psycopg.Connection[tuple[object, ...]]:
    values = lease.values
    place = f"host={values['host']} port={values['port']} dbname={values['dbname']}"
    return psycopg.connect(place, user=values["username"], password=values["password"], autocommit=True)


def test_sdk_imports_with_the_plain_install() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _LIGHT % (_HEAVY,)], capture_output=True, text=True, check=True, timeout=30
    )
    assert json.loads(ran.stdout) == []


@pytest.mark.fast
def test_lease_is_ended_after_its_with_block(world: World, client_of: ClientOf) -> None:
    signed, dataset, _ = world.guest()
    with client_of(signed).lease(dataset.slug, lifetime=120) as lease:
        assert (lease.kind, lease.dataset, lease.slice) == ("postgres", dataset.slug, "deidentified")
        assert 100 < lease.seconds_left() <= 120
        with open_session(lease) as session:
            assert session.execute(f"SELECT count(*) FROM {lease.values['relation']}").fetchone()
        assert lease.values["password"] not in repr(lease)
    assert world.lease(lease.id).state == "revoked"
    assert world.roles_of(lease.id) == 0
    assert lease.over and not lease.alive()


def test_closing_the_client_ends_its_leases(world: World, client_of: ClientOf) -> None:
    signed, dataset, _ = world.guest()
    client = client_of(signed)
    leases = [client.lease(dataset.slug, kind=kind) for kind in ("postgres", "token")]
    client.close()
    for lease in leases:
        assert world.wait_for(lease.id, "revoked").end_cause


def test_lease_is_renewed_while_in_use(world: World, client_of: ClientOf) -> None:
    signed, dataset, _ = world.guest()
    with client_of(signed).lease(dataset.slug, kind="postgres", lifetime=9) as lease:
        first = lease.expires_at
        with open_session(lease) as session:
            time.sleep(11)
            assert lease.expires_at > first + timedelta(seconds=3)
            assert session.execute("SELECT 1").fetchone() == (1,)
            assert lease.alive() and lease.trouble is None
    assert world.lease(lease.id).state == "revoked"


def test_denied_renewal_raises_with_the_reasons(world: World, client_of: ClientOf) -> None:
    signed, dataset, _ = world.guest()
    lease = client_of(signed).lease(dataset.slug, kind="postgres", lifetime=5)
    world.change(ApiToken, signed.caller.holder_id, factor_at=world.now() - timedelta(hours=1))
    end = time.monotonic() + 10
    while lease.trouble is None:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert isinstance(lease.trouble, guestkey.FactorNeeded)
    assert lease.trouble.max_age == 900
    assert "guestkey confirm" in lease.trouble.next_step
    world.wait_for(lease.id, "expired")
    assert lease.over


def test_non_renewable_kind_is_replaced_silently(world: World, client_of: ClientOf) -> None:
    signed, dataset, _ = world.guest()
    lease = client_of(signed).lease(dataset.slug, kind="token", lifetime=3)
    time.sleep(3.2)
    assert lease.over and lease.trouble is None


def test_credentials_are_replaced_before_expiry_and_shared_by_threads(world: World, client_of: ClientOf) -> None:
    signed, dataset, _ = world.guest()
    with client_of(signed).credentials(dataset.slug, kind="token", lifetime=10) as credentials:
        with ThreadPoolExecutor(8) as pool:
            held = {lease.id for lease in pool.map(lambda _: credentials.current(), range(32))}
        assert len(held) == 1
        first = credentials.current()
        time.sleep(max(first.seconds_left() - 1.8, 0))
        assert first.seconds_left() > 0, "there is time left to use what was begun with it"
        second = credentials.current()
        assert second.id != first.id and second.seconds_left() > 3
    assert world.wait_for(second.id, "revoked")


def test_ended_lease_is_replaced_only_if_allowed(world: World, client_of: ClientOf) -> None:
    signed, dataset, grant = world.guest()
    credentials = client_of(signed).credentials(dataset.slug, kind="token", lifetime=60)
    first = credentials.current()
    first.end()
    assert credentials.current().id != first.id
    world.change(Grant, grant.id, revoked_at=world.now())
    world.change(Lease, credentials.current().id, state="revoking", ending_since=world.now())
    with pytest.raises(guestkey.Denied) as refused:
        credentials.current(checked=True)
    assert [reason.code for reason in refused.value.reasons]
    assert refused.value.reasons[0].sentence.rstrip(".") in str(refused.value)
    assert refused.value.decision_id


def test_errors_have_distinct_classes(world: World, replica: Replica, client_of: ClientOf) -> None:
    signed, dataset, _ = world.guest()
    client = client_of(signed)
    with pytest.raises(guestkey.NotFound, match=r"here\. There is no such dataset"):
        client.lease("no-such-dataset")
    with pytest.raises(guestkey.Refused):
        client.lease(dataset.slug, kind="no-such-kind")
    with Client(replica.url, token="gka_nonsense") as nobody, pytest.raises(guestkey.NotSignedIn):
        nobody.lease(dataset.slug)
    vendor = world.vendor()
    stale, own = world.person(vendor, factor_age=3600), world.dataset(vendor)
    world.grant(own, stale)
    with pytest.raises(guestkey.FactorNeeded):
        client_of(stale).lease(own.slug)
    for _ in range(5):
        client.lease(dataset.slug, kind="token")
    with pytest.raises(guestkey.Refused) as refused:
        client.lease(dataset.slug, kind="token")
    assert refused.value.code == "too_many_leases"


def test_unreachable_server_is_backend_down_and_invalid_answers_are_refused() -> None:
    with Client("http://127.0.0.1:9", token="gka_x") as client, pytest.raises(guestkey.BackendDown):
        client.lease("trials", kind="postgres")
    nonsense = broken.http(201, {"lease": {}, "credential": {"password": "p"}})
    with broken.answering(nonsense) as (url, _), Client(url, token="gka_x") as client:
        with pytest.raises(guestkey.Refused) as refused:
            client.lease("trials", kind="postgres")
        assert "is not valid" in str(refused.value)


def test_lost_answer_is_retried_and_the_extra_lease_revoked() -> None:
    cut = b"HTTP/1.1 201 Created\r\nContent-Length: 99\r\n\r\n{"
    with (
        broken.answering(cut) as (url, heard),
        pytest.raises(guestkey.BackendDown),
        Client(url, token="gka_x") as client,
    ):
        client.lease("trials", kind="postgres")
    keys = [line for request in heard for line in request.split(b"\r\n") if line.lower().startswith(b"idempotency-key")]
    assert len(keys) == 3 and len(set(keys)) == 1, "the same request, so that the lease without a holder is found"


def test_service_signs_in_again_before_its_token_expires(world: World, replica: Replica) -> None:
    admin, vendor = world.person(roles=("admin",)), world.vendor()
    answer = httpx.post(
        f"{replica.url}/api/v1/services", json={"name": "nightly", "vendor": vendor.id}, headers=admin.headers
    ).json()
    dataset = world.dataset(vendor, labels=("classification:internal",))
    now = world.now()
    world.add(
        Grant(
            id=f"gr_{answer['id'][3:]}",
            dataset_id=dataset.id,
            service_id=answer["id"],
            role="pipeline",
            purpose="nightly labels",
            starts_at=now - timedelta(hours=1),
            ends_at=now + timedelta(hours=1),
        )
    )
    with Client(replica.url, service=(answer["id"], answer["client_secret"])) as client:
        with client.lease(dataset.slug, kind="token") as lease:
            assert lease.values["access_token"] and lease.alive()
        client._token_ends = 0.0
        assert client._api().get("/me")["id"] == answer["id"]
    with Client(replica.url, service=(answer["id"], "wrong")) as client, pytest.raises(guestkey.NotSignedIn):
        client.lease(dataset.slug, kind="token")
