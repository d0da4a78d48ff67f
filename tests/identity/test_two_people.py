"""What could mint an accomplice takes two admins: at the act both are, and neither is the one it is about."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from broker.models import ApiToken, Person, Proposal, RoleHeld, SignInSource
from tests.identity.conftest import Ada, BrowserOf, Door
from tests.support.browser import Browser
from tests.support.world import Signed, World


class Admins:
    """Two admins and their clients."""

    def __init__(self, world: World, door: Door) -> None:
        self.people = [world.person(roles=("admin",)) for _ in range(2)]
        self.first, self.second = (door.client(signed) for signed in self.people)

    def propose(self, path: str, body: Any = None) -> str:
        """The first proposes; the proposal's id."""
        answer = self.first.api("POST", path, body)
        assert answer.status_code == 202, answer.text
        assert answer.json()["state"] == "pending"
        return str(answer.json()["id"])

    def approve(self, proposal_id: str, by: Browser | None = None) -> Any:
        """The second approves, unless told otherwise."""
        return (by or self.second).api("POST", f"/proposals/{proposal_id}/approve")


@pytest.fixture
def admins(world: World, door: Door) -> Admins:
    """Two of them."""
    return Admins(world, door)


def _role(world: World, admins: Admins) -> tuple[Signed, str]:
    person = world.person()
    return person, admins.propose(f"/people/{person.id}/roles", {"role": "admin"})


def test_organisation_role_needs_two_admins(world: World, admins: Admins, door: Door) -> None:
    person, proposal = _role(world, admins)
    assert door.client(person).api("GET", "/me").json()["roles"] == []
    alone = admins.approve(proposal, admins.first)
    assert (alone.status_code, alone.json()["code"]) == (403, "self_decision")
    shown = admins.second.api("GET", f"/proposals/{proposal}").json()
    assert shown["may_approve"] and shown["act"] == "give_role" and shown["details"]["role"] == "admin"
    assert not admins.first.api("GET", f"/proposals/{proposal}").json()["may_approve"]
    assert admins.approve(proposal).json()["state"] == "approved"
    assert door.client(person).api("GET", "/me").json()["roles"] == ["admin"]
    assert admins.approve(proposal).status_code == 409
    assert world.events(proposal) == ["proposal.made", "proposal.approved"]
    assert "role.given" in world.events(person.id)


def test_only_admins_decide_proposals(world: World, admins: Admins, door: Door) -> None:
    _, proposal = _role(world, admins)
    outsiders = [world.person(), world.person(roles=("auditor",)), world.person(world.vendor(), roles=("lead",))]
    for outsider in outsiders:
        client = door.client(outsider)
        assert admins.approve(proposal, client).status_code == 403
        assert client.api("POST", f"/proposals/{proposal}/refuse", {"reason": "no"}).status_code == 403
    assert door.client(outsiders[1]).api("GET", "/proposals").status_code == 200
    for outsider in (outsiders[0], outsiders[2]):
        assert door.client(outsider).api("GET", f"/proposals/{proposal}").status_code == 403


def test_the_approver_needs_a_fresh_factor(world: World, admins: Admins) -> None:
    _, proposal = _role(world, admins)
    second = admins.people[1]
    world.change(ApiToken, second.caller.holder_id, factor_at=world.now() - timedelta(seconds=901))
    answer = admins.approve(proposal)
    assert (answer.status_code, answer.json()["max_age"]) == (401, 900)


@pytest.mark.parametrize("how", ["role taken", "role over", "suspended"])
def test_proposer_must_still_be_an_admin_at_approval(world: World, admins: Admins, how: str) -> None:
    person, proposal = _role(world, admins)
    first = admins.people[0]
    with world.database.transaction() as tx:
        held = update(RoleHeld).where(RoleHeld.person_id == first.id)
        if how == "role taken":
            tx.execute(held.values(ended_at=world.now()))
        elif how == "role over":
            tx.execute(held.values(until=world.now() - timedelta(seconds=1)))
        else:
            tx.execute(update(Person).where(Person.id == first.id).values(status="suspended"))
    assert admins.approve(proposal).status_code == 403
    assert "role.given" not in world.events(person.id)
    assert admins.second.api("POST", f"/proposals/{proposal}/refuse", {"reason": "gone"}).status_code == 200


