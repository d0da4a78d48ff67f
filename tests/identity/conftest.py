"""A house people sign in to: a real replica, a provider of our own, and browsers."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta

import pyotp
import pytest
from sqlalchemy import update

from broker.base.database import clock
from broker.base.ids import new_id
from broker.base.settings import Settings
from broker.identity.invitations import invite_to_enrol
from broker.identity.secret_tokens import digest, fresh_token
from broker.identity.sources import new_source_id, wrap_client_secret
from broker.models import ApiToken, Person, Session, SignInSource, TotpFactor, Vendor
from broker.runtime.parts import Parts
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
        return self.client_with(signed.headers)

    def client_with(self, headers: Mapping[str, str]) -> Browser:
        """A client of the API with some headers."""
        self._clients.append(Browser(self.house.url, headers))
        return self._clients[-1]

    def invite(self, source: SignInSource, admin: Browser | None = None) -> str:
        """An invitation to join through a source: its link."""
        answer = (admin or self.admin()).api("POST", "/invitations", {"source": source.id, "label": "Ada Guest"})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["link"])

    def known(self, source: SignInSource, subject: str = "ada") -> str:
        """Somebody who joined long ago, straight in the records: the person's id."""
        made: Person = self.world.add(
            Person(
                id=new_id("pe"),
                issuer=source.issuer,
                subject=subject,
                source_id=source.id,
                vendor_id=source.vendor_id,
                name="Ada Guest",
                status="active",
            )
        )
        return made.id

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


class Ada:
    """A person who joined and was confirmed, at her browser, with an authenticator app."""

    def __init__(self, door: Door, browser: Browser, source: SignInSource, subject: str = "ada") -> None:
        self.door, self.browser, self.source, self.subject = door, browser, source, subject
        self.id = door.known(source, subject)
        with door.world.database.transaction() as tx:
            _, token = invite_to_enrol(tx, "system", self.id, 300, clock(tx))
        back = browser.return_to(door.provider.approve(browser.leave(f"/enrol/{token}/sign-in"), subject))
        assert back.status_code == 303, back.text
        self.secret, self.recovery_codes = "", [""]

    def enrol(self, proof: str | None = None) -> None:
        """Enrol the app, with a code of the one before if there is one, and forget that its first code was used."""
        begun = self.browser.api("POST", "/factors/totp", {"code": proof} if proof else None)
        assert begun.status_code == 200, begun.text
        self.secret = str(begun.json()["secret"])
        answer = self.browser.api("POST", "/factors/totp/confirm", {"code": self.code()})
        assert answer.status_code == 200, answer.text
        self.recovery_codes = answer.json()["recovery_codes"]
        self.forget()

    def code(self, steps: int = 0) -> str:
        """The code of now, or of some steps away."""
        return pyotp.TOTP(self.secret).at(int(time.time()) + 30 * steps)

    def wrong_code(self) -> str:
        """Six digits that are right at no step near now."""
        right = {self.code(steps) for steps in range(-2, 3)}
        return next(code for code in ("000000", "111111", "222222", "333333", "444444", "555555") if code not in right)

    def prove(self, code: str | None = None, browser: Browser | None = None) -> int:
        """Prove the factor; the status."""
        answer = (browser or self.browser).api("POST", "/confirm/totp", {"code": code or self.code()})
        return answer.status_code

    def forget(self) -> None:
        """Undo, behind the broker's back, that codes were used or refused."""
        with self.door.world.database.transaction() as tx:
            tx.execute(update(TotpFactor).where(TotpFactor.person_id == self.id).values(last_step=0))
        self.forget_failures()

    def forget_failures(self) -> None:
        """The same for refused codes only."""
        with self.door.world.database.transaction() as tx:
            tx.execute(update(Person).where(Person.id == self.id).values(failed_codes=0, locked_until=None))

    def age_factor(self, seconds: int = 7200) -> None:
        """Let the factor of every session of hers be older."""
        with self.door.world.database.transaction() as tx:
            at = clock(tx) - timedelta(seconds=seconds)
            tx.execute(update(Session).where(Session.person_id == self.id).values(factor_at=at))

    def token(self) -> Browser:
        """A command line of hers: an API token of its own, without a factor."""
        token = fresh_token("gka_")
        now = self.door.world.now()
        self.door.world.add(
            ApiToken(
                id=new_id("at"),
                token_hash=digest(token),
                person_id=self.id,
                source_id=self.source.id,
                client_id="guestkey-cli",
                last_seen_at=now,
                expires_at=now + timedelta(hours=1),
            )
        )
        return self.door.client_with({"Authorization": f"Bearer {token}"})


@pytest.fixture
def ada(door: Door, browser: Browser, world: World) -> Ada:
    """A vendor's engineer with a TOTP factor."""
    made = Ada(door, browser, door.bind(world.vendor()))
    made.enrol()
    return made


@pytest.fixture
def door(world: World, house: Replica, provider: Provider) -> Iterator[Door]:
    """A way in through the provider."""
    made = Door(world, house, provider)
    yield made
    made.close()
