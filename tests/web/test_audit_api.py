"""The auditor's API: filters, exports of exactly a filter, one event, and who had access at a moment."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
import secrets
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

import broker
from broker.auditing.sentences import sentences
from broker.kinds.names import user_of
from broker.models import Person, Vendor
from broker.revocation import ending
from tests.support.world import World
from tests.web.conftest import ClientOf


@pytest.mark.fast
def test_about_filter_finds_every_event_of_a_thing(world: World, client_of: ClientOf) -> None:
    signed, dataset, grant = world.guest()
    other, _, _ = world.guest()
    lease = world.issue(signed, dataset).lease
    auditor = client_of(world.person(roles=("auditor",)))

    def kinds(**filters: str) -> set[str]:
        found = auditor.get("/events", params={"limit": "100", **filters})
        assert found.status_code == 200, found.text
        return {item["kind"] for item in found.json()["items"]}

    both = {"decision.allowed", "lease.issued"}
    assert kinds(about=signed.id) == both
    assert kinds(about=dataset.id) == {*both, "slice.ready"}, "also through the lease and the slices that are on it"
    assert kinds(about=grant.id) == both
    assert kinds(about=lease.id) == {"lease.issued"}
    assert kinds(about=user_of(lease.handle)) == {"lease.issued"}, "as pg_stat_activity has it"
    assert kinds(about=signed.id, kind="lease.issued") == {"lease.issued"}
    assert kinds(vendor=signed.caller.vendor_id or "") == both
    assert kinds(vendor=other.caller.vendor_id or "") == set()
    now = world.now()
    assert kinds(about=signed.id, until=(now - timedelta(hours=1)).isoformat()) == set()
    assert kinds(about=signed.id, since=(now - timedelta(hours=1)).isoformat()) == both
    for odd in (
        "since=yesterday",
        "since=2026-03-01T10:00:00",
        "about=" + "x" * 201,
        "cursor=abc",
        "whom=x",
        "kind=lease.isued",
    ):
        assert auditor.get(f"/events?{odd}").status_code == 422, odd
    assert auditor.get("/events", params={"about": "'; DROP TABLE event"}).status_code == 422


def test_about_a_person_includes_refused_requests_and_how_their_leases_ended(world: World, client_of: ClientOf) -> None:
    """The subject is a lease or a request, the actor an owner or the system: the person is named by the record only."""
    vendor, owner = world.vendor(), world.person()
    signed, dataset = world.person(vendor), world.dataset(vendor, owner=owner)
    world.grant(dataset, signed)
    revoked = world.issue(signed, dataset).lease
    admin, auditor = client_of(world.person(roles=("admin",))), client_of(world.person(roles=("auditor",)))
    body = {"dataset": dataset.slug, "role": "annotator", "purpose": "more", "period": 3600}
    asked = client_of(signed).post("/requests", json=body)
    assert asked.status_code == 201, asked.text
    assert client_of(owner).post(f"/requests/{asked.json()['id']}/refuse", json={"reason": "enough"}).status_code == 200
    suspended = world.issue(signed, dataset).lease
    assert admin.post(f"/leases/{revoked.id}/revoke", json={"reason": "over"}).status_code == 202
    assert admin.post(f"/people/{signed.id}/suspend", json={"reason": "left"}).status_code == 202

    for lease in (revoked, suspended):
        world.wait_sweeping(lease.id, "revoked")
    for whom_or_what in (signed.id, dataset.slug):
        found = auditor.get("/events", params={"about": whom_or_what, "limit": 100}).json()["items"]
        assert {
            ("request.refused", asked.json()["id"]),
            ("lease.revoked", revoked.id),
            ("lease.ending", suspended.id),
            ("lease.revoked", suspended.id),
        } <= {(item["kind"], item["subject"]) for item in found}, whom_or_what


def test_event_filters_accept_names_and_refuse_unknown_ones(world: World, client_of: ClientOf) -> None:
    vendor = world.vendor()
    signed, dataset = world.person(vendor, name=f"Ada {secrets.token_hex(4)}"), world.dataset(vendor)
    world.grant(dataset, signed)
    lease = world.issue(signed, dataset).lease
    auditor, other = client_of(world.person(roles=("auditor",))), client_of(world.guest()[0])
    with world.database.transaction() as tx:
        person = tx.get_one(Person, signed.id)
    for name in (person.name.lower(), person.email, person.email.upper(), f"person:{signed.id}"):
        for path in ("/leases", "/grants"):
            found = auditor.get(path, params={"person": name})
            assert found.status_code == 200, found.text
            assert found.json()["items"], (path, name)
        leases = auditor.get("/leases", params={"person": name}).json()["items"]
        assert [item["id"] for item in leases] == [lease.id]
        assert auditor.get("/events", params={"actor": name, "kind": "lease.issued"}).json()["items"]
    assert auditor.get("/people", params={"vendor": vendor.name}).json()["items"]
    assert auditor.get("/events", params={"vendor": vendor.name.lower()}).json()["items"]
    assert signed.id in auditor.get("/people/export", params={"vendor": vendor.name}).text
    assert lease.id in auditor.get("/leases/export", params={"person": person.email}).text
    assert lease.id in auditor.get("/events/export", params={"about": person.email}).text
    for path, filters in (
        ("/leases", "person"),
        ("/leases/export", "person"),
        ("/grants", "person"),
        ("/people", "vendor"),
        ("/teams", "vendor"),
        ("/events", "about"),
        ("/events/export", "about"),
        ("/events", "vendor"),
        ("/events", "actor"),
    ):
        nobody = auditor.get(path, params={filters: "No One"})
        assert nobody.status_code == 422, (path, filters)
        assert nobody.json()["errors"][0]["pointer"] == f"/query/{filters}", nobody.text
    # Of another vendor: named or not there at all reads the same.
    hidden = other.get("/leases", params={"person": person.email}).json()
    absent = other.get("/leases", params={"person": "nobody@nowhere.example"}).json()
    assert {**hidden, "instance": ""} == {**absent, "instance": ""}


@pytest.mark.parametrize("form", ["jsonl", "json", "csv"])
def test_export_contains_exactly_the_filtered_events(world: World, client_of: ClientOf, form: str) -> None:
    signed, dataset, _ = world.guest()
    for _ in range(3):
        world.issue(signed, dataset)
    auditor = client_of(world.person(roles=("auditor",)))
    listed = auditor.get("/events", params={"about": dataset.id, "limit": 100}).json()["items"]
    exported = auditor.get("/events/export", params={"about": dataset.id, "format": form})
    assert exported.status_code == 200
    assert exported.headers["content-disposition"].endswith(f'.{form}"')
    if form == "jsonl":
        items = [json.loads(line) for line in exported.text.splitlines()]
    elif form == "json":
        items = exported.json()["items"]
    else:
        items = list(csv.DictReader(exported.text.splitlines()))
    assert [item["id"] for item in items] == [item["id"] for item in reversed(listed)]
    assert json.loads(items[0]["leaf"])["id"] == items[0]["id"]


def test_exported_cells_cannot_run_as_formulas(world: World, client_of: ClientOf) -> None:
    lead = world.person(world.vendor(), roles=("lead",))
    admin, auditor = world.person(roles=("admin",)), client_of(world.person(roles=("auditor",)))
    reason = 'a; =HYPERLINK("https://evil.example","click")\n=1'
    client_of(admin).post(f"/people/{lead.id}/suspend", json={"reason": reason})
    exported = auditor.get("/events/export", params={"about": lead.id, "format": "csv"}).text
    for delimiter in ",;\t":
        rows = list(csv.reader(io.StringIO(exported, newline=""), delimiter=delimiter))
        assert any("HYPERLINK" in cell for row in rows for cell in row)
        assert not any(cell.lstrip(" ").startswith(("=", "+", "@", "\t")) for row in rows[1:] for cell in row)


def test_events_have_sentences(world: World, client_of: ClientOf) -> None:
    signed, dataset, _ = world.guest()
    world.issue(signed, dataset)
    for reader in (signed, world.person(roles=("auditor",))):
        api = client_of(reader)
        (event,) = api.get("/events", params={"about": signed.id, "kind": "decision.allowed"}).json()["items"]
        assert event["sentence"] == f"Ada Guest was allowed access to {dataset.slug}."
        assert api.get(f"/events/{event['id']}").json() == event


def test_export_is_recorded_and_only_for_admins_and_auditors(world: World, client_of: ClientOf) -> None:
    auditor, guest = world.person(roles=("auditor",)), world.person(world.vendor())
    assert client_of(guest).get("/events/export").status_code == 403
    assert client_of(auditor).get("/events/export", params={"kind": "recovery.used", "subject": guest.id}).text == ""
    assert world.events(auditor.id) == ["audit.exported"]


def test_event_is_visible_only_to_those_concerned(world: World, client_of: ClientOf) -> None:
    signed, dataset, _ = world.guest()
    stranger, _, _ = world.guest()
    lease = world.issue(signed, dataset).lease
    auditor = client_of(world.person(roles=("auditor",)))
    event = auditor.get("/events", params={"about": lease.id}).json()["items"][0]
    assert auditor.get(f"/events/{event['id']}").json() == event
    mine = client_of(signed).get(f"/events/{event['id']}").json()
    assert (mine["id"], mine["leaf"]) == (event["id"], None)
    missing = client_of(stranger).get(f"/events/{event['id']}")
    nothing = client_of(stranger).get("/events/ev_01k9zq6c5w3m8v4x7r2t1y0b9d")
    assert (missing.status_code, nothing.status_code) == (404, 404)
    assert missing.json()["detail"] == nothing.json()["detail"]


def test_past_access_lists_grants_and_leases(world: World, client_of: ClientOf) -> None:
    signed, dataset, grant = world.guest()
    handed = world.issue(signed, dataset)
    during = world.now()
    admin = world.person(roles=("admin",))
    with world.database.transaction() as tx:
        ending.revoke_grant(tx, grant.id, admin.caller, "over", world.now())
    world.wait_sweeping(handed.lease.id, "revoked")
    auditor = client_of(world.person(roles=("auditor",)))

    def at(moment: object, **about: str) -> tuple[list[str], list[str], object]:
        answer = auditor.get("/access-at", params={"at": str(moment), **about})
        assert answer.status_code == 200, answer.text
        found = answer.json()
        return [it["grant"] for it in found["could"]], [it["lease"] for it in found["did"]], found["revision"]

    then = during.isoformat()
    for about in ({"dataset": dataset.slug}, {"person": signed.id}, {"vendor": signed.caller.vendor_id or ""}):
        could, did, revision = at(then, **about)
        assert (could, did) == ([grant.id], [handed.lease.id]), about
        assert revision
    assert at(world.now().isoformat(), dataset=dataset.slug)[:2] == ([], [])
    assert at((during - timedelta(days=400)).isoformat(), dataset=dataset.slug)[:2] == ([], [])
    assert at(then, dataset="no-such-dataset")[:2] == ([], [])
    assert auditor.get("/access-at", params={"at": then}).status_code == 422
    assert client_of(signed).get("/access-at", params={"at": then, "person": signed.id}).status_code == 403


def test_past_access_shows_who_was_suspended(world: World, client_of: ClientOf) -> None:
    signed, _, _ = world.guest()
    admin = client_of(world.person(roles=("admin",)))
    vendor_id = signed.caller.vendor_id
    assert admin.post(f"/vendors/{vendor_id}/suspend", json={"reason": "review"}).status_code == 202
    then = world.now().isoformat()
    assert admin.post(f"/vendors/{vendor_id}/resume", json={"reason": "fine"}).status_code == 200
    auditor = client_of(world.person(roles=("auditor",)))
    asked = {"vendor": vendor_id}
    during = auditor.get("/access-at", params={"at": then, **asked}).json()["could"]
    after = auditor.get("/access-at", params={"at": world.now().isoformat(), **asked}).json()["could"]
    assert [item["suspended"] for item in (*during, *after)] == [True, False]
    with world.database.transaction() as tx:
        assert tx.get_one(Vendor, vendor_id).status == "active"


def test_event_queries_use_an_index(world: World) -> None:
    """Planned as if the log were long: sequential scans are priced out, and none is left."""
    vendor_id = "vn_01k9zq6c5w3m8v4x7r2t1y0b9d"
    queries = (
        "about @> ARRAY['x']::varchar(40)[] OR subject = 'x' OR actor IN ('person:x', 'service:x')",
        f"about && (SELECT array_agg(id) FROM guestkey.person WHERE vendor_id = '{vendor_id}')",
        "at >= now() AND at < now()",
        "kind = 'lease.issued'",
    )
    with world.database.transaction() as tx:
        tx.execute(text("SET LOCAL enable_seqscan = off"))
        for condition in queries:
            plan = tx.scalars(text(f"EXPLAIN SELECT number FROM guestkey.event WHERE {condition}")).all()
            assert not any(re.search(r"Seq Scan on event\b", line) for line in plan), plan


def test_every_kind_of_event_has_a_sentence() -> None:
    kinds = {kind for file in Path(broker.__file__).parent.rglob("*.py") for kind in _recorded(file)}
    assert len(kinds) > 60
    assert kinds - sentences().keys() == set()


def test_every_sentence_names_the_actor() -> None:
    assert [kind for kind, said in sentences().items() if not said.startswith("{who} ")] == []


def _recorded(file: Path) -> Iterator[str]:
    """The kinds of events named in calls of something that records, or put into a name for one."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("record"):
            named: list[ast.expr] = node.args
        elif isinstance(node, ast.Assign) and "kind" in ast.unparse(node.targets[0]):
            named = [node.value]
        else:
            continue
        for part in (part for value in named for part in ast.walk(value)):
            if isinstance(part, ast.Constant) and re.fullmatch(r"[a-z_]+\.[a-z_]+", str(part.value)):
                yield str(part.value)


def test_filters_do_not_reveal_whether_a_dataset_exists(world: World, client_of: ClientOf) -> None:
    """What is not offered and what is not there leave the same trace."""
    hidden = world.dataset(world.vendor(), register=False)
    for slug in (hidden.slug, "trials-ffffffff"):
        api = client_of(world.person(world.vendor()))
        assert api.post("/leases", json={"dataset": slug, "slice": "full"}).status_code == 404
        for name in ("subject", "about", "vendor"):
            for asked in ("dataset:unknown", hidden.id):
                found = api.get("/events", params={name: asked})
                named = name == "subject" or asked == hidden.id
                assert found.status_code == (200 if named else 422), (slug, name, asked)
                assert found.json().get("items", []) == [], (slug, name, asked)
        assert len(api.get("/events", params={"kind": "decision.denied"}).json()["items"]) == 1
