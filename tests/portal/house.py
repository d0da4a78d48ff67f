"""Who lives in the portal's tests: accounts at OpenBao's identity provider, and the records that know them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta

import pyotp
from sqlalchemy import select, update

from broker.base.ids import new_id
from broker.embedded.openbao import Operator
from broker.identity import sessions, totp
from broker.identity.caller import by_session
from broker.identity.sources import new_source_id, wrap_client_secret
from broker.models import Dataset, Grant, Person, Request, RoleHeld, Session, SignInSource, Vendor
from tests.support.world import World
from tests.web.conftest import Replica


@dataclass(frozen=True)
class Someone:
    """A person with an account; `id` is empty until they have joined."""

    username: str
    password: str
    name: str
    source: SignInSource
    id: str = ""


class House:
    """A running portal and ways to put people and data into it."""

    def __init__(self, world: World, replica: Replica) -> None:
        self.world, self.replica, self.url = world, replica, replica.url
        self._operator = Operator(world.stack.bao)
        self._client = self._operator.make_provider([f"{self.url}/sign-in/callback"])
        # A run may make a second house on the same servers, and who matches the sources of both is let in by neither.
        self.own = self._bind(f"organisation-{secrets.token_hex(4)}", f"Organisation {secrets.token_hex(2)}", None)

    def vendor(self, name: str = "Acme Labels") -> tuple[Vendor, SignInSource]:
        """An active vendor and where its people sign in."""
        vendor: Vendor = self.world.add(Vendor(id=new_id("vn"), name=f"{name} {secrets.token_hex(2)}", status="active"))
        return vendor, self._bind(vendor.id, vendor.name, vendor.id)

    def stranger(self, name: str, source: SignInSource) -> Someone:
        """Somebody with an account at the identity provider whom the portal does not know."""
        return self._account(name, source)[0]

    def someone(self, name: str, source: SignInSource | None = None, *roles: str) -> Someone:
        """Somebody who has joined and been confirmed."""
        source = source or self.own
        account, subject = self._account(name, source)
        person = self.world.add(
            Person(
                id=new_id("pe"),
                issuer=source.issuer,
                subject=subject,
                source_id=source.id,
                vendor_id=source.vendor_id,
                name=name,
                email=f"{account.username}@example.org",
                status="active",
            )
        )
        for role in roles:
            self.world.add(RoleHeld(id=new_id("rh"), person_id=person.id, role=role))
        return Someone(account.username, account.password, name, source, person.id)

    def dataset(self, owner: Someone, *offered_to: Vendor) -> Dataset:
        """A dataset of the owner's with two slices, both real."""
        made = self.world.dataset(*offered_to)
        about = {"title": "Clinical trials", "description": "Visits of patients, one row each.", "owner_id": owner.id}
        self.world.change(Dataset, made.id, **about)
        return made

    def grant(self, dataset: Dataset, someone: Someone, role: str = "annotator") -> Grant:
        """A grant that began an hour ago and ends in a day."""
        now = self.world.now()
        made: Grant = self.world.add(
            Grant(
                id=new_id("gr"),
                dataset_id=dataset.id,
                role=role,
                person_id=someone.id,
                purpose="labelling",
                starts_at=now - timedelta(hours=1),
                ends_at=now + timedelta(days=1),
            )
        )
        return made

    def request(self, dataset: Dataset, someone: Someone, purpose: str = "Label the March visits") -> Request:
        """A request that waits for its decision."""
        now = self.world.now()
        made: Request = self.world.add(
            Request(
                id=new_id("rq"),
                person_id=someone.id,
                dataset_id=dataset.id,
                role="annotator",
                purpose=purpose,
                period=7 * 86400,
                lapses_at=now + timedelta(days=14),
            )
        )
        return made

    def app(self, someone: Someone) -> str:
        """Give the person an authenticator app; returns its key."""
        parts, cookie = self.world.parts, self.session(someone, None)
        with parts.database.transaction() as tx:
            caller = by_session(tx, cookie, None, idle=60).caller
        until = self.world.now() + timedelta(minutes=5)
        secret = totp.begin(parts, caller, until).secret
        totp.confirm_enrolment(parts, caller, until, pyotp.TOTP(secret).now())
        return secret

    def session(self, someone: Someone, factor_age: int | None) -> str:
        """A session as signing in makes it; returns the cookie. `factor_age` in seconds, None: never proven."""
        now = self.world.now()
        with self.world.database.transaction() as tx:
            person = tx.get_one(Person, someone.id)
            lifetime = self.world.settings.session_lifetime
            cookie = sessions.start(tx, person, source_id=someone.source.id, lifetime=lifetime, now=now)
        if factor_age is not None:
            self.factor(someone, factor_age)
        return cookie

    def factor(self, someone: Someone, age: int) -> None:
        """Let the person's sessions have proven a factor so long ago."""
        at = self.world.now() - timedelta(seconds=age)
        with self.world.database.transaction() as tx:
            person = select(Person.id).where(Person.email == f"{someone.username}@example.org").scalar_subquery()
            tx.execute(update(Session).where(Session.person_id == person).values(factor_at=at, factor_method="totp"))

    def _account(self, name: str, source: SignInSource) -> tuple[Someone, str]:
        username = f"{name.split()[0].lower()}{secrets.token_hex(3)}"
        party = str(source.required_claims["party"])
        made = self._operator.make_account(username, name, f"{username}@example.org", party)
        return Someone(username, made.password, name, source), made.subject

    def _bind(self, party: str, name: str, vendor_id: str | None) -> SignInSource:
        source_id = new_source_id()
        wrapped = wrap_client_secret(self.world.parts.vault, source_id, self._client.client_secret)
        made: SignInSource = self.world.add(
            SignInSource(
                id=source_id,
                name=name,
                issuer=self._client.issuer,
                client_id=self._client.client_id,
                wrapped_client_secret=wrapped,
                required_claims={"party": party},
                vendor_id=vendor_id,
                mfa_values=[],
            )
        )
        return made
