"""Two people without a name, and two of the same: told apart wherever one is chosen, and never shown as nothing."""

from __future__ import annotations

from collections.abc import Iterator

import html5lib
import pytest

from broker.models import Person
from tests.support.world import Signed, World
from tests.web.conftest import BrowserOf, ClientOf


def _texts(page: str, tag: str) -> Iterator[str]:
    for element in html5lib.parse(page, namespaceHTMLElements=False).iter(tag):
        yield " ".join("".join(element.itertext()).split())


def _choices(page: str) -> Iterator[list[str]]:
    """What each list of a page has to choose from."""
    for select in html5lib.parse(page, namespaceHTMLElements=False).iter("select"):
        yield [" ".join("".join(option.itertext()).split()) for option in select.iter("option")]


@pytest.mark.parametrize("called", ["", "Kim Lee"])
def test_people_with_the_same_name_are_distinguishable(
    world: World, browser_of: BrowserOf, client_of: ClientOf, called: str
) -> None:
    vendor, owner = world.vendor(), world.person(name="Olga Owner")
    admin, lead = world.person(roles=("admin",)), world.person(vendor, roles=("lead",))
    staff = [world.person(vendor, name=called) for _ in range(2)]
    inside = [world.person(name=called) for _ in range(2)]
    if not called:
        for one in (*staff, *inside):
            world.change(Person, one.id, email="")
    dataset, team = world.dataset(vendor, owner=owner), world.team(vendor)
    asked = {"dataset": dataset.slug, "role": "annotator", "purpose": "Label", "period": 86400}
    request = client_of(staff[0]).post("/requests", json=asked).json()["id"]
    grant = world.grant(dataset, staff[1])
    lease = world.issue(staff[1], dataset).lease
    pages: list[tuple[Signed, str]] = [
        (owner, "/queue"),
        (owner, f"/requests/{request}"),
        (owner, f"/grants/new?dataset={dataset.slug}"),
        (owner, f"/datasets/{dataset.slug}/change"),
        (owner, f"/datasets/{dataset.slug}/who"),
        (owner, f"/grants/{grant.id}"),
        (lead, f"/ask?dataset={dataset.slug}"),
        (lead, f"/teams/{team.id}"),
        (admin, f"/leases/{lease.id}"),
        (admin, "/leases"),
        (admin, f"/people/{staff[0].id}"),
        (admin, f"/vendors/{vendor.id}"),
    ]
    offered = 0
    for signed, path in pages:
        answer = browser_of(signed).get(path)
        assert answer.status_code == 200, (path, answer.status_code)
        assert not [text for tag in ("a", "h1", "h2") for text in _texts(answer.text, tag) if not text], path
        for choices in _choices(answer.text):
            assert len(set(choices)) == len(choices) and all(choices), (path, choices)
            offered += len([choice for choice in choices if (called or "Person without a name") in choice])
    # In the grant's form and the dataset's, in the lead's request and team.
    assert offered >= 8, offered
    assert client_of(owner).get(f"/requests/{request}").json()["person"]["name"]
    assert client_of(owner).get(f"/grants/{grant.id}").json()["holder_name"]
    assert client_of(admin).get(f"/leases/{lease.id}").json()["holder_name"]
    reaching = client_of(owner).get(f"/datasets/{dataset.slug}/who").json()
    assert all(way["holder_name"] for way in reaching["items"])
