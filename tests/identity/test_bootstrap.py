"""The first two admins, once; and breaking the glass, which everybody sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from broker.base.errors import Conflict, Invalid, NotFound
from broker.models import Installation, RoleHeld, SignInSource
from broker.operator.bootstrap import bootstrap, recover
from broker.registry.source_proposals import NewSource
from tests.identity.conftest import BrowserOf, Door
from tests.support.browser import Browser
from tests.support.world import World


@pytest.fixture
def untouched(world: World) -> Iterator[None]:
    """The installation as before `guestkey bootstrap`, and afterwards as it was."""
    with world.database.transaction() as tx:
        before = tx.execute(select(Installation.bootstrapped_at)).scalar_one()
        tx.execute(update(Installation).values(bootstrapped_at=None))
    yield
    with world.database.transaction() as tx:
        tx.execute(update(Installation).values(bootstrapped_at=before))


def _first(door: Door) -> NewSource:
    provider = door.provider
    return NewSource(f"House {provider.issuer}", provider.issuer, provider.client_id, provider.client_secret, {})


def _open(door: Door, browser: Browser, link: str, subject: str) -> int:
    return browser.return_to(door.provider.approve(browser.leave(f"{link}/sign-in"), subject)).status_code


@pytest.mark.usefixtures("untouched")
def test_bootstrap_makes_two_admins_once(door: Door, browser_of: BrowserOf) -> None:
    links = bootstrap(door.house.parts, _first(door)).links
    assert len(set(links)) == 2 and all(link.startswith(f"{door.house.url}/join/") for link in links)
    for number, link in enumerate(links):
        browser = browser_of()
        assert _open(door, browser, link, f"root-{number}") == 303
        me = browser.api("GET", "/me").json()
        assert (me["status"], me["roles"], me["vendor"]) == ("active", ["admin"], None)
        assert browser.api("POST", "/invitations", {"source": "x", "label": "x"}).status_code == 401
        assert browser.api("POST", "/factors/totp").status_code == 200
        assert _open(door, browser_of(), link, f"second-{number}") == 409
    with pytest.raises(Conflict):
        bootstrap(door.house.parts, _first(door))


@pytest.mark.usefixtures("untouched")
def test_a_failed_bootstrap_can_be_repeated(door: Door) -> None:
    first = _first(door)
    with pytest.raises(Invalid):
        bootstrap(door.house.parts, NewSource(first.name, "http://evil.example", "x", None, {}))
    assert len(bootstrap(door.house.parts, first).links) == 2


@pytest.mark.usefixtures("untouched")
def test_first_source_is_tested_before_it_is_stored(door: Door, world: World) -> None:
    wrong = replace(_first(door), client_secret="wrong")
    with pytest.raises(Invalid, match="invalid_client") as refused:
        bootstrap(door.house.parts, wrong)
    assert "--unchecked" in refused.value.advice
    door.provider.answers["/keys"] = lambda: (500, {}, b"")
    with pytest.raises(Invalid, match="500"):
        bootstrap(door.house.parts, _first(door))
    with world.database.transaction() as tx:
        assert tx.execute(select(Installation.bootstrapped_at)).scalar_one() is None
        assert not tx.scalars(select(SignInSource).where(SignInSource.issuer == door.provider.issuer)).all()
    asked = len(door.provider.asked)
    begun = bootstrap(door.house.parts, wrong, unchecked=True)
    assert (len(begun.links), begun.found, len(door.provider.asked)) == (2, [], asked)


@pytest.mark.usefixtures("untouched")
def test_bootstrap_reports_provider_errors(door: Door) -> None:
    found = bootstrap(door.house.parts, _first(door)).found
    assert [(one.what, one.ok) for one in found] == [
        ("discovery", True),
        ("keys", True),
        ("client", True),
        ("userinfo", True),
    ]
    asked = len(door.provider.asked)
    with pytest.raises(Conflict):
        bootstrap(door.house.parts, _first(door))
    assert len(door.provider.asked) == asked, "it is refused before anybody is asked"


def test_recover_makes_an_admin_for_an_hour_and_notifies_all(door: Door, browser_of: BrowserOf, world: World) -> None:
    source = door.bind()
    link = recover(door.house.parts, source.id)
    browser = browser_of()
    assert _open(door, browser, link, "rescuer") == 303
    me = browser.api("GET", "/me").json()
    assert (me["status"], me["roles"]) == ("active", ["admin"])
    assert browser.api("POST", "/factors/totp").status_code == 200
    told = [notice["kind"] for notice in door.admin().api("GET", "/me").json()["notices"]]
    assert {"recovery.begun", "recovery.used"} <= set(told)
    assert door.client(world.person()).api("GET", "/me").json()["notices"] == []
    with world.database.transaction() as tx:
        held = tx.scalars(select(RoleHeld).where(RoleHeld.person_id == me["id"])).one()
        assert held.until is not None and held.until <= world.now() + timedelta(hours=1)
        held.until = world.now() - timedelta(seconds=1)
    assert browser.api("GET", "/me").json()["roles"] == []
    assert _open(door, browser_of(), link, "another") == 409


def test_admin_with_a_lost_factor_recovers(door: Door, browser_of: BrowserOf, world: World) -> None:
    source = door.bind()
    first = browser_of()
    person_id = door.join(first, source, "admin")
    assert first.api("POST", "/factors/totp").status_code == 200
    link, browser = recover(door.house.parts, source.id), browser_of()
    assert _open(door, browser, link, "admin") == 303
    me = browser.api("GET", "/me").json()
    assert (me["id"], me["roles"]) == (person_id, ["admin"])
    assert browser.api("POST", "/factors/totp").status_code == 200
    assert _open(door, browser_of(), link, "admin") == 303
    with world.database.transaction() as tx:
        assert len(list(tx.scalars(select(RoleHeld).where(RoleHeld.person_id == person_id)))) == 1


def test_recover_refuses_a_vendors_source(door: Door, world: World) -> None:
    source = door.bind(world.vendor())
    for source_id in (source.id, "ss_01k9zq6c5w3m8v4x7r2t1y0b9d"):
        with pytest.raises(NotFound):
            recover(door.house.parts, source_id)
    with world.database.transaction() as tx:
        assert tx.get_one(SignInSource, source.id).status == "active"
