"""Passkeys, made and proven by a software authenticator that also lies."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from broker.models import FactorChallenge
from tests.identity.conftest import Ada, BrowserOf, Door
from tests.support.authenticator import PRESENT, Authenticator, text
from tests.support.browser import Browser
from tests.support.world import World


def add(browser: Browser, device: Authenticator, name: str = "Laptop", code: str | None = None) -> Any:
    """Add a passkey, with a code where there is a factor already; the answer."""
    options = browser.api("POST", "/factors/passkeys/options", {"code": code} if code else None)
    assert options.status_code == 200, options.text
    return browser.api("POST", "/factors/passkeys", {"credential": device.make(options.json()), "name": name})


def answer_of(browser: Browser, device: Authenticator) -> dict[str, Any]:
    """A passkey's answer to a new challenge of this browser's session."""
    return device.prove(browser.api("POST", "/confirm/passkey/options").json())


def prove(browser: Browser, device: Authenticator) -> Any:
    """Prove a passkey; the answer."""
    return browser.api("POST", "/confirm/passkey", {"credential": answer_of(browser, device)})


@pytest.fixture
def device(ada: Ada) -> Authenticator:
    """A passkey of Ada's, added beside her app."""
    made = Authenticator(ada.browser.url)
    assert add(ada.browser, made, code=ada.code()).json()["recovery_codes"] == []
    ada.forget()
    return made


def test_passkey_can_be_the_first_factor(door: Door, browser: Browser) -> None:
    door.join(browser, door.bind())
    device = Authenticator(browser.url)
    made = add(browser, device)
    assert made.status_code == 201 and len(made.json()["recovery_codes"]) == 10
    me = browser.api("GET", "/me").json()
    assert me["factor_method"] == "passkey" and me["factor_enrolled"]
    held = browser.api("GET", "/factors").json()
    assert [item["name"] for item in held["passkeys"]] == ["Laptop"]
    refused = browser.api(
        "POST", f"/factors/passkeys/{held['passkeys'][0]['id']}/remove", {"passkey": answer_of(browser, device)}
    )
    assert (refused.status_code, refused.json()["code"]) == (409, "last_factor")


def test_passkey_proof_makes_only_this_session_fresh(ada: Ada, device: Authenticator) -> None:
    ada.age_factor()
    before = ada.browser.cookies["__Host-guestkey"]
    answer = prove(ada.browser, device)
    assert answer.status_code == 200 and answer.json()["factor_method"] == "passkey"
    assert ada.browser.cookies["__Host-guestkey"] != before
    stale = Browser(ada.browser.url)
    stale.cookies["__Host-guestkey"] = before
    assert stale.api("GET", "/me").status_code == 401
    stale.close()


def test_passkey_answer_works_once(ada: Ada, device: Authenticator) -> None:
    options = ada.browser.api("POST", "/confirm/passkey/options").json()
    answer = {"credential": device.prove(options)}
    assert ada.browser.api("POST", "/confirm/passkey", answer).status_code == 200
    assert ada.browser.api("POST", "/confirm/passkey", answer).status_code == 409
    ada.browser.api("POST", "/confirm/passkey/options")
    assert ada.browser.api("POST", "/confirm/passkey", answer).status_code == 422


def test_challenge_is_bound_to_its_session(ada: Ada, device: Authenticator, door: Door, browser_of: BrowserOf) -> None:
    other = browser_of()
    assert door.sign_in(other, ada.source) == 303
    options = ada.browser.api("POST", "/confirm/passkey/options").json()
    answer = {"credential": device.prove(options)}
    assert other.api("POST", "/confirm/passkey", answer).status_code == 409
    other.api("POST", "/confirm/passkey/options")
    assert other.api("POST", "/confirm/passkey", answer).status_code == 422
    assert other.api("GET", "/me").json()["factor_at"] is None


def test_challenge_expires(ada: Ada, device: Authenticator, world: World) -> None:
    options = ada.browser.api("POST", "/confirm/passkey/options").json()
    with world.database.transaction() as tx:
        tx.execute(update(FactorChallenge).values(expires_at=world.now() - timedelta(seconds=1)))
    assert ada.browser.api("POST", "/confirm/passkey", {"credential": device.prove(options)}).status_code == 409


