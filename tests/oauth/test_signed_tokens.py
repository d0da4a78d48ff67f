"""Signed tokens (RFC 9068): asked for, verified offline, introspected (RFC 7662), given back (RFC 7009)."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import httpx
import jwt as pyjwt
import pytest
from joserfc import jws
from joserfc import jwt as jose_jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet

from broker.base.settings import Settings
from broker.embedded.openbao import Operator
from broker.kinds.access_tokens import KEYS_KEPT, PUBLISHED_BEFORE_USE, SigningKeys
from broker.models import Grant, Lease
from broker.oauth.signed import claims_of_live
from tests.oauth.conftest import Program
from tests.support.world import Signed, World
from tests.web.conftest import Replica

Claims = dict[str, Any]
DEAD = {"active": False}


def asked_by(http: httpx.Client, signed: Signed, slug: str, **more: Any) -> Claims:
    """A signed token through the API."""
    body = {"dataset": slug, "kind": "token", "slice": "deidentified", "lifetime": 300} | more
    answer = http.post("/api/v1/leases", json=body, headers=signed.headers)
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    found: Claims = answer.json()
    return found


def verified(http: httpx.Client, token: str, audience: str, issuer: str) -> Claims:
    """What a guard does with PyJWT and nothing else of ours but the keys."""
    keys = pyjwt.PyJWKSet.from_dict(http.get("/.well-known/jwks.json").json())
    header = pyjwt.get_unverified_header(token)
    if header["typ"] != "at+jwt":
        raise pyjwt.InvalidTokenError("typ")
    found: Claims = pyjwt.decode(
        token,
        keys[header["kid"]].key,
        algorithms=["ES256"],
        audience=audience,
        issuer=issuer,
        options={"require": ["iss", "sub", "aud", "exp", "iat", "jti", "client_id"]},
    )
    return found


def parts_of(token: str) -> list[Claims]:
    return [json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2]]


def joined(header: Claims, claims: Claims, signature: str = "") -> str:
    return ".".join([*(encoded(json.dumps(part).encode()) for part in (header, claims)), signature])


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_signed_token_for_a_service(pipeline: Program, http: httpx.Client, replica: Replica, world: World) -> None:
    given = pipeline.signed(scope="read slice:deidentified")
    assert given["scope"] == "read slice:deidentified" and 0 < given["expires_in"] <= 900
    claims = verified(http, given["access_token"], pipeline.resource, replica.url)
    header, _ = parts_of(given["access_token"])
    assert (header["alg"], header["typ"]) == ("ES256", "at+jwt") and header.keys() == {"alg", "typ", "kid"}
    assert pipeline.dataset is not None
    lease = world.lease(claims["jti"])
    assert claims == {
        "iss": replica.url,
        "sub": f"service:{pipeline.id}",
        "client_id": pipeline.id,
        "aud": pipeline.resource,
        "iat": int(lease.created_at.timestamp()),
        "exp": int(lease.expires_at.timestamp()),
        "jti": lease.id,
        "scope": "read slice:deidentified",
        "dataset": pipeline.dataset.slug,
        "slice": "deidentified",
    }
    assert (lease.state, lease.kind, lease.service_id) == ("active", "token", pipeline.id)
    assert world.events(lease.id) == ["lease.issued"]


def test_signed_token_for_a_person(world: World, http: httpx.Client, replica: Replica) -> None:
    signed, dataset, _ = world.guest()
    given = asked_by(http, signed, dataset.slug)
    audience = f"{replica.url}/datasets/{dataset.slug}"
    claims = verified(http, given["credential"]["access_token"], audience, replica.url)
    assert (claims["sub"], claims["jti"]) == (f"person:{signed.id}", given["lease"]["id"])
    assert claims["client_id"] == "guestkey"
    ending = given["lease"]["ending"]
    assert ending["worst_case"] is None and "accept the token until it expires" in ending["how"]
    text = json.dumps(claims)
    assert signed.caller.name not in text and "@" not in text and str(signed.caller.vendor_id) not in text


def test_jwks_contains_only_public_keys(http: httpx.Client) -> None:
    answer = http.get("/.well-known/jwks.json")
    assert answer.headers["cache-control"] == "public, max-age=60"
    for key in answer.json()["keys"]:
        assert key.keys() == {"kty", "crv", "x", "y", "kid", "use", "alg"}
        assert (key["kty"], key["crv"], key["use"], key["alg"]) == ("EC", "P-256", "sig", "ES256")


def test_signed_token_verifies_with_joserfc(pipeline: Program, http: httpx.Client) -> None:
    token = pipeline.signed()["access_token"]
    keys = KeySet.import_key_set(http.get("/.well-known/jwks.json").json())
    decoded = jose_jwt.decode(token, keys, algorithms=["ES256"])
    # Decoding checks neither: a guard must ask for each.
    registry = jose_jwt.JWTClaimsRegistry(aud={"essential": True, "value": pipeline.resource}, exp={"essential": True})
    registry.validate(decoded.claims)
    assert decoded.header["typ"] == "at+jwt"
    elsewhere = jose_jwt.JWTClaimsRegistry(aud={"essential": True, "value": pipeline.resource + "x"})
    with pytest.raises(JoseError):
        elsewhere.validate(decoded.claims)


def test_signed_token_audience_is_one_dataset(pipeline: Program, http: httpx.Client, replica: Replica) -> None:
    token = pipeline.signed()["access_token"]
    for audience in (f"{replica.url}/datasets/other", replica.url, pipeline.resource + "/"):
        with pytest.raises(pyjwt.InvalidAudienceError):
            verified(http, token, audience, replica.url)
    with pytest.raises(pyjwt.InvalidIssuerError):
        verified(http, token, pipeline.resource, "https://elsewhere.example")


def test_signed_token_is_refused_by_the_api(pipeline: Program, http: httpx.Client) -> None:
    token = pipeline.signed()["access_token"]
    assert http.get("/api/v1/me", headers={"Authorization": f"Bearer {token}"}).status_code == 401


def forged(token: str, keys: Claims) -> dict[str, str]:
    """What a forger would make of an honest token and the public keys."""
    header, claims = parts_of(token)
    head, body, signature = token.split(".")
    own = ECKey.generate_key("P-256", private=True)
    public = ECKey.import_key(keys["keys"][0]).as_pem(private=False)
    mixed_up = joined(header | {"alg": "HS256"}, claims).rstrip(".")

    def signed(more: Claims) -> str:
        registry = jws.JWSRegistry(algorithms=["ES256"], strict_check_header=False)
        return jws.serialize_compact(header | more, json.dumps(claims), own, registry=registry)

    return {
        "alg none": joined(header | {"alg": "none"}, claims),
        "alg None, any case": joined(header | {"alg": "nOnE"}, claims, signature),
        "HMAC with the public key": f"{mixed_up}.{encoded(hmac.digest(public, mixed_up.encode(), 'sha256'))}",
        "a key of one's own": signed({}),
        "a key of one's own in the header": signed({"jwk": own.as_dict(private=False)}),
        "a key elsewhere": signed({"jku": "http://127.0.0.1:1/keys", "kid": "mine"}),
        "no key named": signed({"kid": ""}),
        "a longer life": f"{joined(header, claims | {'exp': claims['exp'] + 999}).rstrip('.')}.{signature}",
        "another dataset": f"{joined(header, claims | {'aud': 'x'}).rstrip('.')}.{signature}",
        "no signature": f"{head}.{body}.",
        "a blank signature": f"{head}.{body}.{encoded(bytes(64))}",
        "half of it": token[: len(token) // 2],
        "five parts": f"{token}.x.y",
        "a claim only": claims["jti"],
        "text": "ü" * 30,
        "nothing": "",
    }


def test_forged_tokens_are_refused_here_and_offline(
    pipeline: Program, guard: Program, http: httpx.Client, replica: Replica
) -> None:
    token = pipeline.signed()["access_token"]
    assert guard.introspect(token)["active"] is True
    for name, text in forged(token, http.get("/.well-known/jwks.json").json()).items():
        assert guard.introspect(text) == DEAD, name
        with pytest.raises((pyjwt.InvalidTokenError, KeyError)):
            verified(http, text, pipeline.resource, replica.url)
    too_long = guard.post("/oauth/introspect", token="x" * 5000)
    assert (too_long.status_code, too_long.json()["error"]) == (400, "invalid_request")


def test_signing_key_signs_only_access_tokens(
    pipeline: Program, guard: Program, world: World, http: httpx.Client, replica: Replica
) -> None:
    """Another type, or another issuer, under our own signature: a guard who checks as told refuses both."""
    header, claims = parts_of(pipeline.signed()["access_token"])
    version = int(header["kid"].removeprefix("tokens-"))
    for bent in (
        (header | {"typ": "JWT"}, claims),
        ({name: value for name, value in header.items() if name != "typ"}, claims),
        (header, claims | {"iss": "https://elsewhere.example"}),
    ):
        signing_input = joined(*bent).rstrip(".")
        signature = world.parts.vault.sign_jws("tokens", signing_input.encode(), version=version)
        text = f"{signing_input}.{signature}"
        assert guard.introspect(text) == DEAD
        with pytest.raises((pyjwt.InvalidTokenError, KeyError)):
            verified(http, text, pipeline.resource, replica.url)


def test_introspection_matches_the_token_claims(pipeline: Program, guard: Program) -> None:
    token = pipeline.signed()["access_token"]
    _, claims = parts_of(token)
    assert guard.introspect(token) == {"active": True, "token_type": "Bearer", **claims}


def test_introspection_accepts_a_bearer_token(pipeline: Program, guard: Program, http: httpx.Client) -> None:
    token = pipeline.signed()["access_token"]
    own = guard.token().json()["access_token"]
    answer = http.post("/oauth/introspect", data={"token": token}, headers={"Authorization": f"Bearer {own}"})
    assert answer.json()["active"] is True
    answer = http.post("/oauth/introspect", data={"token": token}, headers={"Authorization": "Bearer gka_made-up"})
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_only_organisation_services_can_introspect(pipeline: Program, world: World, http: httpx.Client) -> None:
    token = pipeline.signed()["access_token"]
    answer = pipeline.post("/oauth/introspect", token=token)
    assert (answer.status_code, answer.json()["error"]) == (403, "unauthorized_client")
    assert "active" not in answer.json()
    for headers in (pipeline.headers, world.person().headers, world.person(roles=("admin",)).headers):
        answer = http.post("/oauth/introspect", data={"token": token}, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (403, "unauthorized_client")
    answer = http.post("/oauth/introspect", data={"token": token})
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_revoked_means_inactive_at_once_on_every_replica(
    pipeline: Program, guard: Program, world: World, http: httpx.Client, settings: Settings
) -> None:
    """Before any worker has heard of it."""
    token = pipeline.signed()["access_token"]
    other = Replica(settings, world.parts)
    other.start()
    try:
        issuer = str(http.base_url).rstrip("/")
        assert claims_of_live(other.parts, issuer, token) is not None
        answer = http.post(
            f"/api/v1/leases/{parts_of(token)[1]['jti']}/revoke",
            json={"reason": "done"},
            headers=pipeline.headers,
        )
        assert answer.status_code == 202, answer.text
        assert guard.introspect(token) == DEAD
        assert claims_of_live(other.parts, issuer, token) is None
    finally:
        other.stop()


@pytest.mark.parametrize("end", ["grant", "service"])
def test_signed_token_ends_when_its_grant_ends(
    pipeline: Program, guard: Program, world: World, http: httpx.Client, end: str
) -> None:
    token = pipeline.signed()["access_token"]
    admin = world.person(roles=("admin",))
    assert pipeline.grant is not None
    path = {"grant": f"/grants/{pipeline.grant.id}/revoke", "service": f"/services/{pipeline.id}/suspend"}[end]
    answer = http.post(f"/api/v1{path}", json={"reason": "over"}, headers=admin.headers)
    assert answer.status_code in (200, 202), answer.text
    assert guard.introspect(token) == DEAD
    world.sweep()
    lease = world.lease(parts_of(token)[1]["jti"])
    assert (lease.state, lease.confirmed_by) == ("revoked", "introspection: inactive")


def test_introspection_uses_the_recorded_expiry(pipeline: Program, guard: Program, world: World) -> None:
    token = pipeline.signed()["access_token"]
    lease_id, exp = parts_of(token)[1]["jti"], parts_of(token)[1]["exp"]
    shortened = (
        world.lease(lease_id).expires_at.replace(microsecond=0) - (world.lease(lease_id).expires_at - world.now()) / 2
    )
    world.change(Lease, lease_id, expires_at=shortened)
    assert guard.introspect(token)["exp"] < exp
    world.change(Lease, lease_id, expires_at=world.now())
    assert guard.introspect(token) == DEAD


def test_token_holder_can_revoke_it(pipeline: Program, guard: Program, http: httpx.Client, world: World) -> None:
    token = pipeline.signed()["access_token"]
    for given in (token, token):
        answer = http.post("/oauth/revoke", data={"token": given})
        assert (answer.status_code, answer.json()) == (200, {})
    assert guard.introspect(token) == DEAD
    assert world.events(parts_of(token)[1]["jti"]) == ["lease.issued", "lease.ending"]
    lease = world.lease(parts_of(token)[1]["jti"])
    assert (lease.end_cause, lease.end_by) == ("revoked", f"service:{pipeline.id}")


@pytest.mark.parametrize(
    ("fields", "error", "status"),
    [
        ({"resource": "https://elsewhere.example/datasets/x"}, "invalid_target", 400),
        ({"resource": ""}, "invalid_target", 400),
        ({"scope": "read write"}, "invalid_scope", 400),
        ({"scope": "slice:a slice:b"}, "invalid_scope", 400),
        ({"scope": "read slice:nonesuch"}, "access_denied", 403),
        ({"scope": "read slice:full"}, "access_denied", 403),
        ({"scope": "write"}, "access_denied", 403),
    ],
)
def test_denial_is_returned_in_oauth_form_with_reasons(
    pipeline: Program, fields: dict[str, str], error: str, status: int
) -> None:
    answer = pipeline.token(**({"resource": pipeline.resource} | fields))
    assert (answer.status_code, answer.json()["error"]) == (status, error), answer.text
    said = answer.json()["error_description"]
    assert said and said.isascii() and '"' not in said and "\\" not in said
    assert "access_token" not in answer.json()


def test_denied_token_request_lists_every_reason(pipeline: Program, world: World) -> None:
    assert pipeline.grant is not None
    world.change(Grant, pipeline.grant.id, ends_at=world.now())
    answer = pipeline.token(resource=pipeline.resource)
    assert (answer.status_code, answer.json()["error"]) == (403, "access_denied")
    assert "grant" in answer.json()["error_description"]


def test_token_for_an_unoffered_dataset_looks_like_a_missing_one(
    pipeline: Program, world: World, http: httpx.Client
) -> None:
    theirs = world.dataset(world.vendor())
    base = pipeline.resource.rpartition("/")[0]
    answers = [pipeline.token(resource=f"{base}/{slug}") for slug in (theirs.slug, "nonesuch")]
    assert {answer.status_code for answer in answers} == {400}
    assert answers[0].json() == answers[1].json()
    assert answers[0].json()["error"] == "invalid_target"


def test_rate_limit_is_returned_in_oauth_form(pipeline: Program, world: World) -> None:
    for _ in range(world.settings.max_live_leases):
        pipeline.signed()
    answer = pipeline.token(resource=pipeline.resource)
    assert (answer.status_code, answer.json()["error"]) == (409, "temporarily_unavailable")


def test_a_wrong_secret_gets_no_signed_token(pipeline: Program, http: httpx.Client) -> None:
    form = {"grant_type": "client_credentials", "resource": pipeline.resource}
    answer = http.post("/oauth/token", data=form, auth=(pipeline.id, "wrong"))
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_new_signing_key_is_published_before_use(world: World, pipeline: Program, http: httpx.Client) -> None:
    """A guard that read the keys a minute ago must know the key of every token it meets."""
    old = pipeline.signed()["access_token"]
    seconds = [0.0]
    keys, vault = SigningKeys(lambda: seconds[0]), world.parts.vault
    before = keys.signing(vault)
    Operator(world.stack.bao).rotate_key("tokens")
    assert keys.signing(vault) == before and len(keys.public_jwks(vault)) == before
    seconds[0] += KEYS_KEPT
    shown = keys.public_jwks(vault)
    assert [key["kid"] for key in shown][:2] == [f"tokens-{before + 1}", f"tokens-{before}"]
    assert keys.signing(vault) == before
    seconds[0] += PUBLISHED_BEFORE_USE
    assert keys.signing(vault) == before + 1
    assert SigningKeys().signing(vault) == before + 1, "a process that starts later takes what is there"
    known = KeySet.import_key_set({"keys": shown})
    assert jose_jwt.decode(old, known, algorithms=["ES256"]).claims["jti"], "old tokens verify until they expire"
