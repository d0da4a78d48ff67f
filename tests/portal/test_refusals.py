"""When the portal says no: every reason, in place, with what to do, and nothing about others."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from playwright.sync_api import expect

from broker.base.ids import new_id, new_lease_id
from broker.models import Dataset, Vendor
from broker.web.portal.pages import clock, duration, relative
from tests.portal.conftest import GuestOf
from tests.portal.house import House


def test_a_denial_names_every_reason_by_who_can_act(house: House, guest_of: GuestOf) -> None:
    """Nothing is asked for a second factor that would not help."""
    vendor, source = house.vendor()
    olga, ada = house.someone("Olga Owner"), house.someone("Ada Engineer", source)
    dataset = house.dataset(olga, vendor)
    house.app(ada)
    guest = guest_of(ada)
    guest.open(f"/grants/{house.grant(dataset, ada).id}/credential")
    guest.look("credential")
    house.world.change(Dataset, dataset.id, status="suspended")
    house.factor(ada, 3600)
    guest.press("Get credential")
    expect(guest.page).to_have_title("No credential was issued – Guestkey")
    guest.says("2 of 6 checks did not pass")
    expect(guest.page.get_by_role("region", name="What you can fix")).to_contain_text("Confirm it is you")
    expect(guest.page.get_by_role("region", name="What someone else must fix")).to_contain_text(
        "The dataset is suspended"
    )
    assert guest.page.locator("#code").count() == 0
    way = f"/confirm?next={guest.page.url.removeprefix(house.url)}"
    expect(guest.page.get_by_role("link", name="Confirm it is you")).to_have_attribute("href", way)
    guest.look("denied")
    guest.page.get_by_text("All checks of this decision").click()
    guest.says("Guestkey is open, your account is active, your vendor is active, your grant is valid now.")
    guest.look("denied-unfolded")
    guest.page.get_by_role("button", name="Copy message").click()
    expect(guest.page.locator("#page-status")).to_have_text("Copied")
    sent = str(guest.page.evaluate("navigator.clipboard.readText()"))
    assert "- The dataset is suspended." in sent and "Decision ev_" in sent
    assert sent.endswith(f"{house.url}/why?dataset={dataset.slug}&person={ada.id}&slice=deidentified")
    guest.page.evaluate("void (navigator.clipboard.writeText = () => Promise.reject(new Error()))")
    guest.page.get_by_role("button", name="Copied").click()
    expect(guest.page.get_by_role("button", name="Select and copy by hand")).to_be_visible()
    assert sent.startswith(str(guest.page.evaluate("getSelection().toString()"))[:40])
    guest.follow("Try again")
    guest.says("No credential can be issued now")
    expect(guest.page.get_by_role("heading", name="For deidentified")).to_be_visible()
    expect(guest.page.get_by_role("heading", name="For full")).to_be_visible()
    expect(guest.page.get_by_role("button", name="Copy message").nth(1)).to_be_visible()
    guest.look("credential-closed")


def test_a_wrong_code_keeps_the_form_and_says_when_a_new_one_comes(house: House, guest_of: GuestOf) -> None:
    """The interrupted act goes on once the code is right, with what was filled in before, if the facts still hold."""
    vendor, source = house.vendor()
    owner = house.someone("Olga Owner")
    dataset = house.dataset(owner, vendor)
    request = house.request(dataset, house.someone("Ada Engineer", source))
    secret = house.app(owner)
    olga = guest_of(owner, factor_age=3600)
    olga.secret = secret
    olga.open(f"/requests/{request.id}")
    olga.choose("For how long", "86400")
    olga.press("Approve request")
    olga.says("This needs a second factor confirmed in the last 15 min.")
    expect(olga.page.locator("#confirm-title")).to_be_focused()
    olga.look("approve-confirm")
    olga.fill("Code from your authenticator app", "123 456")
    olga.press("Confirm and approve")
    olga.says("A new one comes every 30 seconds")
    assert olga.page.title().startswith("Error: ")
    code = olga.page.get_by_label("Code from your authenticator app")
    expect(code).to_be_focused()
    expect(code).to_have_value("123 456")
    expect(olga.page.get_by_label("For how long", exact=True)).to_have_value("86400")
    olga.look("approve-wrong-code")
    olga.page.evaluate("text => navigator.clipboard.writeText(text)", olga.code())
    code.select_text()
    olga.page.keyboard.press("Control+V")
    house.world.change(Dataset, dataset.id, labels=["classification:confidential"])
    olga.press("Confirm and approve")
    olga.says("The facts changed since you opened this request.")
    labels = olga.page.get_by_role("region", name="What has changed since you opened this page").locator("dd").first
    olga.says("ttl<=30m: met now")
    expect(labels).to_have_text("was classification:internal, is now classification:confidential")
    expect(olga.page.get_by_label("For how long", exact=True)).to_have_value("86400")
    olga.look("review-changed")
    olga.press("Approve request")
    olga.says("approved")


def test_an_error_takes_the_focus_and_leads_to_its_field(house: House, guest_of: GuestOf) -> None:
    """An error summary, focused, with "Error:" in the title, and the field kept as it was."""
    vendor, source = house.vendor()
    owner = house.someone("Olga Owner")
    request = house.request(house.dataset(owner, vendor), house.someone("Ada Engineer", source))
    olga = guest_of(owner)
    olga.open(f"/requests/{request.id}")
    olga.fill("Reason", "not\u202enow")
    olga.press("Refuse request")
    assert olga.page.title().startswith("Error: ")
    summary = olga.page.get_by_role("alert").filter(has_text="There is a problem")
    expect(summary).to_be_focused()
    olga.look("refuse-error")
    summary.get_by_role("link").click()
    expect(olga.page.get_by_label("Reason")).to_be_focused()
    expect(olga.page.get_by_label("Reason")).to_have_value("not\u202enow")


def test_hidden_pages_look_nonexistent(house: House, guest_of: GuestOf) -> None:
    """Another vendor's engineer meets the same page for a stranger's things as for none."""
    vendor, source = house.vendor("Acme Labels")
    _, elsewhere = house.vendor("Borealis")
    olga, ada = house.someone("Olga Owner"), house.someone("Ada Engineer", source)
    dataset = house.dataset(olga, vendor)
    bo = guest_of(house.someone("Bo Other", elsewhere))
    pairs = {
        f"/datasets/{dataset.slug}": "/datasets/trials-none",
        f"/requests/{house.request(dataset, ada).id}": f"/requests/{new_id('rq')}",
        f"/grants/{house.grant(dataset, ada).id}": f"/grants/{new_id('gr')}",
        f"/leases/{new_lease_id()}": f"/leases/{new_lease_id()}",
        f"/people/{ada.id}": f"/people/{new_id('pe')}",
    }
    for there, nowhere in pairs.items():
        pages = [_without_ids(bo.open(path).locator("body").inner_text()) for path in (there, nowhere)]
        assert pages[0] == pages[1] and "There is nothing here" in pages[0]
    bo.look("not-found")


def test_suspended_person_is_signed_out_at_the_next_request(house: House, guest_of: GuestOf) -> None:
    """Suspending a vendor sends its people to the sign-in page, not to an error."""
    vendor, source = house.vendor()
    ada = guest_of(house.someone("Ada Engineer", source))
    ada.open("/datasets")
    olga = guest_of(house.someone("Olga Admin", None, "admin"))
    olga.open("/vendors")
    olga.look("vendors")
    olga.follow(vendor.name)
    olga.look("vendor")
    olga.follow(f"Suspend {vendor.name}…")
    olga.look("suspend-dry-run")
    olga.says("Nothing has happened yet")
    olga.follow("Continue")
    olga.fill("Reason", "contract under review")
    olga.fill("Type the name", vendor.name)
    olga.look("suspend-confirm")
    olga.press(f"Suspend {vendor.name} and revoke 0 leases")
    olga.says("is suspended")
    olga.look("suspend-live")
    assert house.world.events(vendor.id)[-1] == "vendor.suspended"
    ada.follow("Requests")
    assert ada.page.url == f"{house.url}/sign-in?next=/requests"
    with house.world.database.transaction() as tx:
        assert tx.get_one(Vendor, vendor.id).status == "suspended"


@pytest.mark.parametrize("token", ["", "x", "a" * 43])
def test_a_form_of_another_site_is_refused(house: House, guest_of: GuestOf, token: str) -> None:
    """A form without this session's token changes nothing and says what to do."""
    ada = guest_of(house.someone("Ada Engineer"))
    ada.open("/")
    ada.page.evaluate("token => document.querySelectorAll('[name=csrf_token]').forEach(e => e.value = token)", token)
    ada.press("Sign out")
    ada.says("Reload the page and send it again.")
    ada.open("/security")
    ada.says("this one")


def test_times_are_shown_in_whole_units_with_zone(house: House) -> None:
    """A time is given with its zone, its day if it is another one, and how far away it is."""
    now = house.world.now()
    assert relative(now + timedelta(hours=9), now) == "in 9 h"
    assert relative(now - timedelta(minutes=4), now) == "4 min ago"
    assert clock(now, now).endswith(" UTC")
    later = now + timedelta(days=400)
    assert str(later.year) in clock(later, now)
    lengths = {0: "1 s", 60: "1 min", 89: "89 s", 90: "2 min", 3540: "59 min", 3599: "1 h", 3660: "1 h"}
    lengths |= {86400: "1 day", 7 * 86400: "7 days"}
    assert {seconds: duration(seconds) for seconds in lengths} == lengths


def _without_ids(text: str) -> str:
    return re.sub(r"rq_[0-9a-z]{26}|Second factor .* ago|Now \d\d:\d\d", "", text)
