"""Grants by a file: given by who decides, asked for by leads, never for oneself."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import httpx
from sqlalchemy import select

from broker.models import Dataset, Grant, Request
from tests.support.world import World
from tests.web.conftest import BrowserOf, ClientOf

HEADING = "dataset,role,purpose,until,person,team,slice\n"


def send(api: httpx.Client, text: str, **query: Any) -> list[dict[str, Any]]:
    answer = api.post("/grants/import", content=text.encode(), params=query, headers={"Content-Type": "text/csv"})
    assert answer.status_code == 200, answer.text
    lines: list[dict[str, Any]] = answer.json()["lines"]
    return lines


def outcomes(lines: list[dict[str, Any]]) -> list[str]:
    return [line["code"] or line["outcome"] for line in lines]


def day(world: World, days: int = 30) -> str:
    return (world.now() + timedelta(days=days)).date().isoformat()


def grants(world: World, dataset: Dataset) -> int:
    with world.database.transaction() as tx:
        return len(tx.scalars(select(Grant).where(Grant.dataset_id == dataset.id)).all())


def test_owner_gives_grants_to_teams_and_people(world: World, client_of: ClientOf) -> None:
    vendor, owner = world.vendor(), world.person()
    one, two = world.person(vendor), world.person(vendor)
    team, dataset = world.team(vendor, one), world.dataset(vendor, owner=owner, register=False)
    api, until = client_of(owner), day(world)
    text = HEADING + (
        f"{dataset.slug},annotator,March visits,{until},,{team.name},deidentified\n"
        f"{dataset.slug},annotator,March visits,{until},{two.id},,deidentified\n"
    )
    assert outcomes(send(api, text, dry_run=True)) == ["granted"] * 2
    assert grants(world, dataset) == 0
    done = send(api, text)
    assert outcomes(done) == ["granted"] * 2, done
    assert outcomes(send(api, text)) == ["already_granted"] * 2
    assert grants(world, dataset) == 2
    assert world.events(done[0]["id"]) == ["grant.made"]
    shown = api.get(f"/grants/{done[1]['id']}").json()
    assert (shown["holder"], shown["slice"], shown["request"]) == (f"person:{two.id}", "deidentified", None)
    assert shown["ends_at"][:10] > until, "until the end of that day"
    assert client_of(two).get(f"/grants/{done[1]['id']}").status_code == 200


def test_person_who_cannot_decide_gives_no_grants(world: World, client_of: ClientOf) -> None:
    vendor, owner = world.vendor(), world.person()
    guest, dataset = world.person(vendor), world.dataset(vendor, owner=owner, register=False)
    text = HEADING + f"{dataset.slug},annotator,March visits,{day(world)},{guest.id},,\n"
    assert outcomes(send(client_of(world.person()), text)) == ["forbidden"], "not an owner"
    assert outcomes(send(client_of(world.person(roles=("admin",))), text)) == ["forbidden"], "it has an owner"
    assert outcomes(send(client_of(guest), text)) == ["asked"], "for oneself one may ask"
    stale = client_of(world.person(factor_age=None))
    answer = stale.post("/grants/import", content=text.encode(), headers={"Content-Type": "text/csv"})
    assert answer.status_code == 401
    api = client_of(owner)
    for line, code in (
        (f"{dataset.slug},annotator,Mine,{day(world)},{owner.id},,", "not_found"),
        (f"{dataset.slug},annotator,Theirs,{day(world)},{world.person(world.vendor()).id},,", "not_found"),
        (f"{dataset.slug},trainer-of-none,No rule,{day(world)},{guest.id},,", "grant_pointless"),
        (f"no-such,annotator,None,{day(world)},{guest.id},,", "not_found"),
        (f"{dataset.slug},annotator,,{day(world)},{guest.id},,", "invalid"),
        (f"{dataset.slug},annotator,Past,2020-01-01,{guest.id},,", "line_unusable"),
        (f"{dataset.slug},annotator,Long,{day(world, 400)},{guest.id},,", "line_unusable"),
        (f"{dataset.slug},annotator,Zone,2099-01-01T10:00,{guest.id},,", "line_unusable"),
        (f"{dataset.slug},annotator,Nobody,{day(world)},,,", "line_unusable"),
        (f"{dataset.slug},annotator,Both,{day(world)},{guest.id},Team,", "line_unusable"),
        (f"{dataset.slug},annotator,=1+1,{day(world)},{guest.id},,", "formula"),
    ):
        found = send(api, HEADING + line + "\n", keep_going=True)
        assert outcomes(found) == [code] and found[0]["advice"], found
    assert grants(world, dataset) == 0


def test_lead_requests_for_staff_and_the_owner_decides(world: World, client_of: ClientOf) -> None:
    vendor, owner = world.vendor(), world.person()
    lead, guest = world.person(vendor, roles=("lead",)), world.person(vendor, name="Bo Guest")
    dataset = world.dataset(vendor, owner=owner, register=False)
    text = HEADING + f"{dataset.slug},annotator,March visits,{day(world)},{guest.id},,\n"
    asked = send(client_of(lead), text)
    assert outcomes(asked) == ["asked"], asked
    assert outcomes(send(client_of(lead), text)) == ["already_asked"]
    own = text.replace(guest.id, lead.id)
    assert [outcomes(send(client_of(lead), own)) for _ in range(2)] == [["asked"], ["already_asked"]], "by their name"
    request_id = asked[0]["id"]
    shown = client_of(guest).get(f"/requests/{request_id}").json()
    assert (shown["person"]["id"], shown["for_person"]["name"]) == (lead.id, "Bo Guest")
    assert client_of(lead).post(f"/requests/{request_id}/approve", json={}).status_code == 403
    facts = client_of(owner).get(f"/requests/{request_id}").json()["facts"]
    assert facts["holder"]["id"] == guest.id and facts["may_decide"]
    granted = client_of(owner).post(f"/requests/{request_id}/approve", json={})
    assert granted.json()["holder"] == f"person:{guest.id}", granted.text
    assert grants(world, dataset) == 1
    other = world.person(world.vendor())
    for person in (other.id, "pe_01k9zq6c5w3m8v4x7r2t1y0b9d"):
        body = {"dataset": dataset.slug, "role": "annotator", "purpose": "p", "period": 3600, "person": person}
        answer = client_of(lead).post("/requests", json=body)
        assert (answer.status_code, answer.json()["detail"]) == (404, "There is no such person here.")
    body = {"dataset": dataset.slug, "role": "annotator", "purpose": "p", "period": 3600, "person": lead.id}
    assert client_of(guest).post("/requests", json=body).status_code == 404
    with world.database.transaction() as tx:
        assert tx.get_one(Request, request_id).for_person_id == guest.id


def test_imported_request_ends_at_its_until_even_if_approved_late(
    world: World, client_of: ClientOf, browser_of: BrowserOf
) -> None:
    vendor, owner = world.vendor(), world.person()
    lead, guest = world.person(vendor, roles=("lead",)), world.person(vendor)
    dataset = world.dataset(vendor, owner=owner, register=False)
    soon = world.now() + timedelta(days=1)
    text = HEADING + f"{dataset.slug},annotator,March visits,{soon.isoformat()},{guest.id},,\n"
    request_id = send(client_of(lead), text)[0]["id"]
    # As if it had waited for twenty hours: its period would reach a day from now again.
    until = soon - timedelta(hours=20)
    world.change(Request, request_id, until=until)
    shown = client_of(owner).get(f"/requests/{request_id}").json()
    assert datetime.fromisoformat(shown["until"]) == until
    assert datetime.fromisoformat(shown["lapses_at"]) == soon, "nobody approves what would be over"
    assert shown["facts"]["longest_period"] <= 4 * 3600 < shown["period"]
    page = browser_of(owner).get(f"/requests/{request_id}").text
    assert "at the latest" in page and "h, as requested</option>" in page
    granted = client_of(owner).post(f"/requests/{request_id}/approve", json={}).json()
    assert datetime.fromisoformat(granted["ends_at"]) == until
    shorter = send(client_of(lead), text.replace(guest.id, lead.id))[0]["id"]
    granted = client_of(owner).post(f"/requests/{shorter}/approve", json={"period": 3600}).json()
    assert datetime.fromisoformat(granted["ends_at"]) < soon - timedelta(hours=22), "narrowed as ever"


def test_import_does_not_reveal_what_others_hold(world: World, client_of: ClientOf) -> None:
    """Whoever the caller does not see is told of like nobody, whatever they hold; by a lead and by an engineer."""
    vendor, foreign, owner = world.vendor(), world.vendor(), world.person()
    dataset = world.dataset(vendor, foreign, owner=owner, register=False)
    mate, stranger, idle = world.person(vendor), world.person(foreign), world.person(foreign)
    for holder in (mate, stranger):
        world.grant(dataset, holder)
    for asker, meant in ((("lead",), stranger), ((), stranger), ((), mate)):
        api = client_of(world.person(vendor, roles=asker))
        line = f"{dataset.slug},annotator,x,{day(world, 1)},{{}},,\n"
        held, nothing = (send(api, HEADING + line.format(who.id), dry_run=True)[0] for who in (meant, idle))
        assert held["outcome"] == "refused"
        assert [held[name] for name in ("code", "id", "detail")] == [nothing[name] for name in ("code", "id", "detail")]
