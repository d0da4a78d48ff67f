"""Nothing takes a second connection to the records while it holds one: everything works with a pool of one.

Otherwise as many requests at once as there are connections would each hold one and wait for another.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import html5lib
import httpx
import pytest

from broker.base.settings import Settings
from broker.identity.http import SESSION_COOKIE
from broker.models import Grant, Lease
from broker.revocation import ending
from broker.runtime.parts import Parts, vault_of
from broker.worker.worker import Worker
from tests.support.browser import Browser
from tests.support.world import Signed, World
from tests.web.conftest import Replica, apart

# A link to a page of the portal: no file, no sign-out, no provider.
_LINK = re.compile(r'href="(/[^"#]*)"')
_NOT_PAGES = ("/static", "/sign-", "/api", "/pki", "/oauth")
_MOST_PAGES = 60
# What would sign the walker out.
_NOT_SENT = re.compile("/sign-|/security/sessions|/installation|/disable")


@pytest.fixture(scope="module")
def one(settings: Settings) -> Settings:
    """Settings with one connection, which waits for nobody for long."""
    return settings.model_copy(update={"database_pool_size": 1, "database_timeout": 5.0})


@pytest.fixture
def narrow(one: Settings) -> Iterator[Replica]:
    """A replica that has one connection and has asked nothing yet."""
    with apart(one) as replica:
        yield replica


def _client(replica: Replica, signed: Signed) -> httpx.Client:
    return httpx.Client(base_url=f"{replica.url}/api/v1", headers=signed.headers, timeout=60)


def _sound(answer: httpx.Response) -> Any:
    assert answer.status_code < 300, f"{answer.request.method} {answer.request.url}: {answer.text[:300]}"
    return answer.json() if answer.content else {}


def test_first_issue_of_a_replica_takes_one_connection(narrow: Replica, world: World) -> None:
    """Whatever is read only once is read on the way."""
    signed, dataset, _ = world.guest()
    with _client(narrow, signed) as api:
        _sound(api.post("/leases", json={"dataset": dataset.slug, "slice": "deidentified"}))


def test_api_from_request_to_end_takes_one_connection(narrow: Replica, world: World) -> None:
    vendor, owner, admin = world.vendor(), world.person(), world.person(roles=("admin",))
    guest = world.person(vendor)
    dataset = world.dataset(vendor, owner=owner)
    wanted = {"dataset": dataset.slug, "role": "annotator", "purpose": "Label the March visits", "period": 86400}
    with _client(narrow, guest) as asks, _client(narrow, owner) as decides, _client(narrow, admin) as suspends:
        _sound(asks.get("/datasets"))
        request = _sound(asks.post("/requests", json=wanted))["id"]
        shown = _sound(decides.get(f"/requests/{request}"))
        _sound(decides.post(f"/requests/{request}/approve", json={"digest": shown.get("digest")}))
        lease = _sound(asks.post("/leases", json={"dataset": dataset.slug, "slice": "deidentified"}))
        lease_id = lease.get("id") or lease["lease"]["id"]
        _sound(asks.post(f"/leases/{lease_id}/renew", json={}))
        for path in ("/me", "/leases", "/grants", "/requests", f"/leases/{lease_id}", f"/datasets/{dataset.slug}"):
            _sound(asks.get(path))
        _sound(asks.post(f"/leases/{lease_id}/revoke", json={"reason": "done"}))
        for path in ("/events", "/vendors", "/people", "/policy"):
            _sound(suspends.get(path))
        _sound(suspends.post(f"/vendors/{vendor.id}/suspend", json={"reason": "a test of one connection"}))


def test_every_page_of_the_portal_takes_one_connection(narrow: Replica, world: World) -> None:
    vendor = world.vendor()
    admin = world.person(roles=("admin", "auditor"))
    signed, dataset, _ = world.guest()
    world.issue(signed, dataset)
    world.dataset(vendor, owner=admin)
    for someone in (admin, signed):
        browser = Browser(narrow.url, {"Accept": "text/html"})
        browser.cookies[SESSION_COOKIE] = world.session(someone)
        forms: dict[str, dict[str, str]] = {}
        try:
            seen = _crawl(browser, forms)
            answers = {path: browser.post(path, data=fields) for path, fields in forms.items()}
        finally:
            browser.close()
        sent = {path: answer.status_code for path, answer in answers.items()}
        assert len(seen) > 5 and len(sent) > 3
        assert not [path for path, answer in answers.items() if "/sign-in" in answer.headers.get("location", "")]
        assert {path: status for path, status in (seen | sent).items() if status >= 500} == {}


def _forms(page: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Where each form of a page leads, and its fields, filled in with the first that there is to choose."""
    for form in html5lib.parse(page, namespaceHTMLElements=False).iter("form"):
        inputs = {item.get("name") or "": item.get("value") or "a test" for item in form.iter("input")}
        fields = {name: value for name, value in inputs.items() if name}
        fields |= {item.get("name") or "": "a test of one connection" for item in form.iter("textarea")}
        for item in form.iter("select"):
            values = [option.get("value") or "" for option in item.iter("option")]
            fields[item.get("name") or ""] = next(filter(None, values), "")
        action = form.get("action") or ""
        if form.get("method") == "post" and action.startswith("/"):
            yield action.partition("?")[0], fields


def _crawl(browser: Browser, forms: dict[str, dict[str, str]]) -> dict[str, int]:
    """Every page reached by links from the first one, and its status; `forms` gets what they lead to."""
    waiting, seen = ["/"], dict[str, int]()
    while waiting and len(seen) < _MOST_PAGES:
        path = waiting.pop(0)
        answer = browser.get(path)
        seen[path] = answer.status_code
        found = [answer.headers["location"]] if answer.is_redirect else _LINK.findall(answer.text)
        forms |= {path: fields for path, fields in _forms(answer.text) if not _NOT_SENT.search(path)}
        for link in found:
            link = link.replace("&amp;", "&")
            # One of each kind of page: what differs in an id only is the same code.
            shape = re.sub(r"[a-z]{2}_[0-9a-z]{20,}", "ID", link.partition("?")[0])
            known = {re.sub(r"[a-z]{2}_[0-9a-z]{20,}", "ID", one.partition("?")[0]) for one in [*seen, *waiting]}
            if link.startswith("/") and not link.startswith(_NOT_PAGES) and shape not in known:
                waiting.append(link)
    return seen


def test_worker_ends_and_rechecks_with_one_connection(one: Settings, world: World) -> None:
    parts = Parts.build(one, identity="ender")
    worker = Worker(parts, vault_of(one, "setup"))
    thread = threading.Thread(target=worker.run, name="worker")
    signed, dataset, grant = world.guest()
    ended, kept = world.issue(signed, dataset), world.issue(signed, dataset)
    thread.start()
    try:
        with world.database.transaction() as tx:
            lease = tx.get_one(Lease, ended.lease.id)
            ending.revoke_lease(tx, lease, signed.caller, "a test of one connection", world.now())
        world.wait_for(ended.lease.id, "revoked", seconds=60)
        world.change(Grant, grant.id, ends_at=world.now())
        world.wait_for(kept.lease.id, "revoked", seconds=60)
    finally:
        worker.stop()
        thread.join(30)
        parts.close()
    assert not thread.is_alive()
