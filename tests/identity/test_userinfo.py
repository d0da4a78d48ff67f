"""Providers that put little into ID tokens: what is missing is asked of UserInfo, and only of the same person."""

from __future__ import annotations

from typing import Any

import pytest

from broker.models import NoticeAddress
from tests.identity.conftest import Door
from tests.support.browser import Browser
from tests.support.provider import Claims, Provider

_KEPT = ("iss", "sub", "aud", "iat", "exp", "auth_time", "nonce")


def _bare(provider: Provider, claims: Claims) -> str:
    return provider.sign({name: value for name, value in claims.items() if name in _KEPT})


def _joined(door: Door, browser: Browser, **required: Any) -> tuple[int, Any]:
    link = door.invite(door.bind(required_claims=required))
    answer = browser.return_to(door.provider.approve(browser.leave(f"{link}/sign-in"), hd="acme"))
    return answer.status_code, browser.api("GET", "/me").json()


def test_name_and_email_are_read_from_userinfo(door: Door, browser: Browser) -> None:
    door.provider.mint = _bare
    status, me = _joined(door, browser)
    assert (status, me["name"], me["email"]) == (303, "Ada Guest", "ada@example.org")


def test_missing_required_claim_is_read_from_userinfo(door: Door, browser: Browser) -> None:
    door.provider.mint = _bare
    assert _joined(door, browser, hd="acme")[0] == 303


def test_required_claim_from_userinfo_is_compared(door: Door, browser: Browser) -> None:
    door.provider.mint = _bare
    assert _joined(door, browser, hd="borealis")[0] == 401


def test_userinfo_is_not_contacted_if_nothing_is_missing(door: Door, browser: Browser) -> None:
    assert _joined(door, browser)[0] == 303
    assert "/userinfo" not in door.provider.asked


@pytest.mark.parametrize("sub", ["eve", None, 7, ["ada"]])
def test_userinfo_of_another_subject_is_refused(door: Door, browser: Browser, sub: Any) -> None:
    door.provider.mint = _bare
    door.provider.userinfo = lambda claims: claims | {"sub": sub}
    assert _joined(door, browser)[0] == 401


def test_userinfo_cannot_change_subject_or_authentication(door: Door, browser: Browser) -> None:
    door.provider.userinfo = lambda claims: claims | {"amr": ["mfa"], "acr": "phr", "aud": "x", "name": "Mallory"}
    door.provider.mint = lambda provider, claims: provider.sign(
        {name: value for name, value in claims.items() if name != "email"}
    )
    source = door.bind(trusts_mfa=True, mfa_values=["mfa"])
    door.known(source)
    assert door.sign_in(browser, source) == 303
    me = browser.api("GET", "/me").json()
    assert me["name"] == "Ada Guest" and "/userinfo" in door.provider.asked
    assert browser.api("POST", "/factors/totp").status_code == 403


def test_email_and_email_verified_come_from_the_same_source(door: Door, browser: Browser) -> None:
    door.provider.mint = lambda provider, claims: provider.sign(
        {name: value for name, value in claims.items() if name not in ("name", "email_verified")}
        | {"email": "typed@example.org"}
    )
    status, me = _joined(door, browser)
    assert (status, me["name"]) == (303, "Ada Guest")
    with door.world.database.transaction() as tx:
        assert tx.get_one(NoticeAddress, me["id"]).address == ""


def test_email_verified_is_read_from_userinfo(door: Door, browser: Browser) -> None:
    door.provider.mint = lambda provider, claims: provider.sign(
        {name: value for name, value in claims.items() if name != "email_verified"}
    )
    status, me = _joined(door, browser)
    assert (status, me["email"]) == (303, "ada@example.org"), "the same address, of which UserInfo says it"


@pytest.mark.parametrize(
    ("kind", "body"), [("application/jwt", b"eyJhbGciOiJub25lIn0.e30."), ("text/html", b"<html>"), ("text/plain", b"7")]
)
def test_invalid_userinfo_is_ignored_unless_a_required_claim_is_missing(
    door: Door, browser: Browser, kind: str, body: bytes
) -> None:
    door.provider.mint = _bare
    door.provider.answers["/userinfo"] = lambda: (200, {"Content-Type": kind}, body)
    status, me = _joined(door, browser)
    assert (status, me["name"]) == (303, "")
    assert _joined(door, browser, hd="acme")[0] == 503


@pytest.mark.parametrize(
    "methods",
    [["client_secret_basic"], ["client_secret_post"], ["private_key_jwt", "client_secret_post", "client_secret_basic"]],
)
@pytest.mark.parametrize("secret", ["100%+20% & more=~*é", "plain-._~"])
def test_client_secrets_with_special_characters_work(
    door: Door, browser: Browser, methods: list[str], secret: str
) -> None:
    door.provider.client_id, door.provider.client_secret = "https://guestkey.example/a+b%20", secret
    door.provider.auth_methods = methods
    source = door.bind()
    door.known(source)
    assert door.sign_in(browser, source) == 303


@pytest.mark.parametrize("secret", ["c2VjcmV0+/==", "plain-._~"])
def test_provider_with_unencoded_basic_auth_works(door: Door, browser: Browser, secret: str) -> None:
    door.provider.client_secret, door.provider.decodes_basic = secret, False
    source = door.bind()
    door.known(source)
    for asked in (2 if "=" in secret else 1, 1):
        before = door.provider.asked.count("/token")
        assert door.sign_in(browser, source) == 303
        assert door.provider.asked.count("/token") - before == asked, "what worked is remembered"


def test_client_registered_for_one_auth_method_works(door: Door, browser: Browser) -> None:
    door.provider.auth_methods = ["client_secret_basic", "client_secret_post"]
    door.provider.takes = ["client_secret_post"]
    source = door.bind()
    door.known(source)
    asked = []
    for _ in range(2):
        before = door.provider.asked.count("/token")
        assert door.sign_in(browser, source) == 303
        asked.append(door.provider.asked.count("/token") - before)
    # The second time it is known.
    assert asked == [2, 1]
