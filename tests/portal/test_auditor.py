"""An auditor's day: what happened, to whom, who could reach what, which rules were in force."""

from __future__ import annotations

import json
import re

from playwright.sync_api import expect

from broker.worker import sequencing
from tests.portal.conftest import GuestOf
from tests.portal.house import House


def test_auditor_filters_and_exports_events(house: House, guest_of: GuestOf) -> None:
    signed, dataset, _ = house.world.guest()
    lease = house.world.issue(signed, dataset).lease
    auditor = guest_of(house.someone("Aud Itor", None, "auditor"))
    auditor.open("/events")
    expect(auditor.page.get_by_role("img", name=re.compile("issued and denied"))).to_be_visible()
    auditor.look("events")
    auditor.fill("About", lease.id)
    auditor.choose("What happened", "lease.issued")
    auditor.press("Filter events")
    assert f"about={lease.id}" in auditor.page.url, "the filter is in the address"
    assert auditor.page.locator("tbody tr").count() == 1
    with auditor.page.expect_download() as started:
        auditor.page.get_by_role("link", name="Export as JSON").click()
    exported = json.loads(started.value.path().read_text())["items"]
    assert [item["subject"] for item in exported] == [lease.id]
    auditor.follow(f"Ada Guest received the credential of the lease {dataset.slug}, deidentified, of Ada Guest.")
    auditor.says("Canonical JSON")
    auditor.look("event")
    decision = auditor.page.locator("dt", has_text="Decision").locator("xpath=../dd").get_by_role("link")
    expect(decision).to_have_attribute("href", f"/events/{lease.decision_id}")
    sequencing.sequence(house.world.ender)
    auditor.page.reload()
    auditor.says("Position in the log")
    expect(auditor.page.locator("dd", has_text=re.compile(r"^entry \d+ of \d+$"))).to_be_visible()
    auditor.look("event-proven")
    auditor.open(f"/events?about=pe_{'0' * 26}")
    auditor.says("No event matches.")
    auditor.open("/events?about=Nobody+Such")
    auditor.says("Nothing that you can see has that name.")
    auditor.open(f"/events?about={dataset.slug}&kind=lease.issued&since=2020-01-01T00:00")
    assert auditor.page.locator("tbody tr").count() == 1, "a short name does as well as an id"
    command = f"guestkey audit list --kind lease.issued --about {dataset.id} --since 2020-01-01T00:00"
    expect(auditor.page.locator("#command")).to_have_text(command)
    auditor.open("/events?since=yesterday")
    auditor.says("This is not a date and time")
    auditor.look("events-wrong")

    auditor.open("/access-at")
    auditor.look("access-at-empty")
    auditor.fill("Dataset", dataset.slug)
    auditor.press("Show access")
    auditor.says("Ada Guest")
    auditor.says(lease.id)
    assert "person:" not in auditor.page.locator("main").inner_text()
    auditor.look("access-at")
    auditor.fill("When (UTC)", "2020-01-01T00:00")
    auditor.press("Show access")
    auditor.says("No grant was valid at that time.")
    auditor.look("access-at-nobody")

    auditor.open("/policy")
    auditor.look("revisions")
    auditor.follow("Revision 1")
    auditor.says("role:annotator")
    auditor.look("revision")
    for path in ("/suspensions", "/installation"):
        auditor.open(path)
        expect(auditor.page.get_by_role("main").get_by_role("button")).to_have_count(0)


def test_guest_sees_only_their_own_events(house: House, guest_of: GuestOf) -> None:
    _, source = house.vendor()
    ada = guest_of(house.someone("Ada Engineer", source))
    ada.open("/events")
    assert ada.page.locator("tbody tr").all_inner_texts()[0].startswith("Ada Engineer signed in")
    assert ada.page.locator("tbody tr").count() == 1
    assert ada.page.get_by_role("link", name="Export as CSV").count() == 0
    for path in ("/access-at", "/policy", "/policy/1", "/installation"):
        ada.open(path)
        expect(ada.page.get_by_role("heading", level=1)).not_to_contain_text("Policy revision")
        assert "admins and auditors" in ada.page.content()