def _copied(device: Authenticator) -> None:
    device.counter -= 1


LIES: dict[str, Callable[[Authenticator], None]] = {
    "another site's page": lambda device: setattr(device, "origin", "https://evil.example"),
    "another port": lambda device: setattr(device, "origin", "http://localhost:1"),
    "another site's passkey": lambda device: setattr(device, "rp_id", "evil.example"),
    "nobody verified": lambda device: setattr(device, "flags", PRESENT),
    "nobody present": lambda device: setattr(device, "flags", 0),
    "a copy, by its counter": _copied,
    "a counter set back to nothing": lambda device: setattr(device, "counter", -1),
    "another key of the same name": lambda device: device.__dict__.update(_key=Authenticator("x")._key),
    "an unknown name": lambda device: setattr(device, "credential_id", b"x" * 32),
}


@pytest.mark.parametrize("lie", LIES)
def test_invalid_assertion_is_refused(ada: Ada, device: Authenticator, lie: str) -> None:
    ada.age_factor()
    assert prove(ada.browser, device).status_code == 200
    ada.age_factor()
    LIES[lie](device)
    answer = prove(ada.browser, device)
    assert (answer.status_code, answer.json()["code"]) == (422, "passkey_refused")
    assert ada.browser.api("POST", "/factors/totp/remove", {}).status_code == 401


@pytest.mark.parametrize("lie", ["another site's page", "another site's passkey", "nobody verified", "nobody present"])
def test_invalid_attestation_adds_no_passkey(ada: Ada, lie: str) -> None:
    device = Authenticator(ada.browser.url)
    LIES[lie](device)
    assert add(ada.browser, device, code=ada.code()).status_code == 422
    assert ada.browser.api("GET", "/factors").json()["passkeys"] == []


def test_passkey_belongs_to_one_person(ada: Ada, device: Authenticator, door: Door, browser_of: BrowserOf) -> None:
    eve = Ada(door, browser_of(), ada.source, "eve")
    eve.enrol()
    assert add(eve.browser, device, code=eve.code()).status_code == 409
    assert add(eve.browser, Authenticator(eve.browser.url), code=eve.code(1)).status_code == 201
    assert prove(eve.browser, device).status_code == 422
    foreign = ada.browser.api("GET", "/factors").json()["passkeys"][0]["id"]
    eve.forget()
    removed = eve.browser.api("POST", f"/factors/passkeys/{foreign}/remove", {"code": eve.code()})
    assert removed.status_code == 404


def test_one_of_two_passkeys_can_be_removed(ada: Ada, device: Authenticator) -> None:
    assert ada.browser.api("POST", "/factors/totp/remove", {"code": ada.code()}).status_code == 204
    assert ada.prove() == 409
    assert prove(ada.browser, device).status_code == 200


@pytest.mark.parametrize(
    "credential",
    [
        {},
        {"id": 7, "rawId": [], "response": None},
        {"id": "x", "rawId": "x", "type": "public-key", "response": {}},
        {"id": "é", "rawId": "é", "type": "public-key", "response": {"attestationObject": "é"}},
        {
            "id": text(b"x"),
            "rawId": text(b"x"),
            "type": "public-key",
            "response": {"attestationObject": text(b"\xff" * 40), "clientDataJSON": text(b"{}"), "signature": ""},
        },
    ],
)
def test_malformed_passkey_answer_is_refused(ada: Ada, device: Authenticator, credential: dict[str, Any]) -> None:
    ada.browser.api("POST", "/factors/passkeys/options", {"code": ada.code()})
    body = {"credential": credential, "name": "x"}
    assert ada.browser.api("POST", "/factors/passkeys", body).status_code == 422
    ada.browser.api("POST", "/confirm/passkey/options")
    assert ada.browser.api("POST", "/confirm/passkey", {"credential": credential}).status_code == 422
