"""What an admin keeps in order: queue, two-person acts, people, teams, services and sign-in sources."""

from __future__ import annotations

from typing import Any

import httpx
from playwright.sync_api import expect

from broker.registry import proposals
from broker.runtime import rulebook
from tests.portal.conftest import GuestOf
from tests.portal.house import House
from tests.support.provider import Provider


def test_admin_manages_teams_roles_and_services(house: House, guest_of: GuestOf) -> None:
    vendor, source = house.vendor()
    engineer = house.someone("Ada Engineer", source)
    ines = guest_of(house.someone("Ines Admin", None, "admin"))
    ines.open(f"/vendors/{vendor.id}")
    ines.follow("Teams")
    ines.look("teams-empty")
    ines.follow("Create a team")
    ines.fill("Name", "night shift")
    ines.look("team-new")
    ines.press("Create team")
    ines.choose("Person", engineer.id)
    ines.press("Add member")
    ines.says("Ada Engineer")
    ines.look("team")
    ines.press("Remove Ada Engineer")
    ines.says("No members yet.")
    ines.open("/teams")
    ines.look("teams")

    ines.open(f"/people?vendor={vendor.id}&status=suspended")
    ines.says("No person matches.")
    ines.look("people-empty")
    ines.open(f"/people?vendor={vendor.id}&status=active")
    command = f"guestkey person list --status active --vendor {vendor.id}"
    expect(ines.page.locator("#command")).to_have_text(command)
    assert ines.page.locator("tbody tr").count() == 1
    ines.look("people-filtered")
    ines.follow("Ada Engineer")
    ines.page.get_by_text("Change roles").click()
    ines.choose("Assign a role", "lead")
    ines.press("Assign role")
    ines.page.get_by_text("Change roles").click()
    ines.press("Remove role lead")
    ines.says("none")

    ines.open("/services")
    ines.fill("Name", "nightly export")
    ines.choose("Belongs to", vendor.id)
    ines.press("Create service")
    ines.says("Shown only once")
    ines.look("service-secret")
    first = ines.page.locator("#secret").inner_text()
    service_id = ines.page.locator("dd .id").inner_text()
    assert _token(house, service_id, first) == 200
    ines.follow("I have stored the secret")
    ines.page.get_by_text("Change nightly export").click()
    ines.look("services")
    ines.press("Replace secret of nightly export")
    second = ines.page.locator("#secret").inner_text()
    assert (_token(house, service_id, first), _token(house, service_id, second)) == (401, 200)
    ines.follow("I have stored the secret")
    ines.page.get_by_text("Change nightly export").click()
    ines.fill("Reason, nightly export", "not needed")
    ines.press("Suspend nightly export")
    ines.says("suspended")
    assert _token(house, service_id, second) == 401


def _token(house: House, service_id: str, secret: str) -> int:
    asked = {"grant_type": "client_credentials"}
    return httpx.post(f"{house.url}/oauth/token", data=asked, auth=(service_id, secret)).status_code


def test_sources_are_proposed_tested_and_closed(house: House, guest_of: GuestOf, provider: Provider) -> None:
    vendor, source = house.vendor("Closing Co")
    ines = guest_of(house.someone("Ines Admin", None, "admin"))
    ines.open("/sources")
    ines.says(source.name)
    ines.look("sources")
    ines.follow("Propose a sign-in source")
    ines.look("source-new")
    ines.fill("Name", "Acme login")
    ines.choose("Whose people sign in there", vendor.id)
    ines.fill("Issuer", "http://not-secure.example")
    ines.fill("Client id", "guestkey")
    ines.fill("Claims required", "hd acme.example")
    ines.press("Propose sign-in source")
    ines.says("Enter one claim per line")
    ines.look("source-wrong")
    ines.fill("Claims required", "hd=acme.example")
    ines.press("Propose sign-in source")
    ines.says("There is a problem")
    ines.fill("Issuer", f"{provider.issuer}/")
    ines.fill("Client secret", provider.client_secret)
    ines.press("Propose sign-in source")
    ines.says("mind the last /")
    ines.fill("Issuer", provider.issuer)
    ines.fill("Client secret", provider.client_secret)
    ines.press("Propose sign-in source")
    ines.says("Another admin must approve this")
    ines.says("hd = acme.example")
    assert provider.client_secret not in ines.page.content()
    ines.open("/sources")
    ines.press(f"Test {source.name}")
    ines.says("Tested just now: people can sign in.")
    ines.look("source-tried")
    ines.page.get_by_text(f"Change {source.name}").click()
    ines.press(f"Close {source.name}")
    ines.page.get_by_role("heading", name=source.name).wait_for()
    assert ines.page.get_by_role("button", name=f"Close {source.name}").count() == 0


def test_proposals_have_their_own_queue(house: House, guest_of: GuestOf) -> None:
    ines, omar = house.someone("Ines Admin", None, "admin"), house.someone("Omar Admin", None, "admin")
    whom = house.someone("Una Auditor")
    first = guest_of(ines)
    first.open(f"/people/{whom.id}")
    first.page.get_by_text("Change roles").click()
    first.choose("Assign a role", "auditor")
    first.press("Assign role")
    first.says("no: you proposed it")
    first.look("proposals-open")
    second = guest_of(omar)
    second.open("/proposals")
    second.says("yes")
    second.follow("Assign a role: Una Auditor")
    second.says("an auditor can see everything")
    second.press("Approve proposal")
    second.open("/proposals?show=decided")
    second.says("Omar Admin")
    second.look("proposals-decided")


