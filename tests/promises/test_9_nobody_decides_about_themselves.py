"""Promise 9: nobody grants, approves or reviews themselves; what could mint an accomplice needs two admins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from broker.models import Grant, PolicyInForce, RoleHeld, SignInSource, TotpFactor
from broker.runtime import rulebook
from tests.support.provider import Provider
from tests.support.world import Signed, World
from tests.web.conftest import ClientOf, client_of, replica

__all__ = ["client_of", "replica"]


@dataclass
class Act:
    """An act that takes two: how the first admin asks for it, and what in the records would show that it happened."""

    path: str
    body: Any
    count: Any


def _role(world: World, role: str) -> Act:
    person = world.person()
    held = select(func.count()).where(RoleHeld.person_id == person.id, RoleHeld.role == role)
    return Act(f"/people/{person.id}/roles", {"role": role}, held)


def _source(world: World, provider: Provider) -> Act:
    name = f"Source of {world.vendor().id}"
    body = {"name": name, "issuer": provider.issuer, "client_id": "guestkey", "client_secret": provider.client_secret}
    return Act("/sources", body, select(func.count()).where(SignInSource.name == name))


def _trust(world: World) -> Act:
    source = world.source(None)
    trusted = select(func.count()).where(SignInSource.id == source.id, SignInSource.trusts_mfa)
    return Act(f"/sources/{source.id}/trust-mfa", {"values": ["phr"]}, trusted)


def _reset(world: World) -> Act:
    person = world.person()
    world.add(TotpFactor(person_id=person.id, wrapped_secret="vault:v1:x", confirmed_at=world.now()))
    gone = select(1 - func.count()).where(TotpFactor.person_id == person.id)
    return Act(f"/people/{person.id}/reset-factor", None, gone)


def _rules(world: World) -> Act:
    with world.database.transaction() as tx:
        before = rulebook.in_force(tx)
    changed = select(func.count()).where(PolicyInForce.revision > before.number)
    return Act("/policy/proposals", {"rules": before.rules, "networks": before.networks}, changed)


ACTS: dict[str, Callable[[World, Provider], Act]] = {
    "giving admin": lambda world, _: _role(world, "admin"),
    "giving auditor": lambda world, _: _role(world, "auditor"),
    "binding a source": _source,
    "trusting a source's factor": lambda world, _: _trust(world),
    "resetting a factor": lambda world, _: _reset(world),
    "putting rules in force": lambda world, _: _rules(world),
}


@pytest.mark.parametrize("name", ACTS)
def test_one_admin_alone_cannot_create_access(world: World, client_of: ClientOf, provider: Provider, name: str) -> None:
    first, second = (client_of(world.person(roles=("admin",))) for _ in range(2))
    act = ACTS[name](world, provider)

    def happened() -> int:
        with world.database.transaction() as tx:
            return int(tx.execute(act.count).scalar_one())

    proposed = first.post(act.path, json=act.body)
    assert proposed.status_code == 202, proposed.text
    approve = f"/proposals/{proposed.json()['id']}/approve"
    alone = first.post(approve)
    assert alone.json()["code"] == "self_decision" and not happened()
    outsider = client_of(world.person(world.vendor(), roles=("lead",)))
    assert outsider.post(approve).status_code == 403 and not happened()
    assert second.post(approve).status_code == 200 and happened()


def _ask(client: httpx.Client, slug: str, **more: Any) -> httpx.Response:
    body = {"dataset": slug, "role": "annotator", "slice": "deidentified", "purpose": "Label", "period": 3600}
    return client.post("/requests", json=body | more)


@pytest.mark.parametrize("role", [(), ("admin",)])
def test_own_request_cannot_be_approved(world: World, client_of: ClientOf, role: tuple[str, ...]) -> None:
    owner = world.person(roles=role)
    dataset, client = world.dataset(owner=owner), client_of(owner)
    asked = _ask(client, dataset.slug)
    assert asked.status_code == 201, asked.text
    refused = client.post(f"/requests/{asked.json()['id']}/approve", json={})
    assert refused.json()["code"] == "self_decision"
    with world.database.transaction() as tx:
        assert tx.execute(select(func.count()).where(Grant.dataset_id == dataset.id)).scalar_one() == 0


def test_own_role_cannot_be_raised(world: World, client_of: ClientOf) -> None:
    admin, vendor = world.person(roles=("admin",)), world.vendor()
    lead = world.person(vendor, roles=("lead",))
    team, dataset = world.team(vendor), world.dataset(vendor)
    tries: list[tuple[Signed, str, str, Any]] = [
        (admin, "POST", f"/people/{admin.id}/roles", {"role": "auditor"}),
        (admin, "POST", f"/people/{admin.id}/reset-factor", None),
        (admin, "POST", f"/people/{admin.id}/enrolment-invitations", None),
        (admin, "PATCH", f"/datasets/{dataset.slug}", {"owner": admin.id}),
        (lead, "PUT", f"/teams/{team.id}/members/{lead.id}", None),
        (lead, "POST", f"/people/{lead.id}/roles", {"role": "lead"}),
        (lead, "POST", f"/people/{lead.id}/confirm", None),
    ]
    world.add(TotpFactor(person_id=admin.id, wrapped_secret="vault:v1:x", confirmed_at=world.now()))
    for who, method, path, body in tries:
        answer = client_of(who).request(method, path, json=body)
        assert answer.status_code in (403, 409), (path, answer.text)
