"""Deciding with all the facts, and by somebody who can: approvals, requests whose owner is gone, `why`, dead ends."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.base.ids import new_id
from broker.models import Dataset, Person, Service, Slice
from tests.support.agreeing import agree_waiting
from tests.support.world import PICTURES, Signed, World
from tests.web.conftest import BrowserOf, ClientOf


@pytest.fixture
def owned(world: World) -> tuple[Dataset, Signed, Signed]:
    """A dataset whose annotators also write to a slice, its owner, and a vendor's engineer it is offered to."""
    vendor, owner = world.vendor(), world.person(name="Olga Owner")
    dataset = world.dataset(vendor, owner=owner)
    binding = PICTURES | {"prefix": f"labels/{new_id('x')}/"}
    labels = Slice(
        id=new_id("sl"), dataset_id=dataset.id, name="labels", kind="s3", binding=binding, actions=["read", "write"]
    )
    world.add(labels)
    world.change(Slice, labels.id, state="ready")
    return dataset, owner, world.person(vendor)


def _ask(client_of: ClientOf, who: Signed, dataset: Dataset, **more: object) -> str:
    body = {"dataset": dataset.slug, "role": "annotator", "purpose": "Label", "period": 7 * 86400} | more
    asked = client_of(who).post("/requests", json=body)
    assert asked.status_code == 201, asked.text
    return str(asked.json()["id"])


def test_approver_sees_write_access_of_the_role(
    owned: tuple[Dataset, Signed, Signed], client_of: ClientOf, browser_of: BrowserOf
) -> None:
    dataset, owner, guest = owned
    request = _ask(client_of, guest, dataset)
    facts = client_of(owner).get(f"/requests/{request}").json()["facts"]
    assert {item["name"]: item["role_may"] for item in facts["slices"]} == {
        "deidentified": ["read"],
        "labels": ["read", "write"],
    }
    page = browser_of(owner).get(f"/requests/{request}").text
    assert "<strong>labels</strong>, <strong>read and write</strong>" in page


def test_lifetime_beyond_the_rules_is_neither_offered_nor_accepted(
    owned: tuple[Dataset, Signed, Signed], client_of: ClientOf, browser_of: BrowserOf
) -> None:
    dataset, owner, guest = owned
    request = _ask(client_of, guest, dataset, slice="deidentified")
    assert client_of(owner).get(f"/requests/{request}").json()["facts"]["longest_lifetime"] == 3600
    page = browser_of(owner).get(f"/requests/{request}").text
    assert '<option value="1800"' in page and '<option value="7200"' not in page
    assert "As the rule allows: 1 h" in page
    wide = client_of(owner).post(f"/requests/{request}/approve", json={"max_lifetime": 7200})
    assert (wide.status_code, wide.json()["errors"][0]["pointer"]) == (422, "/max_lifetime")


def test_narrowed_approval_is_shown_to_both_sides(
    owned: tuple[Dataset, Signed, Signed], client_of: ClientOf, browser_of: BrowserOf
) -> None:
    dataset, owner, guest = owned
    request = _ask(client_of, guest, dataset)
    less = {"period": 86400, "slice": "deidentified", "max_lifetime": 600}
    assert client_of(owner).post(f"/requests/{request}/approve", json=less).status_code == 201
    for who in (owner, guest):
        granted = client_of(who).get(f"/requests/{request}").json()["granted"]
        assert (granted["period"], granted["slice"], granted["max_lifetime"]) == (86400, "deidentified", 600)
        assert granted["less"] == ["period", "slice", "lifetime"]
        page = browser_of(who).get(f"/requests/{request}").text
        assert "Approved for less than was requested." in page and "1 day instead of 7 days" in page
    before = client_of(owner).get(f"/requests/{request}").json()["facts"]["history"]["earlier_grants"]
    assert before == 0, "the one just made is no earlier one"
    again = _ask(client_of, guest, dataset)
    assert client_of(owner).get(f"/requests/{again}").json()["facts"]["history"]["earlier_grants"] == 1


def test_unchanged_approval_is_not_shown_as_narrowed(
    owned: tuple[Dataset, Signed, Signed], client_of: ClientOf
) -> None:
    dataset, owner, guest = owned
    request = _ask(client_of, guest, dataset, slice="deidentified")
    client_of(owner).post(f"/requests/{request}/approve", json={})
    assert client_of(guest).get(f"/requests/{request}").json()["granted"]["less"] == []


