"""What a provider sends as proof of who somebody is: each token that does not answer our question is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from joserfc.jwk import ECKey, OKPKey, RSAKey

from broker.identity import providers
from tests.identity.conftest import Door
from tests.support.browser import Browser
from tests.support.provider import Claims, Provider, encoded, join, rsa_key, signature

DAY = 86400
Attack = Callable[[Provider, Claims], Any]


def _claims(**changes: Any) -> Attack:
    return lambda provider, claims: provider.sign(
        {name: value for name, value in (claims | changes).items() if value is not None}
    )


def _later(name: str, seconds: float, kind: Callable[[float], Any] = int) -> Attack:
    return lambda provider, claims: provider.sign(claims | {name: kind(time.time() + seconds)})


def _header(**changes: Any) -> Attack:
    return lambda provider, claims: provider.sign(claims, changes)


def _unsigned(provider: Provider, claims: Claims) -> str:
    return join({"alg": "none", "kid": provider.key.kid}, claims, lambda _: b"")


def _keyed_with_the_public_key(provider: Provider, claims: Claims) -> str:
    pem = provider.key.as_pem(private=False)
    return join({"alg": "HS256", "kid": provider.key.kid}, claims, lambda text: hmac.digest(pem, text, hashlib.sha256))


def _own_key_inside(provider: Provider, claims: Claims) -> str:
    key = ECKey.generate_key("P-256", {"kid": "ec-1"}, private=True)
    return provider.sign(claims, {"jwk": key.as_dict(private=False)}, key)


def _foreign_key(provider: Provider, claims: Claims) -> str:
    return provider.sign(claims, key=ECKey.generate_key("P-256", {"kid": "ec-1"}, private=True))


def _unknown_key(provider: Provider, claims: Claims) -> str:
    return provider.sign(claims, key=ECKey.generate_key("P-256", {"kid": "never-published"}, private=True))


def _encryption_key(provider: Provider, claims: Claims) -> str:
    key = ECKey.generate_key("P-256", {"kid": "ec-enc", "use": "enc"}, private=True)
    provider.keys.append(key)
    return provider.sign(claims, key=key)


def _altered(provider: Provider, claims: Claims) -> str:
    head, _, signature = provider.sign(claims).split(".")
    return ".".join((head, encoded(json.dumps(claims | {"sub": "root"}).encode()).decode(), signature))


ATTACKS: dict[str, Attack] = {
    "another audience": _claims(aud="other"),
    "another audience, ours as authorised party": lambda p, c: p.sign(c | {"aud": "other", "azp": p.client_id}),
    "two audiences": lambda p, c: p.sign(c | {"aud": [p.client_id, "other"]}),
    "two audiences, ours as authorised party": lambda p, c: p.sign(c | {"aud": [p.client_id, "x"], "azp": p.client_id}),
    "ours, but authorised for another": _claims(azp="other"),
    "no audience": _claims(aud=None),
    "another issuer": _claims(iss="https://evil.example"),
    "the issuer with a slash": lambda p, c: p.sign(c | {"iss": f"{p.issuer}/"}),
    "another nonce": _claims(nonce="x"),
    "no nonce": _claims(nonce=None),
    "no subject": _claims(sub=None),
    "an empty subject": _claims(sub=""),
    "a subject with a zero byte": _claims(sub="ada\x00"),
    "a subject that is a number": _claims(sub=7),
    "a subject without end": _claims(sub="a" * 256),
    "expired": _later("exp", -120),
    "no expiry": _claims(exp=None),
    "an expiry that is text": _later("exp", 300, lambda moment: str(int(moment))),
    "made tomorrow": _later("iat", DAY),
    "a stale sign-in": _later("auth_time", -DAY),
    "a sign-in tomorrow": _later("auth_time", DAY),
    "a sign-in of no known time": _claims(auth_time=None),
    "a sign-in of time true": _claims(auth_time=True),
    "a sign-in of time 1.5": _later("auth_time", -1, float),
    "a sign-in of time text": _later("auth_time", -1, str),
    "algorithm none": _unsigned,
    "HMAC with the public key": _keyed_with_the_public_key,
    "an algorithm that is a list": _header(alg=["ES256"]),
    "a key inside": _own_key_inside,
    "a key address inside": _header(jku="https://evil.example/keys"),
    "a certificate inside": _header(x5c=["MIIB"]),
    "a certificate address inside": _header(x5u="https://evil.example/cert"),
    "a critical extension": _header(crit=["exp"]),
    "a compressed payload": _header(zip="DEF"),
    "a foreign key of the same name": _foreign_key,
    "a key nobody published": _unknown_key,
    "a key for encryption": _encryption_key,
    "altered claims": _altered,
    "oversized": lambda p, c: p.sign(c | {"padding": "x" * 20_000}),
    "not a token": lambda p, c: "not.a.token",
    "five parts": lambda p, c: p.sign(c) + ".x.y",
    "an object": lambda p, c: {"token": p.sign(c)},
    "claims that are a list": lambda p, c: p.sign([c]),  # type: ignore[arg-type]
    "no token": lambda p, c: None,
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_id_token_that_does_not_match_the_request_is_refused(door: Door, browser: Browser, attack: str) -> None:
    source = door.bind()
    # An honest token of somebody who has not joined gets further than this.
    assert _code(door, browser, source.id) == "unknown"
    door.provider.mint = ATTACKS[attack]
    assert _code(door, browser, source.id) == "sign_in_refused"
    assert "__Host-guestkey" not in browser.cookies


def _code(door: Door, browser: Browser, source_id: str) -> str:
    answer = browser.get(door.provider.approve(browser.leave(f"/sign-in/{source_id}")))
    assert answer.status_code == 401
    return str(answer.json()["code"])


@pytest.mark.parametrize("kind", ["small RSA", "another curve"])
def test_weak_and_strange_keys_are_refused(door: Door, browser: Browser, kind: str) -> None:
    source = door.bind()
    if kind == "small RSA":
        with pytest.warns(UserWarning):
            key: Any = RSAKey.generate_key(1024, {"kid": "rsa-weak"}, private=True)
    else:
        key = ECKey.generate_key("secp256k1", {"kid": "k1"}, private=True)
    door.provider.keys.append(key)
    text = base64.urlsafe_b64encode(b"x" * 64).decode()
    algorithm = "RS256" if kind == "small RSA" else "ES256"
    door.provider.mint = lambda _, claims: join({"alg": algorithm, "kid": key.kid}, claims, lambda _: text.encode())
    assert door.sign_in(browser, source) == 401


def _pause(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr("broker.identity.providers.REFETCH_EVERY", seconds)


def test_new_signing_key_is_fetched_once_and_unknown_key_ids_are_rate_limited(
    door: Door, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = door.bind()
    door.known(source)
    assert door.sign_in(browser, source) == 303
    key = rsa_key()
    door.provider.keys.append(key)
    door.provider.mint = lambda provider, claims: provider.sign(claims, key=key)
    _pause(monkeypatch, 0)
    assert door.sign_in(browser, source) == 303
    _pause(monkeypatch, 3600)
    door.provider.mint = _unknown_key
    before = door.provider.asked.count("/keys")
    assert [door.sign_in(browser, source) for _ in range(3)] == [401] * 3
    assert door.provider.asked.count("/keys") == before


def test_key_replaced_under_the_same_id_is_found_within_a_minute(
    door: Door, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert providers.REFETCH_EVERY <= 60 and providers.LONGEST_PAUSE <= 60
    source = door.bind()
    door.known(source)
    assert door.sign_in(browser, source) == 303
    door.provider.key = ECKey.generate_key("P-256", {"kid": "ec-1", "use": "sig"}, private=True)
    door.provider.keys = [door.provider.key]
    _pause(monkeypatch, 3600)
    assert door.sign_in(browser, source) == 401
    _pause(monkeypatch, 0)
    assert door.sign_in(browser, source) == 303


KEYS: dict[str, Callable[[], Any]] = {
    "ES384": lambda: ECKey.generate_key("P-384", {"kid": "k", "use": "sig"}, private=True),
    "ES512": lambda: ECKey.generate_key("P-521", {"kid": "k", "use": "sig"}, private=True),
    "RS512": lambda: rsa_key("k"),
    "PS384": lambda: rsa_key("k"),
    "EdDSA": lambda: OKPKey.generate_key("Ed25519", {"kid": "k", "use": "sig"}, private=True),
    "Ed25519": lambda: OKPKey.generate_key("Ed25519", {"kid": "k", "alg": "EdDSA"}, private=True),
}


@pytest.mark.parametrize("algorithm", KEYS)
def test_every_supported_algorithm_is_accepted(door: Door, browser: Browser, algorithm: str) -> None:
    door.provider.metadata["id_token_signing_alg_values_supported"] = [algorithm]
    key = KEYS[algorithm]()
    door.provider.keys.append(key)
    door.provider.mint = lambda provider, claims: provider.sign(claims, {"alg": algorithm}, key)
    source = door.bind()
    door.known(source)
    assert door.sign_in(browser, source) == 303


@pytest.mark.parametrize("unnamed", ["in the set", "in the token"])
def test_key_without_an_id_is_tried(door: Door, browser: Browser, unnamed: str) -> None:
    other = ECKey.generate_key("P-256", {"use": "sig"}, private=True)
    key = ECKey.generate_key("P-256", {"use": "sig"} if unnamed == "in the set" else {"kid": "k"}, private=True)
    door.provider.keys = [other, key]
    header = {"alg": "ES256"} | ({"kid": "a-name-of-its-own"} if unnamed == "in the set" else {})
    door.provider.mint = lambda _, claims: join(header, claims, lambda text: signature(text, key, "ES256"))
    source = door.bind()
    door.known(source)
    assert door.sign_in(browser, source) == 303


def test_extra_header_members_are_ignored(door: Door, browser: Browser) -> None:
    source = door.bind()
    door.known(source)
    door.provider.mint = _header(ver="2", org={"id": 7}, nonce="x" * 600)
    assert door.sign_in(browser, source) == 303


@pytest.mark.parametrize(("name", "seconds"), [("exp", -50), ("iat", 50), ("auth_time", 50)])
def test_clocks_may_differ_by_a_minute(door: Door, browser: Browser, name: str, seconds: float) -> None:
    source = door.bind()
    door.known(source)
    door.provider.mint = _later(name, seconds)
    assert door.sign_in(browser, source) == 303
