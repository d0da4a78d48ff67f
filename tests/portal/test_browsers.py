"""Browsers as they are: password managers that stand in for them, and clocks that are wrong."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import expect

from tests.portal.conftest import GuestOf
from tests.portal.house import House

# What extensions were seen to do with the credentials they hand out, and with what converts options.
ODD = {
    "toJSON throws": "PublicKeyCredential.prototype.toJSON = () => { throw new TypeError('Illegal invocation'); };",
    "no toJSON": "delete PublicKeyCredential.prototype.toJSON;",
    "toJSON says nothing": "PublicKeyCredential.prototype.toJSON = () => undefined;",
    "no converters": """
      delete PublicKeyCredential.prototype.toJSON;
      delete PublicKeyCredential.parseCreationOptionsFromJSON;
      delete PublicKeyCredential.parseRequestOptionsFromJSON;""",
}


@pytest.mark.parametrize("oddity", ODD)
def test_passkey_works_with_password_manager_replacements(house: House, guest_of: GuestOf, oddity: str) -> None:
    ada = house.someone("Ada Engineer", house.vendor()[1])
    secret = house.app(ada)
    guest = guest_of(ada, factor_age=30)
    guest.secret = secret
    guest.add_authenticator()
    guest.page.add_init_script(ODD[oddity])
    guest.open("/security")
    guest.press("Add passkey")
    guest.fill("Code from your authenticator app", guest.code())
    guest.press("Confirm and add passkey")
    guest.fill("Name of this passkey", "Laptop")
    guest.press("Create passkey")
    expect(guest.page.get_by_role("rowheader", name="Laptop")).to_be_visible()
    house.factor(ada, 3600)
    guest.open("/confirm")
    with guest.page.expect_navigation():
        guest.page.get_by_role("button", name="Confirm with a passkey and continue").click()
    guest.open("/security")
    guest.says("Second factor")
    assert re.search(r"Second factor (\d+ s|1 min) ago", guest.page.locator("main").inner_text())


@pytest.mark.parametrize("minutes", [-20, 20, 60 * 24 * 400])
def test_countdowns_follow_the_server_clock(house: House, guest_of: GuestOf, minutes: int) -> None:
    ada = house.someone("Ada Engineer", house.vendor()[1])
    guest = guest_of(ada)
    house.world.change_sessions(ada.id, expires_at=house.world.now() + timedelta(minutes=15))
    guest.page.clock.install(time=datetime.now(UTC) + timedelta(minutes=minutes))
    guest.open("/security")
    left = guest.page.locator("[data-until]").first
    guest.page.evaluate("document.querySelector('[data-until]').textContent = 'not counted yet'")
    guest.page.clock.run_for(2500)
    expect(left).to_have_text(re.compile(r"in 1[345] min"))


def test_going_back_to_a_secret_says_it_was_shown(house: House, guest_of: GuestOf) -> None:
    """And shows nothing of it; the browser neither asks to send the form again nor shows an error of its own."""
    ada = house.someone("Ada Engineer", house.vendor()[1])
    secret = house.app(ada)
    guest = guest_of(ada)
    guest.secret = secret
    guest.open("/security")
    guest.press("Create ten new codes")
    guest.fill("Code from your authenticator app", guest.code())
    guest.press("Confirm and create new codes")
    codes = guest.page.locator("#codes").inner_text().split()
    guest.follow("I have stored the codes")
    guest.page.go_back()
    guest.says("This was already shown")
    guest.look("already-shown")
    assert not [code for code in codes if code in guest.page.content()]
    guest.follow("Get a new")
    guest.says("Recovery codes")


def test_a_form_written_before_signing_out_elsewhere_is_sent_after_signing_in(house: House, guest_of: GuestOf) -> None:
    vendor, source = house.vendor()
    ada = house.someone("Ada Engineer", source)
    dataset = house.dataset(house.someone("Olga Owner"), vendor)
    guest = guest_of(ada)
    guest.open(f"/ask?dataset={dataset.slug}")
    guest.choose("Role", "annotator")
    guest.page.get_by_label("deidentified").check()
    guest.choose("For how long", "604800")
    guest.fill("Purpose", "Label the March visits, which took ten minutes to write")
    house.world.change_sessions(ada.id, ended_at=house.world.now(), end_cause="signed_out")
    guest.press("Send request")
    guest.says("You are signed out")
    guest.says("which took ten minutes to write")
    guest.look("kept-form")
    guest.arrive(5)
    guest.press("Send form again")
    guest.says("Send this again?")
    guest.look("kept-form-again")
    guest.press("Send form")
    guest.says("which took ten minutes to write")
    assert guest.page.url.startswith(f"{house.url}/requests/")