def test_a_suspended_owners_requests_reach_an_admin(
    owned: tuple[Dataset, Signed, Signed], world: World, client_of: ClientOf, browser_of: BrowserOf
) -> None:
    dataset, owner, guest = owned
    admin = world.person(roles=("admin",))
    request = _ask(client_of, guest, dataset, slice="deidentified")
    assert client_of(guest).get(f"/requests/{request}").json()["waits_for"] == "owner"
    world.change(Person, owner.id, status="suspended")
    queue = client_of(admin).get("/requests?view=queue&limit=200").json()["items"]
    assert request in {item["id"] for item in queue}
    assert client_of(guest).get(f"/requests/{request}").json()["waits_for"] == "admin"
    page = browser_of(admin).get(f"/requests/{request}").text
    assert "The dataset’s owner is suspended" in page and f"/datasets/{dataset.slug}/change" in page
    assert "Waiting for an admin" in browser_of(guest).get(f"/requests/{request}").text
    assert client_of(admin).post(f"/requests/{request}/approve", json={}).status_code == 201


@pytest.mark.parametrize("whose", ["the owner's", "a lone steward's", "to be a steward", "for a service of theirs"])
def test_request_that_no_one_can_decide_goes_to_admins(
    owned: tuple[Dataset, Signed, Signed], world: World, client_of: ClientOf, browser_of: BrowserOf, whose: str
) -> None:
    """Whoever would decide asked for it themselves, or may not decide about that role."""
    dataset, owner, _ = owned
    admin, steward = world.person(roles=("admin",)), world.person(name="Stefan Steward")
    if whose == "the owner's":
        request = _ask(client_of, owner, dataset, slice="deidentified")
    elif whose == "for a service of theirs":
        service = world.service()
        world.change(Service, service.id, created_by=owner.id)
        request = _ask(client_of, admin, dataset, role="pipeline", service=service.id)
    else:
        world.grant(dataset, steward, "steward")
        world.change(Person, owner.id, status="suspended")
        asker, role = (world.person(), "steward") if whose == "to be a steward" else (steward, "annotator")
        request = _ask(client_of, asker, dataset, role=role)
    looker = world.person(roles=("admin",))
    queue = client_of(looker).get("/requests?view=queue&limit=200").json()["items"]
    assert {item["id"]: item["waits_for"] for item in queue}.get(request) == "nobody"
    assert client_of(looker).get(f"/requests/{request}").json()["facts"]["somebody_may_decide"] is False
    page = browser_of(looker).get(f"/requests/{request}").text
    assert "No one can decide this now." in page and f"/datasets/{dataset.slug}/change" in page
    assert client_of(looker).post(f"/requests/{request}/approve", json={}).status_code == 403
    # Somebody else who may decide settles it.
    world.grant(dataset, world.person(), "steward")
    found = client_of(looker).get(f"/requests/{request}").json()
    if whose != "to be a steward":
        assert (found["waits_for"], found["facts"]["somebody_may_decide"]) == ("owner", True)
        assert request not in {r["id"] for r in client_of(looker).get("/requests?view=queue&limit=200").json()["items"]}


def test_why_mentions_a_pending_request(
    owned: tuple[Dataset, Signed, Signed], client_of: ClientOf, browser_of: BrowserOf
) -> None:
    dataset, owner, guest = owned
    request = _ask(client_of, guest, dataset, slice="deidentified")
    for who, more in ((guest, ""), (owner, f"?person={guest.id}")):
        found = client_of(who).get(f"/datasets/{dataset.slug}/why{more}").json()
        assert found["pending_request"] == request
        missing = next(reason for reason in found["reasons"] if reason["code"] == "no_grant")
        assert request in missing["advice"] and "request new" not in missing["advice"]
    other = client_of(owner).get(f"/datasets/{dataset.slug}/why").json()
    assert other["pending_request"] is None
    page = browser_of(owner).get(f"/why?dataset={dataset.slug}&person={guest.id}").text
    assert f'href="/requests/{request}"' in page
    kinds = page.partition('id="kind"')[2].partition("</select>")[0]
    assert kinds.partition("<option")[2].startswith(' value=""'), "no kind, unless one is chosen"


def test_vendor_without_a_sign_in_source_is_shown_as_such(world: World, browser_of: BrowserOf) -> None:
    vendor = world.vendor()
    browser = browser_of(world.person(roles=("admin",)))
    for path in ("/invite", f"/vendors/{vendor.id}"):
        page = browser.get(path).text
        assert vendor.name in page and f"/sources/new?vendor={vendor.id}" in page
    assert "no sign-in source" in browser.get(f"/vendors/{vendor.id}").text
    world.source(vendor)
    assert "no sign-in source" not in browser.get(f"/vendors/{vendor.id}").text
    lead = browser_of(world.person(world.vendor(), roles=("lead",))).get("/invite").text
    assert "Who the invitation is for" in lead and "no sign-in source" not in lead and "Vendors without" not in lead


def test_policy_page_explains_how_to_change_rules(world: World, browser_of: BrowserOf) -> None:
    page = browser_of(world.person(roles=("admin",))).get("/policy").text
    assert "How rules change" in page and "guestkey policy apply" in page


