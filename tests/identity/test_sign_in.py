"""Signing in at a provider of our own: the honest way in, and every dishonest one refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from sqlalchemy import select

from broker.identity import provider_http
from broker.models import NoticeAddress, SignInAttempt
from tests.identity.conftest import BrowserOf, Door
from tests.support.browser import Browser
from tests.support.world import World


@pytest.mark.fast
def test_sign_in_succeeds(door: Door, browser: Browser, world: World) -> None:
    source = door.bind(world.vendor())
    link = door.invite(source)
    assert "sign-in" in browser.get(link).text
    answer = browser.return_to(door.provider.approve(browser.leave(f"{link}/sign-in")))
    assert answer.headers["location"] == "/"
    me = browser.api("GET", "/me").json()
    assert (me["status"], me["name"], me["email"]) == ("pending", "Ada Guest", "ada@example.org")
    refused = browser.api("GET", "/datasets")
    assert (refused.status_code, refused.json()["code"]) == (403, "person_pending")
    assert browser.api("POST", "/factors/totp").status_code == 403
    assert door.admin().api("POST", f"/people/{me['id']}/confirm").status_code == 200
    assert browser.api("GET", "/datasets").status_code == 200
    assert browser.return_to(door.provider.approve(browser.leave(f"{link}/sign-in"))).status_code == 303
    assert browser.api("POST", "/factors/totp").status_code == 200
    assert {"person.joined", "person.confirmed"} <= set(world.events(me["id"]))


def test_refused_person_can_join_only_with_a_new_invitation(door: Door, browser: Browser, world: World) -> None:
    source = door.bind(world.vendor())
    person_id = door.join(browser, source, confirm=False)
    refused = door.admin().api("POST", f"/people/{person_id}/refuse", {"reason": "Not Ada"})
    assert refused.json()["status"] == "refused", refused.text
    assert browser.api("GET", "/me").status_code == 401
    assert door.sign_in(browser, source) == 401
    link = door.invite(source)
    back = browser.return_to(door.provider.approve(browser.leave(f"{link}/sign-in")))
    assert back.status_code == 303, back.text
    me = browser.api("GET", "/me").json()
    assert (me["id"], me["status"]) == (person_id, "pending")
    assert world.events(person_id).count("person.joined") == 2
    assert door.admin().api("POST", f"/people/{person_id}/confirm").status_code == 200


def test_notice_address_is_the_verified_one_of_the_last_sign_in(door: Door, browser: Browser, world: World) -> None:
    source = door.bind(world.vendor())
    link = door.invite(source)
    browser.return_to(door.provider.approve(browser.leave(f"{link}/sign-in")))
    person_id = browser.api("GET", "/me").json()["id"]
    assert _address(world, person_id) == "ada@example.org"
    browser.return_to(door.provider.approve(browser.leave(f"/sign-in/{source.id}"), email_verified=False))
    assert _address(world, person_id) == ""


def _address(world: World, person_id: str) -> str:
    with world.database.transaction() as tx:
        return tx.get_one(NoticeAddress, person_id).address


def _with(callback: str, **changes: str | None) -> str:
    parts = urlsplit(callback)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()} | changes
    return f"{parts.path}?{urlencode({name: value for name, value in query.items() if value is not None})}"


def test_callback_works_once_in_one_browser(door: Door, browser: Browser, browser_of: BrowserOf) -> None:
    source = door.bind()
    door.known(source)
    thief, other = browser_of(), browser_of()
    other.leave(f"/sign-in/{source.id}")
    callback = door.provider.approve(browser.leave(f"/sign-in/{source.id}"))
    assert thief.get(callback).status_code == 401
    assert other.get(callback).status_code == 401
    assert browser.get(_with(callback, state="A" * 43)).status_code == 401
    assert browser.get(_with(callback, state=None)).status_code == 401
    assert browser.get(_with(callback, state="\x00")).status_code == 401
    assert browser.return_to(callback).status_code == 303
    assert browser.get(callback).status_code == 401


def test_two_tabs_may_sign_in_at_once(door: Door, browser: Browser) -> None:
    source = door.bind()
    door.known(source)
    first, second = (browser.leave(f"/sign-in/{source.id}") for _ in range(2))
    for url in (first, second):
        assert browser.return_to(door.provider.approve(url)).status_code == 303


def test_a_repeated_parameter_is_refused(door: Door, browser: Browser) -> None:
    source = door.bind()
    callback = door.provider.approve(browser.leave(f"/sign-in/{source.id}"))
    assert browser.get(f"{callback}&code=other").status_code == 422
    assert browser.get(f"{callback}&state=other").status_code == 422


def test_callback_with_another_issuer_is_refused(door: Door, browser: Browser) -> None:
    source = door.bind()
    callback = door.provider.approve(browser.leave(f"/sign-in/{source.id}"))
    assert browser.get(_with(callback, iss="https://evil.example")).json()["code"] == "sign_in_refused"


def test_callback_without_an_announced_issuer_is_refused(door: Door, browser: Browser) -> None:
    door.provider.metadata["authorization_response_iss_parameter_supported"] = True
    source = door.bind()
    callback = door.provider.approve(browser.leave(f"/sign-in/{source.id}"))
    assert browser.get(_with(callback, iss=None)).json()["code"] == "sign_in_refused"
    door.join(browser, source)


def test_code_of_another_sign_in_is_refused(door: Door, browser: Browser, browser_of: BrowserOf) -> None:
    source = door.bind()
    door.known(source)
    victim = browser_of()
    stolen = parse_qs(urlsplit(door.provider.approve(victim.leave(f"/sign-in/{source.id}"))).query)["code"][0]
    own = door.provider.approve(browser.leave(f"/sign-in/{source.id}"))
    assert browser.get(_with(own, code=stolen)).status_code == 401


def test_provider_error_is_shown_as_one_sentence(door: Door, browser: Browser) -> None:
    source = door.bind()
    callback = door.provider.approve(browser.leave(f"/sign-in/{source.id}"))
    bad = _with(callback, code=None, error="access_denied", error_description="<script>alert(1)</script>")
    answer = browser.get(bad, headers={"Accept": "text/html"})
    assert answer.status_code == 401 and "script>alert" not in answer.text
    assert "refused the sign-in" in answer.text


MISBEHAVIOURS: dict[str, tuple[str, Callable[[], tuple[int, dict[str, str], bytes]]]] = {
    "discovery redirects": (
        "/.well-known/openid-configuration",
        lambda: (302, {"Location": "http://169.254.169.254/"}, b""),
    ),
    "discovery without end": (
        "/.well-known/openid-configuration",
        lambda: (200, {}, b'{"x":"' + b"x" * (provider_http.LONGEST_ANSWER + 1) + b'"}'),
    ),
    "discovery of another issuer": ("/.well-known/openid-configuration", lambda: (200, {}, b'{"issuer":"https://x"}')),
    "discovery is a list": ("/.well-known/openid-configuration", lambda: (200, {}, b"[]")),
    "discovery is no JSON": ("/.well-known/openid-configuration", lambda: (200, {}, b"<html>")),
    "discovery fails": ("/.well-known/openid-configuration", lambda: (500, {}, b"boom")),
    "keys redirect": ("/keys", lambda: (302, {"Location": "http://169.254.169.254/"}, b"")),
    "keys are no list": ("/keys", lambda: (200, {}, b'{"keys": "all"}')),
    "token endpoint redirects": ("/token", lambda: (307, {"Location": "http://169.254.169.254/"}, b"")),
    "token endpoint fails": ("/token", lambda: (503, {}, b"boom")),
}


@pytest.mark.parametrize("what", MISBEHAVIOURS)
def test_misbehaving_provider_is_reported_in_one_sentence(door: Door, browser: Browser, what: str) -> None:
    source = door.bind()
    path, answer = MISBEHAVIOURS[what]
    door.provider.answers[path] = answer
    start = browser.get(f"/sign-in/{source.id}")
    if not path.startswith("/.well-known"):
        assert start.status_code == 303
        start = browser.get(door.provider.approve(start.headers["location"]))
    assert (start.status_code, start.json()["backend"]) == (503, "identity_provider")
    assert "169.254" not in start.text and "boom" not in start.text


def test_hanging_provider_times_out(door: Door, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    source = door.bind()
    callback = door.provider.approve(browser.leave(f"/sign-in/{source.id}"))
    monkeypatch.setattr(provider_http, "SECONDS", 0.5)
    release = threading.Event()
    door.provider.answers["/token"] = lambda: ((release.wait(10) and 200) or 500, {}, b"{}")
    began = time.monotonic()
    assert browser.get(callback).status_code == 503
    assert time.monotonic() - began < 3
    release.set()


@pytest.mark.parametrize("endpoint", ["authorization_endpoint", "token_endpoint", "jwks_uri"])
@pytest.mark.parametrize("address", ["http://evil.example/x", "javascript:alert(1)", "https://u@evil.example/", 7])
def test_an_endpoint_without_https_is_refused(door: Door, browser: Browser, endpoint: str, address: object) -> None:
    source = door.bind()
    door.provider.metadata[endpoint] = address
    assert browser.get(f"/sign-in/{source.id}").status_code == 503


def test_claims_decide_the_party_and_must_match_exactly_one(
    door: Door, browser: Browser, browser_of: BrowserOf, world: World
) -> None:
    own, guests = door.bind(required_claims={"hd": "org"}), door.bind(world.vendor(), required_claims={"hd": "acme"})
    link = door.invite(guests)
    answer = browser.return_to(door.provider.approve(browser.leave(f"{link}/sign-in"), hd="acme"))
    assert answer.status_code == 303
    # Setting out from the organisation's source, the same account is still the vendor's.
    elsewhere = browser_of()
    assert door.sign_in(elsewhere, own, hd="acme") == 303
    assert elsewhere.api("GET", "/me").json()["vendor"] == guests.vendor_id
    assert door.sign_in(browser_of(), own, hd="Acme") == 401
    assert door.sign_in(browser_of(), own, hd=None) == 401
    assert door.sign_in(browser_of(), own, hd=["acme"]) == 303
    # Whoever changes party is somebody else, and has not joined.
    assert door.sign_in(browser_of(), own, hd="org") == 401
    door.bind(world.vendor(), required_claims={})
    assert door.sign_in(browser_of(), own, hd="acme") == 401


def test_uninvited_account_is_refused(door: Door, browser: Browser) -> None:
    source = door.bind()
    callback = door.provider.approve(browser.leave(f"/sign-in/{source.id}"), "stranger")
    assert browser.get(callback).json()["code"] == "unknown"


def test_identity_is_exact_issuer_and_subject(door: Door, browser: Browser, browser_of: BrowserOf) -> None:
    source = door.bind()
    door.known(source)
    for other in ("Ada", "ada.", "a-da"):
        assert door.sign_in(browser_of(), source, other) == 401


def test_an_invitation_works_once(door: Door, browser: Browser, browser_of: BrowserOf) -> None:
    source = door.bind()
    link = door.invite(source)
    first, second = browser, browser_of()
    ways = [(first, first.leave(f"{link}/sign-in"), "ada"), (second, second.leave(f"{link}/sign-in"), "eve")]
    answers = [user.return_to(door.provider.approve(url, subject)).status_code for user, url, subject in ways]
    assert answers == [303, 409]
    third = browser_of()
    answer = third.get(door.provider.approve(third.leave(f"{link}/sign-in"), "mallory"))
    assert (answer.status_code, answer.json()["code"]) == (409, "link_used")


def test_concurrent_use_of_an_invitation_joins_one_person(door: Door, browser_of: BrowserOf) -> None:
    source = door.bind()
    link = door.invite(source)
    users = [(browser_of(), f"user-{number}") for number in range(4)]
    callbacks = [(user, door.provider.approve(user.leave(f"{link}/sign-in"), name)) for user, name in users]
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda u=u, c=c: statuses.append(u.get(c).status_code)) for u, c in callbacks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(statuses) == [303, 409, 409, 409]


def test_an_invitation_is_bound_to_its_source(door: Door, browser: Browser, world: World) -> None:
    source = door.bind(world.vendor(), required_claims={"hd": "acme"})
    door.bind(world.vendor(), required_claims={"hd": "borealis"})
    link = door.invite(source)
    callback = door.provider.approve(browser.leave(f"{link}/sign-in"), hd="borealis")
    assert browser.get(callback).status_code == 401
    assert browser.return_to(door.provider.approve(browser.leave(f"{link}/sign-in"), hd="acme")).status_code == 303


def test_unknown_links_get_the_same_answer(browser: Browser) -> None:
    for path in ("/join/x", f"/join/{'A' * 43}", "/enrol/x", "/join/x/sign-in", "/enrol/%00/sign-in"):
        answer = browser.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "link_invalid"), path
    for path in ("/sign-in/x", "/sign-in/ss_01k9zq6c5w3m8v4x7r2t1y0b9d", "/sign-in/%00"):
        assert browser.get(path).status_code == 404


def test_vendor_names_are_not_shown_to_strangers(door: Door, browser: Browser, world: World) -> None:
    vendor = world.vendor()
    source = door.bind(vendor)
    page = browser.get("/sign-in").text
    assert source.name not in page and source.id not in page and vendor.name not in page
    door.join(browser, source)
    assert source.name in browser.get("/sign-in").text
    chosen = browser.get(f"/sign-in?source={source.id}&next=/leases")
    assert chosen.headers["location"] == f"/sign-in/{source.id}?next=%2Fleases"


@pytest.mark.parametrize("path", ["//evil.example", "https://evil.example", "/\\evil.example", "/a\nb", "javascript:x"])
def test_redirect_after_sign_in_stays_on_this_host(door: Door, browser: Browser, path: str) -> None:
    source = door.bind()
    door.known(source)
    url = browser.leave(f"/sign-in/{source.id}?{urlencode({'next': path})}")
    assert browser.return_to(door.provider.approve(url)).headers["location"] == "/"


def test_pending_sign_in_stores_no_secret(door: Door, browser: Browser, world: World) -> None:
    source = door.bind()
    url = browser.leave(f"/sign-in/{source.id}?next=/leases")
    asked = parse_qs(urlsplit(url).query)
    with world.database.transaction() as tx:
        row = tx.execute(select(SignInAttempt).where(SignInAttempt.source_id == source.id)).scalar_one()
        kept = repr({name: getattr(row, name) for name in row.__table__.columns.keys()})  # noqa: SIM118
    for secret in (asked["state"][0], asked["nonce"][0], browser.cookies["__Host-guestkey-sign-in"]):
        assert secret not in kept
