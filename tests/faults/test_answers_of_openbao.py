"""OpenBao's answers lost, late, cut short or false, on every path it takes to issue, renew, end, look and introspect.

What OpenBao was asked for has been done all the same: so a bad answer to issuing leaves a credential that nobody was
told of, and a bad answer to ending leaves nobody sure. Whoever asked hears a reason within five seconds (promise 3),
nothing usable is left, nothing is lost, and all is well by itself once answers are good again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from pydantic import HttpUrl

from broker.base.errors import BackendDown
from broker.base.settings import Settings
from broker.kinds.discovery import kinds
from broker.leases import reconciling
from broker.models import Lease
from broker.runtime.parts import Parts, vault_of
from tests.faults import proxy as faults
from tests.faults.guests import Guest, each_kind, guest
from tests.faults.holding import MOST_SECONDS, again, ask, check_reason, leases_of, nothing_astray, settle
from tests.faults.processes import Launcher
from tests.faults.proxy import Fault, HttpProxy
from tests.support.world import World
from tests.web.conftest import Replica, apart

# Longer than anybody waits for an answer.
TOO_LATE = 6.0
JSON = "application/json"
FAULTS: dict[str, Fault] = {
    "lost": faults.lost,
    "late": faults.late(TOO_LATE),
    "cut short": faults.cut(20),
    "a page": faults.instead(200, "text/html", b"<h1>Welcome</h1>"),
    "empty": faults.instead(200, JSON, b""),
    "half of it": faults.instead(200, JSON, b'{"auth": {"client_token": "s.half'),
    "a list": faults.instead(200, JSON, b"[]"),
    "nothing in it": faults.instead(200, JSON, b'{"auth": {}, "data": {}}'),
    "other types": faults.instead(
        200,
        JSON,
        b'{"auth": {"client_token": 7, "lease_duration": "soon"}, "lease_id": [], "lease_duration": "long",'
        b' "data": {"username": {}, "password": null, "signature": 3, "keys": "none", "data": 1}}',
    ),
    "a secret of nothing": faults.instead(200, JSON, b'{"data": {"data": {}}, "auth": null}'),
    "a secret of null": faults.instead(200, JSON, b'{"data": {"data": {"url": null, "event": null, "at": null}}}'),
    "deliberately nothing": faults.instead(204, JSON, b""),
    "sealed": faults.instead(503, JSON, b'{"errors": ["Vault is sealed"]}'),
    "an error with a secret in it": faults.instead(500, JSON, b'{"errors": ["canary: the statement that failed"]}'),
}
SHORT = "lost"


@pytest.fixture(scope="module")
def on_the_way(settings: Settings) -> Iterator[HttpProxy]:
    """What stands between the broker and OpenBao."""
    address = settings.bao_addr
    made = HttpProxy(str(address.host), address.port or 0)
    yield made
    made.close()


@pytest.fixture
def proxied(settings: Settings, on_the_way: HttpProxy) -> Settings:
    """The settings of a broker that reaches OpenBao by that way."""
    return settings.model_copy(update={"bao_addr": HttpUrl(on_the_way.address)})


@pytest.fixture
def replica(proxied: Settings) -> Iterator[Replica]:
    """A replica that reaches OpenBao by that way."""
    with apart(proxied) as running:
        yield running


@pytest.fixture
def far_ender(proxied: Settings, ender: Parts) -> Parts:
    """The worker's parts, with OpenBao reached by that way."""
    return replace(ender, settings=proxied, vault=vault_of(proxied, "ender"))


def paths_taken(on_the_way: HttpProxy, replica: Replica, one: Guest) -> list[str]:
    """What a broker that has logged in asks OpenBao for while it issues a credential of a kind."""
    assert ask(replica.url, one).status_code == 201
    with on_the_way.faulty("", lambda answer: answer):
        assert ask(replica.url, one).status_code == 201
        time.sleep(0.3)
        taken = [path.removeprefix("/v1/") for path in on_the_way.struck]
    return sorted({"/".join(path.split("/")[:2]) for path in taken})


def issue_through(world: World, on_the_way: HttpProxy, replica: Replica, name: str, fault: Fault) -> None:
    first = strike(world, on_the_way, replica, name, "auth/approle", fault)
    paths = paths_taken(on_the_way, replica, guest(world, name))
    assert paths
    rounds = [first, *(strike(world, on_the_way, replica, name, path, fault) for path in paths)]
    for path, one, answer in rounds:
        before = leases_of(world, one)
        # A broker that cannot even log in does not begin.
        assert len(before) == 1 or (path == "auth/approle" and not before), f"{path}: what was begun is on record"
        if answer.status_code == 201:
            assert one.opens(answer.json()["credential"]), path
        settle(world, one)
        if answer.status_code == 201:
            assert not one.opens(answer.json()["credential"]), path
    nothing_astray(world)


def strike(
    world: World, on_the_way: HttpProxy, replica: Replica, name: str, path: str, fault: Fault
) -> tuple[str, Guest, httpx.Response]:
    """Ask for a credential while answers about a path are bad; afterwards others get theirs again."""
    one = guest(world, name)
    with on_the_way.faulty(path, fault):
        answer = ask(replica.url, one)
        # What is asked beside the answer, to lengthen what was made, comes a moment later.
        time.sleep(0.1)
        assert on_the_way.struck, path
    again(lambda: ask(replica.url, guest(world, name)))
    return path, one, answer