def test_proposal_lapses(world: World, admins: Admins) -> None:
    _, proposal = _role(world, admins)
    world.change(Proposal, proposal, lapses_at=world.now() - timedelta(seconds=1))
    assert admins.second.api("GET", f"/proposals/{proposal}").json()["state"] == "lapsed"
    assert admins.approve(proposal).status_code == 409


def test_a_refusal_gives_its_reason(world: World, admins: Admins) -> None:
    person, proposal = _role(world, admins)
    shown = admins.second.api("POST", f"/proposals/{proposal}/refuse", {"reason": "Not needed."}).json()
    assert (shown["state"], shown["reason"]) == ("refused", "Not needed.")
    assert admins.approve(proposal).status_code == 409
    assert "role.given" not in world.events(person.id)


def test_concurrent_approvals_are_carried_out_once(world: World, admins: Admins, door: Door) -> None:
    person, proposal = _role(world, admins)
    clients = [admins.second, door.admin()]
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda client=client: statuses.append(admins.approve(proposal, client).status_code))
        for client in clients
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(statuses) == [200, 409]
    assert world.events(person.id).count("role.given") == 1


def test_proposals_about_oneself_are_refused(world: World, admins: Admins, door: Door) -> None:
    second = admins.people[1]
    assert admins.second.api("POST", f"/people/{second.id}/roles", {"role": "auditor"}).status_code == 409
    proposal = admins.propose(f"/people/{second.id}/roles", {"role": "auditor"})
    answer = admins.approve(proposal)
    assert (answer.status_code, answer.json()["code"]) == (409, "self_decision")
    assert admins.approve(proposal, door.admin()).status_code == 200


def test_factor_reset_needs_two_admins(
    ada: Ada, admins: Admins, world: World, door: Door, browser_of: BrowserOf
) -> None:
    token = ada.token()
    proposal = admins.propose(f"/people/{ada.id}/reset-factor")
    assert ada.prove() == 200
    assert admins.approve(proposal).status_code == 200
    assert ada.browser.api("GET", "/me").status_code == 401 and token.api("GET", "/me").status_code == 401
    browser = browser_of()
    assert door.sign_in(browser, ada.source) == 303
    assert not browser.api("GET", "/me").json()["factor_enrolled"]
    assert browser.api("POST", "/factors/totp").status_code == 403
    link = admins.first.api("POST", f"/people/{ada.id}/enrolment-invitations").json()["link"]
    assert browser.return_to(door.provider.approve(browser.leave(f"{link}/sign-in"))).status_code == 303
    assert browser.api("POST", "/factors/totp").status_code == 200
    assert "factor.reset" in world.events(ada.id)


def test_new_source_needs_two_admins_and_hides_its_secret(
    world: World, admins: Admins, door: Door, browser: Browser
) -> None:
    vendor = world.vendor()
    body = {
        "name": f"Acme {vendor.id}",
        "issuer": door.provider.issuer,
        "client_id": door.provider.client_id,
        "client_secret": door.provider.client_secret,
        "required_claims": {"hd": "acme.example"},
        "vendor": vendor.id,
    }
    proposal = admins.propose("/sources", body)
    shown = admins.second.api("GET", f"/proposals/{proposal}")
    assert shown.json()["details"]["has_client_secret"] and door.provider.client_secret not in shown.text
    assert "wrapped_client_secret" not in shown.text
    listed = admins.second.api("GET", "/sources").json()["items"]
    assert all(item["name"] != body["name"] for item in listed)
    assert admins.approve(proposal).status_code == 200
    made = next(
        item for item in admins.second.api("GET", "/sources").json()["items"] if item["id"] == shown.json()["subject"]
    )
    first = admins.second.api("GET", "/sources?limit=1").json()
    assert first["items"] == [made] and first["next_cursor"] == made["id"]
    rest = admins.second.api("GET", f"/sources?limit=1&cursor={made['id']}").json()
    assert [item["id"] < made["id"] for item in rest["items"]] == [True]
    with world.database.transaction() as tx:
        source = tx.get_one(SignInSource, made["id"])
    link = door.invite(source)
    url = browser.leave(f"{link}/sign-in")
    assert browser.return_to(door.provider.approve(url, hd="acme.example")).status_code == 303


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "http://acme.example"},
        {"issuer": "https://acme.example/?x=1"},
        {"issuer": "https://user@acme.example"},
        {"issuer": "https://[acme"},
        {"issuer": "ftp://acme.example"},
        {"required_claims": {"hd": 1.5}},
        {"required_claims": {"h\x00d": "x"}},
        {"required_claims": {"hd": "x\x00"}},
        {"required_claims": {"level": 2**60}},
        {"client_id": "a b"},
        {"name": "Acme\u202e"},
        {"vendor": "vn_01k9zq6c5w3m8v4x7r2t1y0b9d"},
        {"surprise": True},
    ],
)
def test_misleading_source_is_refused_when_proposed(admins: Admins, change: dict[str, Any]) -> None:
    body: dict[str, Any] = {"name": "Acme", "issuer": "https://login.acme.example", "client_id": "guestkey"}
    assert admins.first.api("POST", "/sources", body | change).status_code in (404, 422)


