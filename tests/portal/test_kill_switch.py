"""The kill switch in the browser: four pages, from what it would end to the report, and lifting it again."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from broker.models import Lease, Suspension
from tests.portal.conftest import GuestOf
from tests.portal.house import House
from tests.support.world import PICTURES


def test_admin_suspends_a_vendor_and_watches_progress(house: House, guest_of: GuestOf) -> None:
    vendor, source = house.vendor("Acme & <b>Labels</b>")
    owner = house.someone("Olga Owner")
    dataset = house.dataset(owner, vendor)
    signed = house.world.person(vendor)
    house.world.grant(dataset, signed)
    lease = house.world.issue(signed, dataset).lease
    ada = guest_of(house.someone("Ada Engineer", source))
    ada.open("/")

    admin = guest_of(house.someone("Ines Admin", None, "admin"), factor_age=10)
    admin.open(f"/vendors/{vendor.id}")
    admin.follow("Suspend Acme")
    admin.says("Nothing has happened yet")
    admin.says("At worst, if all of Guestkey were down: the last one ends 1 min after its expiry.")
    admin.says("This account is suspended. Ask the person who invited you.")
    expect(admin.page.get_by_role("row", name=re.compile("^postgres"))).to_contain_text("after its end")
    admin.look("kill-switch-1-dry-run")
    admin.follow("Continue")
    act = f"Suspend {vendor.name} and revoke 1 lease"
    admin.fill("Reason", "an incident <script>alert(1)</script>")
    admin.fill("Message to the people affected", "Please call Olga.")
    admin.fill("Type the name", "Acme")
    admin.press(act)
    admin.says("The name does not match")
    assert admin.page.title().startswith("Error:")
    assert admin.page.get_by_label("Message to the people affected").input_value() == "Please call Olga.", (
        "nothing is lost"
    )
    admin.fill("Type the name", vendor.name)
    admin.look("kill-switch-2-confirm")
    admin.press(act)
    expect(admin.page).to_have_url(re.compile("/suspensions/su_[a-z0-9]+/live$"))
    admin.says("1 of 1 confirmed by their backend")
    admin.says("Every credential is confirmed ended")
    admin.says("Step 3 of 4: done.")
    expect(admin.page.locator("time").first).to_have_text(re.compile(r"^\d+ \w+ \d{4}, \d\d:\d\d:\d\d UTC$"))
    admin.look("kill-switch-3-live")
    admin.follow("Report")
    admin.says("Matches the dry run.")
    admin.says(lease.id)
    expect(admin.page.get_by_role("row", name=re.compile("^postgres 1 of 1 "))).to_contain_text("1 min after its end")
    outcome = admin.page.get_by_role("row", name=re.compile(f"^{dataset.slug}, deidentified, of Ada Guest"))
    expect(outcome).to_contain_text(re.compile(r"\d\d:\d\d:\d\d UTC.*postgresql: no such role, no session", re.DOTALL))
    admin.page.evaluate("window.print = () => { document.title = 'printed'; }")
    admin.page.get_by_role("button", name="Print report", exact=True).click()
    expect(admin.page).to_have_title("printed")
    admin.page.emulate_media(media="print")
    expect(admin.page.get_by_role("button", name=f"Resume {vendor.name}")).to_be_hidden()
    expect(admin.page.locator("time").first).to_have_text(re.compile(r"^\d+ \w+ \d{4}, \d\d:\d\d:\d\d UTC$"))
    expect(admin.page.get_by_text(re.compile(r"\d+ (s|min) ago")).first).to_be_hidden()
    admin.page.emulate_media(media="screen")
    admin.page.reload()
    admin.look("kill-switch-4-report")

    ada.follow("Requests")
    assert "/sign-in" in ada.page.url, "every session is out"
    ada.sign_in(f"/sign-in/{source.id}")
    expect(ada.page.locator("main")).to_contain_text("Please call Olga.")

    admin.open(f"/vendors/{vendor.id}")
    admin.says("see the report")
    admin.look("vendor-suspended")
    admin.open(f"/vendors/{vendor.id}/suspend/confirm")
    admin.fill("Reason", "again, by mistake")
    admin.fill("Type the name", vendor.name)
    admin.press(f"Suspend {vendor.name} and revoke 0 leases")
    admin.says("It is suspended, so")
    admin.open("/suspensions")
    assert admin.page.get_by_role("link", name=vendor.name).count() == 1, "sent twice, it is one suspension"
    expect(admin.page.get_by_role("img", name=re.compile("^Seconds until the last credential"))).to_be_visible()
    admin.look("suspensions")
    admin.follow(vendor.name)
    admin.fill("Reason", "cleared")
    admin.press(f"Resume {vendor.name}")
    admin.says("leases that ended stay ended")
    admin.look("suspension-lifted")


def test_closing_the_installation_needs_dry_run_name_and_factor(house: House, guest_of: GuestOf) -> None:
    """Whoever closes is signed out at once, told so on a page that works, and opens Guestkey after signing in again."""
    signed, dataset, _ = house.world.guest()
    lease = house.world.issue(signed, dataset).lease
    token = house.world.issue(signed, dataset, kind="token").lease
    admin = guest_of(house.someone("Ines Admin", None, "admin"), factor_age=10)
    admin.open("/installation")
    admin.follow("Close everything")
    admin.says("Nothing has happened yet")
    admin.says("Everyone is signed out (you too)")
    admin.look("close-1-dry-run")
    admin.follow("Continue")
    admin.fill("Reason", "an incident")
    admin.fill("Type the name", "Guestkey")
    close = re.compile(r"^Close everything and revoke \d+ leases?$")
    admin.page.get_by_role("button", name=close).click()
    admin.says("The name does not match")
    assert house.world.lease(lease.id).state == "active"
    try:
        admin.fill("Type the name", "everything")
        admin.look("close-2-confirm")
        admin.page.get_by_role("button", name=close).click()
        admin.says("Guestkey is closed")
        admin.look("close-3-closed")
        admin.follow("Sign in and watch")
        assert "/sign-in" in admin.page.url, "their own session has ended"
        again = guest_of(house.someone("Omar Admin", None, "admin"), factor_age=10)
        again.open("/suspensions")
        again.follow("everything")
        again.says("Closure of the whole installation")
        again.says("an incident")
        house.world.wait_for(lease.id, "revoked")
        house.world.wait_for(token.id, "revoked")
        again.page.reload()
        for one in (lease.id, token.id):
            again.says(one)
        again.says("by services that verify tokens offline")
        again.open(again.page.url + "/live")
        again.says("Services that verify tokens offline accept")
        assert "Every credential is confirmed ended" not in again.page.locator("main").inner_text()
        again.open("/installation")
        again.fill("Reason", "cleared")
        again.press("Open Guestkey")
        again.says("Guestkey is open")
    finally:
        house.world.open_again()
    again.open("/suspensions")
    again.follow("everything")
    again.says("leases that ended stay ended")


@pytest.mark.parametrize("what", ["person", "dataset"])
def test_person_and_dataset_are_suspended_in_the_same_steps(house: House, guest_of: GuestOf, what: str) -> None:
    """From the dry run to the report, with a second factor proven on the way."""
    signed, dataset, _ = house.world.guest()
    lease = house.world.issue(signed, dataset).lease
    place, name = (f"/people/{signed.id}", "Ada Guest") if what == "person" else (f"/datasets/{dataset.slug}", "Trials")
    ines = house.someone("Ines Admin", None, "admin")
    # First: a new factor ends every other session.
    secret = house.app(ines)
    admin = guest_of(ines, factor_age=3600)
    admin.secret = secret
    admin.open(place)
    admin.follow(f"Suspend {name}…")
    admin.says("People with a live lease" if what == "dataset" else "Sessions ended")
    admin.look(f"suspend-{what}-dry-run")
    admin.follow("Continue")
    assert admin.page.get_by_label("Message to the people affected").count() == (what == "person"), "who can be told"
    admin.fill("Reason", "an incident")
    admin.fill("Type the name", name)
    admin.press(f"Suspend {name} and revoke 1 lease")
    admin.says("This needs a second factor")
    act = f"Confirm and suspend {name} and revoke 1 lease"
    expect(admin.page.get_by_role("button", name=act)).to_have_class("button danger")
    admin.look(f"suspend-{what}-confirm")
    admin.fill("Code from your authenticator app", admin.code())
    admin.press(act)
    admin.says("1 of 1 confirmed by their backend")
    admin.says("Every credential is confirmed ended")
    admin.follow("Report")
    admin.says("Matches the dry run.")
    admin.says(lease.id)
    admin.open(place)
    admin.says("see the report")
    if what == "person":
        admin.look("person-suspended")


def test_leases_not_ended_are_first_with_manual_commands(house: House, guest_of: GuestOf) -> None:
    world = house.world
    signed, dataset, _ = world.guest()
    admin = house.someone("Ines Admin", None, "admin")
    suspension = world.add(
        Suspension(
            id="su_01k9zq6c5w3m8v4x7r2t1y0b9d",
            what="person",
            target_id=signed.id,
            name="Ada Guest",
            reason="left",
            found={"leases": {"postgres": 1}},
            suspended_by=admin.id,
            started_at=world.now(),
        )
    )
    lease = world.issue(signed, dataset).lease
    changes = {"state": "revoke_failed", "attempts": 3, "last_error": "PostgreSQL still shows 1 role"}
    world.change(Lease, lease.id, suspension_id=suspension.id, next_attempt_at=lease.expires_at, **changes)
    guest = guest_of(admin, factor_age=10)
    token = world.issue(signed, dataset, kind="token").lease
    guest.open(f"/people/{signed.id}/suspend")
    row = guest.page.get_by_role("row", name=re.compile("^token 1 "))
    expect(row).to_contain_text(f"until it expires, {token.expires_at:%H:%M} UTC the last")
    guest.open(f"/suspensions/{suspension.id}/live")
    guest.says("1 not ended yet")
    guest.says("attempt 3")
    guest.says("guestkey_ops.drop_user('gk_")
    guest.look("kill-switch-3-failing")
    guest.open(f"/suspensions/{suspension.id}")
    guest.says("guestkey_ops.drop_user('gk_")
    tops = [guest.page.get_by_role("heading", name=name).bounding_box() for name in ("1 not ended yet", "By kind")]
    assert tops[0] and tops[1] and tops[0]["y"] < tops[1]["y"]
    guest.says("exposed until")
    for who in (guest, guest_of(house.someone("Rita Auditor", None, "auditor"))):
        who.open("/")
        who.says("A credential could not be ended yet.")
    guest.look("home-alarm")
    guest.follow("See which lease, and what to do")
    guest.says("guestkey_ops.drop_user('gk_")
    vendor = world.vendor()
    signed, pictures = world.person(vendor), world.dataset(vendor, kind="s3", slices={"deidentified": PICTURES})
    world.grant(pictures, signed)
    stored = world.issue(signed, pictures, kind="s3").lease
    world.change(Lease, stored.id, state="revoke_failed", next_attempt_at=stored.expires_at)
    guest.open(f"/leases?dataset={pictures.slug}")
    guest.says("aws s3api put-bucket-policy --bucket clinic")
    guest.open(f"/suspensions/{suspension.id}/live")
    world.change(Lease, lease.id, state="revoking", next_attempt_at=world.now())
    guest.says("1 of 1 confirmed by their backend")
    expect(guest.page.locator("#page-status")).to_have_text(re.compile("1 of 1 confirmed$"))
    expect(guest.page.locator("[data-final]")).to_be_visible()
    auditor = guest_of(house.someone("Aud Itor", None, "auditor"))
    auditor.open(f"/suspensions/{suspension.id}")
    auditor.says("1 of 1 confirmed ended")
    assert auditor.page.get_by_role("button", name="Resume").count() == 0
    auditor.look("suspension-auditor")