def test_rules_are_shown_as_a_difference(house: House, guest_of: GuestOf) -> None:
    ines, omar = house.world.person(roles=("admin",)), house.someone("Omar Admin", None, "admin")
    with house.world.database.transaction() as tx:
        current = rulebook.in_force(tx)
        rules = house.world.parts.rulebook.at(tx, current.number)
        assert rules is not None
        text = tx.get_one(type(current), current.number)
        added = (
            text.rules.rstrip("\n")
            + "\nrole:tester, label:classification:internal, deidentified, read, ttl<=10m, allow\n"
        )
        details = {"rules": added, "networks": text.networks}
        made = proposals.propose(tx, "apply_policy", "policy", details, ines.caller, house.world.now())
    guest = guest_of(omar)
    guest.open("/installation")
    guest.look("installation")
    guest.open(f"/proposals/{made.id}")
    guest.says("+ role:tester")
    guest.look("proposal-rules")
    guest.fill("Reason", "Not needed")
    guest.press("Refuse proposal")
    guest.says("refused")
    by: dict[str, Any] = {"proposed_by": ines.id, "approved_by": omar.id, "now": house.world.now()}
    with house.world.database.transaction() as tx:
        number = rulebook.put_in_force(tx, rules=added, networks=text.networks, **by)
        rulebook.put_in_force(tx, rules=text.rules, networks=text.networks, **by)
    guest.open(f"/policy/{number}?against={current.number}")
    guest.says("+ role:tester")
    guest.says("Omar Admin")
    guest.look("revision-difference")


def test_queue_shows_who_decides(house: House, guest_of: GuestOf) -> None:
    vendor, source = house.vendor()
    olga, engineer = house.someone("Olga Owner"), house.someone("Ada Engineer", source)
    dataset = house.dataset(olga, vendor)
    house.request(dataset, engineer, "Count the visits")
    ines = guest_of(house.someone("Ines Admin", None, "admin"))
    ines.open("/queue?show=others")
    ines.says("Count the visits")
    ines.says("owner or a steward decides")
    ines.says(vendor.name)
    ines.look("queue-others")
    owner = guest_of(olga)
    owner.open("/queue")
    owner.follow("Review Ada Engineer")
    owner.fill("Reason", "Not this month")
    owner.press("Refuse request")
    owner.open("/queue?show=decided")
    owner.says("refused")
    owner.look("queue-decided")
    owner.open("/queue")
    owner.says("No requests to decide.")
    owner.look("queue-empty")


def test_guests_cannot_manage_the_registry(house: House, guest_of: GuestOf) -> None:
    _, source = house.vendor()
    ada = guest_of(house.someone("Ada Engineer", source))
    for path in ("/teams", "/teams/new", "/services", "/sources", "/sources/new", "/proposals"):
        ada.open(path)
        assert ada.page.locator("h1").inner_text() != "", path
        assert ada.headers["content-type"].startswith("text/html")
        assert ada._document is not None and ada._document.status == 403, path


def test_search_finds_only_what_the_person_can_see(house: House, guest_of: GuestOf) -> None:
    vendor, source = house.vendor("Searched Co")
    olga, engineer = house.someone("Olga Owner"), house.someone("Zuzana Engineer", source)
    dataset = house.dataset(olga, vendor)
    grant = house.grant(dataset, engineer)
    ines = guest_of(house.someone("Ines Admin", None, "admin"))
    ines.open("/")
    ines.fill("Search names and ids", "zuz")
    ines.press("Search")
    ines.says("Zuzana Engineer")
    ines.look("search")
    for asked, path in ((grant.id, f"/grants/{grant.id}"), (f"person:{engineer.id}", f"/people/{engineer.id}")):
        ines.fill("Search names and ids", asked)
        ines.press("Search")
        assert ines.page.url == f"{house.url}{path}"
    ines.fill("Search names and ids", "100%_")
    ines.press("Search")
    ines.says("No results.")
    ines.look("search-empty")
    stranger = guest_of(house.someone("Stranger", house.vendor("Other Co")[1]))
    for asked in ("zuz", "searched", "clinical", grant.id, engineer.id, dataset.id, vendor.id):
        stranger.open(f"/search?q={asked}")
        stranger.says("No results.")
    ada = guest_of(engineer)
    ada.open("/search?q=Clinical")
    ada.says(dataset.slug)
    ines.page.get_by_text("More", exact=True).click()
    ines.look("more-open")
    # Looking at it on a phone folded the menu; it unfolds in a moment.
    expect(ines.page.get_by_text("More", exact=True)).to_be_visible()
    ines.page.keyboard.press("Escape")
    assert ines.page.evaluate("document.activeElement.textContent") == "More"
    expect(ines.page.get_by_role("link", name="Installation")).to_be_hidden()
