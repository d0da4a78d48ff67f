"""Leases over the API with input nobody should send: ids of other vendors and of backends, and impossible lifetimes."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
import pytest
from sqlalchemy import func, select

from broker.kinds.names import user_of
from broker.models import Event
from tests.support.world import World
from tests.web.conftest import ClientOf

ACTS = (("GET", ""), ("POST", "/renew"), ("POST", "/revoke"))
SHORT, LONG, ODD = "greater than or equal to 1", "less than or equal to 86400", "a valid integer"
LIFETIMES = {
    "-1": SHORT,
    "0": SHORT,
    "-9223372036854775809": SHORT,
    "86401": LONG,
    "100000000000000000000000000000": LONG,
    "1.5": ODD,
    "300.0": ODD,
    "1e3": ODD,
    "1e400": ODD,
    "NaN": ODD,
    "Infinity": ODD,
    "-Infinity": ODD,
    '"300"': ODD,
    '"15m"': ODD,
    '""': ODD,
    "true": ODD,
    "[300]": ODD,
    '{"seconds": 300}': ODD,
}


def seen(answer: httpx.Response) -> tuple[int, Any]:
    """What a caller learns; the request's own id is no part of it."""
    return answer.status_code, {key: value for key, value in answer.json().items() if key != "instance"}


def decided(world: World, caller_id: str) -> int:
    """How often the gate decided for somebody."""
    with world.database.transaction() as tx:
        query = select(func.count()).select_from(Event).where(Event.actor == f"person:{caller_id}")
        return tx.execute(query.where(Event.kind.like("decision.%"))).scalar_one()


def test_another_vendors_lease_looks_nonexistent_by_every_name(world: World, client_of: ClientOf) -> None:
    theirs, dataset, _ = world.guest()
    lease, token = world.issue(theirs, dataset).lease, world.issue(theirs, dataset, kind="token").lease
    backend = world.lease(lease.id).backend_lease_id or ""
    accessor = str(world.parts.vault._client.auth.token.lookup_self()["data"]["accessor"])
    mine, _, _ = world.guest()
    api = client_of(mine)
    names = [lease.id, token.id, lease.handle, user_of(lease.handle), backend, accessor, lease.grant_id]
    for name in names:
        nonsense = name[:-4] + "0000"
        assert nonsense != name
        for method, act in ACTS:
            body: dict[str, str] | None = {} if method == "POST" else None
            paths = [f"/leases/{quote(text, safe='')}{act}" for text in (name, nonsense)]
            answers = [api.request(method, path, json=body) for path in paths]
            assert answers[0].status_code == 404, (method, name, answers[0].text)
            assert seen(answers[0]) == seen(answers[1]), (method, name)
    assert (world.lease(lease.id).state, world.lease(token.id).state) == ("active", "active")
    assert world.events(lease.id) == ["lease.issued"]
    assert world.ender.vault.lease_begun(backend) is not None
    assert world.roles_of(lease.id) == 1


@pytest.mark.parametrize("lifetime", LIFETIMES)
def test_invalid_lifetime_is_refused_and_nothing_is_issued(world: World, client_of: ClientOf, lifetime: str) -> None:
    signed, dataset, _ = world.guest()
    api = client_of(signed)
    lease = world.issue(signed, dataset).lease
    before = decided(world, signed.id)
    issue = f'{{"dataset": "{dataset.slug}", "slice": "deidentified", "lifetime": {lifetime}}}'
    for path, body in (("/leases", issue), (f"/leases/{lease.id}/renew", f'{{"lifetime": {lifetime}}}')):
        answer = api.post(path, content=body.encode(), headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, answer.text
        (error,) = answer.json()["errors"]
        assert error == {"pointer": "/lifetime", "detail": f"Input should be {LIFETIMES[lifetime]}"}
    assert decided(world, signed.id) == before, "the gate was not even asked"
    assert world.leases_of(signed) == [lease.id]
    assert world.lease(lease.id).expires_at == lease.expires_at


def test_lifetime_beyond_the_rule_is_denied_with_the_allowed_one(world: World, client_of: ClientOf) -> None:
    signed, dataset, _ = world.guest()
    body = {"dataset": dataset.slug, "slice": "deidentified", "lifetime": 86_400}
    answer = client_of(signed).post("/leases", json=body)
    assert answer.status_code == 403, answer.text
    (reason,) = answer.json()["reasons"]
    assert (reason["code"], reason["advice"]) == ("lifetime_too_long", "Request 1 h or less.")
