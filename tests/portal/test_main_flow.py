"""The main job from end to end: join, prove a second factor, ask, approve, hold a credential, give it back."""

from __future__ import annotations

import psycopg
import pytest
from playwright.sync_api import expect

from tests.portal.conftest import GuestOf
from tests.portal.guests import Guest
from tests.portal.house import House

_WIPED = """() => {
  dispatchEvent(new PageTransitionEvent("pagehide"));
  return [...document.querySelectorAll("[data-wipe]")].map(element => element.innerHTML);
}"""


def test_main_flow_from_invitation_to_revoked_credential(house: House, guest_of: GuestOf) -> None:
    """An invited engineer reads one slice for some minutes, after an owner approved; then it is gone."""
    vendor, source = house.vendor()
    olga = guest_of(house.someone("Olga Owner", None, "admin"))
    dataset = house.dataset(olga.someone, vendor)
    ada = guest_of(house.stranger("Ada Engineer", source), signed_in=False)
    link = _invited(olga, ada)
    _joined(olga, guest_of(house.someone("Ines Admin", None, "admin")), ada, link)
    _enrolled(ada, link)
    _asked(ada, dataset.slug)
    _approved(olga, dataset.slug)
    ada.page.clock.run_for(10_100)
    expect(ada.page.get_by_role("link", name="Get credential")).to_be_visible()
    expect(ada.page.locator("#page-status")).to_have_text("Now approved")
    assert ada.page.get_by_role("button", name="Withdraw request").count() == 0
    _held(house, ada)


def _invited(olga: Guest, ada: Guest) -> str:
    olga.open("/invite")
    olga.look("invite")
    olga.choose("Where they sign in", ada.someone.source.name)
    olga.fill("Who the invitation is for", "Ada, labelling")
    olga.press("Create invitation link")
    olga.look("invitation-link")
    return olga.page.locator("#link").inner_text()


def _joined(olga: Guest, ines: Guest, ada: Guest, link: str) -> None:
    ada.open(link)
    ada.look("invited")
    ada.sign_in(f"{link}/sign-in")
    assert ada.page.url.endswith("/waiting")
    ada.look("waiting")
    olga.open("/people")
    olga.says("Ada, labelling")
    olga.look("people")
    olga.follow("Ada Engineer")
    assert olga.page.get_by_role("button", name="Confirm Ada Engineer").count() == 0, "she invited her herself"
    ines.open("/people")
    ines.follow("Ada Engineer")
    ines.look("person-waiting")
    ines.press("Confirm Ada Engineer")
    ines.says("active")


def _enrolled(ada: Guest, link: str) -> None:
    ada.sign_in(f"{link}/sign-in", again=True)
    ada.add_authenticator()
    ada.open("/security")
    ada.look("security-empty")
    ada.press("Add passkey")
    ada.fill("Name of this passkey", "Laptop")
    ada.look("passkey")
    ada.press("Create passkey")
    ada.says("Your recovery codes")
    ada.look("recovery-codes")
    ada.follow("I have stored the codes")
    ada.says("Laptop")
    ada.press("Add authenticator app")
    ada.says("To change your second factors, confirm with one of them.")
    ada.press("Confirm with a passkey and set up the app")
    ada.look("app")
    ada.page.get_by_text("Type the key instead").click()
    ada.secret = ada.page.locator("#secret-key").inner_text().replace(" ", "")
    assert ada.page.evaluate(_WIPED) == ["", ""], "neither the key nor its image stays in a page that is left"
    ada.fill("Code the app shows now", "000 000")
    ada.press("Add authenticator app")
    ada.says("not correct")
    expect(ada.page.get_by_label("Code the app shows now")).to_have_value("000 000")
    ada.look("app-wrong-code")
    ada.fill("Code the app shows now", ada.code())
    ada.press("Add authenticator app")
    ada.follow("I have stored the codes")
    ada.look("security")


def _asked(ada: Guest, slug: str) -> None:
    ada.open("/")
    ada.look("home-empty")
    ada.follow("Request access to a dataset")
    ada.look("ask-which")
    ada.choose("Dataset", slug)
    ada.press("Continue")
    ada.choose("Role", "annotator")
    ada.page.get_by_label("deidentified").check()
    ada.fill("Purpose", "Label the March visits")
    ada.choose("For how long", "604800")
    ada.look("ask")
    ada.press("Send request")
    ada.says("Waiting for the dataset's owner")
    ada.look("request-pending")
    ada.page.clock.install()
    ada.page.reload()


def _approved(olga: Guest, slug: str) -> None:
    olga.open("/queue")
    olga.look("queue")
    olga.follow(f"Review Ada Engineer, annotator on {slug}")
    olga.says("Label the March visits")
    olga.look("review")
    olga.choose("For how long", "259200")
    olga.press("Approve request")
    olga.says("approved")
    olga.look("request-approved")


def _held(house: House, ada: Guest) -> None:
    house.factor(ada.someone, 3600)
    ada.page.reload()
    ada.follow("Get credential")
    ada.says("Confirm it is you")
    ada.look("credential-confirm")
    ada.press("Confirm with a passkey and get credential")
    ada.says("Shown only once")
    assert ada.headers["cache-control"] == "no-store"
    ada.look("credential-shown")
    for way in ("Tool", "Values"):
        ada.page.locator("label", has_text=way).click()
        ada.look(f"credential-shown-{way.lower()}")
    values = {
        name: ada.page.locator("dt", has_text=name).locator("xpath=../dd").text_content() or ""
        for name in ("host", "port", "dbname", "username", "relation")
    }
    password = ada.page.locator("#secret-1").text_content() or ""
    assert not ada.page.locator("#secret-1").is_visible()
    ada.page.get_by_role("button", name="Copy password").click()
    assert ada.page.evaluate("navigator.clipboard.readText()") == password
    expect(ada.page.get_by_role("button", name="Copied")).to_be_visible()
    with psycopg.connect(
        host=values["host"],
        port=values["port"],
        dbname=values["dbname"],
        user=values["username"],
        password=password,
        autocommit=True,
    ) as session:
        row = session.execute(f"SELECT count(*) FROM {values['relation']}").fetchone()
        assert row is not None and row[0] == 100
        ada.page.reload()
        ada.says("already shown")
        ada.look("credential-gone")
        ada.follow("See its lease")
        ada.look("lease-active")
        ada.press("Revoke lease")
        expect(ada.page.locator("main")).to_contain_text("confirmed: postgresql")
        ada.look("lease-revoked")
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    ada.open("/")
    ada.look("home")
