"""What somebody who knows the protocol would try: odd bytes, odd names, stale sessions, two things at once."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, update

from broker.base.database import clock
from broker.models import AuthorizationCode, Event, Lease, Session, TeamMember
from broker.models.lease import LIVE_STATES
from tests.oauth.conftest import CommandLine, Program
from tests.support.world import Signed, World

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
DEAD = {"active": False}
ENDPOINTS = ("/oauth/token", "/oauth/revoke", "/oauth/introspect")


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def refused(answer: httpx.Response, error: str, status: int = 400) -> None:
    assert (answer.status_code, answer.json().get("error")) == (status, error), answer.text
    assert answer.headers["cache-control"] == "no-store"


def asked(http: httpx.Client, signed: Signed, slug: str, **headers: str) -> httpx.Response:
    body = {"dataset": slug, "kind": "token", "slice": "deidentified", "lifetime": 300}
    return http.post("/api/v1/leases", json=body, headers=signed.headers | headers)


def live_leases(world: World, service_id: str) -> int:
    with world.database.transaction() as tx:
        live = select(func.count()).where(Lease.service_id == service_id, Lease.state.in_(LIVE_STATES))
        return tx.execute(live).scalar_one()


# -- bytes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [b"Basic \xfc", b"Basic \xc3\xbc", b"Basic \xff\xfe==", b"Basic YTpi\xa0"])
@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/introspect"])
def test_non_ascii_authorization_header_is_refused(http: httpx.Client, path: str, header: bytes) -> None:
    form = {"grant_type": "client_credentials", "token": "x"}
    refused(http.post(path, data=form, headers={b"Authorization": header}), "invalid_client", 401)


def multipart(charset: str) -> tuple[bytes, str]:
    """A body that says itself how its text is to be decoded: into halves of surrogate pairs, for one."""
    fields = (("grant_type", "authorization_code"), ("code", "\\ud800"), ("token", "\\ud800"))
    parts = [f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields]
    return "".join([*parts, "--x--\r\n"]).encode(), f"multipart/form-data; boundary=x; charset={charset}"


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        multipart("unicode_escape"),
        multipart("punycode"),
        multipart("undefined"),
        multipart("utf-8"),
        (b"", "multipart/form-data"),
        (b'{"grant_type": "client_credentials"}', "application/json"),
        (b"grant_type=client_credentials", "text/plain"),
        (b"grant_type=client_credentials", ""),
        (b"&".join(b"a%d=1" % number for number in range(1500)), FORM["Content-Type"]),
    ],
)
def test_body_other_than_a_form_is_refused(http: httpx.Client, path: str, body: bytes, kind: str) -> None:
    refused(http.post(path, content=body, headers={"Content-Type": kind}), "invalid_request")


def test_query_parameters_are_ignored_by_the_token_endpoint(pipeline: Program, http: httpx.Client) -> None:
    """Addresses are logged on the way; a secret in one is a secret lost (RFC 6749, 2.3.1)."""
    query = {"grant_type": "client_credentials", "client_id": pipeline.id, "client_secret": pipeline.secret}
    refused(http.post("/oauth/token", params=query, headers=FORM), "unsupported_grant_type")
    query.pop("grant_type")
    answer = http.post("/oauth/token", params=query, data={"grant_type": "client_credentials"})
    refused(answer, "invalid_client", 401)


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 2900,
        b'{"a":' * 450,
        b"[]",
        b"1",
        b"null",
        b'"ES256"',
        b"{}",
        b"\xff\xfe",
        b'{"alg":null}',
        b'{"alg":["ES256"]}',
        b'{"alg":"ES256","kid":{}}',
        b'{"alg":"ES256","kid":["tokens-1"]}',
        b'{"alg":"ES256","kid":1}',
        b'{"alg":"ES256","crit":["x"]}',
        b'{"alg":"ES256","b64":false,"crit":["b64"]}',
        b'{"alg":"ES256","alg":"none","kid":"tokens-1"}',
        b'{"alg":"dir","enc":"A256GCM"}',
        b'{"alg":"ES256","n":' + b"9" * 2500 + b"}",
    ],
)
def test_token_with_an_odd_header_is_inactive(guard: Program, http: httpx.Client, header: bytes) -> None:
    """Anybody may send one for revocation, and a guard passes on what strangers show it."""
    for text in (f"{encoded(header)}.{encoded(b'{}')}.{encoded(bytes(64))}", f"{encoded(header)}.a.b.c.d"):
        assert guard.introspect(text) == DEAD
        answer = http.post("/oauth/revoke", data={"token": text})
        assert (answer.status_code, answer.json()) == (200, {})


# -- names ----------------------------------------------------------------------------------------------------------


def test_resource_accepts_one_spelling_only(pipeline: Program) -> None:
    """By its slug, to the letter: what is asked for is what the token is made out to."""
    assert pipeline.dataset is not None
    base, slug = pipeline.resource.rpartition("/")[0], pipeline.dataset.slug
    for name in (
        pipeline.dataset.id,
        f"../datasets/{slug}",
        f"./{slug}",
        f"{slug}/",
        f"{slug}?x",
        f"{slug}#x",
        f"{slug}\n",
        f" {slug}",
        slug.upper(),
        slug.replace("t", "%74", 1),
        "' OR 1=1 --",
        "x" * 3000,
        "ü",
        "",
    ):
        refused(pipeline.token(resource=f"{base}/{name}"), "invalid_target")
    for resource in (
        pipeline.resource.upper(),
        pipeline.resource.replace("localhost", "LOCALHOST"),
        pipeline.resource.replace("://", "://user@"),
        slug,
    ):
        refused(pipeline.token(resource=resource), "invalid_target")


def test_invalid_scope_is_refused_without_an_event(pipeline: Program, world: World) -> None:
    for scope in ("READ", "re*d", "\u202eread", 'read"\\', "read\tslice:full", "slice:", "slice:../full", "x" * 3000):
        refused(pipeline.token(resource=pipeline.resource, scope=scope), "invalid_scope")
    with world.database.transaction() as tx:
        decided = select(Event.id).where(Event.actor == f"service:{pipeline.id}", Event.kind.startswith("decision."))
        assert tx.scalars(decided).all() == []


@pytest.mark.parametrize(
    "name", ["", " ", "a\nb", "a\u202eb", "a\u200bb", "a\x00b", " a", "a  b", "e\u0301", "x" * 121]
)
def test_service_names_must_be_printable(world: World, http: httpx.Client, name: str) -> None:
    admin = world.person(roles=("admin",))
    answer = http.post("/api/v1/services", json={"name": name}, headers=admin.headers)
    assert answer.status_code == 422, answer.text
    assert "client_secret" not in answer.text


# -- another vendor -------------------------------------------------------------------------------------------------


def test_another_vendor_cannot_end_or_see_tokens(
    pipeline: Program, guard: Program, world: World, http: httpx.Client
) -> None:
    token = pipeline.signed()["access_token"]
    lease_id = guard.introspect(token)["jti"]
    other = world.vendor()
    for stranger in (world.person(other, roles=("lead",)), world.service(other)):
        for id_ in (lease_id, "l01" + "0" * 24):
            path = f"/api/v1/leases/{id_}"
            answers = [
                http.get(path, headers=stranger.headers),
                http.post(f"{path}/revoke", json={"reason": "mine now"}, headers=stranger.headers),
            ]
            assert {answer.status_code for answer in answers} == {404}
    assert guard.introspect(token)["active"] is True
    assert world.events(lease_id) == ["lease.issued"]


def test_secret_of_one_service_is_refused_for_another(pipeline: Program, guard: Program, http: httpx.Client) -> None:
    form = {"grant_type": "client_credentials"}
    refused(http.post("/oauth/token", data=form, auth=(guard.id, pipeline.secret)), "invalid_client", 401)
    # Whose grant counts is who proved the secret, whatever else the form names.
    answer = guard.token(resource=pipeline.resource)
    assert answer.status_code in (400, 403) and "access_token" not in answer.json()


# -- stale sessions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stale", ["ended", "expired", "idle"])
def test_ended_session_cannot_authorize(line: CommandLine, world: World, stale: str) -> None:
    page = line.browser.open(line.address())
    with world.database.transaction() as tx:
        now = clock(tx)
        values: dict[str, Any] = {
            "ended": {"ended_at": now},
            "expired": {"expires_at": now},
            "idle": {"last_seen_at": now - timedelta(seconds=world.settings.session_idle + 1)},
        }[stale]
        tx.execute(update(Session).where(Session.person_id == line.signed.id).values(values))
    answer = line.browser.submit(page)
    assert "hand-over" not in answer.text and "/sign-in" in answer.url
    cookies = {"Cookie": "; ".join(f"{name}={value}" for name, value in line.browser.cookies.items())}
    again = line.http.get(line.address(), headers=cookies)
    assert again.status_code == 303 and again.headers["location"].startswith("/sign-in?")
    with world.database.transaction() as tx:
        sessions = select(Session.id).where(Session.person_id == line.signed.id)
        codes = select(func.count()).where(AuthorizationCode.session_id.in_(sessions))
        assert tx.execute(codes).scalar_one() == 0


def test_api_token_cannot_authorize_another_token(line: CommandLine) -> None:
    """Whoever stole one cannot make it last longer than it does: saying yes takes the browser's own form."""
    token = line.exchange(line.allow()["code"]).json()["access_token"]
    answer = line.http.post("/oauth/authorize", data=line.asked, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 403 and "hand-over" not in answer.text


# -- two things at once ---------------------------------------------------------------------------------------------


def test_lease_limit_holds_for_concurrent_token_requests(pipeline: Program, world: World) -> None:
    most = world.settings.max_live_leases
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: pipeline.token(resource=pipeline.resource), range(most + 5)))
    assert sum(answer.status_code == 200 for answer in answers) == most
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert live_leases(world, pipeline.id) == most


