"""The edge: every answer carries its headers, every refusal is a problem document, and too much is refused early."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

import broker
from broker.base.settings import Settings
from broker.kinds.settings import load_settings
from broker.models import Dataset
from broker.runtime.parts import Parts
from broker.web.app import create_app
from broker.web.limits import SUBNETS_OF_A_SITE
from broker.web.problems import CATALOGUE
from tests.support.world import World
from tests.web.conftest import ClientOf, Replica

JSON = {"Content-Type": "application/json"}


@contextmanager
def running(settings: Settings, parts: Parts, **changes: Any) -> Iterator[Replica]:
    """A replica of its own with other settings."""
    replica = Replica(settings.model_copy(update=changes), parts)
    replica.start()
    try:
        yield replica
    finally:
        replica.stop()


def is_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is this problem document, whole, and says what to do; return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["code"] == code and body["status"] == status
    assert body["type"].endswith(f"/problems/{code}")
    assert body["title"] and body["detail"] and body["advice"]
    assert body["instance"] == answer.headers["x-request-id"]
    return body


@pytest.mark.parametrize(
    ("method", "path", "content", "headers", "status", "code"),
    [
        ("GET", "/nonesuch", None, {}, 404, "not_found"),
        ("GET", "/api/v1/nonesuch", None, {}, 404, "not_found"),
        ("GET", "/api/v1/datasets", None, {}, 401, "not_signed_in"),
        ("GET", "/api/v1/datasets", None, {"Authorization": "Bearer nonesuch"}, 401, "not_signed_in"),
        ("GET", "/api/v1/datasets", None, {"Authorization": "Basic eDp5"}, 401, "not_signed_in"),
        ("PUT", "/api/v1/datasets", None, {}, 405, "method_not_allowed"),
        ("POST", "/healthz", None, {}, 405, "method_not_allowed"),
        ("GET", "/api/v1/datasets/" + "x" * 5000, None, {}, 414, "too_large"),
        ("GET", "/api/v1/datasets?q=" + "x" * 5000, None, {}, 414, "too_large"),
        ("GET", "/api/v1/datasets", None, {"Authorization": "Bearer " + "x" * 9000}, 431, "too_large"),
        ("GET", "/api/v1/datasets", None, {"X-Long": "x" * 17000}, 431, "too_large"),
        ("GET", "/api/v1/datasets", None, {"Host": "evil.example"}, 421, "misdirected"),
        ("POST", "/api/v1/leases", b"x" * 300_000, JSON, 413, "too_large"),
    ],
)
def test_every_refusal_is_a_problem_document(
    replica: Replica,
    method: str,
    path: str,
    content: bytes | None,
    headers: dict[str, str],
    status: int,
    code: str,
) -> None:
    answer = httpx.request(method, replica.url + path, content=content, headers=headers)
    is_problem(answer, status, code)
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"{", JSON),
        (b"[]", JSON),
        (b"null", JSON),
        (b"", JSON),
        (b'{"dataset": 1}', JSON),
        (b'{"dataset": "x", "unknown": true}', JSON),
        (b'{"dataset": "x", "lifetime": "300"}', JSON),
        (b'{"dataset": "x", "lifetime": 0}', JSON),
        (b'{"dataset": "x", "lifetime": 1e400}', JSON),
        (b'{"dataset": "x"}', {"Content-Type": "text/plain"}),
        (b"\xff\xfe", JSON),
        (b"[" * 100_000, JSON),
    ],
)
def test_malformed_body_is_reported_without_its_content(
    world: World, client_of: ClientOf, content: bytes, headers: dict[str, str]
) -> None:
    answer = client_of(world.person()).post("/leases", content=content, headers=headers)
    assert answer.status_code in (400, 422), answer.text
    is_problem(answer, answer.status_code, "invalid" if answer.status_code == 422 else "malformed")


@pytest.mark.parametrize(
    "query", ["sate=active", "limit=0", "limit=201", "limit=x", "cursor=x", "cursor=%00", "limit=1&limit=2", "state=x"]
)
def test_unknown_query_parameter_is_refused(world: World, client_of: ClientOf, query: str) -> None:
    is_problem(client_of(world.person()).get(f"/leases?{query}"), 422, "invalid")


@pytest.mark.parametrize("odd", ["%00", "..", "%2e%2e%2f", "'%20OR%201=1", "*", "é", "x" * 300, "ds_" + "0" * 26])
def test_malformed_ids_in_paths_are_not_found(world: World, client_of: ClientOf, odd: str) -> None:
    api = client_of(world.person(roles=("admin",)))
    for noun in ("datasets", "vendors", "people", "teams", "requests", "grants", "leases"):
        assert api.get(f"/{noun}/{odd}").status_code == 404, (noun, odd)


def test_chunked_body_is_limited_while_it_arrives(replica: Replica) -> None:
    with closing(socket.create_connection(("127.0.0.1", replica.port), timeout=10)) as raw:
        head = f"POST /api/v1/leases HTTP/1.1\r\nHost: localhost:{replica.port}\r\nTransfer-Encoding: chunked\r\n"
        raw.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode())
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        answer = b""
        for _ in range(64):
            try:
                raw.sendall(chunk)
            except OSError:
                break
        raw.settimeout(5)
        answer = raw.recv(4096)
    assert b" 413 " in answer.split(b"\r\n", 1)[0], answer


def test_security_headers_on_every_answer(settings: Settings, parts: Parts, replica: Replica) -> None:
    plain = httpx.get(f"{replica.url}/healthz").headers
    assert "strict-transport-security" not in plain and "server" not in plain
    expected = {
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "x-frame-options": "DENY",
    }
    assert expected.items() <= dict(plain).items()
    for directive in ("script-src 'self'", "style-src 'self'", "form-action 'self'", "frame-ancestors 'none'"):
        assert directive in plain["content-security-policy"]
    assert "unsafe" not in plain["content-security-policy"]
    assert "max-age=" in asked(settings, parts, "https").headers["strict-transport-security"]


def asked(
    settings: Settings, parts: Parts, scheme: str, path: str = "/nonesuch", client: str = "192.0.2.7", **headers: str
) -> httpx.Response:
    """What a replica answers whose public address is https, to somebody at `client` who speaks `scheme`."""
    public = {"public_url": "https://guestkey.example", "trusted_proxies": [ip_network("192.0.2.80/32")]}
    app = create_app(settings.model_copy(update=public), parts)
    app.state.parts = parts

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, client=(client, 40000))
        async with httpx.AsyncClient(transport=transport, base_url=f"{scheme}://guestkey.example") as speaker:
            return await speaker.get(path, headers=headers)

    return asyncio.run(ask())


def test_unencrypted_requests_are_refused_if_the_public_address_is_https(
    settings: Settings, parts: Parts, world: World
) -> None:
    """A proxy is trusted; who goes past it to the replica itself is told so, and gets nothing."""
    me, token = "/api/v1/me", world.person().headers
    for claimed in (
        {},
        {"X-Forwarded-Proto": "https"},
        {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.80"},
    ):
        past = is_problem(asked(settings, parts, "http", me, **token, **claimed), 403, "tls_needed")
        assert "GUESTKEY_TRUSTED_PROXIES" in past["advice"]
    page = asked(settings, parts, "http", "/", Accept="text/html")
    assert page.status_code == 403 and page.headers["content-type"].startswith("text/html")
    front = "192.0.2.80"
    is_problem(asked(settings, parts, "http", me, front, **token), 403, "tls_needed")
    is_problem(asked(settings, parts, "http", me, front, **token, **{"X-Forwarded-Proto": "http"}), 403, "tls_needed")
    passed = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "198.51.100.4"}
    assert asked(settings, parts, "http", me, front, **token, **passed).status_code == 200
    for several in ("https,http", "https, http", "HTTPS"):
        passed = {"X-Forwarded-Proto": several, "X-Forwarded-For": "198.51.100.4, 192.0.2.80"}
        assert asked(settings, parts, "http", me, front, **token, **passed).status_code == 200, "several proxies"
        assert asked(settings, parts, "http", me, f"::ffff:{front}", **token, **passed).status_code == 200
    assert asked(settings, parts, "https", me, **token).status_code == 200
    for probe in ("/healthz", "/readyz"):
        assert asked(settings, parts, "http", probe).status_code == 200
    assert asked(settings, parts, "http", "/metrics", "127.0.0.1").status_code == 200


def test_internal_error_shows_no_details(settings: Settings, parts: Parts, capfd: pytest.CaptureFixture[str]) -> None:
    with running(settings, parts) as replica:

        def break_down() -> None:
            raise RuntimeError("canary-7c1f")

        replica.app.add_api_route("/broken", break_down)
        answer = httpx.get(f"{replica.url}/broken")
    is_problem(answer, 500, "internal")
    assert "canary" not in answer.text and "Traceback" not in answer.text
    logged = "".join(capfd.readouterr())
    assert "RuntimeError" in logged and "canary" not in logged


def test_rate_limits_apply_to_anonymous_and_known_callers(settings: Settings, parts: Parts, world: World) -> None:
    changes = {"rate_limit_per_minute": 30, "rate_limit_anonymous_per_minute": 5}
    with running(settings, parts, **changes) as replica:
        url = f"{replica.url}/api/v1/kinds"
        someone = world.person().headers
        # Recognised first, then on their own rate, whatever strangers at the same address do.
        assert httpx.get(url, headers=someone).status_code == 200
        guesses = [httpx.get(url, headers={"Authorization": f"Bearer gka_guess{n}"}) for n in range(6)]
        assert [answer.status_code for answer in guesses] == [401] * 4 + [429] * 2
        limited = is_problem(guesses[-1], 429, "too_many_requests")
        assert int(guesses[-1].headers["retry-after"]) >= 1 and limited["advice"]
        # Half a request a second comes back meanwhile, which a slow machine gives time for.
        with httpx.Client(headers=someone) as client:
            mine = [client.get(url).status_code for _ in range(50)]
        assert mine[:29] == [200] * 29 and 429 in mine
        assert httpx.get(f"{replica.url}/healthz").status_code == 200


def test_forwarded_addresses_count_only_from_trusted_proxies(settings: Settings, parts: Parts) -> None:
    forwarded = [{"X-Forwarded-For": f"203.0.113.{n}"} for n in range(4)]
    limit = {"rate_limit_anonymous_per_minute": 2}
    with running(settings, parts, **limit) as untrusting:
        codes = [httpx.get(f"{untrusting.url}/nonesuch", headers=headers).status_code for headers in forwarded]
    assert codes == [404, 404, 429, 429]
    with running(settings, parts, **limit, trusted_proxies=[ip_network("127.0.0.0/8")]) as trusting:
        codes = [httpx.get(f"{trusting.url}/nonesuch", headers=headers).status_code for headers in forwarded]
        # What a client wrote itself stands before what the proxy saw: only the proxy's word counts.
        claimed = [{"X-Forwarded-For": f"10.0.0.{n}, 203.0.113.9"} for n in range(4)]
        spoofed = [httpx.get(f"{trusting.url}/nonesuch", headers=headers).status_code for headers in claimed]
    assert codes == [404] * 4
    assert spoofed == [404, 404, 429, 429]


def test_ipv6_rate_limits_apply_per_subnet_and_site(settings: Settings, parts: Parts) -> None:
    changes = {"rate_limit_anonymous_per_minute": 2, "trusted_proxies": [ip_network("127.0.0.0/8")]}

    def asked_from(replica: Replica, *addresses: str) -> list[int]:
        return [
            httpx.get(f"{replica.url}/nonesuch", headers={"X-Forwarded-For": address}).status_code
            for address in addresses
        ]

    with running(settings, parts, **changes) as replica:
        same = [f"2001:db8:1:2::{n:x}" for n in range(4)]
        assert asked_from(replica, *same) == [404, 404, 429, 429]
        spellings = ["198.51.100.9", "::ffff:198.51.100.9", "[64:ff9b::198.51.100.9]:80", "198.51.100.9:7"]
        assert asked_from(replica, *spellings) == [404, 404, 429, 429]
        site = [f"2001:db8:77:{n:x}::1" for n in range(2 * SUBNETS_OF_A_SITE + 4)]
        answers = asked_from(replica, *site)
        # A token or two comes back meanwhile on a slow machine.
        assert answers[: 2 * SUBNETS_OF_A_SITE] == [404] * (2 * SUBNETS_OF_A_SITE) and 429 in answers


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0", "::ffff:0:0/96", "64:ff9b::/96"])
def test_trusted_proxies_cannot_be_all_addresses(settings: Settings, network: str) -> None:
    changed = settings.model_dump() | {"trusted_proxies": [network]}
    with pytest.raises(ValidationError, match="every address"):
        load_settings(**changed)


def test_gateway_settings_must_share_one_pki_url(settings: Settings) -> None:
    """OpenBao writes one place into every certificate: of two, the one registered last would win."""
    gateways = {name: {"host": name, "pki_url": f"https://{name}/pki"} for name in ("one", "two")}
    with pytest.raises(ValidationError, match="the same for all gateways"):
        load_settings(**(settings.model_dump() | {"x509_connections": gateways}))
    gateways["two"]["pki_url"] = gateways["one"]["pki_url"]
    made = load_settings(**(settings.model_dump() | {"x509_connections": gateways}))
    assert {gateway.pki_url for gateway in made.connections("x509").values()} == {"https://one/pki"}


def test_lists_are_paginated(world: World, client_of: ClientOf) -> None:
    vendor = world.vendor()
    made = [world.dataset(vendor, register=False).slug for _ in range(5)]
    api = client_of(world.person(vendor))
    seen: list[str] = []
    cursor = None
    for _ in range(5):
        page = api.get("/datasets", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        assert len(page["items"]) <= 2
        seen += [item["slug"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == made[::-1]


def test_idempotent_request_gets_the_first_answer(world: World, client_of: ClientOf) -> None:
    admin = client_of(world.person(roles=("admin",)))
    key = {"Idempotency-Key": "the-first-vendor"}
    body = {"name": f"Once {world.person().id[-6:]}"}
    first, second = (admin.post("/vendors", json=body, headers=key) for _ in range(2))
    assert first.status_code == second.status_code == 201
    assert first.json() == second.json() and second.headers["idempotent-replayed"] == "true"
    other = admin.post("/vendors", json={"name": "Another"}, headers=key)
    assert is_problem(other, 409, "idempotency_key_reused")
    stranger = client_of(world.person(roles=("admin",)))
    assert stranger.post("/vendors", json=body, headers=key).status_code == 409
    # An act that failed leaves no key behind.
    retried = {"Idempotency-Key": "fails-first"}
    assert admin.post("/vendors", json=body, headers=retried).status_code == 409
    assert admin.post("/vendors", json={"name": f"{body['name']} again"}, headers=retried).status_code == 201
    odd = admin.post("/vendors", json=body, headers={b"Idempotency-Key": "é".encode()})
    assert is_problem(odd, 422, "invalid")


def test_idempotent_issue_returns_the_same_lease_without_the_secret(world: World, client_of: ClientOf) -> None:
    guest, dataset, _ = world.guest()
    api, body = client_of(guest), {"dataset": dataset.slug, "slice": "deidentified"}
    first, second = (api.post("/leases", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2))
    assert first.json()["lease"]["id"] == second.json()["lease"]["id"]
    assert first.json()["secret_available"] and not second.json()["secret_available"]
    assert second.json()["credential"] is None
    api.post(f"/leases/{first.json()['lease']['id']}/revoke", json={})
    world.sweep()


def test_a_denial_lists_every_reason(world: World, client_of: ClientOf) -> None:
    guest, dataset, _ = world.guest()
    world.change(Dataset, dataset.id, status="suspended")
    body = {"dataset": dataset.slug, "slice": "full", "lifetime": 300}
    denied = is_problem(client_of(guest).post("/leases", json=body), 403, "denied")
    codes = {reason["code"] for reason in denied["reasons"]}
    assert {"dataset_suspended", "no_rule"} <= codes
    assert all(reason["sentence"] and reason["advice"] and reason["who"] for reason in denied["reasons"])
    assert denied["decision_id"] and denied["policy_revision"]


def test_stale_factor_challenge_follows_rfc_9470(world: World, client_of: ClientOf) -> None:
    dataset, stale = world.dataset(), world.person(None, factor_age=7200)
    world.grant(dataset, stale)
    answer = client_of(stale).post("/leases", json={"dataset": dataset.slug, "slice": "deidentified"})
    body = is_problem(answer, 401, "insufficient_user_authentication")
    assert body["max_age"] == 900 and body["enrolled"]
    challenge = answer.headers["www-authenticate"]
    assert 'error="insufficient_user_authentication"' in challenge and "max_age=900" in challenge


def test_every_problem_type_has_a_page(replica: Replica) -> None:
    for code, entry in CATALOGUE.items():
        page = httpx.get(f"{replica.url}/problems/{code}")
        assert page.status_code == 200 and entry.title in page.text, code
        assert page.headers["content-type"].startswith("text/html")
    is_problem(httpx.get(f"{replica.url}/problems/nonesuch"), 404, "not_found")


def test_every_code_raised_is_in_the_catalogue() -> None:
    found: set[str] = set()
    for file in Path(broker.__file__).parent.rglob("*.py"):
        if {"embedded", "operator", "oauth"} & set(file.parts):
            continue
        found |= set(re.findall(r"""\bcode ?= ?"([a-z_]+)\"""", file.read_text()))
    # The operator's commands, whose connecting of each kind lies with the kind, have `usage`.
    assert found - {"error", "usage"} <= CATALOGUE.keys(), found - CATALOGUE.keys()


def test_browsers_get_html_and_programs_get_json_errors(replica: Replica) -> None:
    html = {"Accept": "text/html,application/xhtml+xml"}
    page = httpx.get(f"{replica.url}/nonesuch", headers=html)
    assert page.status_code == 404 and page.headers["content-type"].startswith("text/html")
    is_problem(httpx.get(f"{replica.url}/api/v1/nonesuch", headers=html), 404, "not_found")


def test_openapi_description_is_complete(replica: Replica) -> None:
    described = httpx.get(f"{replica.url}/openapi.json", timeout=60).json()
    tags = {tag["name"] for tag in described["tags"] if tag["description"]}
    seen: set[str] = set()
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["operationId"] not in seen, where
            seen.add(operation["operationId"])
            assert operation["description"] and set(operation["tags"]) <= tags, where
            if path.startswith("/api/"):
                assert "application/problem+json" in operation["responses"]["403"]["content"], where
    assert described["components"]["schemas"]["RequestBody"]["examples"]
    assert "HTTPValidationError" not in described["components"]["schemas"]
