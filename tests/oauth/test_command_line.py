"""The command line's way in: loopback, PKCE, one minute, once (RFC 6749 4.1, RFC 7636, RFC 8252, RFC 9207)."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest
import requests
from psycopg import sql
from sqlalchemy import select, update

from broker.base.database import clock
from broker.identity.secret_tokens import digest
from broker.models import ApiToken, AuthorizationCode, Person, Session, Vendor
from tests.oauth.conftest import CALLBACK, CommandLine, parameters_of, signed_in
from tests.support.world import World
from tests.web.conftest import Replica


def refused(answer: httpx.Response, error: str = "invalid_grant", status: int = 400) -> None:
    assert answer.status_code == status, answer.text
    assert answer.json()["error"] == error
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.fast
def test_authorization_code_flow_for_the_command_line(line: CommandLine, replica: Replica) -> None:
    given = line.allow()
    assert given.keys() == {"code", "state", "iss"}
    assert (given["state"], given["iss"]) == (line.state, replica.url)
    answer = line.exchange(given["code"])
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body.keys() == {"access_token", "token_type", "expires_in"}, "no refresh token"
    # The session of the browser that allowed it lasts an hour at most; the token, which could last eight, ends with it.
    assert body["token_type"] == "Bearer" and 3500 < body["expires_in"] <= 3600
    me = line.me(body["access_token"])
    assert (me.status_code, me.json()["id"], me.json()["how"]) == (200, line.signed.id, "api_token")


def test_a_token_never_outlives_the_session_that_allowed_it(line: CommandLine, world: World) -> None:
    """A copied cookie gives no more time than it has itself."""
    with world.database.transaction() as tx:
        ends = clock(tx) + timedelta(seconds=90)
        tx.execute(update(Session).where(Session.person_id == line.signed.id).values(expires_at=ends))
    body = line.exchange(line.allow()["code"]).json()
    assert body["expires_in"] <= 90
    assert line.me(body["access_token"]).json()["signed_in_until"] == ends.isoformat().replace("+00:00", "Z")
    with world.database.transaction() as tx:
        token = tx.scalars(select(ApiToken).where(ApiToken.token_hash == digest(body["access_token"]))).one()
        assert tx.get_one(Session, token.session_id).person_id == line.signed.id


def test_only_hashes_of_code_and_token_are_stored(line: CommandLine, world: World) -> None:
    code = line.allow()["code"]
    token = line.exchange(code).json()["access_token"]
    with world.database.transaction() as tx:
        assert tx.get(AuthorizationCode, digest(code)) is not None
        assert tx.scalars(select(ApiToken).where(ApiToken.token_hash == digest(token))).one().person_id
    with world.admin("guestkey") as connection:
        rows = [
            connection.execute(sql.SQL("SELECT * FROM guestkey.{}").format(sql.Identifier(table))).fetchall()
            for table in ("authorization_code", "api_token", "event")
        ]
    assert code not in str(rows) and token not in str(rows)


def test_token_has_its_own_factor_time(line: CommandLine, world: World, replica: Replica) -> None:
    """It starts where the browser stood; what is proven in the browser afterwards proves nothing for the token."""
    token = line.exchange(line.allow()["code"]).json()["access_token"]
    assert line.me(token).json()["factor_at"] is None
    with world.database.transaction() as tx:
        session = update(Session).where(Session.person_id == line.signed.id)
        tx.execute(session.values(factor_at=clock(tx), factor_method="passkey"))
    assert line.me(token).json()["factor_at"] is None
    again = line.exchange(line.allow()["code"]).json()["access_token"]
    assert line.me(again).json()["factor_method"] == "passkey"


def test_declining_returns_access_denied(line: CommandLine, replica: Replica) -> None:
    page = line.browser.open(line.address())
    given = parameters_of(line.browser.link(page, "refuse"))
    assert (given["error"], given["state"], given["iss"]) == ("access_denied", line.state, replica.url)
    assert "code" not in given


def test_unauthenticated_authorization_signs_in_and_returns(line: CommandLine, http: httpx.Client) -> None:
    answer = http.get(line.address())
    assert answer.status_code == 303
    target = httpx.URL(answer.headers["location"])
    assert target.path == "/sign-in"
    assert target.params["next"] == line.address()


@pytest.mark.parametrize(
    "redirect_uri",
    [
        "http://127.0.0.1:1/callback",
        "http://[::1]:65535/callback",
        "http://localhost:8400/callback",
    ],
)
def test_any_loopback_port_is_accepted(line: CommandLine, redirect_uri: str) -> None:
    page = line.browser.open(line.address(redirect_uri=redirect_uri))
    assert page.status_code == 200
    assert line.browser.link(page, "refuse").startswith(f"{redirect_uri}?")


@pytest.mark.parametrize(
    "redirect_uri",
    [
        None,
        "",
        "https://evil.example/callback",
        "http://evil.example:49152/callback",
        "https://127.0.0.1:49152/callback",
        "http://127.0.0.1/callback",
        "http://127.0.0.1:/callback",
        "http://127.0.0.1:0/callback",
        "http://127.0.0.1:49152/other",
        "http://127.0.0.1:49152/callback/",
        "http://127.0.0.1:49152/callback?",
        "http://127.0.0.1:49152/callback?next=evil",
        "http://127.0.0.1:49152/callback#fragment",
        "http://127.0.0.1:49152/call\tback",
        "http://127.0.0.1:49152/callback\n",
        "http://127.0.0.1:49152@evil.example/callback",
        "http://127.0.0.1:49152\\@evil.example:1/callback",
        "http://127.0.0.1.evil.example:49152/callback",
        "http://127.0.0.2:49152/callback",
        "http://localhost.evil.example:49152/callback",
        "http://1:49152/callback",
        "http://127.0.0.1:４９１５２/callback",
        "javascript://127.0.0.1:49152/callback",
    ],
)
def test_other_redirect_uris_are_refused(line: CommandLine, http: httpx.Client, redirect_uri: str | None) -> None:
    address = line.address(redirect_uri=redirect_uri)
    refused(http.get(address), "invalid_request")
    page = line.browser.open(address)
    assert page.status_code == 422 and "hand-over" not in page.text
    # The page's own address is in links that lead back to it; nothing leads elsewhere or says the name.
    leads = re.findall(r'(?:href|action|src)="([^"]*)"', page.text)
    assert leads and all(re.match(r"#|/(?!/)", lead) for lead in leads)
    assert "evil" not in re.sub(r'="[^"]*"', "", page.text)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"client_id": "other"}, "invalid_client"),
        ({"client_id": None}, "invalid_client"),
        ({"redirect_uri": "http://127.0.0.1:1/other"}, "invalid_request"),
    ],
)
def test_no_redirect_to_an_unverified_address(
    line: CommandLine, http: httpx.Client, changes: dict[str, str | None], error: str
) -> None:
    refused(http.get(line.address(**changes)), error)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": None}, "invalid_request"),
        ({"response_mode": "form_post"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"state": None}, "invalid_request"),
        ({"state": "short"}, "invalid_request"),
        ({"state": "s" * 513}, "invalid_request"),
    ],
)
def test_invalid_authorization_request_returns_an_error(
    line: CommandLine, http: httpx.Client, replica: Replica, changes: dict[str, str | None], error: str
) -> None:
    """RFC 6749, 4.1.2.1: at its own address, with its state and our name; whoever looks at it, signed in or not."""
    for answer in (http.get(line.address(**changes)), asked_in(line, **changes)):
        assert answer.status_code == 303
        given = parameters_of(answer.headers["location"])
        expected = (line.asked | changes)["state"]
        assert (given["error"], given.get("state"), given["iss"]) == (error, expected, replica.url)
        assert given["error_description"] and "code" not in given


def asked_in(line: CommandLine, **changes: str | None) -> requests.Response:
    """The answer to the question in the person's browser, not followed."""
    cookies = "; ".join(f"{name}={value}" for name, value in line.browser.cookies.items())
    headers = {"Accept": "text/html", "Cookie": cookies}
    address = f"{line.browser.portal}{line.address(**changes)}"
    return requests.get(address, headers=headers, allow_redirects=False, timeout=20)