@pytest.mark.parametrize("whom", ["service", "vendor"])
def test_suspension_during_issue_ends_the_token(
    pipeline: Program, guard: Program, world: World, http: httpx.Client, whom: str
) -> None:
    """At several moments of the asking, which takes as long as it takes here."""
    admin, vendor_id = world.person(roles=("admin",)), pipeline.signed_in.caller.vendor_id
    path = f"/api/v1/services/{pipeline.id}" if whom == "service" else f"/api/v1/vendors/{vendor_id}"
    given: list[str] = []
    with ThreadPoolExecutor(4) as pool:

        def asked() -> list[Future[httpx.Response]]:
            return [
                pool.submit(lambda fields: pipeline.token(**fields), {"resource": pipeline.resource} if signed else {})
                for signed in (True, True, False, False)
            ]

        began = time.monotonic()
        wait(asked())
        usual = time.monotonic() - began
        for quarters in range(8):
            asking = asked()
            time.sleep(usual * quarters / 4)
            ended = http.post(f"{path}/suspend", json={"reason": "incident"}, headers=admin.headers)
            assert ended.status_code < 300, ended.text
            answers = [future.result() for future in asking]
            assert {answer.status_code for answer in answers} <= {200, 401, 403}
            given += [answer.json()["access_token"] for answer in answers if answer.status_code == 200]
            assert marked_or_none(world, pipeline.id)
            world.sweep()
            again = http.post(f"{path}/resume", json={"reason": "cleared"}, headers=admin.headers)
            assert again.status_code < 300, again.text
    assert given, "some were faster"
    for token in given:
        assert guard.introspect(token) == DEAD, "nor does it come back with the suspension lifted"
        assert http.get("/api/v1/me", headers={"Authorization": f"Bearer {token}"}).status_code == 401


