"""An admin's first dataset: from a connected database to a slice guests can use, step by step, back and forth."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import select, text, update

from broker.models import Catalogue, Dataset, Slice
from tests.portal.conftest import GuestOf
from tests.portal.guests import Guest
from tests.portal.house import House
from tests.support.agreeing import agree_waiting

TABLES = """
CREATE SCHEMA ward;
CREATE TABLE ward.visits (visit_id bigint, site text, at date, cost numeric(8,2), patient_name text, e_mail text);
INSERT INTO ward.visits SELECT n, 'berlin', '2026-01-01', n, 'canary', 'canary@example.org'
  FROM generate_series(1, 40) n;
CREATE TABLE ward."Odd <b>\u202eName" (id int);
GRANT USAGE ON SCHEMA ward TO guestkey_registrar;
GRANT SELECT ON ALL TABLES IN SCHEMA ward TO guestkey_registrar;
ANALYZE ward.visits;
"""


@pytest.fixture(scope="module", autouse=True)
def ward(house: House) -> Iterator[None]:
    """A table with people in it, and one with a name that means harm."""
    with house.world.admin() as session:
        session.execute(TABLES)
        yield
        session.execute("DROP SCHEMA ward CASCADE")


def shows(guest: Guest, words: str, *, gone: bool = False) -> None:
    """Reload until the page says it, or says it no more."""
    until = time.monotonic() + 15
    while (words in guest.page.locator("main").inner_text()) == gone:
        assert time.monotonic() < until, guest.page.locator("main").inner_text()
        time.sleep(0.2)
        guest.page.reload()


def read_again(guest: Guest, table: str) -> None:
    """Have the database read anew, and look for a table made a moment ago."""
    shows(guest, "Read tables again")
    guest.press("Read tables again")
    guest.open(guest.page.url + "?part=ward.")
    shows(guest, table)


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no-scripts"])
def test_a_dataset_is_registered_step_by_step(house: House, guest_of: GuestOf, scripts: bool) -> None:
    owner = house.someone("Olga Owner")
    ines = guest_of(house.someone("Ines Admin", None, "admin"), factor_age=10, scripts=scripts)
    slug = f"ward-{secrets.token_hex(4)}"
    ines.open("/datasets")
    ines.follow("Register a dataset")
    if scripts:
        ines.look("describe-begin")
    ines.choose("Where the data is", "data")
    ines.press("Continue")
    read_again(ines, "ward.visits")
    assert "\u202e" not in ines.page.content() and "\\u202e" in ines.page.content()
    if scripts:
        ines.look("describe-table")
    ines.page.get_by_label("ward.visits").check()
    ines.press("Continue")
    ines.says("Looks like a name: “patient” is in its name")
    ticked = {box.get_attribute("name") for box in ines.page.locator("input:checked").all()}
    assert ticked == {"use-site", "use-at", "use-cost"}
    if scripts:
        ines.look("describe-columns")
    ines.choose("Column 1", "cost")
    ines.choose("Comparison 1", "<=")
    ines.fill("Value 1", "a lot")
    ines.press("Continue")
    ines.says("A row filter compares cost, which is of type")
    assert ines.page.get_by_label("Value 1").input_value() == "a lot"
    ines.fill("Value 1", "30")
    ines.fill("Value 2", "Ulm")
    ines.press("Continue")
    ines.says("A condition has a value but no column.")
    assert ines.page.get_by_label("Value 2").input_value() == "Ulm"
    ines.fill("Value 2", "")
    ines.press("Continue")
    ines.says("Step 4 of 5")
    ines.fill("Title", "Visits <script>alert(1)</script>")
    ines.fill("Short name", "new")
    ines.fill("Labels", "classification:internal")
    ines.choose("Owner", owner.id)
    ines.fill("Kept until", "2030-12-31")
    ines.fill("Name of the slice", "deidentified")
    ines.press("Continue")
    ines.says("is reserved")
    ines.fill("Short name", slug)
    if scripts:
        ines.look("describe-describe")
    ines.press("Continue")
    ines.says("those where cost is at most 30")
    command = ines.page.locator("#command").text_content() or ""
    assert command.endswith("--column site --column at --column cost --where 'cost<=30'"), command
    if scripts:
        ines.look("describe-review")
    # Back two steps, another column, and on again: nothing else is lost.
    ines.follow("Columns and rows")
    ines.page.go_back()
    ines.says("Step 5 of 5")
    ines.follow("Columns and rows")
    ines.page.locator("#use-at").uncheck()
    assert ines.page.get_by_label("Value 1").input_value() == "30"
    ines.press("Continue")
    assert ines.page.get_by_label("Short name").input_value() == slug
    ines.press("Continue")
    review = ines.page.url
    assert "canary" not in ines.page.content()
    ines.press("Register dataset")
    ines.says("Slices of Visits <script>")
    shows(ines, "registering", gone=True)
    ines.says("about 30 rows")
    if scripts:
        ines.look("describe-slices")
    ines.open(review)
    assert ines.page.url.endswith(f"/datasets/{slug}/slices"), "a finished draft leads to what it made"
    assert ines.page.get_by_role("link", name="See who has access").count() == 1, "and from there to a vendor"
    with house.world.database.transaction() as tx:
        made = tx.scalars(select(Dataset).where(Dataset.slug == slug)).one()
        (slice_,) = tx.scalars(select(Slice).where(Slice.dataset_id == made.id))
        kept = tx.execute(text("SELECT string_agg(d::text, '') FROM guestkey.dataset_draft d")).scalar_one()
    assert slice_.binding["columns"] == ["site", "cost"] and slice_.binding["rows"] == [["cost", "<=", 30]]
    assert made.owner_id == owner.id and "canary" not in kept


def test_slice_is_added_fails_is_retried_and_retired(house: House, guest_of: GuestOf) -> None:
    owner = house.someone("Olga Owner")
    dataset = house.dataset(owner)
    ines = guest_of(house.someone("Ines Admin", None, "admin"), factor_age=10)
    with house.world.admin() as session:
        session.execute("CREATE TABLE ward.soon (id int, code text); GRANT SELECT ON ward.soon TO guestkey_registrar")
    ines.open(f"/datasets/{dataset.slug}/slices")
    ines.follow("Add a slice")
    ines.choose("Where the data is", "data")
    ines.press("Continue")
    read_again(ines, "ward.soon")
    ines.page.get_by_label("ward.soon").check()
    ines.press("Continue")
    ines.page.locator("#use-id").check()
    ines.press("Continue")
    assert ines.page.get_by_label("Short name").count() == 0, "the dataset has its name"
    ines.fill("Name of the slice", "codes")
    ines.press("Continue")
    with house.world.admin() as session:
        session.execute("REVOKE SELECT ON ward.soon FROM guestkey_registrar")
    ines.press("Register slice")
    shows(ines, "There is no such table, or the registrar may not read it. GRANT SELECT ON ward.soon")
    ines.look("describe-slices-failed")
    with house.world.admin() as session:
        session.execute("GRANT SELECT ON ward.soon TO guestkey_registrar")
    ines.press("Try codes again")
    shows(ines, "ward.soon")
    shows(ines, "registering", gone=True)
    olga = guest_of(owner)
    olga.open(f"/datasets/{dataset.slug}/slices")
    olga.says("ward.soon")
    assert olga.page.get_by_role("button", name="Retire slice").count() == 0
    ines.choose("Slice", "codes")
    ines.fill("Reason", "was a trial")
    ines.press("Retire slice")
    assert ines.page.get_by_role("rowheader", name="codes").count() == 0


def test_a_dataset_behind_a_gateway_is_registered_without_tables(house: House, guest_of: GuestOf) -> None:
    ines = guest_of(house.someone("Ines Admin", None, "admin"), factor_age=10)
    slug = f"gate-{secrets.token_hex(4)}"
    ines.open("/datasets/new")
    ines.choose("Where the data is", "x509/records")
    ines.press("Continue")
    ines.says("Step 2 of 4")
    for step in ("table", "columns", "describe", "review"):
        ines.open(ines.page.url.rpartition("/")[0] + f"/{step}")
        assert ines.page.url.endswith("/place"), "no step can be jumped to"
    ines.page.get_by_label("read").uncheck()
    ines.press("Continue")
    ines.says("Choose what guests may do.")
    ines.page.get_by_label("read").check()
    ines.page.get_by_label("write").check()
    ines.look("describe-place")
    ines.press("Continue")
    ines.fill("Title", "Records")
    ines.fill("Short name", slug)
    ines.fill("Name of the slice", "full")
    ines.press("Continue")
    ines.says("records (x509)")
    command = ines.page.locator("#command").text_content() or ""
    assert command.endswith(f"slice add {slug} full --connection records --kind x509 --action read --action write")
    ines.press("Register dataset")
    # Other tests' datasets behind the same gateway, with labels of their own, make it an act for two.
    agree_waiting(house.world, slug)
    ines.page.reload()
    shows(ines, "registering", gone=True)
    ines.says("guests may read and write")
    with house.world.database.transaction() as tx:
        made = tx.scalars(select(Dataset).where(Dataset.slug == slug)).one()
        (slice_,) = tx.scalars(select(Slice).where(Slice.dataset_id == made.id))
    assert (slice_.kind, slice_.binding, slice_.actions) == ("x509", {"connection": "records"}, ["read", "write"])
    assert slice_.state == "ready"


def test_drafts_and_slices_are_visible_only_to_those_concerned(house: House, guest_of: GuestOf) -> None:
    vendor, source = house.vendor()
    dataset = house.dataset(house.someone("Olga Owner"), vendor)
    ines = guest_of(house.someone("Ines Admin", None, "admin"))
    ines.open("/datasets/new")
    ines.choose("Where the data is", "data")
    ines.press("Continue")
    mine = ines.page.url
    read_again(ines, "ward.visits")
    states = {"waiting": "Reading the database", "failed": "The database could not be read"}
    for state, words in states.items():
        until = time.monotonic() + 10
        while words not in ines.open(mine).locator("main").inner_text():
            assert time.monotonic() < until, words
            with house.world.database.transaction() as tx:
                tx.execute(update(Catalogue).values(state=state, detail="The database does not answer."))
        ines.look(f"describe-{state}")
    ines.press("Read tables again")
    read_again(ines, "ward.visits")
    other = guest_of(house.someone("Ivo Admin", None, "admin"))
    other.open(mine)
    assert "There is no such draft here" in other.page.content()
    ada = guest_of(house.someone("Ada Engineer", source))
    for path in ("/datasets/new", mine, f"/datasets/{dataset.slug}/slices", "/datasets/nonesuch/slices"):
        ada.open(path)
        assert ada.page.get_by_role("button", name="Continue").count() == 0
        assert "visits" not in ada.page.content() and "clinic" not in ada.page.content(), path
    for step in ("columns", "describe", "review"):
        ines.open(mine.replace("/table", f"/{step}"))
        assert ines.page.url.endswith("/table"), "no step can be jumped to"