def test_provider_mfa_counts_only_if_two_admins_trust_it(admins: Admins, door: Door, browser_of: BrowserOf) -> None:
    source = door.bind()
    door.join(browser_of(), source)
    # Said, but nobody trusts it.
    before = browser_of()
    assert door.sign_in(before, source, acr="phr") == 303
    assert before.api("GET", "/me").json()["factor_at"] is None
    assert admins.approve(admins.propose(f"/sources/{source.id}/trust-mfa", {"values": ["phr"]})).status_code == 200
    for acr, counts in (("phr", True), ("pwd", False), (None, False), (["phr"], False)):
        browser = browser_of()
        url = browser.leave(f"/sign-in/{source.id}")
        assert "acr_values=phr" in url
        assert browser.return_to(door.provider.approve(url, acr=acr)).status_code == 303
        me = browser.api("GET", "/me").json()
        assert (me["factor_method"] == "provider") == counts and (me["factor_at"] is not None) == counts
    by_amr = browser_of()
    assert door.sign_in(by_amr, source, amr=["pwd", "phr"]) == 303
    assert by_amr.api("GET", "/me").json()["factor_at"] is not None


def test_organisation_mfa_permits_first_enrolment_but_vendor_mfa_does_not(
    door: Door, browser_of: BrowserOf, world: World
) -> None:
    for vendor, status in ((None, 200), (world.vendor(), 403)):
        source = door.bind(
            vendor, trusts_mfa=True, mfa_values=["phr"], required_claims={"of": vendor.id if vendor else "us"}
        )
        claims = {"of": vendor.id if vendor else "us", "acr": "phr"}
        subject = f"user-{source.id}"
        link, browser = door.invite(source), browser_of()
        url = browser.leave(f"{link}/sign-in")
        assert browser.return_to(door.provider.approve(url, subject, **claims)).status_code == 303
        person_id = browser.api("GET", "/me").json()["id"]
        assert door.admin().api("POST", f"/people/{person_id}/confirm").status_code == 200
        later = browser_of()
        assert door.sign_in(later, source, subject, **claims) == 303
        assert later.api("POST", "/factors/totp").status_code == status


def test_lead_can_invite_only_to_their_own_vendor(world: World, door: Door) -> None:
    own, foreign = door.bind(world.vendor(), required_claims={"hd": "a"}), door.bind(world.vendor())
    with world.database.transaction() as tx:
        vendor = tx.get_one(SignInSource, own.id).vendor_id
    from broker.models import Vendor

    with world.database.transaction() as tx:
        record = tx.get_one(Vendor, vendor)
    lead = door.client(world.person(record, roles=("lead",)))
    assert lead.api("POST", "/invitations", {"source": own.id, "label": "Bo"}).status_code == 201
    refusals = [
        lead.api("POST", "/invitations", {"source": source_id, "label": "Bo"})
        for source_id in (foreign.id, "ss_01k9zq6c5w3m8v4x7r2t1y0b9d", door.bind().id)
    ]
    assert {answer.status_code for answer in refusals} == {403}
    assert len({answer.json()["detail"] for answer in refusals}) == 1
    items = lead.api("GET", "/invitations").json()["items"]
    assert items and {item["vendor"] for item in items} == {vendor}
    assert door.client(world.person(record)).api("GET", "/invitations").status_code == 403
