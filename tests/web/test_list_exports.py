"""Whole lists as files: exactly what the list shows to the same caller, inert in a spreadsheet, and recorded."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta

import pytest
from sqlalchemy import insert

from broker.base import csv_lines
from broker.base.ids import new_id
from broker.models import Grant
from tests.support.world import World
from tests.web.conftest import ClientOf


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("what", ["people", "grants", "leases"])
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_export_equals_the_list(world: World, client_of: ClientOf, what: str, form: str) -> None:
    vendor = world.vendor()
    lead, other = world.person(vendor, roles=("lead",)), world.person(vendor, name="Zoë, “Z”\nthe second")
    dataset = world.dataset(vendor)
    for signed in (lead, other):
        world.grant(dataset, signed)
        world.issue(signed, dataset)
    world.team(vendor, other)
    world.guest()
    api = client_of(lead)
    exported = api.get(f"/{what}/export", params={"format": form})
    assert exported.status_code == 200, exported.text
    assert exported.headers["content-disposition"] == f'attachment; filename="guestkey-{what}.{form}"'
    found = rows(exported.text) if form == "csv" else [json.loads(line) for line in exported.text.splitlines()]
    listed = api.get(f"/{what}").json()["items"]
    assert [item["id"] for item in found] == [item["id"] for item in listed] and len(found) == 2
    for item, shown in zip(found, listed, strict=True):
        for name in set(shown) & set(item) - {"roles", "created_at"}:
            assert item[name] == (shown[name] if form == "jsonl" else "" if shown[name] is None else str(shown[name]))
    assert world.events(lead.id)[-1] == "list.exported"


def test_export_contains_all_pages(world: World, client_of: ClientOf) -> None:
    vendor = world.vendor()
    signed, dataset = world.person(vendor), world.dataset(vendor, register=False)
    now = world.now()
    made = {new_id("gr") for _ in range(501)}
    with world.database.transaction() as tx:
        period = {"starts_at": now - timedelta(hours=1), "ends_at": now + timedelta(days=1)}
        common = {"dataset_id": dataset.id, "role": "annotator", "person_id": signed.id, "purpose": "p", **period}
        tx.execute(insert(Grant), [{"id": id_, **common} for id_ in made])
    admin = client_of(world.person(roles=("admin",)))
    found = rows(admin.get("/grants/export", params={"dataset": dataset.slug}).text)
    assert {item["id"] for item in found} == made and len(found) == 501
    assert {item["holder"] for item in found} == {f"person:{signed.id}"}


@pytest.mark.parametrize(
    "name",
    ['=HYPERLINK("https://evil.example")', "+1|cmd", "@SUM(1)", "\tx", "-2+3", "'=1", "＝1", "x;=cmd|' /C calc'!A0"],
)
def test_exported_names_cannot_run_as_formulas(world: World, client_of: ClientOf, name: str) -> None:
    vendor = world.vendor()
    world.person(vendor, name=name)
    admin = client_of(world.person(roles=("admin",)))
    text = admin.get("/people/export", params={"vendor": vendor.id}).text
    (found,) = rows(text)
    assert found["name"] != name and csv_lines.plain(found["name"]) == name
    for delimiter in ",;\t":
        cells = [cell for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) for cell in row]
        assert not [cell for cell in cells if cell[:1] in set("=+-@|%\t＝")], "however a spreadsheet splits it"


def test_export_reveals_nothing_beyond_the_list(world: World, client_of: ClientOf) -> None:
    theirs, dataset, grant = world.guest()
    lease = world.issue(theirs, dataset).lease
    lead = client_of(world.person(world.vendor(), roles=("lead",)))
    for what in ("people", "grants", "leases"):
        text = lead.get(f"/{what}/export").text
        assert not [id_ for id_ in (theirs.id, dataset.slug, grant.id, lease.id) if id_ in text]
        nothing = lead.get(f"/{what}/export", params={"format": "xlsx"})
        assert nothing.status_code == 422
    vendor = {"vendor": theirs.caller.vendor_id or "", "format": "jsonl"}
    assert lead.get("/people/export", params=vendor).text == ""
    assert client_of(None).get("/people/export").status_code == 401
