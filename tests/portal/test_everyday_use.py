"""Days that do not go smoothly: a phone, two tabs, going back, a session that ends meanwhile, no mouse."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import ViewportSize, expect
from sqlalchemy import select, update

import broker.web as static
from broker.models import Dataset, Grant, Lease, Session
from tests.portal import pictures
from tests.portal.conftest import GuestOf
from tests.portal.guests import Guest
from tests.portal.house import House
from tests.support.freezing import freeze

PHONE: ViewportSize = {"width": 360, "height": 640}
_HAS_FOCUS = """([selector, text]) => {
  const element = document.activeElement;
  return element.matches(selector) && element.innerText.includes(text);
}"""
_IN_SIGHT = """() => {
  const element = document.activeElement;
  const box = element.getBoundingClientRect();
  const there = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
  return element.contains(there) || there?.contains(element);
}"""


@pytest.fixture
def ada(house: House, guest_of: GuestOf) -> Guest:
    """An engineer with a grant and an authenticator app, whose factor has gone stale."""
    vendor, source = house.vendor()
    engineer = house.someone("Ada Engineer", source)
    dataset = house.dataset(house.someone("Olga Owner"), vendor)
    house.grant(dataset, engineer)
    secret = house.app(engineer)
    guest = guest_of(engineer, factor_age=3600)
    guest.secret = secret
    return guest


def leases_of(house: House, guest: Guest) -> int:
    with house.world.database.transaction() as tx:
        return len(tx.scalars(select(Lease.id).where(Lease.person_id == guest.someone.id)).all())


def test_main_flow_on_a_phone(house: House, ada: Guest) -> None:
    """Denied, mended, confirmed in place, held, shown once, given back, all on a small screen."""
    ada.page.set_viewport_size(PHONE)
    with house.world.database.transaction() as tx:
        dataset_id = tx.scalars(select(Dataset.id).order_by(Dataset.id.desc()).limit(1)).one()
    house.world.change(Dataset, dataset_id, status="suspended")
    ada.open("/")
    ada.follow("Get credential")
    ada.says("No credential can be issued now")
    house.world.change(Dataset, dataset_id, status="active")
    ada.page.reload()
    ada.page.get_by_label("deidentified").check()
    ada.fill("Code from your authenticator app", ada.code())
    ada.press("Confirm and get credential")
    ada.says("Shown only once")
    secret = ada.page.locator("#secret-1").text_content() or ""
    assert len(secret) > 10
    ada.page.reload()
    ada.says("already shown")
    ada.page.go_back()
    assert secret not in ada.page.content()
    assert leases_of(house, ada) == 1
    ada.open("/leases")
    assert ada.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    ada.follow("trials")
    ada.press("Revoke lease")
    expect(ada.page.locator("main")).to_contain_text("confirmed: postgresql")


def test_token_is_issued_after_confirming_a_stale_factor(house: House, ada: Guest) -> None:
    """Nothing longer than the grant allows is offered; the kind says what is secret; going back shows none of it."""
    ada.open("/")
    ada.follow("Get credential")
    house.world.change(Grant, ada.page.url.split("/")[-2], max_lifetime=300)
    ada.page.reload()
    offered = ada.page.get_by_label("For how long").locator("option")
    assert offered.all_inner_texts() == ["5 min (default)"]
    ada.page.get_by_label("token").evaluate("radio => { radio.checked = true; radio.value = 'nonesuch'; }")
    ada.page.get_by_label("deidentified").check()
    ada.press("Confirm and get credential")
    ada.says("The slice deidentified has no credentials of that kind")
    ada.says("Choose postgres or token.")
    ada.open(ada.page.url)
    ada.page.get_by_label("token").check()
    ada.fill("Code from your authenticator app", ada.code())
    ada.press("Confirm and get credential")
    secret = ada.page.locator("#secret-1")
    token = secret.text_content() or ""
    assert token.count(".") == 2 and not secret.is_visible()
    assert ada.page.content().count(token) == 1
    ada.look("credential-shown-token")
    ada.page.go_back()
    assert token not in ada.page.content()
    assert leases_of(house, ada) == 1


def test_same_form_in_two_tabs_issues_one_credential(house: House, ada: Guest) -> None:
    """The second tab sends the same form again: it hears that it was shown, and nothing more is made."""
    house.factor(ada.someone, 5)
    ada.open("/")
    ada.follow("Get credential")
    form = ada.page.locator("input[name=form_id]").get_attribute("value")
    other = ada.context.new_page()
    other.goto(ada.page.url)
    other.evaluate("id => { document.querySelector('input[name=form_id]').value = id; }", form)
    for page in (ada.page, other):
        page.get_by_label("deidentified").check()
        with page.expect_navigation():
            page.get_by_role("button", name="Get credential", exact=True).click()
    ada.says("Shown only once")
    expect(other.locator("main")).to_contain_text("already shown")
    assert leases_of(house, ada) == 1
    with ada.page.expect_navigation():
        ada.page.get_by_role("button", name="Sign out").click()
    with other.expect_navigation():
        other.get_by_role("link", name="Requests").first.click()
    assert other.url == f"{house.url}/sign-in?next=/requests"


def test_ended_session_returns_to_the_form_after_sign_in(house: House, ada: Guest) -> None:
    """What was sent without a session does nothing; after signing in one is where one was, not at an error."""
    ada.open("/")
    ada.follow("Get credential")
    page = ada.page.url
    with house.world.database.transaction() as tx:
        tx.execute(update(Session).where(Session.person_id == ada.someone.id).values(ended_at=house.world.now()))
    ada.page.get_by_label("deidentified").check()
    ada.fill("Code from your authenticator app", "000 000")
    ada.press("Confirm and get credential")
    ada.says("You are signed out")
    way = f"/sign-in?next={page.removeprefix(house.url)}"
    expect(ada.page.get_by_role("link", name="Sign in, in a new tab")).to_have_attribute("href", way)
    assert leases_of(house, ada) == 0
    ada.sign_in(f"/sign-in/{ada.someone.source.id}?next={page.removeprefix(house.url)}")
    expect(ada.page).to_have_url(page)


def test_warning_is_shown_before_the_session_ends(house: House, ada: Guest) -> None:
    ada.open("/ask")
    idle = ada.page.locator("#idle")
    expect(idle).to_be_hidden()
    ada.page.evaluate("document.getElementById('idle').dataset.idle = 122")
    expect(idle).to_contain_text("signed out in two minutes")
    ada.look("idle-warning")
    ada.page.set_viewport_size({"width": 320, "height": 300})
    ada.page.get_by_text("All times are UTC").scroll_into_view_if_needed()
    expect(idle).to_be_in_viewport()
    ada.page.get_by_role("button", name="Stay signed in").click()
    expect(ada.page.locator("#page-status")).to_have_text("You stay signed in")
    ada.page.evaluate("document.getElementById('idle').dataset.left = 10")
    expect(idle).to_contain_text("Your session ends in two minutes")
    expect(ada.page.get_by_role("button", name="Stay signed in")).to_be_hidden()


def test_main_flow_with_the_keyboard(house: House, ada: Guest) -> None:
    """Skip the navigation, reach the form, choose, confirm and revoke with the keyboard alone."""
    house.factor(ada.someone, 5)
    ada.open("/")
    ada.page.keyboard.press("Tab")
    expect(ada.page.get_by_text("Skip to content")).to_be_focused()
    ada.page.keyboard.press("Enter")
    _tab_to(ada, "Get credential")
    with ada.page.expect_navigation():
        ada.page.keyboard.press("Enter")
    _tab_to(ada, "", "input[type=radio]")
    ada.page.keyboard.press("Space")
    _tab_to(ada, "Get credential", "button")
    with ada.page.expect_navigation():
        ada.page.keyboard.press("Enter")
    ada.says("Shown only once")
    ways = ada.page.get_by_role("radio")
    ways.first.focus()
    ada.page.keyboard.press("ArrowRight")
    expect(ways.nth(1)).to_be_focused()
    expect(ada.page.locator("#tool")).to_be_visible()
    expect(ada.page.locator("#command-line")).to_be_hidden()
    _tab_to(ada, "Revoke credential", "button")
    with ada.page.expect_navigation():
        ada.page.keyboard.press("Enter")
    ada.says("revok")


def test_new_recovery_codes_replace_the_old(house: House, ada: Guest) -> None:
    house.factor(ada.someone, 5)
    ada.open("/security")
    _change_factors(house, ada, "Create ten new codes", "create new codes")
    ada.says("Your recovery codes")
    first = ada.page.locator("main li, main pre").all_inner_texts()
    ada.open("/security")
    ada.says("10 left")
    _change_factors(house, ada, "Create ten new codes", "create new codes")
    assert ada.page.locator("main li, main pre").all_inner_texts() != first
    assert house.world.events(ada.someone.id)[-4:] == ["factor.proven", "recovery_codes.replaced"] * 2
    code = ada.page.locator("#codes").inner_text().split()[0]
    ada.open("/security")
    _change_factors(house, ada, "Remove authenticator app", "remove the app")
    ada.says("This is your last second factor")
    ada.look("security-last-factor")
    ada.press("Remove authenticator app")
    ada.says("Confirm it is you")
    assert ada.page.locator(".primary").count() == 1, "one thing to do at a time"
    ada.look("security-confirm")
    ada.page.get_by_text("I have lost my second factor").click()
    ada.fill("Recovery code", code)
    ada.press("Use recovery code")
    ada.says("You can add a second factor in this session until")
    ada.look("security-recovering")


def _change_factors(house: House, guest: Guest, button: str, act: str) -> None:
    """Press a button that changes a second factor, and answer with one: however fresh, each change takes one."""
    guest.press(button)
    guest.says("To change your second factors, confirm with one of them.")
    guest.fill("Code from your authenticator app", guest.code())
    guest.press(f"Confirm and {act}")
    # As if some time had passed: the next code is not waited for.
    house.world.change_factor(guest.someone.id, last_step=0)
    guest._last_code = ""


def _tab_to(guest: Guest, text: str, selector: str = "a, button") -> None:
    """Press Tab until something of that text has the focus, which must then be in sight."""
    for _ in range(60):
        guest.page.keyboard.press("Tab")
        if guest.page.evaluate(_HAS_FOCUS, [selector, text]):
            assert guest.page.evaluate(_IN_SIGHT)
            return
    raise AssertionError(f"{text or selector} cannot be reached with the keyboard")


def test_picture_comparison_detects_changes() -> None:
    """The comparison notices what somebody would: it passes a picture against itself, and no other."""
    from PIL import Image

    with Image.open(pictures.FOLDER / "home.png") as home, Image.open(pictures.FOLDER / "denied.png") as denied:
        one, two = home.convert("RGB"), denied.convert("RGB")
        assert pictures.unlike(one, one) == 0
        assert pictures.unlike(one, two.resize(one.size)) > 0.02
        moved = Image.new("RGB", one.size, "white")
        moved.paste(one, (0, 40))
        assert pictures.unlike(one, moved) > 0.02


def test_dark_mode_differs_only_in_colours() -> None:
    """That is why screens in the dark are only looked at for what is about colours."""
    style = (Path(static.__file__).parent / "static" / "guestkey.css").read_text()
    dark = re.findall(r"prefers-color-scheme: dark\) \{\s*:root \{([^{}]*)\}\s*\}", style)
    assert len(dark) == style.count("prefers-color-scheme") == 1
    lines = [line.strip() for line in dark[0].split(";") if line.strip()]
    assert len(lines) > 10 and all(re.fullmatch(r"--[a-z-]+: #[0-9a-f]{3,6}", line) for line in lines), lines


def test_home_shows_what_still_works_while_openbao_is_down(house: House, ada: Guest) -> None:
    """And by itself that it is back."""
    ada.open("/")
    bao, vault = house.world.stack.bao, house.replica.parts.vault
    freeze(bao)
    try:
        vault._seen = (float("-inf"), True)
        house.factor(ada.someone, 5)
        ada.follow("Get credential")
        ada.page.get_by_label("deidentified").check()
        ada.press("Get credential")
        ada.says("The key store is not responding")
        ada.says("Credentials you already have keep working")
        ada.look("credential-key-store-away")
        ada.open("/")
        ada.says("The key store is not responding")
        ada.look("home-key-store-away")
    finally:
        freeze(bao, thaw=True)
    expect(ada.page.locator("main")).not_to_contain_text("key store", timeout=30_000)
    expect(ada.page.locator("#page-status")).to_contain_text("1 grant")
