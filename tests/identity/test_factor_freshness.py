"""Every way to freshness, and to a window: each line of the second table of docs/second-factor.md."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable

import pytest

from broker.models import SignInSource
from tests.identity.conftest import Ada, BrowserOf
from tests.identity.factor_table import FRESHNESS, Owner, told
from tests.identity.test_passkeys import answer_of
from tests.support.browser import Browser


@pytest.fixture
def owner(ada: Ada) -> Owner:
    """Ada with two factors."""
    return Owner(ada)


def _fresh(holder: Browser) -> bool:
    return bool(holder.api("GET", "/me").json()["factor_at"])


def _unproven(owner: Owner) -> Browser:
    other = owner.ada.token()
    assert not _fresh(other)
    return other


def _confirm_code(owner: Owner, _browser_of: BrowserOf) -> None:
    token = _unproven(owner)
    assert token.api("POST", "/confirm/totp", {"code": owner.ada.code()}).status_code == 200 and _fresh(token)
    assert _unproven(owner).api("POST", "/confirm/totp", {"code": owner.ada.code()}).status_code == 422


def _confirm_passkey(owner: Owner, _browser_of: BrowserOf) -> None:
    token, other = _unproven(owner), _unproven(owner)
    answer = {"credential": answer_of(token, owner.device)}
    assert other.api("POST", "/confirm/passkey", answer).status_code == 409
    assert token.api("POST", "/confirm/passkey", answer).status_code == 200 and _fresh(token) and not _fresh(other)


def _passkey_options(owner: Owner, _browser_of: BrowserOf) -> None:
    token = _unproven(owner)
    assert token.api("POST", "/confirm/passkey/options").status_code == 200 and not _fresh(token)


def _ask_browser(owner: Owner, _browser_of: BrowserOf) -> None:
    token = _unproven(owner)
    assert token.api("POST", "/confirm/browser").status_code == 201 and not _fresh(token)
    assert owner.browser.api("POST", "/confirm/browser").status_code == 403


def _confirm_page(owner: Owner, browser_of: BrowserOf) -> None:
    other = browser_of()
    assert owner.ada.door.sign_in(other, owner.ada.source) == 303
    assert owner.send("POST /confirm", other, next="/").status_code == 401 and not _fresh(other), "asked again"
    assert owner.send("POST /confirm", other, next="/", code=owner.ada.code()).status_code == 303 and _fresh(other)


def _confirm_command_line(owner: Owner, _browser_of: BrowserOf) -> None:
    token = _unproven(owner)
    way = f"POST /confirm/command-line/{token.api('POST', '/confirm/browser').json()['id']}"
    assert owner.send(way, owner.browser).status_code == 401 and not _fresh(token)
    assert owner.send(way, owner.browser, code=owner.ada.code()).status_code == 303 and _fresh(token)


def _disown(owner: Owner, _browser_of: BrowserOf) -> None:
    token = _unproven(owner)
    way = f"POST /confirm/command-line/{token.api('POST', '/confirm/browser').json()['id']}/disown"
    assert owner.send(way, owner.browser).status_code == 303 and token.api("GET", "/me").status_code == 401


def _code_exchange(owner: Owner, _browser_of: BrowserOf) -> None:
    me = owner.browser.api("GET", "/me").json()
    verifier = "v" * 43
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    asked = {
        "response_type": "code",
        "client_id": "guestkey-cli",
        "redirect_uri": "http://127.0.0.1:49152/callback",
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        "state": "12345678",
    }
    page = owner.send("POST /oauth/authorize", owner.browser, **asked).text
    found = re.search(r"[?&;]code=([\w-]+)", page)
    assert found, page
    given = {"grant_type": "authorization_code", "code": found[1], "code_verifier": verifier}
    sent = given | {"client_id": asked["client_id"], "redirect_uri": asked["redirect_uri"]}
    token = owner.browser.post("/oauth/token", data=sent).json()["access_token"]
    shown = Browser(owner.browser.url, {"Authorization": f"Bearer {token}"})
    mine = shown.api("GET", "/me").json()
    shown.close()
    assert mine["factor_at"] == me["factor_at"]
    assert mine["signed_in_until"] <= me["signed_in_until"]


def _sign_in(owner: Owner, browser_of: BrowserOf) -> None:
    door, before, after = owner.ada.door, browser_of(), browser_of()
    assert door.sign_in(before, owner.ada.source, acr="phr") == 303 and not _fresh(before), "nobody trusted it"
    owner.world.change(SignInSource, owner.ada.source.id, trusts_mfa=True, mfa_values=["phr"])
    assert door.sign_in(after, owner.ada.source, acr="phr") == 303 and _fresh(after)
    assert after.api("POST", "/factors/totp").status_code == 401, "the provider's factor changes none of ours"
    assert after.api("POST", "/factors/recovery-codes", {}).status_code == 401


def _invite(owner: Owner, _browser_of: BrowserOf) -> None:
    assert owner.ada.door.admin().api("POST", f"/people/{owner.ada.id}/enrolment-invitations").status_code == 409
    assert owner.browser.api("POST", f"/people/{owner.ada.id}/enrolment-invitations").status_code == 403


def _reset(owner: Owner, _browser_of: BrowserOf) -> None:
    first, second = owner.ada.door.admin(), owner.ada.door.admin()
    made = first.api("POST", f"/people/{owner.ada.id}/reset-factor").json()
    assert owner.browser.api("GET", "/factors").json()["totp"], "one admin resets nothing"
    assert first.api("POST", f"/proposals/{made['id']}/approve").status_code == 403
    assert second.api("POST", f"/proposals/{made['id']}/approve").status_code == 200
    assert [holder.api("GET", "/me").status_code for holder in (owner.browser, owner.token)] == [401, 401]
    assert told(owner) == ["factor.reset"]


TRIED: dict[str, Callable[[Owner, BrowserOf], None]] = {
    "POST /api/v1/confirm/totp": _confirm_code,
    "POST /api/v1/confirm/passkey": _confirm_passkey,
    "POST /api/v1/confirm/passkey/options": _passkey_options,
    "POST /api/v1/confirm/browser": _ask_browser,
    "POST /confirm": _confirm_page,
    "POST /confirm/command-line/{waiting_id}": _confirm_command_line,
    "POST /confirm/command-line/{waiting_id}/disown": _disown,
    "POST /oauth/token": _code_exchange,
    "GET /sign-in/callback": _sign_in,
    "POST /api/v1/people/{person_id}/enrolment-invitations": _invite,
    "POST /api/v1/people/{person_id}/reset-factor": _reset,
}


@pytest.mark.parametrize("way", FRESHNESS)
def test_freshness_table_matches_behaviour(owner: Owner, browser_of: BrowserOf, way: str) -> None:
    owner.ada.forget()
    TRIED[way](owner, browser_of)
