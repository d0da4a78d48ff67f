"""Sign-in sources: tried before they are bound, never two that lock each other out, and what failed is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.identity.conftest import BrowserOf, Door
from tests.support.browser import Browser
from tests.support.provider import Claims, Provider, encoded, rsa_key
from tests.support.world import World

DISCOVERY = "/.well-known/openid-configuration"
Change = Callable[[Provider, dict[str, Any]], None]


def _body(door: Door, world: World, **changes: Any) -> dict[str, Any]:
    vendor = world.vendor()
    fields = {
        "name": f"Acme {vendor.id}",
        "issuer": door.provider.issuer,
        "client_id": door.provider.client_id,
        "client_secret": door.provider.client_secret,
        "vendor": vendor.id,
    }
    return fields | changes


def _no_keys(provider: Provider, _: dict[str, Any]) -> None:
    provider.keys = []


WRONG: dict[str, tuple[Change, str, str]] = {
    "a slash too many": (lambda p, body: body.update(issuer=p.issuer + "/"), "/issuer", "mind the last /"),
    "nobody there": (lambda p, body: body.update(issuer="http://127.0.0.1:9"), "/issuer", "connection refused"),
    "a page": (
        lambda p, _: p.answers.update({DISCOVERY: lambda: (200, {"Content-Type": "text/html"}, b"<html>")}),
        "/issuer",
        "a web page (HTML)",
    ),
    "no such document": (lambda p, _: p.answers.update({DISCOVERY: lambda: (404, {}, b"")}), "/issuer", "404"),
    "an unsafe algorithm": (
        lambda p, _: p.metadata.update(id_token_signing_alg_values_supported=["HS256", "none"]),
        "/issuer",
        "none of ES256",
    ),
    "no keys": (_no_keys, "/issuer", "None of its"),
    "keys that fail": (lambda p, _: p.answers.update({"/keys": lambda: (500, {}, b"")}), "/issuer", "500"),
    "a wrong secret": (lambda _, body: body.update(client_secret="wrong"), "/client_secret", "invalid_client"),
    "an unknown client": (lambda _, body: body.update(client_id="other"), "/client_secret", "invalid_client"),
    "a secret it does not take": (
        lambda p, _: setattr(p, "auth_methods", ["private_key_jwt"]),
        "/client_secret",
        "private_key_jwt",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_unusable_source_is_refused_when_proposed(door: Door, world: World, what: str) -> None:
    change, field, said = WRONG[what]
    body = _body(door, world)
    change(door.provider, body)
    answer = door.admin().api("POST", "/sources", body)
    assert answer.status_code == 422, answer.text
    told = answer.json()["errors"][0]
    assert (told["pointer"], said in told["detail"]) == (field, True), told


def test_a_second_source_of_the_same_client_is_refused(door: Door, world: World) -> None:
    first, second = door.admin(), door.admin()
    claims: list[dict[str, Any]] = [{"hd": "acme"}, {"hd": "borealis"}, {}, {"hd": "acme"}, {"team": "x"}]
    bodies = [_body(door, world, required_claims=required) for required in claims]
    # While none is bound, any may be proposed; what is bound first decides.
    proposed = [first.api("POST", "/sources", body).json()["id"] for body in bodies]
    answers = [second.api("POST", f"/proposals/{proposal}/approve") for proposal in proposed]
    assert [answer.status_code for answer in answers] == [200, 200, 409, 409, 409]
    assert "has the same issuer and client" in answers[2].json()["detail"]
    for required in claims[2:]:
        assert first.api("POST", "/sources", _body(door, world, required_claims=required)).status_code == 409
    third = _body(door, world, required_claims={"hd": "third"})
    assert first.api("POST", "/sources", third).status_code == 202


def test_source_check_tests_an_existing_source(door: Door, world: World) -> None:
    source, admin = door.bind(), door.admin()
    found = admin.api("POST", f"/sources/{source.id}/check").json()
    assert found["ok"] and [item["what"] for item in found["findings"]] == ["discovery", "keys", "client", "userinfo"]
    door.provider.client_secret = "another"
    found = admin.api("POST", f"/sources/{source.id}/check").json()
    assert not found["ok"]
    assert [(item["what"], item["ok"]) for item in found["findings"]][2] == ("client", False)
    door.provider.answers[DISCOVERY] = lambda: (302, {"Location": "https://x.example"}, b"")
    found = admin.api("POST", f"/sources/{source.id}/check").json()
    assert "redirect" in found["findings"][0]["told"] and len(found["findings"]) == 1
    lead = door.client(world.person(world.vendor(), roles=("lead",)))
    assert lead.api("POST", f"/sources/{source.id}/check").status_code == 403


def _encrypted(provider: Provider, _claims: Claims) -> str:
    header = encoded(json.dumps({"alg": "RSA-OAEP", "enc": "A256GCM"}).encode()).decode()
    return ".".join((header, *("x" * 40 for _ in range(4))))


def _failing(provider: Provider, what: str) -> None:
    page = (200, {"Content-Type": "text/html"}, b"<html>Welcome</html>")
    if what == "a wrong secret":
        provider.client_secret = "rotated"
    elif what == "a page instead of a token":
        provider.answers["/token"] = lambda: page
    elif what == "an encrypted token":
        provider.mint = _encrypted
    elif what == "a code refused":
        told = {"error": "invalid_grant", "error_description": "Code\u202e expired\n<b>"}
        provider.answers["/token"] = lambda: (400, {}, json.dumps(told).encode())
    elif what == "a foreign key":
        provider.mint = lambda made, claims: made.sign(claims, key=rsa_key("nobody"))
    elif what == "no ID token":
        provider.mint = lambda *_: None
    elif what == "no auth_time":
        provider.mint = lambda made, claims: made.sign({k: v for k, v in claims.items() if k != "auth_time"})


REASONS = {
    "a wrong secret": "does not accept our client id and secret: it answers 401 (invalid_client)",
    "a page instead of a token": "a web page (HTML)",
    "an encrypted token": "encrypted (JWE)",
    "a code refused": "invalid_grant: Code expired <b>",
    "a foreign key": "none of the keys",
    "no ID token": "sent none",
    "no auth_time": "auth_time",
    "the provider's own no": "access_denied: The user said <b>no</b>",
    "a claim that lacks": "sends no claim hd",
    "a claim of another value": "other values",
    "a claim of another type": "other values",
}


@pytest.mark.parametrize("what", REASONS)
def test_sign_in_failure_reason_is_shown_to_admins_only(
    door: Door, browser: Browser, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    required = {"hd": "7"} if "a claim" in what else {}
    source, admin = door.bind(required_claims=required), door.admin()
    hd = {"a claim of another value": "8", "a claim of another type": 7}.get(what)
    callback = door.provider.approve(browser.leave(f"/sign-in/{source.id}"), hd=hd)
    _failing(door.provider, what)
    if what == "the provider's own no":
        state = httpx.URL(callback).params["state"]
        no = {"error": "access_denied", "error_description": "The user said <b>no</b>", "state": state}
        callback = f"/sign-in/callback?{httpx.QueryParams(no)}"
    answer = browser.get(callback)
    assert answer.status_code in (401, 503)
    assert REASONS[what] not in answer.text
    listed = admin.api("GET", "/sources?limit=200").json()["items"]
    failure = next(item for item in listed if item["id"] == source.id)["last_failure"]
    assert REASONS[what] in failure["why"] and failure["times"] == 1
    assert door.provider.client_secret not in failure["why"]
    assert REASONS[what][:20] in capsys.readouterr().out


def test_additional_audiences_must_be_configured(
    door: Door, browser: Browser, browser_of: BrowserOf, world: World
) -> None:
    def both(provider: Provider, claims: Claims) -> str:
        return provider.sign(claims | {"aud": [provider.client_id, "api.example"], "azp": provider.client_id})

    door.provider.mint = both
    source = door.bind(other_audiences=["api.example"])
    door.known(source)
    assert door.sign_in(browser, source) == 303
    wrongs: tuple[dict[str, Any], ...] = (
        {"azp": None},
        {"azp": "api.example"},
        {"aud": ["api.example"]},
        {"aud": "api.example"},
        {"aud": [door.provider.client_id, "api.example", "third"]},
        {"aud": [door.provider.client_id, "api.example", 7]},
        {"aud": []},
    )
    for wrong in wrongs:

        def other(provider: Provider, claims: Claims, wrong: dict[str, Any] = wrong) -> str:
            said = claims | {"aud": [provider.client_id, "api.example"], "azp": provider.client_id} | wrong
            return provider.sign({name: value for name, value in said.items() if value is not None})

        door.provider.mint = other
        assert door.sign_in(browser_of(), source) == 401, wrong
    for audiences in (["a\u202eb"], [""], [f"aud-{number}" for number in range(11)]):
        body = _body(door, world, required_claims={"x": "y"}, other_audiences=audiences)
        assert door.admin().api("POST", "/sources", body).status_code == 422


CALLED: dict[str, tuple[dict[str, Any], str, str]] = {
    "as usual": ({}, "Ada Guest", "ada@example.org"),
    "unverified": ({"email_verified": False}, "Ada Guest", ""),
    "unverified, as text": ({"email_verified": "false"}, "Ada Guest", ""),
    "verified, as text": ({"email_verified": "true"}, "Ada Guest", ""),
    "verified, as a number": ({"email_verified": 1}, "Ada Guest", ""),
    "not said": ({"email_verified": None}, "Ada Guest", ""),
    "an address that is a list": ({"email": ["ada@example.org"]}, "Ada Guest", ""),
    "a name that is an object": ({"name": {"first": "Ada"}, "preferred_username": "ada"}, "ada", "ada@example.org"),
    "a name in parts": ({"name": None, "given_name": "Ada", "family_name": "Guest"}, "Ada Guest", "ada@example.org"),
}


@pytest.mark.parametrize("what", CALLED)
def test_required_claims_compare_types(door: Door, browser: Browser, what: str) -> None:
    changes, name, email = CALLED[what]
    # What the ID token lacks is not told elsewhere either.
    door.provider.metadata["userinfo_endpoint"] = None
    link = door.invite(door.bind())
    callback = door.provider.approve(browser.leave(f"{link}/sign-in"), "ada", **changes)
    assert browser.return_to(callback).status_code == 303
    me = browser.api("GET", "/me").json()
    assert (me["name"], me["email"]) == (name, email)
    confirming = door.admin().api("GET", f"/people/{me['id']}").json()
    assert (confirming["name"], confirming["email"]) == (name, email), "whoever confirms them sees no more"


def test_email_is_removed_when_no_longer_verified(door: Door, browser: Browser) -> None:
    source = door.bind()
    person_id = door.join(browser, source)
    door.provider.metadata["userinfo_endpoint"] = None
    for lacks, shown in (("email", "ada@example.org"), ("email_verified", "")):
        callback = door.provider.approve(browser.leave(f"/sign-in/{source.id}"), "ada", **{lacks: None})
        assert browser.return_to(callback).status_code == 303
        me = browser.api("GET", "/me").json()
        assert (me["id"], me["email"]) == (person_id, shown)


def test_missing_name_can_be_added_until_confirmation(door: Door, browser: Browser) -> None:
    source = door.bind()
    link = door.invite(source)
    door.provider.metadata["userinfo_endpoint"] = None
    nameless = {"name": None, "email": None}
    browser.return_to(door.provider.approve(browser.leave(f"{link}/sign-in"), "ada", **nameless))
    person_id = browser.api("GET", "/me").json()["id"]
    assert door.sign_in(browser, source) == 303
    assert browser.api("GET", "/me").json()["name"] == "Ada Guest"
    assert door.admin().api("POST", f"/people/{person_id}/confirm").status_code == 200
    assert door.sign_in(browser, source, name="Mallory") == 303
    assert browser.api("GET", "/me").json()["name"] == "Ada Guest"