@pytest.mark.parametrize("fault", [SHORT])
@pytest.mark.parametrize("name", each_kind("postgres"))
def test_issuing_survives_every_lost_or_failed_openbao_answer(
    world: World, on_the_way: HttpProxy, replica: Replica, name: str, fault: str
) -> None:
    issue_through(world, on_the_way, replica, name, FAULTS[fault])


def test_issuing_while_openbao_reports_sealed_is_denied(world: World, on_the_way: HttpProxy, replica: Replica) -> None:
    """The short form of tests/faults/test_key_store.py, where it really is."""
    issue_through(world, on_the_way, replica, "token", FAULTS["sealed"])


@pytest.mark.whole
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != SHORT])
@pytest.mark.parametrize("name", sorted(kinds))
def test_issuing_survives_every_malformed_openbao_answer(
    world: World, on_the_way: HttpProxy, replica: Replica, name: str, fault: str
) -> None:
    issue_through(world, on_the_way, replica, name, FAULTS[fault])


@pytest.mark.whole
@pytest.mark.parametrize("fault", sorted(FAULTS))
@pytest.mark.parametrize("name", sorted(name for name, kind in kinds.items() if kind.renewable))
def test_renewing_survives_lost_openbao_answers(
    world: World, on_the_way: HttpProxy, replica: Replica, name: str, fault: str
) -> None:
    one = guest(world, name)
    lease = ask(replica.url, one).json()["lease"]
    time.sleep(0.3)
    with httpx.Client(base_url=f"{replica.url}/api/v1", headers=one.signed.headers, timeout=20) as client:
        with on_the_way.faulty("", FAULTS[fault]):
            began = time.monotonic()
            refused = check_reason(client.post(f"/leases/{lease['id']}/renew", json={"lifetime": 900}))
            assert time.monotonic() - began < MOST_SECONDS
        assert refused.status_code == 503 and on_the_way.struck
        now = world.lease(lease["id"])
        assert now.state == "active" and (now.expires_at - now.created_at).total_seconds() <= 60
        assert world.events(lease["id"])[-1] == "lease.not_renewed"
        again(lambda: client.post(f"/leases/{lease['id']}/renew", json={"lifetime": 900}))
    assert world.lease(lease["id"]).expires_at > now.expires_at
    settle(world, one)


@pytest.mark.whole
@pytest.mark.parametrize("fault", sorted(FAULTS))
@pytest.mark.parametrize("name", sorted(kinds))
def test_ending_survives_lost_openbao_answers(
    world: World, on_the_way: HttpProxy, far_ender: Parts, name: str, fault: str
) -> None:
    """The end is shown only once the backend has said so, whatever OpenBao answers meanwhile."""
    one = guest(world, name)
    handed = one.issue(world)
    assert handed.values is not None
    far = World(world.stack, world.settings, world.parts, far_ender)
    world.change(Lease, handed.lease.id, expires_at=world.now())
    with on_the_way.faulty("", FAULTS[fault]):
        far.sweep()
        lease = world.lease(handed.lease.id)
        assert lease.state in ("expired", "revoking", "revoke_failed")
        assert "canary" not in lease.last_error + lease.confirmed_by
        if lease.state == "expired":
            assert not one.opens(handed.values)
    end = time.monotonic() + 30
    while world.lease(handed.lease.id).state != "expired":
        assert time.monotonic() < end, world.lease(handed.lease.id).last_error
        far.sweep()
        time.sleep(0.2)
    assert not one.opens(handed.values)


@pytest.mark.whole
@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_reconciling_survives_lost_openbao_answers(
    world: World, on_the_way: HttpProxy, far_ender: Parts, fault: str
) -> None:
    """A bad answer is no reason to end what lives, and none to believe that nothing is there."""
    living = {}
    for name in kinds:
        one = guest(world, name)
        living[name] = one, one.issue(world)
    with on_the_way.faulty("", FAULTS[fault]):
        try:
            found = reconciling.reconcile(far_ender)
        except BackendDown as down:
            assert "canary" not in f"{down.detail} {down.advice}"
        else:
            assert found.strays == []
            for name, answer in found.shown.items():
                lost = living[name][1].lease.handle not in answer.handles
                assert not lost or answer.unasked or not answer.asked, f"{name}: silence was taken for an answer"
    for name, (one, handed) in living.items():
        assert world.lease(handed.lease.id).state == "active"
        assert handed.values is not None
        assert one.opens(handed.values), name
        settle(world, one)


@pytest.mark.whole
@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_introspection_survives_lost_openbao_answers(
    world: World, launcher: Launcher, on_the_way: HttpProxy, fault: str
) -> None:
    """A replica that has not yet seen the public keys calls no living token dead, and no dead one alive."""
    one, guard = guest(world, "token"), world.service()
    with (
        launcher.serve(environment={"GUESTKEY_BAO_ADDR": on_the_way.address}) as replica,
        replica.client(guard) as client,
        on_the_way.faulty("transit/keys", FAULTS[fault]),
    ):
        handed = one.issue(world)
        assert handed.values is not None
        began = time.monotonic()
        answer = client.post(f"{replica.url}/oauth/introspect", data={"token": handed.values["access_token"]})
        assert time.monotonic() - began < MOST_SECONDS
        check_reason(answer)
        assert answer.status_code == 503
    settle(world, one)
