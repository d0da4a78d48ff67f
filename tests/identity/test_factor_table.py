"""Every way to a second factor and to its freshness: each line of docs/second-factor.md is tried as it says."""

from __future__ import annotations

import ast
import base64
import hashlib
import html
import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from sqlalchemy import select

from broker.app import create_app
from broker.identity.secret_tokens import digest
from broker.models import ApiToken, Delivery, Event, Notice, Passkey, SignInSource, TotpFactor
from broker.notices import telling
from broker.settings import Settings
from tests.identity.conftest import Ada, BrowserOf, Door
from tests.identity.test_passkeys import answer_of
from tests.support.authenticator import Authenticator
from tests.support.browser import Browser
from tests.support.world import World

ROOT = Path(__file__).parents[2]
# Where factors and their freshness are at home: whatever changes something there stands in the table.
OF_FACTORS = re.compile(r"/(api/v1/)?(factors|confirm|security)(/|$)|/api/v1/people/\{person_id\}/(reset|enrol)")
NO_FACTOR = {"POST /security/sessions/{holder_id}/end", "POST /security/notices"}


def _table(heading: str) -> dict[str, list[str]]:
    """The lines of one table of the document: the way, and its other cells."""
    section = (ROOT / "docs" / "second-factor.md").read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in rows}


CHANGES = _table("Changing factors")
FRESHNESS = _table("Freshness, and windows that somebody else opens")


class Owner:
    """Ada with an app and a passkey, her factor fresh in her browser, and a fresh command line."""

    def __init__(self, ada: Ada) -> None:
        self.ada, self.browser, self.world = ada, ada.browser, ada.door.world
        self.device = Authenticator(ada.browser.url)
        options = ada.browser.api("POST", "/factors/passkeys/options", {"code": ada.code()}).json()
        added = ada.browser.api("POST", "/factors/passkeys", {"credential": self.device.make(options), "name": "x"})
        assert added.status_code == 201, added.text
        ada.forget()
        self.token = ada.token()
        self.world.change(ApiToken, self.token_id, factor_at=self.world.now(), factor_method="totp")

    @property
    def token_id(self) -> str:
        """The id of the command line's token."""
        given = self.token._always["Authorization"].removeprefix("Bearer ")
        with self.world.database.transaction() as tx:
            return tx.scalars(select(ApiToken.id).where(ApiToken.token_hash == digest(given))).one()

    def passkey_id(self) -> str:
        """The id of her passkey."""
        with self.world.database.transaction() as tx:
            return tx.scalars(select(Passkey.id).where(Passkey.person_id == self.ada.id)).one()

    def held(self) -> tuple[object, ...]:
        """All that a change could change."""
        with self.world.database.transaction() as tx:
            app = tx.scalars(select(TotpFactor.wrapped_secret).where(TotpFactor.person_id == self.ada.id)).all()
            keys = tx.scalars(select(Passkey.id).where(Passkey.person_id == self.ada.id)).all()
        codes = self.browser.api("GET", "/factors").json()["recovery_codes_left"]
        return (*app, *sorted(keys), codes)

    def send(self, way: str, browser: Browser, **body: object) -> httpx.Response:
        """Send the way's request: JSON to the API, a form to the portal."""
        method, _, path = way.partition(" ")
        path = path.replace("{passkey_id}", self.passkey_id())
        if path.startswith("/api/v1"):
            return browser.request(method, path, json=body)
        form = {name: value if isinstance(value, str) else json.dumps(value) for name, value in body.items()}
        headers = {"Accept": "text/html"}
        return browser.request(method, path, data={"csrf_token": browser.csrf, **form}, headers=headers)

    def needed(self, way: str, code: str) -> dict[str, object]:
        """The fields without which the request is not even read, or which a thief would fill."""
        fields: dict[str, object] = {"code": code} if code else {}
        if way.endswith("/factors/passkeys"):
            fields = {"credential": {}, "name": "x"}
        elif way.endswith("/factors/enrolment"):
            fields = {"token": "x" * 43}
        elif way.endswith("/security/passkeys"):
            fields = {"passkey": "{}", "name": "x"}
        elif way.endswith("/security/recover"):
            fields = {"recovery_code": code or "x"}
        elif way.endswith(("/confirm", "/recover")):
            fields = {"code": code or "aaaaa-bbbbb-ccccc-ddddd"}
        return fields


@pytest.fixture
def owner(ada: Ada) -> Owner:
    """Ada with two factors."""
    return Owner(ada)


def test_the_table_names_every_endpoint(settings: Settings) -> None:
    routes = {
        f"{method} {route.path}"
        for route in iter_route_contexts(create_app(settings).routes)
        for method in route.methods or ()
    }
    named = {*CHANGES, *FRESHNESS}
    assert len(named) == len(CHANGES) + len(FRESHNESS) > 20
    assert named <= routes, named - routes
    ways = {way for way in routes if not way.startswith(("GET", "HEAD")) and OF_FACTORS.match(way.partition(" ")[2])}
    assert ways - NO_FACTOR <= named, ways - NO_FACTOR - named