def test_a_dataset_is_changed_from_its_page(world: World, browser_of: BrowserOf, client_of: ClientOf) -> None:
    owner, admin, other = world.person(name="Olga"), world.person(roles=("admin",)), world.person(name="Otto")
    dataset = world.dataset(owner=owner, register=False)
    browser, path = browser_of(owner), f"/datasets/{dataset.slug}/change"
    assert path in browser.get(f"/datasets/{dataset.slug}").text
    form = {
        "title": "Better",
        "description": "",
        "labels": "classification:internal",
        "owner": owner.id,
        "kept_until": "",
    }
    sent = {"csrf_token": browser.csrf}
    changed = browser.post(path, data=form | sent)
    assert changed.headers["location"] == f"/datasets/{dataset.slug}", changed.text
    waiting = browser.post(path, data=form | sent | {"labels": "classification:confidential", "owner": other.id})
    proposal = waiting.headers["location"]
    assert proposal.startswith("/proposals/")
    assert "Waiting for a second person" in browser.get(f"/datasets/{dataset.slug}").text
    assert "Otto" in browser_of(admin).get(proposal).text
    assert client_of(admin).post(f"{proposal}/approve").status_code == 200
    shown = client_of(admin).get(f"/datasets/{dataset.slug}").json()
    assert (shown["title"], shown["labels"], shown["owner"]) == ("Better", ["classification:confidential"], other.id)
    assert browser.get(path).status_code == 403, "an owner no longer"


def test_a_grant_is_given_to_a_team_from_a_page(world: World, browser_of: BrowserOf, client_of: ClientOf) -> None:
    vendor, owner = world.vendor(), world.person()
    dataset, team = world.dataset(vendor, owner=owner), world.team(vendor, world.person(vendor))
    browser = browser_of(owner)
    page = browser.get(f"/grants/new?dataset={dataset.slug}").text
    assert team.name in page and "annotator" in page
    until = (world.now() + timedelta(days=9)).date().isoformat()
    form = {
        "csrf_token": browser.csrf,
        "dataset": dataset.slug,
        "holder": f"team:{team.id}",
        "role": "annotator",
        "slice": "deidentified",
        "until": until,
        "purpose": "Label",
    }
    given = browser.post("/grants/new", data=form)
    assert given.headers.get("location", "").startswith("/grants/gr_"), given.text
    assert browser.post("/grants/new", data=form).status_code == 409, "they hold it"
    outsider = {**{name: text for name, text in form.items() if name not in ("csrf_token", "holder")}, "team": team.id}
    for who, status in ((world.person(roles=("admin",)), 403), (world.person(vendor, roles=("lead",)), 403)):
        assert client_of(who).post("/grants", json=outsider | {"slice": None}).status_code == status


def test_wrong_person_who_joined_is_refused(world: World, browser_of: BrowserOf, client_of: ClientOf) -> None:
    vendor = world.vendor()
    admin, lead = world.person(roles=("admin",)), world.person(vendor, roles=("lead",))
    joined, second = (world.person(vendor, status="pending") for _ in range(2))
    browser = browser_of(admin)
    assert "Not the person who was invited?" in browser.get(f"/people/{joined.id}").text
    away = browser.post(f"/people/{joined.id}/refuse", data={"csrf_token": browser.csrf, "reason": "Somebody else"})
    assert away.headers["location"] == f"/people/{joined.id}"
    assert "Refused: this person is not who the invitation was for" in browser.get(f"/people/{joined.id}").text
    assert client_of(joined).get("/me").status_code == 401, "signed out"
    assert client_of(lead).post(f"/people/{second.id}/refuse", json={"reason": "x"}).json()["status"] == "refused"
    assert world.events(second.id) == ["person.refused"]
    assert client_of(admin).post(f"/people/{second.id}/confirm").status_code == 409
    assert client_of(admin).post(f"/people/{lead.id}/refuse", json={"reason": "x"}).status_code == 409
    stranger = world.person(world.vendor(), status="pending")
    assert client_of(lead).post(f"/people/{stranger.id}/refuse", json={"reason": "x"}).status_code == 404


def test_pages_show_pending_proposals_and_who_must_act(
    world: World, browser_of: BrowserOf, client_of: ClientOf
) -> None:
    vendor, admin = world.vendor(), world.person(roles=("admin",))
    dataset, team = world.dataset(vendor, register=False), world.team(vendor)
    world.grant(dataset, team)
    joiner, lead = world.person(vendor, name="Jo Joiner"), world.person(vendor, roles=("lead",))
    browser = browser_of(lead)
    sent = browser.post(f"/teams/{team.id}/members", data={"csrf_token": browser.csrf, "person": joiner.id})
    assert sent.headers["location"] == f"/teams/{team.id}"
    assert "Waiting for a second person" in browser.get(f"/teams/{team.id}").text
    items = client_of(admin).get("/proposals?state=pending&limit=200").json()["items"]
    waiting = next(item for item in items if item["subject"] == team.id)
    assert waiting["somebody_may_approve"] and waiting["may_approve"]
    assert "Add a person to a team" in browser_of(admin).get(f"/proposals/{waiting['id']}").text
    assert agree_waiting(world, dataset.slug) == 0