def marked_or_none(world: World, service_id: str) -> bool:
    """Whether no lease of a service goes on."""
    with world.database.transaction() as tx:
        on = select(func.count()).where(Lease.service_id == service_id, Lease.state.in_(("pending", "active")))
        return tx.execute(on).scalar_one() == 0


# -- people's signed tokens -----------------------------------------------------------------------------------------


def test_a_stale_second_factor_gets_no_token(world: World, http: httpx.Client) -> None:
    vendor = world.vendor()
    dataset = world.dataset(vendor)
    for factor_age in (None, 48 * 3600):
        signed = world.person(vendor, factor_age=factor_age)
        world.grant(dataset, signed)
        answer = asked(http, signed, dataset.slug)
        assert answer.status_code == 401, answer.text
        challenge = answer.headers["www-authenticate"]
        assert 'error="insufficient_user_authentication"' in challenge and "max_age=" in challenge


def test_a_repeat_gets_the_same_lease_and_no_second_token(world: World, http: httpx.Client) -> None:
    signed, dataset, _ = world.guest()
    key = {"Idempotency-Key": "once"}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: asked(http, signed, dataset.slug, **key).json(), range(6)))
    assert len({answer["lease"]["id"] for answer in answers}) == 1
    assert sum(answer["secret_available"] for answer in answers) == 1
    assert sum(answer["credential"] is not None for answer in answers) == 1