def test_the_table_knows_every_place_that_makes_something_fresh() -> None:
    """Whatever code sets when a factor was proven, or opens a window, is behind a line of the table."""
    writers = set()
    for file in (ROOT / "broker").rglob("*.py"):
        for function in ast.walk(ast.parse(file.read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            for call in ast.walk(function):
                words = {word.arg for word in call.keywords} if isinstance(call, ast.Call) else set()
                name = getattr(getattr(call, "func", None), "attr", getattr(getattr(call, "func", None), "id", ""))
                if words & {"factor_at", "enrolment_allowed_until"} and name in ("values", "ApiToken", "Session"):
                    writers.add(f"{file.stem}.{function.name}")
    assert writers == {
        "sessions.start",
        "factors.mark_proven",
        "elsewhere.confirm",
        "codes.redeem",
        "invitations.allow_enrolment",
        # Notes in a renewed lease what its caller had proven; makes nothing fresh.
        "renewing._decide",
    }


@pytest.mark.parametrize("way", CHANGES)
def test_a_fresh_session_alone_changes_no_factor(owner: Owner, way: str) -> None:
    before = owner.held()
    answer = owner.send(way, owner.browser, **owner.needed(way, ""))
    assert answer.status_code == int(CHANGES[way][1]), answer.text
    assert owner.held() == before and "secret" not in answer.text.replace("secret-off", "")


@pytest.mark.parametrize("way", CHANGES)
def test_a_fresh_token_with_a_right_code_changes_no_factor(owner: Owner, way: str) -> None:
    before, code = owner.held(), owner.ada.code()
    sent = owner.ada.recovery_codes[0] if way.endswith("/recover") else code
    answer = owner.send(way, owner.token, **owner.needed(way, sent))
    assert answer.status_code == int(CHANGES[way][2]), answer.text
    assert owner.held() == before
    assert owner.ada.prove(code) == 200, "what came with a refused request is not used up"


def _proofs(owner: Owner) -> list[dict[str, object]]:
    return [{"code": owner.ada.code()}, {"passkey": answer_of(owner.browser, owner.device)}]


@pytest.mark.parametrize("proof", [0, 1], ids=["code", "passkey"])
@pytest.mark.parametrize("way", [way for way in CHANGES if "a factor in the" in CHANGES[way][0]])
def test_a_factor_in_the_request_allows_the_change(owner: Owner, way: str, proof: int) -> None:
    thief = Browser(owner.browser.url)
    thief.cookies, thief.csrf = dict(owner.browser.cookies), owner.browser.csrf
    begins = way.endswith(("/totp", "/options", "/security/app", "/security/passkey"))
    answer = owner.send(way, owner.browser, **_proofs(owner)[proof])
    assert answer.status_code in (200, 204, 303), answer.text
    assert thief.api("GET", "/me").status_code == 401, "a copy of the cookie from before is worth nothing"
    thief.close()
    assert owner.browser.api("GET", "/me").status_code == 200
    # Begun is not done: only what changes a factor ends the rest and is told.
    assert owner.token.api("GET", "/me").status_code == (200 if begins else 401)
    told = _told(owner)
    assert told == ([] if begins else [_kind(way)])


@pytest.mark.parametrize("begun", [way for way in CHANGES if "or a window" in CHANGES[way][0]])
def test_what_was_begun_is_finished_in_the_same_session_only(owner: Owner, begun: str, browser_of: BrowserOf) -> None:
    other = browser_of()
    assert owner.ada.door.sign_in(other, owner.ada.source) == 303
    answer = owner.send(begun, owner.browser, code=owner.ada.code())
    api = "/api/v1" in begun
    new = Authenticator(owner.browser.url)
    if begun.endswith(("/totp", "/app")):
        secret = answer.json()["secret"] if api else _secret(answer.text)
        owner.ada.secret = secret
        fields: dict[str, object] = {"code": owner.ada.code()}
        finish = "POST /api/v1/factors/totp/confirm" if api else "POST /security/app/confirm"
    else:
        options = answer.json() if api else _options(answer)
        made, finish = new.make(options), "POST /api/v1/factors/passkeys" if api else "POST /security/passkeys"
        fields = {"credential": made, "name": "x"} if api else {"passkey": made, "name": "x"}
    assert owner.send(finish, other, **fields).status_code == 409
    assert owner.send(finish, owner.token, **fields).status_code == 403
    assert owner.send(finish, owner.browser, **fields).status_code in (200, 201, 303)
    assert [holder.api("GET", "/me").status_code for holder in (other, owner.token)] == [401, 401]
    assert _told(owner) == ["factor.replaced" if "secret" in locals() else "factor.enrolled"]
    with owner.world.database.transaction() as tx:
        event = tx.scalars(select(Event).where(Event.kind == _told(owner)[0], Event.subject == owner.ada.id)).all()[-1]
    assert owner.token_id in json.loads(event.leaf)["details"]["ended"]


@pytest.mark.parametrize("way", ["POST /api/v1/factors/recover", "POST /security/recover"])
def test_a_recovery_code_opens_a_window_for_this_session(owner: Owner, way: str) -> None:
    field = "recovery_code" if "security" in way else "code"
    thief = Browser(owner.browser.url)
    thief.cookies, thief.csrf = dict(owner.browser.cookies), owner.browser.csrf
    assert owner.send(way, owner.browser, **{field: owner.ada.recovery_codes[0]}).status_code in (200, 303)
    assert thief.api("POST", "/factors/totp").status_code == 401, "a copy of the cookie has no window"
    thief.close()
    assert owner.token.api("GET", "/me").status_code == 401
    assert _told(owner) == ["recovery_code.used"]
    assert owner.browser.api("POST", "/factors/totp/remove", {}).status_code == 401, "a window removes nothing"
    assert owner.browser.api("POST", "/factors/totp").status_code == 200


def test_a_window_that_was_not_used_closes_when_a_factor_is_added_elsewhere(
    door: Door, browser_of: BrowserOf, world: World
) -> None:
    first, second = browser_of(), browser_of()
    ada = Ada(door, first, door.bind(world.vendor()))
    assert first.api("POST", "/factors/totp").status_code == 200
    copied = dict(first.cookies)
    assert door.sign_in(second, ada.source) == 303
    ada.enrol()
    thief = Browser(first.url)
    thief.cookies, thief.csrf = copied, first.csrf
    assert thief.api("POST", "/factors/totp").status_code == 401
    thief.close()
    assert second.api("GET", "/me").status_code == 401
    assert world.events(ada.id)[-2:] == ["factor.proven", "factor.enrolled"]


def test_two_changes_at_once_leave_the_first(owner: Owner, browser_of: BrowserOf) -> None:
    """A session that a change has ended finishes nothing it had begun."""
    other = browser_of()
    assert owner.ada.door.sign_in(other, owner.ada.source) == 303
    begun = other.api("POST", "/factors/totp", {"code": owner.ada.code()}).json()
    owner.ada.forget()
    assert owner.browser.api("POST", "/factors/recovery-codes", {"code": owner.ada.code()}).status_code == 200
    owner.ada.secret = begun["secret"]
    assert other.api("POST", "/factors/totp/confirm", {"code": owner.ada.code()}).status_code == 401


def _told(owner: Owner) -> list[str]:
    """The kinds of what she is told of since her factors were set up."""
    with owner.world.database.transaction() as tx:
        kinds = tx.scalars(select(Notice.kind).where(Notice.subject == owner.ada.id).order_by(Notice.id)).all()
    # Adding the app and then the passkey.
    assert list(kinds[:2]) == ["factor.enrolled"] * 2
    return list(kinds[2:])


def _kind(way: str) -> str:
    return "recovery_codes.replaced" if way.endswith("recovery-codes") else "factor.removed"


def _secret(page: str) -> str:
    return re.sub(r"\s", "", page.partition('id="secret-key" data-wipe>')[2].partition("</pre>")[0])


def _options(answer: httpx.Response) -> dict[str, object]:
    found = re.search(r'data-options="([^"]+)"', answer.text)
    assert found, answer.text
    return dict(json.loads(html.unescape(found[1])))


# -- freshness --------------------------------------------------------------------------------------------------


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
    assert owner.send("POST /confirm", other, next="/").status_code == 200 and not _fresh(other), "asked again"
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
    assert _told(owner) == ["factor.reset"]


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
def test_each_way_to_freshness_is_as_the_table_says(owner: Owner, browser_of: BrowserOf, way: str) -> None:
    owner.ada.forget()
    TRIED[way](owner, browser_of)


def test_a_notice_of_ones_own_change_reaches_the_person(owner: Owner) -> None:
    """Whoever did it: it may have been a thief."""
    assert owner.browser.api("POST", "/factors/totp/remove", {"code": owner.ada.code()}).status_code == 204
    telling.tell(owner.world.parts, most=1000)
    with owner.world.database.transaction() as tx:
        told = tx.scalars(select(Delivery).where(Delivery.person_id == owner.ada.id).order_by(Delivery.id)).all()
    assert told[-1].kind == "factor.removed" and "If this was not you" in told[-1].body
    assert told[-1].created_at > owner.world.now() - timedelta(minutes=5)