def test_client_can_authenticate_with_basic(line: CommandLine, http: httpx.Client) -> None:
    """With an empty secret, as clients do that know one way only."""
    given = line.allow()
    form = {
        "grant_type": "authorization_code",
        "code": given["code"],
        "redirect_uri": CALLBACK,
        "code_verifier": line.verifier,
    }
    refused(http.post("/oauth/token", data=form), "invalid_client", 401)
    for auth, error, status in (
        (("guestkey-cli", "made-up"), "invalid_client", 401),
        (("", ""), "invalid_client", 401),
        (("other", ""), "invalid_grant", 400),
    ):
        refused(http.post("/oauth/token", data=form, auth=auth), error, status)
    refused(http.post("/oauth/token", data=form, headers={"Authorization": "Digest x"}), "invalid_client", 401)
    asserted = form | {"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}
    told = http.post("/oauth/token", data=asserted | {"client_assertion": "x"})
    refused(told, "invalid_client", 401)
    assert "client_secret_basic" in told.json()["error_description"]
    # None of them has used the code up.
    answer = http.post("/oauth/token", data=form, auth=("guestkey-cli", ""))
    assert answer.status_code == 200, answer.text
    assert line.me(answer.json()["access_token"]).status_code == 200


def test_invalid_token_error_only_for_a_sent_token(http: httpx.Client) -> None:
    """RFC 6750, 3.1: programs tell by it whether to ask for a new token."""
    unknown = http.get("/api/v1/me", headers={"Authorization": "Bearer gka_unknown"})
    assert (unknown.status_code, unknown.headers["www-authenticate"]) == (
        401,
        'Bearer realm="guestkey", error="invalid_token"',
    )
    assert http.get("/api/v1/me").headers["www-authenticate"] == 'Bearer realm="guestkey"'


def test_repeated_parameters_are_refused(line: CommandLine, http: httpx.Client) -> None:
    refused(http.get(f"{line.address()}&redirect_uri=http://127.0.0.1:1/callback"), "invalid_request")
    code = line.allow()["code"]
    body = f"grant_type=authorization_code&code={code}&code=other"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    refused(http.post("/oauth/token", content=body, headers=form), "invalid_request")


def test_consent_form_is_validated_like_the_request(line: CommandLine) -> None:
    page = line.browser.open(line.address())
    answer = line.browser.submit(page, redirect_uri="http://evil.example:1/callback")
    assert answer.status_code == 422 and "hand-over" not in answer.text


def test_consent_needs_the_sessions_csrf_token(line: CommandLine, world: World, replica: Replica) -> None:
    other = signed_in(world, replica, world.person(world.vendor()))
    theirs = re.search(r'name="csrf_token" value="([^"]+)"', other.open(line.address()).text)
    assert theirs is not None
    page = line.browser.open(line.address())
    for token in ("", "made-up", theirs[1]):
        answer = line.browser.submit(page, csrf_token=token)
        assert answer.status_code == 403 and "hand-over" not in answer.text


def test_consent_ends_on_a_page_without_redirect(line: CommandLine) -> None:
    """A redirect to another origin after a form is blocked by our own policy for pages."""
    page = line.browser.submit(line.browser.open(line.address()))
    assert page.status_code == 200 and not page.is_redirect
    assert page.headers["Cache-Control"] == "no-store"
    assert "form-action 'self'" in page.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    assert page.headers["Referrer-Policy"] in ("no-referrer", "same-origin")


@pytest.mark.parametrize(
    "changes",
    [
        {"code_verifier": "v" * 43},
        {"code_verifier": None},
        {"code_verifier": ""},
        {"redirect_uri": "http://127.0.0.1:1/callback"},
        {"redirect_uri": None},
    ],
)
def test_failed_exchange_uses_up_the_code(line: CommandLine, changes: dict[str, str | None]) -> None:
    code = line.allow()["code"]
    refused(line.exchange(code, **changes))
    refused(line.exchange(code))


def test_code_challenge_is_not_accepted_as_verifier(line: CommandLine) -> None:
    """What `plain` would have accepted."""
    refused(line.exchange(line.allow()["code"], code_verifier=line.asked["code_challenge"]))


def test_code_of_another_sign_in_is_refused(line: CommandLine, world: World, replica: Replica) -> None:
    other = world.person(world.vendor())
    theirs = CommandLine(line.http, signed_in(world, replica, other), other)
    refused(line.exchange(theirs.allow()["code"]))


@pytest.mark.parametrize("code", ["", "made-up", "x" * 4096, "\x00", "ü" * 40])
def test_unknown_codes_are_refused(line: CommandLine, code: str) -> None:
    refused(line.exchange(code), "invalid_request" if code == "\x00" else "invalid_grant")


def test_code_expires_after_a_minute(line: CommandLine, world: World) -> None:
    code = line.allow()["code"]
    with world.database.transaction() as tx:
        kept = tx.get_one(AuthorizationCode, digest(code))
        assert timedelta(seconds=55) < kept.expires_at - clock(tx) <= timedelta(seconds=60)
        kept.expires_at = clock(tx)
    refused(line.exchange(code))


def test_code_reuse_revokes_its_token(line: CommandLine, world: World) -> None:
    code = line.allow()["code"]
    token = line.exchange(code).json()["access_token"]
    assert line.me(token).status_code == 200
    refused(
        line.exchange(code, code_verifier="whoever stole the code has no verifier, and is stopped".replace(" ", "-"))
    )
    assert line.me(token).status_code == 401
    with world.database.transaction() as tx:
        record = tx.scalars(select(ApiToken).where(ApiToken.token_hash == digest(token))).one()
    assert record.end_cause == "code_replayed"
    assert world.events(record.id) == ["token.issued", "code.replayed"]


def test_concurrent_code_exchanges_leave_no_token(line: CommandLine, world: World) -> None:
    code = line.allow()["code"]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: line.exchange(code), range(8)))
    given = [answer.json()["access_token"] for answer in answers if answer.status_code == 200]
    assert len(given) == 1 and sum(answer.status_code == 400 for answer in answers) == 7
    assert line.me(given[0]).status_code == 401


