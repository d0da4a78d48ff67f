"""Every page of the portal names each of its elements once: labels, links to errors and scripts find them by id."""

from __future__ import annotations

import re
from collections import Counter
from datetime import timedelta
from html.parser import HTMLParser

from fastapi.routing import iter_route_contexts

from broker.base.ids import new_id
from broker.models import Request
from broker.web import portal
from tests.support.world import World
from tests.web.conftest import BrowserOf

_PARAMETER = re.compile(r"\{(\w+)\}")


class _Ids(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.named: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.found.append(str(given["id"]))
        self.named |= {str(given["for"])} if tag == "label" and given.get("for") else set()


def twice(page: str) -> list[str]:
    """The ids a page has more than once, and labels that lead nowhere."""
    ids = _Ids()
    ids.feed(page)
    return [id_ for id_, count in Counter(ids.found).items() if count > 1] + sorted(ids.named - set(ids.found))


def test_every_page_has_unique_ids(world: World, browser_of: BrowserOf) -> None:
    vendor, owner = world.vendor(), world.person()
    guest, lead = world.person(vendor), world.person(vendor, roles=("lead",))
    admin, auditor = world.person(roles=("admin",)), world.person(roles=("auditor",))
    dataset = world.dataset(vendor, owner=owner)
    request = world.add(
        Request(
            id=new_id("rq"),
            person_id=guest.id,
            dataset_id=dataset.id,
            role="annotator",
            purpose="labelling",
            period=3600,
            lapses_at=world.now() + timedelta(days=1),
        )
    )
    ids = {
        "slug": dataset.slug,
        "request_id": request.id,
        "grant_id": world.grant(dataset, guest).id,
        "person_id": guest.id,
        "vendor_id": vendor.id,
        "team_id": world.team(vendor, guest).id,
        "lease_id": world.issue(guest, dataset).lease.id,
        "number": "1",
    }
    keys = {"datasets": dataset.slug, "vendors": vendor.id, "people": guest.id}
    looked: set[str] = set()
    for signed in (admin, owner, auditor, lead, guest):
        browser = browser_of(signed)
        for route in iter_route_contexts([*portal.router.routes]):
            if "GET" not in (route.methods or ()) or not route.path:
                continue
            for place in keys if "{place}" in route.path else ("",):
                filled = {**ids, "place": place, "key": keys.get(place or route.path.split("/")[1], "")}
                if not set(_PARAMETER.findall(route.path)) <= filled.keys():
                    continue
                answer = browser.get(route.path.format(**filled))
                assert answer.status_code < 500, (route.path, answer.status_code)
                if answer.status_code == 200 and "<main" in answer.text:
                    assert not twice(answer.text), (route.path, signed.caller.roles, twice(answer.text))
                    looked.add(route.path)
    assert {"/people", "/security", "/requests/{request_id}", "/leases/{lease_id}", "/events"} <= looked
    assert len(looked) >= 35, sorted(looked)


def test_duplicate_ids_are_detected() -> None:
    assert twice('<p id="a"></p><p id="a"></p><label for="b">B</label>') == ["a", "b"]
