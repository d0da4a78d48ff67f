"""Sessions: bound to one browser, ended by time, by their owner, and by whatever ends the person's right to be here."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from broker.models import ApiToken, Session
from tests.identity.conftest import Ada, BrowserOf, Door
from tests.support.browser import Browser
from tests.support.world import World

COOKIE = "__Host-guestkey"


def _session_id(browser: Browser) -> str:
    held = browser.api("GET", "/sessions").json()["items"]
    return str(next(item["id"] for item in held if item["current"]))


def _alive(browser: Browser) -> bool:
    return browser.api("GET", "/me").status_code == 200


def test_cookie_is_host_only(door: Door, browser: Browser) -> None:
    source = door.bind()
    door.join(browser, source)
    answer = browser.get(door.provider.approve(browser.leave(f"/sign-in/{source.id}")))
    lines = answer.headers.get_list("set-cookie")
    session = next(line for line in lines if line.startswith(f"{COOKIE}="))
    for attribute in ("Secure", "HttpOnly", "Path=/", "SameSite=lax"):
        assert attribute in session
    assert "Domain" not in session


def test_only_a_hash_of_the_session_token_is_stored(ada: Ada, world: World) -> None:
    with world.database.transaction() as tx:
        row = tx.scalars(select(Session).where(Session.id == _session_id(ada.browser))).one()
        kept = repr(vars(row))
    assert ada.browser.cookies[COOKIE] not in kept


def test_signing_in_again_ends_the_old_session(ada: Ada, door: Door, browser_of: BrowserOf) -> None:
    fixated = browser_of()
    fixated.cookies[COOKIE] = ada.browser.cookies[COOKIE]
    assert door.sign_in(ada.browser, ada.source) == 303
    assert ada.browser.cookies[COOKIE] != fixated.cookies[COOKIE]
    assert not _alive(fixated) and _alive(ada.browser)


def test_a_made_up_cookie_becomes_no_session(ada: Ada, door: Door, browser_of: BrowserOf) -> None:
    browser = browser_of()
    for value in ("A" * 43, "x", "%00", "A" * 5000):
        browser.cookies[COOKIE] = value
        assert browser.api("GET", "/me").status_code == 401
    browser.cookies[COOKIE] = "A" * 43
    assert door.sign_in(browser, ada.source) == 303
    assert browser.cookies[COOKIE] != "A" * 43


def test_proving_a_factor_changes_the_cookie(ada: Ada, browser_of: BrowserOf) -> None:
    thief = browser_of()
    thief.cookies[COOKIE] = ada.browser.cookies[COOKIE]
    assert _alive(thief)
    assert ada.prove() == 200
    assert _alive(ada.browser) and not _alive(thief)


@pytest.mark.parametrize(
    ("field", "seconds"), [("last_seen_at", -1801), ("expires_at", 0), ("ended_at", -1)], ids=["idle", "over", "ended"]
)
def test_session_ends_after_idle_and_absolute_limits(ada: Ada, world: World, field: str, seconds: int) -> None:
    assert _alive(ada.browser)
    world.change(Session, _session_id(ada.browser), **{field: world.now() + timedelta(seconds=seconds)})
    assert not _alive(ada.browser)


def test_last_use_is_recorded_once_a_minute(ada: Ada, world: World) -> None:
    session_id = _session_id(ada.browser)
    earlier = world.now() - timedelta(seconds=50)
    world.change(Session, session_id, last_seen_at=earlier)
    assert _alive(ada.browser)
    with world.database.transaction() as tx:
        assert tx.get_one(Session, session_id).last_seen_at == earlier
    world.change(Session, session_id, last_seen_at=world.now() - timedelta(seconds=70))
    assert _alive(ada.browser)
    with world.database.transaction() as tx:
        assert tx.get_one(Session, session_id).last_seen_at > earlier


def test_suspended_person_is_signed_out_at_the_next_request(ada: Ada, door: Door, browser_of: BrowserOf) -> None:
    token = ada.token()
    assert door.admin().api("POST", f"/people/{ada.id}/suspend", {"reason": "left"}).status_code == 202
    assert not _alive(ada.browser) and not _alive(token)
    browser = browser_of()
    answer = browser.get(door.provider.approve(browser.leave(f"/sign-in/{ada.source.id}")))
    assert (answer.status_code, answer.json()["code"]) == (401, "account_suspended")
    assert door.admin().api("POST", f"/people/{ada.id}/resume", {"reason": "back"}).status_code == 200
    assert not _alive(ada.browser) and not _alive(token)


@pytest.mark.parametrize("status", ["suspended", "offboarded"])
def test_suspended_vendors_people_are_signed_out(
    ada: Ada, door: Door, browser_of: BrowserOf, world: World, status: str
) -> None:
    from broker.models import Vendor

    token, link = ada.token(), door.invite(ada.source)
    # Behind the broker's back: nobody ended the sessions, yet they count no more.
    world.change(Vendor, ada.source.vendor_id or "", status=status)
    assert not _alive(ada.browser) and not _alive(token)
    for way, subject in ((f"/sign-in/{ada.source.id}", "ada"), (f"{link}/sign-in", "new")):
        browser = browser_of()
        answer = browser.get(door.provider.approve(browser.leave(way), subject))
        assert (answer.status_code, answer.json()["code"]) == (401, "account_suspended")


def test_disabling_a_source_ends_its_sessions(ada: Ada, door: Door, browser: Browser) -> None:
    token, admin = ada.token(), door.admin()
    callback = door.provider.approve(browser.leave(f"/sign-in/{ada.source.id}"))
    assert admin.api("POST", f"/sources/{ada.source.id}/disable").status_code == 204
    assert not _alive(ada.browser) and not _alive(token)
    assert browser.get(callback).status_code == 401
    assert browser.get(f"/sign-in/{ada.source.id}").status_code == 404
    assert admin.api("POST", f"/sources/{ada.source.id}/disable").status_code == 404


def test_sessions_are_listed_and_ended_by_their_owner(ada: Ada, door: Door, browser_of: BrowserOf) -> None:
    other, token = browser_of(), ada.token()
    assert door.sign_in(other, ada.source) == 303
    held = ada.browser.api("GET", "/sessions").json()["items"]
    assert [item["sort"] for item in held].count("browser") >= 2
    assert [item["sort"] for item in held].count("command line") == 1
    for item in held:
        if not item["current"]:
            assert ada.browser.api("DELETE", f"/sessions/{item['id']}").status_code == 204
    assert not _alive(other) and not _alive(token) and _alive(ada.browser)


def test_another_persons_session_cannot_be_ended(ada: Ada, door: Door, browser_of: BrowserOf) -> None:
    eve = browser_of()
    door.join(eve, ada.source, "eve")
    for session_id in (_session_id(ada.browser), "se_01k9zq6c5w3m8v4x7r2t1y0b9d", "x"):
        assert eve.api("DELETE", f"/sessions/{session_id}").status_code == 404
    assert _alive(ada.browser)


def test_a_change_with_a_cookie_needs_the_token_of_that_session(ada: Ada, door: Door, browser_of: BrowserOf) -> None:
    other = browser_of()
    assert door.sign_in(other, ada.source) == 303
    good = ada.browser.csrf
    for wrong in ("", "x", other.csrf, good + "x"):
        ada.browser.csrf = wrong
        answer = ada.browser.api("POST", "/factors/totp", {"code": ada.code()})
        assert (answer.status_code, answer.json()["code"]) == (403, "csrf")
    ada.browser.csrf = good
    assert ada.browser.api("POST", "/factors/totp", {"code": ada.code()}).status_code == 200


def test_invalid_authorization_header_does_not_fall_back_to_the_cookie(ada: Ada) -> None:
    for header in ("Bearer x", "Bearer", "Basic eDp5", f"Bearer {ada.browser.cookies[COOKIE]}"):
        answer = ada.browser.api("GET", "/me", headers={"Authorization": header})
        assert answer.status_code == 401


def test_sign_out_ends_the_session(ada: Ada, browser_of: BrowserOf) -> None:
    copy = browser_of()
    copy.cookies = dict(ada.browser.cookies)
    form = {"csrf_token": ada.browser.csrf}
    assert copy.post("/sign-out", data={"csrf_token": "x"}).status_code == 403
    answer = ada.browser.post("/sign-out", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    assert COOKIE not in ada.browser.cookies and not _alive(copy)


def _command_line(ada: Ada, browser: Browser) -> Browser:
    """A command line that was signed in through a browser."""
    made = ada.token()
    with ada.door.world.database.transaction() as tx:
        newest = select(ApiToken).where(ApiToken.person_id == ada.id).order_by(ApiToken.id.desc()).limit(1)
        tx.scalars(newest).one().session_id = _session_id(browser)
    return made


@pytest.mark.parametrize(("choice", "alive"), [("end", False), ("keep", True)])
def test_signing_out_offers_to_end_what_the_session_allowed(
    ada: Ada, door: Door, browser_of: BrowserOf, choice: str, alive: bool
) -> None:
    """A copied cookie becomes a command line: whoever signs out sees it, and can end it."""
    other = browser_of()
    assert door.sign_in(other, ada.source) == 303
    allowed, elsewhere = _command_line(ada, ada.browser), _command_line(ada, other)
    asked = ada.browser.post("/sign-out", data={"csrf_token": ada.browser.csrf})
    assert asked.status_code == 200 and "1 command line was signed in through this browser" in asked.text
    assert _alive(ada.browser) and _alive(allowed)
    answer = ada.browser.post("/sign-out", data={"csrf_token": ada.browser.csrf, "command_lines": choice})
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    assert not _alive(ada.browser)
    assert (_alive(allowed), _alive(elsewhere), _alive(other)) == (alive, True, True)


def test_ending_another_session_offers_to_end_its_tokens(ada: Ada, door: Door, browser_of: BrowserOf) -> None:
    other = browser_of()
    assert door.sign_in(other, ada.source) == 303
    allowed, path = _command_line(ada, other), f"/security/sessions/{_session_id(other)}/end"
    asked = ada.browser.post(path, data={"csrf_token": ada.browser.csrf})
    assert asked.status_code == 200 and f'action="{path}"' in asked.text and _alive(other)
    form = {"csrf_token": ada.browser.csrf, "command_lines": "end"}
    assert ada.browser.post(path, data=form).status_code == 303
    assert (_alive(other), _alive(allowed), _alive(ada.browser)) == (False, False, True)


def test_api_ends_a_session_with_its_tokens(ada: Ada) -> None:
    allowed, session_id = _command_line(ada, ada.browser), _session_id(ada.browser)
    items = ada.browser.api("GET", "/sessions").json()["items"]
    assert [item["allowed_by"] for item in items if item["sort"] == "command line"] == [session_id]
    assert ada.browser.api("DELETE", f"/sessions/{session_id}?and_allowed=true").status_code == 204
    assert not _alive(ada.browser) and not _alive(allowed)
