"""Inviting many by a file in the browser: looked at first, done with a fresh factor, shown once, twice harmless."""

from __future__ import annotations

import csv
import io
import re

from sqlalchemy import func, select

from broker.base.ids import new_id
from broker.models import Invitation, Team
from tests.portal.conftest import GuestOf
from tests.portal.guests import Guest
from tests.portal.house import House


def hand_in(guest: Guest, content: str | bytes) -> None:
    """Choose a file on the form and have its lines checked."""
    guest.open("/people/import")
    raw = content.encode() if isinstance(content, str) else content
    guest.page.get_by_label("File").set_input_files({"name": "staff.csv", "mimeType": "text/csv", "buffer": raw})
    guest.press("Check the lines")


def made(house: House, vendor_id: str) -> int:
    """How many invitations to a vendor there are."""
    with house.world.database.transaction() as tx:
        query = select(func.count()).where(Invitation.vendor_id == vendor_id)
        return tx.execute(query.select_from(Invitation)).scalar_one()


def test_lead_imports_people_and_sees_each_link_once(house: House, guest_of: GuestOf) -> None:
    vendor, source = house.vendor()
    house.world.add(Team(id=new_id("te"), vendor_id=vendor.id, name="Night shift"))
    someone = house.someone("Lena Lead", source, "lead")
    secret = house.app(someone)
    lead = guest_of(someone, factor_age=3600)
    lead.secret = secret
    lead.open("/people")
    lead.follow("Invite people from a file")
    lead.look("import")
    people = [f"Löwe Nr {number},guest{number}@labels.example,Night shift" for number in range(3)]
    text = "name,email,team\n" + "\n".join([*people, "<b>Mallory</b>,m@labels.example,Day shift", "=cmd|'/C calc',,"])
    hand_in(lead, text)
    lead.says("3 invitations would be created")
    lead.says("2 lines would be refused")
    lead.says("A spreadsheet would run this as a formula.")
    lead.look("import-check")
    assert made(house, vendor.id) == 0
    lead.press("Create 3 links without the refused lines")
    lead.says("This needs a second factor")
    lead.look("import-confirm")
    assert made(house, vendor.id) == 0
    lead.fill("Code from your authenticator app", lead.code())
    lead.press("Confirm and create the links")
    lead.says("3 invitations created")
    lead.look("import-report")
    report = list(csv.DictReader(io.StringIO(lead.page.locator("#report").inner_text())))
    links = [row["link"] for row in report if row["outcome"] == "invited"]
    assert len(set(links)) == 3 and all(re.search("/join/", link) for link in links)
    assert lead.headers["cache-control"] == "no-store"
    lead.page.reload()
    lead.says("Everyone in the file was already invited.")
    assert made(house, vendor.id) == 3
    lead.open("/people")
    lead.follow("Unused links")
    lead.look("invitations")
    lead.page.get_by_role("button", name="End link").first.click()
    lead.page.wait_for_function("document.querySelectorAll('main form').length === 2")
    lead.open("/grants/import")
    lead.look("grants-import")
    newcomer = guest_of(house.stranger("Nora New", source), signed_in=False)
    newcomer.open(links[2])
    newcomer.says("This link is no longer valid.")
    newcomer.open(links[0])
    newcomer.says(vendor.name)


def test_invalid_file_error_is_shown_beside_the_field(house: House, guest_of: GuestOf) -> None:
    _, source = house.vendor()
    lead = guest_of(house.someone("Lena Lead", source, "lead"), factor_age=10)
    for content, says in (
        ("name\nLöwe\n".encode("latin-1"), "not UTF-8"),
        (b"PK\x03\x04\x14\x00", "zero bytes"),
        (b"name\n" + b"x\n" * 501, "more than 500 lines"),
        (b"", "no line"),
    ):
        hand_in(lead, content)
        lead.says(says)
        assert lead.page.title().startswith("Error: ")
        assert lead.page.locator("#file-wrong").count() == 1


def test_import_page_is_refused_to_others_and_needs_csrf(house: House, guest_of: GuestOf) -> None:
    _, source = house.vendor()
    other, theirs = house.vendor("Other Labels")
    engineer = guest_of(house.someone("Ada Engineer", source), factor_age=10)
    engineer.open("/people/import")
    engineer.says("Only admins and a vendor's lead can do this.")
    lead = guest_of(house.someone("Lena Lead", source, "lead"), factor_age=10)
    lead.open("/people/import")
    token = lead.page.locator("main input[name=csrf_token]").input_value()
    for proof in ("", "x", token):
        fields = {"source": theirs.id, "do": "yes", "lines": "name\nAda\n", "csrf_token": proof}
        answer = lead.page.request.post(
            f"{house.url}/people/import", multipart={**fields}, headers={"Origin": house.url}
        )
        assert answer.status in (403, 404), answer.status
    assert made(house, other.id) == 0
