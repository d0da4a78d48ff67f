"""A house people sign in to: a real replica, a provider of our own, and browsers."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest

from broker.identity.sources import new_source_id, wrap_client_secret
from broker.models import SignInSource, Vendor
from broker.parts import Parts
from broker.settings import Settings
from tests.support.browser import Browser
from tests.support.provider import Provider
from tests.support.world import Signed, World
from tests.web.conftest import Replica

BrowserOf = Callable[[], Browser]


@pytest.fixture(scope="session")
def house(settings: Settings, parts: Parts) -> Iterator[Replica]:
    """A replica whose parts know its own address, as in operation."""
    running = Replica(settings, parts)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def provider() -> Iterator[Provider]:
    """An honest provider, on an address of its own."""
    running = Provider()
    running.start()
    yield running
    running.stop()


@pytest.fixture
def browser_of(house: Replica) -> Iterator[BrowserOf]:
    """Makes fresh browsers."""
    made: list[Browser] = []

    def make() -> Browser:
        made.append(Browser(house.url))
        return made[-1]

    yield make
    for browser in made:
        browser.close()


@pytest.fixture
def browser(browser_of: BrowserOf) -> Browser:
    """One browser."""
    return browser_of()


class Door:
    """A provider bound as a sign-in source of one party, and ways through it."""

    def __init__(self, world: World, house: Replica, provider: Provider) -> None:
        self.world, self.house, self.provider = world, house, provider
        self._clients: list[Browser] = []

    def close(self) -> None:
        """Close what was opened."""
        for client in self._clients:
            client.close()

    def bind(self, vendor: Vendor | None = None, **changes: object) -> SignInSource:
        """Bind the provider to a party."""
        source_id = new_source_id()
        fields: dict[str, object] = {
            "id": source_id,
            "name": f"Source {secrets.token_hex(4)}",
            "issuer": self.provider.issuer,
            "client_id": self.provider.client_id,
            "wrapped_client_secret": wrap_client_secret(self.world.parts.vault, source_id, self.provider.client_secret),
            "required_claims": {},
            "vendor_id": vendor.id if vendor else None,
            "mfa_values": [],
        }
        made: SignInSource = self.world.add(SignInSource(**(fields | changes)))
        return made

    def admin(self) -> Browser:
        """A client of the API as an admin with a fresh factor."""
        return self.client(self.world.person(roles=("admin",)))

    def client(self, signed: Signed) -> Browser:
        """A client of the API with an API token."""
        self._clients.append(Browser(self.house.url, signed.headers))
        return self._clients[-1]

    def invite(self, source: SignInSource, admin: Browser | None = None) -> str:
        """An invitation to join through a source: its link."""
        answer = (admin or self.admin()).api("POST", "/invitations", {"source": source.id, "label": "Ada Guest"})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["link"])

    def join(self, browser: Browser, source: SignInSource, subject: str = "ada", *, confirm: bool = True) -> str:
        """Join through an invitation and, unless told otherwise, be confirmed. Returns the person's id."""
        link = self.invite(source)
        url = browser.leave(f"{link}/sign-in")
        answer = browser.return_to(self.provider.approve(url, subject))
        assert answer.status_code == 303, answer.text
        person_id = str(browser.api("GET", "/me").json()["id"])
        if confirm:
            assert self.admin().api("POST", f"/people/{person_id}/confirm").status_code == 200
            again = browser.return_to(self.provider.approve(browser.leave(f"{link}/sign-in"), subject))
            assert again.status_code == 303, again.text
        return person_id

    def sign_in(self, browser: Browser, source: SignInSource, subject: str = "ada", **claims: object) -> int:
        """Sign in; returns the status of coming back (303: in)."""
        callback = self.provider.approve(browser.leave(f"/sign-in/{source.id}"), subject, **claims)
        return browser.return_to(callback).status_code


@pytest.fixture
def door(world: World, house: Replica, provider: Provider) -> Iterator[Door]:
    """A way in through the provider."""
    made = Door(world, house, provider)
    yield made
    made.close()
