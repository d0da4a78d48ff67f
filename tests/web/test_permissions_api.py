"""Who may see and do what, beyond datasets and requests: people, roles, holdings, rules, events; and CSRF."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

import httpx
from sqlalchemy import func, update

from broker.base.ids import new_id
from broker.models import Person, RoleHeld, Session, Vendor
from tests.support.world import Signed, World
from tests.web.conftest import ClientOf, Replica


def test_people_are_confirmed_suspended_and_resumed(world: World, client_of: ClientOf) -> None:
    vendor = world.vendor()
    admin, lead = client_of(world.person(roles=("admin",))), client_of(world.person(vendor, roles=("lead",)))
    joined, colleague = world.person(vendor, status="pending"), client_of(world.person(vendor))
    assert lead.post(f"/people/{joined.id}/confirm").status_code == 403
    assert admin.post(f"/people/{joined.id}/confirm").json()["status"] == "active"
    assert admin.post(f"/people/{joined.id}/confirm").status_code == 409
    assert colleague.get(f"/people/{joined.id}").status_code == 404
    assert colleague.post(f"/people/{joined.id}/suspend", json={"reason": "x"}).status_code == 404
    assert lead.post(f"/people/{joined.id}/suspend", json={"reason": "left"}).status_code == 202
    assert client_of(joined).get("/leases").status_code == 401
    assert lead.post(f"/people/{joined.id}/resume", json={"reason": "x"}).status_code == 403
    assert admin.post(f"/people/{joined.id}/resume", json={"reason": "back"}).json()["status"] == "active"
    assert world.events(joined.id) == ["person.confirmed", "person.suspended", "person.resumed"]


def test_roles_need_two_admins_and_never_oneself(world: World, client_of: ClientOf) -> None:
    one = world.person(roles=("admin",))
    colleague, guest = world.person(), world.person(world.vendor())
    api = client_of(one)
    own = api.post(f"/people/{one.id}/roles", json={"role": "auditor"})
    assert own.json()["code"] == "self_decision"
    assert api.post(f"/people/{guest.id}/roles", json={"role": "admin"}).status_code == 422
    assert api.post(f"/people/{colleague.id}/roles", json={"role": "lead"}).status_code == 422
    proposed = api.post(f"/people/{colleague.id}/roles", json={"role": "admin"})
    assert (proposed.status_code, proposed.json()["state"]) == (202, "pending"), proposed.text
    assert api.get(f"/people/{colleague.id}").json()["roles"] == []
    made = api.post(f"/people/{guest.id}/roles", json={"role": "lead"})
    assert (made.status_code, made.json()["roles"]) == (201, ["lead"])
    assert api.delete(f"/people/{guest.id}/roles/lead").status_code == 204
    assert api.delete(f"/people/{guest.id}/roles/lead").status_code == 404


def test_two_admins_always_remain(world: World, client_of: ClientOf) -> None:
    api, two = _only_admins(world, client_of)
    assert api.delete(f"/people/{two.id}/roles/admin").status_code == 409
    assert api.post(f"/people/{two.id}/suspend", json={"reason": "x"}).status_code == 409
    third = world.person(roles=("admin",))
    assert api.delete(f"/people/{two.id}/roles/admin").status_code == 204
    assert api.delete(f"/people/{third.id}/roles/admin").status_code == 409


def test_grants_and_leases_are_ended_only_by_those_concerned(world: World, client_of: ClientOf) -> None:
    guest, dataset, grant = world.guest()
    other = client_of(world.person(world.vendor()))
    colleague = client_of(world.person(_vendor_of(world, guest)))
    lease = world.issue(guest, dataset).lease
    assert colleague.get(f"/leases/{lease.id}").status_code == 404
    assert other.post(f"/leases/{lease.id}/revoke", json={}).status_code == 404
    auditor = client_of(world.person(roles=("auditor",)))
    assert auditor.get(f"/leases/{lease.id}").json()["may_revoke"] is False
    assert auditor.post(f"/leases/{lease.id}/revoke", json={}).status_code == 403
    assert auditor.post(f"/grants/{grant.id}/revoke", json={"reason": "x"}).status_code == 403
    lead = client_of(world.person(_vendor_of(world, guest), roles=("lead",)))
    for _ in range(2):
        ended = lead.post(f"/leases/{lease.id}/revoke", json={"reason": "left"})
        assert (ended.status_code, ended.json()["state"]) == (202, "revoking")
    assert lead.post(f"/grants/{grant.id}/revoke", json={"reason": "left"}).status_code == 202
    assert lead.post(f"/grants/{grant.id}/revoke", json={"reason": "left"}).status_code == 409
    world.sweep()
    assert world.lease(lease.id).state == "revoked"


def test_only_admins_and_auditors_see_the_rules(world: World, client_of: ClientOf) -> None:
    admin, auditor = client_of(world.person(roles=("admin",))), client_of(world.person(roles=("auditor",)))
    rules = auditor.get("/policy").json()
    assert rules["rules"] and rules["revision"] in [
        item["number"] for item in admin.get("/policy/revisions").json()["items"]
    ]
    body = {
        "rules": rules["rules"] + "role:annotator, dataset:x, full, read, ttl<=1h, allow\n",
        "networks": rules["networks"],
    }
    checked = auditor.post("/policy/check", json=body).json()
    assert len(checked["added"]) == 1 and checked["removed"] == []
    assert auditor.post("/policy/proposals", json=body).status_code == 403
    assert admin.post("/policy/proposals", json=body).json()["state"] == "pending"
    wrong = admin.post("/policy/check", json={"rules": "role:x, *, full, read, , Allow\n"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "rules_invalid") and "line 1" in wrong.json()["detail"]
    for path in ("/policy", "/policy/revisions"):
        assert client_of(world.person()).get(path).status_code == 403


def test_people_see_their_own_events_and_auditors_all(world: World, client_of: ClientOf) -> None:
    guest, dataset, _ = world.guest()
    lease = world.issue(guest, dataset).lease
    mine = client_of(guest).get("/events").json()["items"]
    assert [event["kind"] for event in mine] == ["lease.issued", "decision.allowed"]
    assert all(event["leaf"] is None for event in mine)
    auditor = client_of(world.person(roles=("auditor",)))
    seen = auditor.get("/events", params={"subject": lease.id}).json()["items"]
    assert [event["kind"] for event in seen] == ["lease.issued"] and seen[0]["leaf"].startswith('{"actor"')
    first = auditor.get("/events", params={"limit": 1}).json()
    second = auditor.get("/events", params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert second["items"][0]["number"] < first["items"][0]["number"]


def test_why_and_who_are_restricted(world: World, client_of: ClientOf) -> None:
    guest, dataset, grant = world.guest()
    api, auditor = client_of(guest), client_of(world.person(roles=("auditor",)))
    may = api.get(f"/datasets/{dataset.slug}/why", params={"slice": "deidentified"}).json()
    assert may["allowed"] and may["slice"] == "deidentified" and may["max_lifetime"] == 3600
    not_this = api.get(f"/datasets/{dataset.slug}/why", params={"slice": "full"})
    assert not_this.status_code == 200 and not not_this.json()["allowed"] and not_this.json()["reasons"]
    assert api.get(f"/datasets/{dataset.slug}/who").status_code == 403
    reach = auditor.get(f"/datasets/{dataset.slug}/who").json()["items"]
    assert [(item["grant"], item["holder"]) for item in reach] == [(grant.id, f"person:{guest.id}")]
    about = auditor.get(f"/datasets/{dataset.slug}/why", params={"person": guest.id, "slice": "deidentified"}).json()
    assert [reason["code"] for reason in about["reasons"]] == ["factor_not_enrolled"]


def test_a_cookie_needs_its_sessions_csrf_token(world: World, replica: Replica) -> None:
    person, cookie, csrf = world.person(roles=("admin",)), secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    now = world.now()
    world.add(
        Session(
            id=new_id("se"),
            token_hash=hashlib.sha256(cookie.encode()).digest(),
            person_id=person.id,
            source_id=_source_of(world, person),
            csrf_token=csrf,
            last_seen_at=now,
            expires_at=now + timedelta(hours=1),
            signed_in_at=now,
            factor_at=now,
            factor_method="totp",
        )
    )
    cookies = {"Cookie": f"__Host-guestkey={cookie}"}
    url = f"{replica.url}/api/v1/vendors"
    assert httpx.get(url, headers=cookies).status_code == 200
    body = {"name": f"Forged {person.id[-6:]}"}
    for sent in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": "x" * 43}):
        forged = httpx.post(url, json=body, headers=cookies | sent)
        assert (forged.status_code, forged.json()["code"]) == (403, "csrf")
    assert httpx.post(url, json=body, headers=cookies | {"X-CSRF-Token": csrf}).status_code == 201


def _only_admins(world: World, client_of: ClientOf) -> tuple[httpx.Client, Signed]:
    """A client of one of two admins, and the other; those of other tests are admins no more."""
    with world.database.transaction() as tx:
        tx.execute(update(RoleHeld).where(RoleHeld.role == "admin").values(ended_at=func.clock_timestamp()))
    one, two = world.person(roles=("admin",)), world.person(roles=("admin",))
    return client_of(one), two


def _vendor_of(world: World, guest: Signed) -> Vendor:
    with world.database.transaction() as tx:
        return tx.get_one(Vendor, guest.caller.vendor_id)


def _source_of(world: World, person: Signed) -> str:
    with world.database.transaction() as tx:
        return tx.get_one(Person, person.id).source_id
