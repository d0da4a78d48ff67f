"""What changes by itself: it is announced and brings its buttons; a countdown is silent, and silence is said."""

from __future__ import annotations

from datetime import timedelta

import pytest
from playwright.sync_api import expect

from broker.leases import renewing
from broker.models import Dataset, Lease, Request
from tests.portal.conftest import GuestOf
from tests.portal.guests import Guest
from tests.portal.house import House

_FOCUSED_PART = "document.activeElement.matches('[data-live]')"


@pytest.fixture
def ada(house: House, guest_of: GuestOf) -> Guest:
    """An engineer on the page of their lease, whose browser's clock can be moved."""
    vendor, source = house.vendor()
    engineer = house.someone("Ada Engineer", source)
    grant = house.grant(house.dataset(house.someone("Olga Owner"), vendor), engineer)
    secret = house.app(engineer)
    guest = guest_of(engineer)
    guest.secret = secret
    guest.page.clock.install()
    guest.open(f"/grants/{grant.id}/credential")
    guest.page.get_by_label("deidentified").check()
    guest.press("Get credential")
    guest.follow("See its lease")
    return guest


def test_a_lease_is_renewed_only_if_everything_holds(house: House, ada: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same credential lives longer; a stale factor is asked for in place; a refusal says every reason."""
    # Else the worker may find out first, and end what is to be refused a renewal.
    monkeypatch.setattr(renewing, "redecide_all", lambda _parts: 0)
    lease = house.world.lease(ada.page.url.rpartition("/")[2])
    lease_name = ada.page.locator("h1").inner_text().removeprefix("Lease on ")
    ada.press("Renew lease")
    ada.says("Ada Engineer renewed the lease.")
    house.factor(ada.someone, 3600)
    ada.press("Renew lease")
    ada.says("Confirm it is you")
    ada.look("lease-renew-confirm")
    ada.fill("Code from your authenticator app", ada.code())
    ada.press("Confirm and renew")
    ada.says("Ends")
    assert house.world.events(lease.id).count("lease.renewed") == 2
    ada.open("/")
    ada.look("home-leases")
    ada.follow(lease_name)
    house.world.change(Dataset, lease.dataset_id, status="suspended")
    ada.press("Renew lease")
    ada.says("The lease was not renewed.")
    expect(ada.page.get_by_role("region", name="What someone else must fix")).to_contain_text(
        "The dataset is suspended"
    )
    ada.look("lease-not-renewed")


def test_state_changes_are_announced_but_countdowns_are_not(house: House, ada: Guest) -> None:
    """Whoever stands on a button is not moved for a countdown, and not left on one that is gone."""
    lease_id, status = ada.page.url.rpartition("/")[2], ada.page.locator("#page-status")
    revoke = ada.page.get_by_role("button", name="Revoke lease")
    revoke.focus()
    ada.page.clock.fast_forward(130_000)
    expect(ada.page.locator("[data-until]").first).to_have_text("in 13 min")
    ada.page.clock.run_for(4_100)
    expect(status).to_have_text("")
    expect(revoke).to_be_focused()
    later = house.world.now() + timedelta(hours=1)
    ending = {"ending_since": house.world.now(), "end_cause": "revoked", "attempts": 3, "next_attempt_at": later}
    house.world.change(Lease, lease_id, state="revoking", **ending)
    ada.page.clock.run_for(2_100)
    expect(status).to_have_text("Now revoking")
    expect(revoke).to_have_count(0)
    assert ada.page.evaluate(_FOCUSED_PART), "the focus stays where it was"
    ada.look("lease-revoking")
    house.world.change(Lease, lease_id, state="revoke_failed")
    ada.page.clock.run_for(2_100)
    expect(status).to_have_text("Now not ended yet")
    ada.says("Guestkey keeps trying")
    ada.look("lease-stuck")


def test_leases_not_ended_come_first_and_a_stalled_page_says_so(house: House, ada: Guest) -> None:
    """In red, said plainly, a dot on the page's icon; and where nothing is heard any more, that is said too."""
    lease_id, status = ada.page.url.rpartition("/")[2], ada.page.locator("#page-status")
    later = house.world.now() + timedelta(hours=1)
    stuck = {"ending_since": house.world.now(), "end_cause": "revoked", "attempts": 3, "next_attempt_at": later}
    ada.open("/leases")
    house.world.change(Lease, lease_id, state="revoke_failed", **stuck)
    ada.page.clock.run_for(2_100)
    expect(status).to_have_text("Now 0 live leases, 1 not ended")
    expect(ada.page.get_by_role("heading", name="Not ended yet")).to_be_visible()
    ada.page.reload()
    assert "alarm" in (ada.page.locator("link[rel=icon]").get_attribute("href") or "")
    ada.look("leases")
    ada.page.route("**/live/**", lambda route: route.abort())
    ada.page.clock.run_for(6_100)
    ada.says("Not updating.")
    expect(status).to_have_text("Not updating. Reload")
    # That the browser notes what it did not get is no fault of the page.
    ada.faults.clear()
    ada.page.unroute("**/live/**")
    house.world.change(Lease, lease_id, next_attempt_at=house.world.now())
    house.world.wait_for(lease_id, "revoked")
    ada.page.clock.run_for(2_100)
    expect(status).to_have_text("Now 0 live leases")
    expect(ada.page.get_by_text("Not updating.")).to_have_count(0)
    ada.open(f"/leases/{lease_id}")
    assert ada.page.locator("[data-live]").count() == 0


def test_request_page_follows_every_state(house: House, guest_of: GuestOf) -> None:
    """Reminded, lapsed, refused: its page says why, and offers what can be done then."""
    vendor, source = house.vendor()
    engineer = house.someone("Ada Engineer", source)
    owner = house.someone("Olga Owner")
    dataset = house.dataset(owner, vendor)
    request, now = house.request(dataset, engineer), house.world.now()
    days = {"created_at": now - timedelta(days=2), "lapses_at": now + timedelta(days=12)}
    house.world.change(Request, request.id, **days)
    ada, olga = guest_of(engineer), guest_of(owner)
    for guest in (ada, olga):
        guest.page.clock.install()
        guest.open(f"/requests/{request.id}")
    expect(olga.page.get_by_role("button", name="Approve")).to_be_visible()
    ada.press("Send a reminder")
    ada.says("You can remind the people who decide from")
    assert house.world.events(request.id)[-1] == "request.reminded"
    house.world.change(Request, request.id, state="lapsed", decided_at=now)
    ada.page.clock.run_for(10_100)
    expect(ada.page.locator("#page-status")).to_have_text("Now lapsed")
    asked: list[str] = []
    ada.page.on("request", lambda request: asked.append(request.url))
    ada.page.clock.run_for(20_100)
    olga.page.clock.run_for(10_100)
    expect(olga.page.get_by_role("button", name="Approve")).to_be_hidden()
    ada.says("No one decided within 14 days.")
    ada.look("request-lapsed")
    assert not asked, "what is final is not asked for again"
    house.world.change(Request, request.id, state="refused", decision_reason="Ask for fewer columns.")
    ada.page.reload()
    ada.says("Ask for fewer columns.")
    ada.look("request-refused")
    ada.open("/requests")
    ada.look("requests-refused")