Path = Callable[[World, Any, Any, Any], tuple[str, str]]
ENDINGS: dict[str, Path] = {
    "person": lambda world, signed, dataset, team: ("POST", f"/people/{signed.id}/suspend"),
    "vendor": lambda world, signed, dataset, team: ("POST", f"/vendors/{signed.caller.vendor_id}/suspend"),
    "vendor for good": lambda world, signed, dataset, team: ("POST", f"/vendors/{signed.caller.vendor_id}/offboard"),
    "dataset": lambda world, signed, dataset, team: ("POST", f"/datasets/{dataset.slug}/suspend"),
    "offer": lambda world, signed, dataset, team: (
        "DELETE",
        f"/datasets/{dataset.slug}/offers/{signed.caller.vendor_id}",
    ),
    "team": lambda world, signed, dataset, team: ("DELETE", f"/teams/{team.id}/members/{signed.id}"),
}


@pytest.mark.parametrize("end", ENDINGS)
def test_persons_token_is_inactive_when_its_grant_ends(
    world: World, guard: Program, http: httpx.Client, end: str
) -> None:
    vendor, admin = world.vendor(), world.person(roles=("admin",))
    signed, dataset = world.person(vendor), world.dataset(vendor)
    team = world.team(vendor, signed)
    world.grant(dataset, team)
    answer = asked(http, signed, dataset.slug)
    assert answer.status_code == 201, answer.text
    token = answer.json()["credential"]["access_token"]
    assert guard.introspect(token)["active"] is True
    method, path = ENDINGS[end](world, signed, dataset, team)
    body = {"reason": "over"} if method == "POST" else None
    ended = http.request(method, f"/api/v1{path}", json=body, headers=admin.headers)
    assert ended.status_code < 300, ended.text
    assert guard.introspect(token) == DEAD
    if end == "team":
        with world.database.transaction() as tx:
            assert tx.get(TeamMember, (team.id, signed.id)) is None


def test_token_naming_a_lease_of_another_kind_is_inactive(
    pipeline: Program, guard: Program, world: World, http: httpx.Client
) -> None:
    """Whoever could have our key sign a lease's id would not thereby make a credential of a database a token."""
    signed, dataset, _ = world.guest()
    postgres = world.issue(signed, dataset).lease
    token = pipeline.signed()["access_token"]
    head, body, _ = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "==")) | {"jti": postgres.id}
    kid = json.loads(base64.urlsafe_b64decode(head + "=="))["kid"]
    signing_input = f"{head}.{encoded(json.dumps(claims).encode())}"
    signature = world.parts.vault.sign_jws("tokens", signing_input.encode(), version=int(kid.removeprefix("tokens-")))
    text = f"{signing_input}.{signature}"
    assert guard.introspect(text) == DEAD
    assert http.post("/oauth/revoke", data={"token": text}).status_code == 200
    assert world.lease(postgres.id).state == "active", "nor does giving it back end that"


# -- names of leases instead of tokens ------------------------------------------------------------------------------


def test_lease_id_is_not_accepted_as_a_token(
    world: World, http: httpx.Client, guard: Program, pipeline: Program
) -> None:
    """Whoever knows an id, a handle or what OpenBao calls it still holds nothing."""
    token = str(pipeline.signed()["access_token"])
    lease = world.lease(guard.introspect(token)["jti"])
    signed, dataset, _ = world.guest()
    other = world.issue(signed, dataset).lease
    backend = world.lease(other.id).backend_lease_id or ""
    for name in (lease.id, lease.handle, other.id, other.handle, backend, f"{lease.id}.{lease.id}.{lease.id}"):
        assert guard.introspect(name) == DEAD
        for program in (guard, pipeline):
            given = program.post("/oauth/revoke", token=name)
            assert (given.status_code, given.json()) == (200, {})
    assert guard.introspect(token)["active"] is True
    assert (world.lease(lease.id).state, world.lease(other.id).state) == ("active", "active")
    theirs = pipeline.post("/oauth/introspect", token=token)
    nonsense = pipeline.post("/oauth/introspect", token="x")
    assert theirs.status_code == nonsense.status_code != 200
    assert theirs.json() == nonsense.json()
