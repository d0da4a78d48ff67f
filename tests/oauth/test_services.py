"""Services with a client secret: proving it, wrong, unknown, replaced and ended (RFC 6749 2.3, 4.4)."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import perf_counter

import httpx
import pytest
from argon2 import extract_parameters
from sqlalchemy import select

from broker.base.database import clock
from broker.base.ids import new_id
from broker.models import ApiToken, Service, Vendor
from broker.oauth import clients
from broker.oauth.clients import AuthenticatedService
from broker.oauth.refusals import OAuthRefused
from broker.registry import services
from tests.oauth.conftest import Program, rotated_secret
from tests.support.world import World


def me(http: httpx.Client, token: str) -> httpx.Response:
    return http.get("/api/v1/me", headers={"Authorization": f"Bearer {token}"})


def basic(client_id: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()}


def is_unknown_client(answer: httpx.Response) -> None:
    assert answer.status_code == 401, answer.text
    assert answer.json() == {
        "error": "invalid_client",
        "error_description": "The client is unknown, or its secret is wrong.",
    }
    assert answer.headers["www-authenticate"].startswith("Basic")


def test_a_service_is_made_by_an_admin_and_its_secret_shown_once(world: World, http: httpx.Client) -> None:
    admin, vendor = world.person(roles=("admin",)), world.vendor()
    made = http.post("/api/v1/services", json={"name": "nightly", "vendor": vendor.id}, headers=admin.headers)
    assert made.status_code == 201, made.text
    assert made.headers["cache-control"] == "no-store"
    secret = made.json()["client_secret"]
    listed = http.get("/api/v1/services", headers=admin.headers)
    assert made.json()["id"] in listed.text and secret not in listed.text
    with world.database.transaction() as tx:
        kept = tx.get_one(Service, made.json()["id"])
    assert secret not in kept.secret_hash
    parameters = extract_parameters(kept.secret_hash)
    assert (parameters.type.name, parameters.memory_cost >= 19 * 1024) == ("ID", True)
    assert world.events(kept.id) == ["service.made"]


def test_only_admins_and_leads_create_and_see_services(world: World, http: httpx.Client) -> None:
    vendor, other = world.vendor(), world.vendor()
    lead, guest = world.person(vendor, roles=("lead",)), world.person(vendor)
    body = {"name": "nightly", "vendor": vendor.id}
    made = http.post("/api/v1/services", json=body, headers=lead.headers)
    assert made.status_code == 201, made.text
    assert http.post("/api/v1/services", json=body, headers=guest.headers).status_code == 403
    for elsewhere in (other.id, None):
        refused = http.post("/api/v1/services", json=body | {"vendor": elsewhere}, headers=lead.headers)
        assert refused.status_code == 403
    stranger = world.person(other, roles=("lead",))
    path = f"/api/v1/services/{made.json()['id']}"
    for act in ("rotate-secret", "suspend", "resume"):
        answer = http.post(f"{path}/{act}", json={"reason": "mine now"}, headers=stranger.headers)
        assert answer.status_code in (403, 404), answer.text
    assert made.json()["id"] not in http.get("/api/v1/services", headers=stranger.headers).text
    assert made.json()["id"] in http.get("/api/v1/services", headers=lead.headers).text


def test_service_secret_gets_an_opaque_token_for_15_minutes(pipeline: Program, http: httpx.Client) -> None:
    answer = pipeline.token()
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body.keys() == {"access_token", "token_type", "expires_in"}
    assert body["access_token"].startswith("gka_") and body["expires_in"] == 900
    found = me(http, body["access_token"])
    assert found.json()["subject"] == f"service:{pipeline.id}"


def test_service_secret_can_be_sent_in_the_form(pipeline: Program, http: httpx.Client) -> None:
    form = {"grant_type": "client_credentials", "client_id": pipeline.id, "client_secret": pipeline.secret}
    assert http.post("/oauth/token", data=form).status_code == 200
    in_both = http.post("/oauth/token", data=form, auth=(pipeline.id, pipeline.secret))
    assert (in_both.status_code, in_both.json()["error"]) == (400, "invalid_request")
    another = {"grant_type": "client_credentials", "client_id": new_id("sv")}
    answer = http.post("/oauth/token", data=another, auth=(pipeline.id, pipeline.secret))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def test_wrong_secret_and_unknown_service_get_the_same_answer(pipeline: Program, http: httpx.Client) -> None:
    pairs = [
        (pipeline.id, "wrong"),
        (pipeline.id, ""),
        (pipeline.id, pipeline.secret + " "),
        (pipeline.id, pipeline.secret[:-1]),
        (pipeline.id.upper(), pipeline.secret),
        (f" {pipeline.id}", pipeline.secret),
        (f"{pipeline.id}\n", pipeline.secret),
        (new_id("sv"), pipeline.secret),
        ("' OR 1=1 --", pipeline.secret),
        ("guestkey-cli", ""),
        ("", ""),
    ]
    for client_id, secret in pairs:
        is_unknown_client(
            http.post("/oauth/token", data={"grant_type": "client_credentials"}, headers=basic(client_id, secret))
        )
    assert pipeline.token().status_code == 200, "no lockout that strangers could cause"


def test_an_unknown_service_takes_as_long_as_a_wrong_secret(pipeline: Program, http: httpx.Client) -> None:
    def seconds(client_id: str) -> float:
        began = perf_counter()
        is_unknown_client(
            http.post("/oauth/token", data={"grant_type": "client_credentials"}, headers=basic(client_id, "wrong"))
        )
        return perf_counter() - began

    # In turn, so that whatever else this machine does hits both alike.
    pairs = [(seconds(pipeline.id), seconds(new_id("sv"))) for _ in range(15)]
    known, unknown = (median(times) for times in zip(*pairs, strict=True))
    assert 0.6 < known / unknown < 1.7, (known, unknown)


@pytest.mark.parametrize("header", ["Basic", "Basic !!!", "Basic /w==", "Digest abc", "Bearer gka_x", "basic ="])
def test_malformed_authorization_headers_are_refused(http: httpx.Client, header: str) -> None:
    answer = http.post("/oauth/token", data={"grant_type": "client_credentials"}, headers={"Authorization": header})
    assert answer.status_code in (400, 401)
    assert answer.json()["error"] in ("invalid_client", "invalid_request")


def test_a_refused_secret_is_recorded_once_a_minute(pipeline: Program, world: World, http: httpx.Client) -> None:
    for _ in range(3):
        http.post("/oauth/token", data={"grant_type": "client_credentials"}, headers=basic(pipeline.id, "wrong"))
    assert world.events(pipeline.id).count("service.secret_refused") == 1


def test_a_new_secret_ends_the_old_one_and_its_tokens(pipeline: Program, world: World, http: httpx.Client) -> None:
    token = pipeline.token().json()["access_token"]
    rotated = rotated_secret(world, http, pipeline.id)
    assert rotated.status_code == 200 and rotated.json()["client_secret"] != pipeline.secret
    is_unknown_client(pipeline.token())
    assert me(http, token).status_code == 401
    fresh = http.post(
        "/oauth/token",
        data={"grant_type": "client_credentials"},
        headers=basic(pipeline.id, rotated.json()["client_secret"]),
    )
    assert me(http, fresh.json()["access_token"]).status_code == 200


def test_suspended_service_is_refused_at_once(pipeline: Program, world: World, http: httpx.Client) -> None:
    token = pipeline.token().json()["access_token"]
    admin = world.person(roles=("admin",))
    path = f"/api/v1/services/{pipeline.id}"
    answer = http.post(f"{path}/suspend", json={"reason": "incident"}, headers=admin.headers)
    assert answer.status_code == 200, answer.text
    assert me(http, token).status_code == 401
    is_unknown_client(pipeline.token())
    assert http.post(f"{path}/resume", json={"reason": "cleared"}, headers=admin.headers).status_code == 200
    assert me(http, token).status_code == 401, "what ended stays ended"
    assert pipeline.token().status_code == 200


def test_service_of_a_suspended_vendor_is_refused_at_once(pipeline: Program, world: World, http: httpx.Client) -> None:
    token = pipeline.token().json()["access_token"]
    vendor_id = pipeline.signed_in.caller.vendor_id
    assert vendor_id is not None
    world.change(Vendor, vendor_id, status="suspended")
    assert me(http, token).status_code == 401
    is_unknown_client(pipeline.token())


@pytest.mark.parametrize("change", ["rotated", "suspended"])
def test_change_during_the_secret_check_is_respected(pipeline: Program, world: World, change: str) -> None:
    """The check takes long enough for an admin to act in between."""
    with world.database.transaction() as tx:
        kept = services.secret_hash_of(tx, pipeline.id)
    assert kept is not None
    values = {"status": "suspended"} if change == "suspended" else {"secret_hash": "replaced"}
    world.change(Service, pipeline.id, **values)
    with pytest.raises(OAuthRefused), world.database.transaction() as tx:
        clients.issue_api_token(tx, AuthenticatedService(pipeline.signed_in.caller, kept))
    with world.database.transaction() as tx:
        made = select(ApiToken.id).where(ApiToken.client_id == pipeline.id, ApiToken.created_at > clock(tx))
        assert tx.scalars(made).all() == []


def test_secret_checks_are_limited_per_client(pipeline: Program, http: httpx.Client) -> None:
    """Four are hashed at a time; whoever asks for something else meanwhile does not wait for them."""

    def guess(_: int) -> int:
        headers = basic(new_id("sv"), "wrong")
        return http.post("/oauth/token", data={"grant_type": "client_credentials"}, headers=headers).status_code

    with ThreadPoolExecutor(12) as pool:
        guesses = [pool.submit(guess, number) for number in range(48)]
        began = perf_counter()
        assert http.get("/.well-known/oauth-authorization-server").status_code == 200
        assert perf_counter() - began < 2
        assert {future.result() for future in guesses} <= {401, 503}
