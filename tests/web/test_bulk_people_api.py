"""Inviting people by a file: what becomes of each line, twice, half-valid, hostile, and by whom."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from sqlalchemy import select

from broker.base.ids import new_id
from broker.models import Invitation, Person, Team, TeamMember, Vendor
from tests.support.world import Signed, World
from tests.web.conftest import ClientOf

HEADING = "name,email,team\n"


def send(api: httpx.Client, text: str | bytes, **query: Any) -> httpx.Response:
    content = text.encode() if isinstance(text, str) else text
    return api.post("/people/import", content=content, params=query, headers={"Content-Type": "text/csv"})


def outcomes(answer: httpx.Response) -> list[tuple[int, str, str]]:
    assert answer.status_code == 200, answer.text
    return [(line["line"], line["outcome"], line["code"]) for line in answer.json()["lines"]]


@pytest.fixture
def lead(world: World) -> Signed:
    """The lead of a vendor with one source."""
    return world.person(world.vendor(), roles=("lead",))


def invitations(world: World, lead: Signed) -> int:
    with world.database.transaction() as tx:
        found = select(Invitation).where(Invitation.vendor_id == lead.caller.vendor_id)
        return len(tx.scalars(found).all())


def test_dry_run_writes_nothing_and_a_repeat_finds_the_first_run(
    world: World, lead: Signed, client_of: ClientOf
) -> None:
    api = client_of(lead)
    text = HEADING + "Ada Löwe,ada@example.org,\nBo Berg,bo@example.org,\n"
    dry = send(api, text, dry_run=True)
    assert outcomes(dry) == [(2, "invited", ""), (3, "invited", "")]
    assert all(not line["link"] and not line["id"] for line in dry.json()["lines"])
    assert invitations(world, lead) == 0
    done = send(api, text)
    links = [line["link"] for line in done.json()["lines"]]
    assert len(set(links)) == 2 and all("/join/" in link for link in links)
    again = send(api, text)
    assert [line["outcome"] for line in again.json()["lines"]] == ["already_invited"] * 2
    assert not any(line["link"] for line in again.json()["lines"])
    assert invitations(world, lead) == 2
    renewed = send(api, text, again=True)
    assert [line["outcome"] for line in renewed.json()["lines"]] == ["invited"] * 2
    ended = done.json()["lines"][0]["id"]
    assert world.events(ended) == ["invitation.made", "invitation.ended"]


def test_one_refused_line_stops_all_unless_keep_going(world: World, lead: Signed, client_of: ClientOf) -> None:
    api = client_of(lead)
    text = HEADING + "Ada,ada@example.org,\nBo,bo,\nAda,ADA@example.org,\nCy,cy@example.org,Nowhere\n"
    stopped = send(api, text)
    assert outcomes(stopped) == [
        (2, "left_out", ""),
        (3, "refused", "line_unusable"),
        (4, "refused", "duplicate_line"),
        (5, "refused", "not_found"),
    ]
    assert invitations(world, lead) == 0
    kept = send(api, text, keep_going=True)
    assert kept.json()["counts"] == {"invited": 1, "refused": 3}
    assert all(line["advice"] for line in kept.json()["lines"] if line["outcome"] == "refused")
    assert invitations(world, lead) == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ((HEADING + "Ada,,\n").encode("utf-16"), "UTF-16"),
        ((HEADING + "Ada,,\n").encode("utf-16-le"), "zero bytes"),
        ((HEADING + "Löwe,,\n").encode("latin-1"), "line 2"),
        (b"name,email\nAda\x00,\n", "zero bytes"),
        (b"name,name\nAda,Bo\n", "twice"),
        (b"name,boss\nAda,Bo\n", "unknown"),
        (b"email\nada@example.org\n", "lacks"),
        (b"name;email,team\nAda;,\n", "mixes"),
        (b"name\n", "no line"),
        (b'name,email\n"Ada,\n', "well-formed"),
        (b"PK\x03\x04zip", "unknown"),
        (b"name\n" + b"x\n" * 501, "more than 500"),
    ],
)
def test_invalid_file_is_refused_as_a_whole(
    world: World, lead: Signed, client_of: ClientOf, content: bytes, says: str
) -> None:
    answer = send(client_of(lead), content, keep_going=True)
    assert (answer.status_code, answer.json()["code"]) == (422, "file_unusable"), answer.text
    assert says in answer.json()["detail"], answer.text
    assert answer.json()["advice"]
    assert invitations(world, lead) == 0


def test_hostile_cells_are_refused_individually(world: World, lead: Signed, client_of: ClientOf) -> None:
    lines = [
        "=cmd|' /C calc'!A0,,",
        "@SUM(1+1),,",
        "Ada\u202egnp,,",
        "Ada\u200b,,",
        '"Ada\nBo",,',
        "A" * 3000 + ",,",
        "A" * 150 + ",,",
        "Ada,,,,more",
        "Ada",
        "Ada,a b@example.org,",
        " ,ada@example.org,",
    ]
    answer = send(
        client_of(lead), "\ufeff" + HEADING + "\n".join(lines) + "\n\nGood,good@example.org,\n", keep_going=True
    )
    found = outcomes(answer)
    assert [line[1] for line in found] == ["refused"] * len(lines) + ["invited"], answer.text
    assert [line[2] for line in found[:2]] == ["formula"] * 2
    assert found[-1][0] == len(lines) + 4, "a number counts the lines of the file, empty ones and broken ones too"
    assert "\u202e" not in answer.text and "\\u202e" not in answer.text
    assert invitations(world, lead) == 1


def test_semicolons_and_windows_lines_are_read(lead: Signed, client_of: ClientOf) -> None:
    answer = send(client_of(lead), "Name;E\r\n", dry_run=True)
    assert answer.json()["code"] == "file_unusable"
    answer = send(
        client_of(lead), b"\xef\xbb\xbfName; Email\r\nAda;ada@example.org\r\nBo;\r\n", dry_run=True, after=100
    )
    assert outcomes(answer) == [(102, "invited", ""), (103, "invited", "")]


def test_lead_can_import_only_for_their_own_vendor(world: World, lead: Signed, client_of: ClientOf) -> None:
    other = world.vendor()
    source = world.source(other)
    text = HEADING + "Ada,,\n"
    assert send(client_of(world.person(world.vendor())), text).status_code == 403
    api = client_of(lead)
    assert send(api, text, vendor=other.id).status_code == 404
    assert send(api, text, source=source.id).status_code == 403
    theirs = world.team(other)
    found = send(
        api, HEADING + f"Ada,,{theirs.name}\nBo,,{theirs.id}\nCy,,te_01k9zq6c5w3m8v4x7r2t1y0b9d\n", dry_run=True
    )
    details = {(line["code"], line["detail"]) for line in found.json()["lines"]}
    assert len(details) == 1, "theirs and nobody's read the same"
    admin = client_of(world.person(roles=("admin",)))
    assert send(admin, text).status_code == 422, "whose people?"
    assert send(admin, text, vendor=other.id, dry_run=True).status_code == 200
    stale = client_of(world.person(roles=("admin",), factor_age=None))
    assert send(stale, text, vendor=other.id).status_code == 401


def test_imported_person_joins_the_team_when_confirmed(world: World, lead: Signed, client_of: ClientOf) -> None:
    team = world.add(Team(id=new_id("te"), vendor_id=lead.caller.vendor_id, name="Night shift"))
    done = send(client_of(lead), HEADING + "Ada,ada@example.org,Night shift\n")
    assert outcomes(done) == [(2, "invited", "")]
    invitation_id = done.json()["lines"][0]["id"]
    with world.database.transaction() as tx:
        vendor = tx.get_one(Vendor, lead.caller.vendor_id)
        source = tx.get_one(Person, lead.id).source_id
    joined = world.person(vendor, status="pending")
    world.change(Invitation, invitation_id, redeemed_by=joined.id, redeemed_at=world.now())
    text = HEADING + "Ada,ada@example.org,Night shift\n"
    assert outcomes(send(client_of(lead), text, source=source)) == [(2, "already_joined", "")]
    admin = client_of(world.person(roles=("admin",)))
    assert admin.post(f"/people/{joined.id}/confirm").status_code == 200
    with world.database.transaction() as tx:
        assert tx.get(TeamMember, (team.id, joined.id)) is not None
    world.grant(world.dataset(register=False), team)
    refused = send(client_of(lead), HEADING + "Bo,bo@example.org,Night shift\n", source=source)
    assert outcomes(refused) == [(2, "refused", "forbidden")], "a team with a grant is not a lead's to fill"
