"""Promise 7: through the broker a person of vendor A learns nothing of vendor B, not even that it exists."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from broker.base.ids import is_id, new_id
from broker.identity import terminal_confirmation
from broker.models import Dataset, Event, Invitation, NoticeChannel, Proposal, Request, Suspension
from tests.support.world import Signed, World
from tests.web.conftest import ClientOf, Replica, client_of, replica

__all__ = ["client_of", "replica"]
_PARAMETER = re.compile(r"\{(\w+)\}")


@dataclass
class Sides:
    """Askers of vendor A, and what exists of vendor B, by the name of the path parameter that takes it."""

    askers: dict[str, Signed]
    theirs: dict[str, str]
    nobodys: dict[str, str]


@pytest.fixture
def sides(world: World) -> Sides:
    """Two vendors, the second one with one of everything."""
    ours, theirs = world.vendor(), world.vendor()
    guest, dataset = world.person(theirs, roles=("lead",)), world.dataset(theirs)
    grant = world.grant(dataset, guest)
    lease = world.issue(guest, dataset).lease
    now = world.now()
    request = world.add(
        Request(
            id=new_id("rq"),
            person_id=guest.id,
            dataset_id=dataset.id,
            role="annotator",
            purpose="theirs",
            period=3600,
            lapses_at=now + timedelta(days=1),
        )
    )
    source = world.source(theirs)
    invitation = world.add(
        Invitation(
            id=new_id("in"),
            token_hash=new_id("x").encode(),
            purpose="join",
            source_id=source.id,
            vendor_id=theirs.id,
            expires_at=now + timedelta(days=1),
        )
    )
    proposal = world.add(
        Proposal(
            id=new_id("pr"),
            act="trust_source_mfa",
            subject=source.id,
            details={},
            proposed_by=guest.id,
            lapses_at=now + timedelta(days=1),
        )
    )
    suspension = world.add(
        Suspension(
            id=new_id("su"),
            what="vendor",
            target_id=theirs.id,
            name=theirs.name,
            reason="theirs",
            found={},
            suspended_by=new_id("pe"),
            started_at=now,
        )
    )
    channel = world.add(
        NoticeChannel(
            id=new_id("ch"), kind="webhook", name="A", shown="https://…", wrapped="", topics=[], made_by=new_id("pe")
        )
    )
    with world.database.transaction() as tx:
        waiting_id = terminal_confirmation.request_confirmation(tx, replace(guest.caller, factor_enrolled=True), now).id
        event_id = tx.scalars(select(Event.id).where(Event.subject == lease.id)).first()
    assert event_id is not None
    made = {
        "vendor_id": theirs.id,
        "person_id": guest.id,
        "team_id": world.team(theirs, guest).id,
        "service_id": world.service(theirs).id,
        "slug": dataset.slug,
        "name": "deidentified",
        "role": "lead",
        "request_id": request.id,
        "grant_id": grant.id,
        "lease_id": lease.id,
        "handle": lease.handle,
        "source_id": source.id,
        "invitation_id": invitation.id,
        "proposal_id": proposal.id,
        "session_id": guest.caller.holder_id,
        "passkey_id": new_id("pk"),
        "waiting_id": waiting_id,
        "suspension_id": suspension.id,
        "event_id": event_id,
        "connection": "data",
        "schema_name": "clinic",
        "table": "patients",
        "channel_id": channel.id,
    }
    unchanged = ("name", "role")
    nobodys = {key: value if key in unchanged else _nobodys(value) for key, value in made.items()}
    askers = {
        "engineer": world.person(ours),
        "lead": world.person(ours, roles=("lead",)),
        "service": world.service(ours),
    }
    return Sides(askers, made, nobodys)


def _nobodys(id_: str) -> str:
    """An id of the same form that nobody has."""
    if id_.startswith("trials-"):
        return "trials-00000000"
    tag, parted, _ = id_.rpartition("-l")
    prefix = id_.split("_")[0] + "_" if "_" in id_ else f"{tag}{parted or 'l'}"
    return prefix + "01" + "0" * 24


def _same(one: httpx.Response, other: httpx.Response) -> bool:
    return _seen(one) == _seen(other)


def _seen(answer: httpx.Response) -> tuple[int, Any]:
    body = answer.json() if answer.content else None
    if isinstance(body, dict):
        body = {key: value for key, value in body.items() if key not in ("instance", "decided_at")}
    return answer.status_code, body


@pytest.mark.parametrize("who", ["engineer", "lead", "service"])
def test_objects_of_another_vendor_look_nonexistent(
    sides: Sides, replica: Replica, client_of: ClientOf, who: str
) -> None:
    api = client_of(sides.askers[who])
    described = replica.app.openapi()
    checked = 0
    for path, operations in described["paths"].items():
        names = _PARAMETER.findall(path)
        if not names or not path.startswith("/api/v1/"):
            continue
        assert set(names) <= sides.theirs.keys(), f"{path}: say in this test what of vendor B it could show"
        for method, operation in operations.items():
            body = _body(described, operation)
            answers = [
                api.request(method.upper(), path.removeprefix("/api/v1").format(**ids), json=body)
                for ids in (sides.theirs, sides.nobodys)
            ]
            assert _same(*answers), (method, path, [_seen(answer) for answer in answers])
            assert answers[0].status_code >= 400 or method == "get", (method, path, answers[0].text)
            if method == "get":
                assert answers[0].status_code in (403, 404), (path, answers[0].text)
            checked += 1
    assert checked >= 30


@pytest.mark.parametrize("who", ["engineer", "lead", "service"])
def test_filters_and_lists_show_nothing_of_another_vendor(sides: Sides, client_of: ClientOf, who: str) -> None:
    api = client_of(sides.askers[who])
    filters = {
        "/grants": ("dataset", "person"),
        "/leases": ("dataset", "person"),
        "/people": ("vendor",),
        "/teams": ("vendor",),
        "/events": ("actor", "subject", "about", "vendor"),
    }
    for path, names in filters.items():
        for name in names:
            for what, value in sides.theirs.items():
                # What is of an id's or a handle's form is compared with another of that form: it may be read as one.
                alike = is_id(value) or what == "handle"
                nobodys = sides.nobodys[what] if alike else value[::-1]
                answers = [api.get(path, params={name: asked}) for asked in (value, nobodys)]
                assert _same(*answers), (path, name, value, [answer.text for answer in answers])
                assert answers[0].json().get("items", []) == [], (path, name, value)
    theirs = set(sides.theirs.values()) - {"deidentified", "lead"}
    for path in ("/vendors", "/people", "/teams", "/datasets", "/requests", "/grants", "/leases", "/events"):
        text = api.get(path).text
        assert not [value for value in theirs if value in text], path


def test_requesting_another_vendors_dataset_looks_like_a_missing_one(
    world: World, sides: Sides, client_of: ClientOf
) -> None:
    api = client_of(sides.askers["lead"])
    for path, body in (
        ("/leases", {"dataset": "{slug}", "slice": "deidentified"}),
        ("/requests", {"dataset": "{slug}", "role": "annotator", "purpose": "p", "period": 3600}),
        (
            "/requests",
            {"dataset": "trials-0", "role": "annotator", "purpose": "p", "period": 3600, "team": "{team_id}"},
        ),
        ("/teams", {"name": "Mine", "vendor": "{vendor_id}"}),
    ):
        answers = [
            api.post(path, json={k: v.format(**ids) if isinstance(v, str) else v for k, v in body.items()})
            for ids in (sides.theirs, sides.nobodys)
        ]
        assert _same(*answers) and answers[0].status_code == 404, (path, [answer.text for answer in answers])
    # What was asked for in vain reads the same in one's own log, too.
    seen = [
        (event["subject"], event["details"], event["personal"].get("dataset_asked"))
        for event in api.get("/events", params={"kind": "decision.denied"}).json()["items"]
    ]
    assert len(seen) == 2 and seen[0] == seen[1], seen
    dataset = select(Dataset.id).where(Dataset.slug == sides.theirs["slug"])
    with world.database.transaction() as tx:
        dataset_id = tx.scalars(dataset).one()
    for name in ("about", "subject"):
        assert api.get("/events", params={name: dataset_id}).json()["items"] == [], "no filter tells it exists"


def _body(described: dict[str, Any], operation: dict[str, Any]) -> Any:
    """The least body that fits an operation's schema; None where it takes none."""
    if "requestBody" not in operation:
        return None
    content = operation["requestBody"]["content"]
    return _value(described, content["application/json"]["schema"]) if "application/json" in content else None


def _value(described: dict[str, Any], schema: dict[str, Any]) -> Any:
    if "$ref" in schema:
        return _value(described, described["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]])
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return _value(described, schema["anyOf"][0])
    kind = schema.get("type")
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: _value(described, properties[name]) for name in schema.get("required", []) if name in properties}
    if kind == "array":
        return [_value(described, schema["items"])] if schema.get("minItems") else []
    simple: dict[Any, Any] = {"integer": max(1, int(schema.get("minimum", 1))), "boolean": True, "number": 1}
    return simple.get(kind, "x")
