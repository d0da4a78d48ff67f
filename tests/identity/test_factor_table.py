"""Every way to a second factor and to its freshness: each line of docs/second-factor.md is tried as it says."""

from __future__ import annotations

import ast
import html
import json
import re
from datetime import timedelta

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from sqlalchemy import select

from broker.base.settings import Settings
from broker.models import Delivery, Event
from broker.notices import outbox
from broker.web.app import create_app
from tests.identity.conftest import Ada, BrowserOf, Door
from tests.identity.factor_table import CHANGES, FRESHNESS, NO_FACTOR, OF_FACTORS, ROOT, Owner, told
from tests.identity.test_passkeys import answer_of
from tests.support.authenticator import Authenticator
from tests.support.browser import Browser
from tests.support.world import World


@pytest.fixture
def owner(ada: Ada) -> Owner:
    """Ada with two factors."""
    return Owner(ada)


def test_factor_table_lists_every_endpoint(settings: Settings) -> None:
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


def test_factor_table_lists_every_place_that_sets_freshness() -> None:
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
        "terminal_confirmation.confirm",
        "sessions.redeem_code",
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
def test_factor_in_the_request_allows_the_change(owner: Owner, way: str, proof: int) -> None:
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
    heard = told(owner)
    assert heard == ([] if begins else [_kind(way)])


@pytest.mark.parametrize("begun", [way for way in CHANGES if "or a window" in CHANGES[way][0]])
def test_factor_change_must_be_finished_in_the_same_session(owner: Owner, begun: str, browser_of: BrowserOf) -> None:
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
    assert told(owner) == ["factor.replaced" if "secret" in locals() else "factor.enrolled"]
    with owner.world.database.transaction() as tx:
        about = select(Event).where(Event.kind == told(owner)[0], Event.subject == owner.ada.id)
        event = tx.scalars(about.order_by(Event.number)).all()[-1]
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
    assert told(owner) == ["recovery_code.used"]
    assert owner.browser.api("POST", "/factors/totp/remove", {}).status_code == 401, "a window removes nothing"
    assert owner.browser.api("POST", "/factors/totp").status_code == 200


def test_enrolment_window_closes_when_a_factor_is_added_elsewhere(
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


def test_concurrent_factor_changes_keep_the_first(owner: Owner, browser_of: BrowserOf) -> None:
    """A session that a change has ended finishes nothing it had begun."""
    other = browser_of()
    assert owner.ada.door.sign_in(other, owner.ada.source) == 303
    begun = other.api("POST", "/factors/totp", {"code": owner.ada.code()}).json()
    owner.ada.forget()
    assert owner.browser.api("POST", "/factors/recovery-codes", {"code": owner.ada.code()}).status_code == 200
    owner.ada.secret = begun["secret"]
    assert other.api("POST", "/factors/totp/confirm", {"code": owner.ada.code()}).status_code == 401


def _kind(way: str) -> str:
    return "recovery_codes.replaced" if way.endswith("recovery-codes") else "factor.removed"


def _secret(page: str) -> str:
    return re.sub(r"\s", "", page.partition('id="secret-key" data-wipe>')[2].partition("</pre>")[0])


def _options(answer: httpx.Response) -> dict[str, object]:
    found = re.search(r'data-options="([^"]+)"', answer.text)
    assert found, answer.text
    return dict(json.loads(html.unescape(found[1])))


def test_own_factor_change_sends_a_notice(owner: Owner) -> None:
    """Whoever did it: it may have been a thief."""
    assert owner.browser.api("POST", "/factors/totp/remove", {"code": owner.ada.code()}).status_code == 204
    outbox.deliver_outbox(owner.world.parts, most=1000)
    with owner.world.database.transaction() as tx:
        told = tx.scalars(select(Delivery).where(Delivery.person_id == owner.ada.id).order_by(Delivery.id)).all()
    assert told[-1].kind == "factor.removed" and "If this was not you" in told[-1].body
    assert told[-1].created_at > owner.world.now() - timedelta(minutes=5)