@pytest.mark.parametrize("end", ["session", "person", "vendor"])
def test_code_of_an_ended_session_gets_no_token(line: CommandLine, world: World, end: str) -> None:
    code = line.allow()["code"]
    if end == "session":
        with world.database.transaction() as tx:
            tx.execute(update(Session).where(Session.person_id == line.signed.id).values(ended_at=clock(tx)))
    elif end == "person":
        world.change(Person, line.signed.id, status="suspended")
    else:
        assert line.signed.caller.vendor_id is not None
        world.change(Vendor, line.signed.caller.vendor_id, status="suspended")
    refused(line.exchange(code))


def test_signing_out_ends_the_token(line: CommandLine, http: httpx.Client) -> None:
    """RFC 7009: whoever holds it may end it, and nobody learns from the answer whether it was one."""
    token = line.exchange(line.allow()["code"]).json()["access_token"]
    for given in (token, token, "made-up", "gka_made-up", ""):
        answer = http.post("/oauth/revoke", data={"token": given, "client_id": "guestkey-cli"})
        assert (answer.status_code, answer.json()) == (200, {})
    assert line.me(token).status_code == 401


def test_other_grant_types_are_refused(line: CommandLine) -> None:
    for grant_type in ("password", "refresh_token", "urn:ietf:params:oauth:grant-type:token-exchange", "", None):
        refused(line.exchange(line.allow()["code"], grant_type=grant_type), "unsupported_grant_type")


def test_authorization_server_metadata_is_correct(http: httpx.Client, replica: Replica) -> None:
    found = http.get("/.well-known/oauth-authorization-server").json()
    assert found["issuer"] == replica.url
    assert found["code_challenge_methods_supported"] == ["S256"]
    assert found["authorization_response_iss_parameter_supported"] is True
    assert found["response_types_supported"] == ["code"]
    for name in ("token_endpoint", "introspection_endpoint", "revocation_endpoint"):
        assert http.get(found[name]).status_code == 405, "there, and for POST only"
    assert http.get(found["jwks_uri"]).status_code == 200
    assert http.get(found["authorization_endpoint"]).json()["error"] == "invalid_client"
    assert CALLBACK not in str(found)
