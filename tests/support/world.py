"""A world for tests: organisation, vendors, people, datasets and grants, made straight in the records.

What the records hold here, the API made them hold elsewhere; tests of the API itself go through it.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

import psycopg
from argon2 import PasswordHasher
from sqlalchemy import select, text, update

from broker.base.database import clock
from broker.base.ids import new_id
from broker.base.settings import Settings
from broker.embedded.stack import Stack
from broker.gate.facts import Ask
from broker.identity import sessions
from broker.identity.caller import Caller
from broker.kinds.values import LeaseToEnd
from broker.leases.issuing import Handed, issue
from broker.leases.sweeping import end_marked, mark_expired, to_end
from broker.log import audit
from broker.models import (
    LIVE_STATES,
    ApiToken,
    Dataset,
    Event,
    Grant,
    Lease,
    Offer,
    Person,
    RoleHeld,
    Service,
    Session,
    SignInSource,
    Slice,
    Team,
    TeamMember,
    TotpFactor,
    Vendor,
)
from broker.revocation import closing
from broker.runtime.parts import Parts
from broker.worker.slice_registration import REMOVED
from tests.support.registering import register as register_slices
from tests.support.stock import Stock

CLINIC: dict[str, Any] = {"connection": "data", "schema": "clinic", "table": "patients"}
DEIDENTIFIED = CLINIC | {"columns": ["id", "site", "age"], "rows": [["site", "=", "berlin"]]}
PICTURES: dict[str, Any] = {"connection": "objects", "bucket": "clinic", "prefix": "trials/"}
FULL = CLINIC | {"columns": ["id", "site", "age", "name", "email"]}
_STOCKED: Mapping[str, Mapping[str, Any]] = MappingProxyType({"deidentified": DEIDENTIFIED, "full": FULL})

# Datasets of tests that are over, of which a lease still lived then.
_LEFT: list[str] = []
_RETIRE = text(
    """
    WITH over AS (
      SELECT id FROM guestkey.dataset d WHERE id = ANY(:made)
         AND NOT EXISTS (SELECT FROM guestkey.lease WHERE dataset_id = d.id AND state = ANY(:live))),
    retired AS (
      UPDATE guestkey.slice SET state = 'retired', state_detail = :removed WHERE id IN (
        SELECT id FROM guestkey.slice WHERE dataset_id IN (SELECT id FROM over) FOR UPDATE SKIP LOCKED))
    SELECT id FROM over
    """
)


@dataclass(frozen=True)
class Signed:
    """A person or service, its API token, and the caller that token stands for."""

    caller: Caller
    token: str

    @property
    def id(self) -> str:
        """The person's or service's id."""
        return self.caller.id

    @property
    def headers(self) -> dict[str, str]:
        """The Authorization header."""
        return {"Authorization": f"Bearer {self.token}"}


def _source(vendor: Vendor | None) -> SignInSource:
    return SignInSource(
        id=new_id("ss"),
        name=f"Source {secrets.token_hex(4)}",
        issuer=f"https://{secrets.token_hex(4)}.example",
        client_id="guestkey",
        required_claims={},
        vendor_id=vendor.id if vendor else None,
        mfa_values=[],
    )


class World:
    """Makes things in the records of the running stack. Names are unique, so tests share one stack."""

    def __init__(
        self, stack: Stack, settings: Settings, parts: Parts, ender: Parts, stock: Stock | None = None
    ) -> None:
        self.stack, self.settings, self.parts, self.ender = stack, settings, parts, ender
        self.database = parts.database
        self._stock = stock
        self._made: list[str] = []

    def now(self) -> datetime:
        """PostgreSQL's clock."""
        with self.database.transaction() as tx:
            return clock(tx)

    def add(self, record: Any, *more: Any) -> Any:
        """Insert one record and return it, and others in the same transaction."""
        with self.database.transaction() as tx:
            tx.add_all([record, *more])
        return record

    def vendor(self, status: str = "active") -> Vendor:
        """A vendor of its own."""
        made: Vendor = self.add(Vendor(id=new_id("vn"), name=f"Vendor {secrets.token_hex(4)}", status=status))
        return made

    def source(self, vendor: Vendor | None) -> SignInSource:
        """A sign-in source for a party."""
        made: SignInSource = self.add(_source(vendor))
        return made

    def person(
        self,
        vendor: Vendor | None = None,
        *,
        roles: tuple[str, ...] = (),
        status: str = "active",
        factor_age: int | None = 10,
        name: str = "Ada Guest",
    ) -> Signed:
        """A person with an API token whose second factor was proven `factor_age` seconds ago (None: never)."""
        source = _source(vendor)
        person = Person(
            id=new_id("pe"),
            issuer=source.issuer,
            subject=secrets.token_hex(8),
            source_id=source.id,
            vendor_id=vendor.id if vendor else None,
            name=name,
            email=f"{secrets.token_hex(4)}@example.org",
            status=status,
        )
        held = [RoleHeld(id=new_id("rh"), person_id=person.id, role=role) for role in roles]
        return self.sign_in(person, frozenset(roles), factor_age, beside=(source, *held))

    def service(self, vendor: Vendor | None = None) -> Signed:
        """A service with an API token."""
        made = Service(
            id=new_id("sv"),
            vendor_id=vendor.id if vendor else None,
            name="pipeline",
            secret_hash="unused",
            created_by="pe_none",
        )
        return self.sign_in(made)

    def host_service(self, secret: str) -> str:
        """A service of the organisation with this secret; returns its id."""
        made = Service(
            id=new_id("sv"),
            vendor_id=None,
            name=f"sftp {secrets.token_hex(4)}",
            # As cheap as can be: how dear a hash should be is not what tests of hosts are about.
            secret_hash=PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(secret),
            created_by="pe_none",
        )
        self.add(made)
        return made.id

    def sign_in(
        self,
        who: Person | Service,
        roles: frozenset[str] = frozenset(),
        factor_age: int | None = None,
        *,
        beside: Sequence[Any] = (),
    ) -> Signed:
        """An API token of somebody, inserted with them and what is `beside` them in one transaction."""
        token, own = "gka_" + secrets.token_urlsafe(32), isinstance(who, Person)
        with self.database.transaction() as tx:
            now = clock(tx)
            factor_at = None if factor_age is None else now - timedelta(seconds=factor_age)
            held = ApiToken(
                id=new_id("at"),
                token_hash=hashlib.sha256(token.encode()).digest(),
                person_id=who.id if own else None,
                service_id=None if own else who.id,
                source_id=who.source_id if isinstance(who, Person) else None,
                client_id="guestkey-cli",
                last_seen_at=now,
                expires_at=now + timedelta(hours=8),
                factor_at=factor_at,
                factor_method="totp" if factor_at else None,
            )
            # One after the other: each refers to some before it.
            for record in (*beside[:1], who, *beside[1:], held):
                tx.add(record)
                tx.flush()
        caller = Caller(
            kind="person" if own else "service",
            id=who.id,
            name=who.name,
            vendor_id=who.vendor_id,
            holder_id=held.id,
            how="api_token",
            signed_in_at=now,
            factor_at=factor_at,
            factor_method="totp" if factor_at else None,
            factor_enrolled=factor_at is not None,
            roles=roles,
            address="127.0.0.1",
        )
        return Signed(caller, token)

    def session(self, signed: Signed) -> str:
        """A browser's session of a person, its second factor just proven; returns the cookie's value."""
        now = self.now()
        with self.database.transaction() as tx:
            person = tx.get_one(Person, signed.id)
            return sessions.start(tx, person, source_id=person.source_id, lifetime=3600, now=now, factor_at=now)

    def dataset(
        self,
        *offered_to: Vendor,
        labels: tuple[str, ...] = ("classification:internal",),
        owner: Signed | None = None,
        register: bool = True,
        kind: str = "postgres",
        slices: Mapping[str, Mapping[str, Any]] = _STOCKED,
        actions: tuple[str, ...] = ("read",),
    ) -> Dataset:
        """A dataset with slices of one kind, by name; by default `deidentified` and `full`, real at their backends."""
        made = Dataset(
            id=new_id("ds"),
            slug=f"trials-{secrets.token_hex(4)}",
            title="Trials",
            labels=list(labels),
            owner_id=owner.id if owner else None,
        )
        cuts = [
            Slice(
                id=new_id("sl"),
                dataset_id=made.id,
                name=name,
                kind=kind,
                binding=dict(binding),
                actions=sorted(actions),
            )
            for name, binding in slices.items()
        ]
        stock = self._stock if register and kind == "postgres" and slices.items() <= _STOCKED.items() else None
        if stock:
            cuts = [stock.take(cut.binding).record(cut) for cut in cuts]
        offers = [Offer(id=new_id("of"), dataset_id=made.id, vendor_id=to.id) for to in offered_to]
        with self.database.transaction() as tx:
            tx.add_all([made, *cuts, *offers])
            tx.flush()
            self._made.append(made.id)
            for cut in cuts if stock else ():
                audit.record(tx, "slice.ready", actor=audit.SYSTEM, subject=cut.id, now=clock(tx))
        if register and not stock:
            register_slices(self, made)
        return made

    def team(self, vendor: Vendor, *members: Signed) -> Team:
        """A team of a vendor's people."""
        made: Team = self.add(Team(id=new_id("te"), vendor_id=vendor.id, name=f"Team {secrets.token_hex(4)}"))
        for member in members:
            self.add(TeamMember(team_id=made.id, person_id=member.id))
        return made

    def grant(self, dataset: Dataset, holder: Signed | Team, role: str = "annotator", **changes: Any) -> Grant:
        """A grant from an hour ago for a day, unless changed."""
        with self.database.transaction() as tx:
            now = clock(tx)
            fields: dict[str, Any] = {
                "id": new_id("gr"),
                "dataset_id": dataset.id,
                "role": role,
                "purpose": "labelling",
                "starts_at": now - timedelta(hours=1),
                "ends_at": now + timedelta(days=1),
            }
            if isinstance(holder, Team):
                fields["team_id"] = holder.id
            else:
                fields[f"{holder.caller.kind}_id"] = holder.id
            made = Grant(**(fields | changes))
            tx.add(made)
        return made

    def guest(self, role: str = "annotator") -> tuple[Signed, Dataset, Grant]:
        """An active vendor's engineer with a grant on a dataset offered to it: everything holds."""
        vendor = self.vendor()
        signed, dataset = self.person(vendor), self.dataset(vendor)
        return signed, dataset, self.grant(dataset, signed, role)

    # -- acting and looking -------------------------------------------------------------------------------------

    def issue(self, signed: Signed, dataset: Dataset, **changes: Any) -> Handed:
        """Issue a credential through the story."""
        ask: dict[str, Any] = {"slice": "deidentified", "lifetime": 300}
        key = changes.pop("idempotency_key", None)
        slug = changes.pop("slug", dataset.slug)
        return issue(self.parts, signed.caller, Ask(slug, **(ask | changes)), idempotency_key=key)

    def connect(self, handed: Handed) -> psycopg.Connection[tuple[Any, ...]]:
        """Log in with a credential, as its holder would."""
        assert handed.values is not None
        return psycopg.connect(
            host="127.0.0.1",
            port=self.stack.ports.postgres,
            dbname="data",
            user=handed.values["username"],
            password=handed.values["password"],
            autocommit=True,
            connect_timeout=5,
        )

    def admin(self, database: str = "data") -> psycopg.Connection[tuple[Any, ...]]:
        """A superuser's session."""
        return psycopg.connect(self.stack.postgres.url("postgres", database), autocommit=True)

    def lease(self, lease_id: str) -> Lease:
        """A lease as recorded now."""
        with self.database.transaction() as tx:
            return tx.get_one(Lease, lease_id)

    def leases_of(self, signed: Signed) -> list[str]:
        """The ids of every lease somebody ever had, oldest first."""
        holder = Lease.person_id if signed.caller.kind == "person" else Lease.service_id
        with self.database.transaction() as tx:
            return list(tx.scalars(select(Lease.id).where(holder == signed.id).order_by(Lease.id)))

    def change(self, record: type[Any], id_: str, **values: Any) -> None:
        """Change a record behind the broker's back."""
        with self.database.transaction() as tx:
            tx.execute(update(record).where(record.id == id_).values(**values))

    def change_factor(self, person_id: str, **values: Any) -> None:
        """Change a person's authenticator app behind the broker's back."""
        with self.database.transaction() as tx:
            tx.execute(update(TotpFactor).where(TotpFactor.person_id == person_id).values(**values))

    def change_sessions(self, person_id: str, **values: Any) -> None:
        """Change a person's sessions behind the broker's back."""
        with self.database.transaction() as tx:
            tx.execute(update(Session).where(Session.person_id == person_id).values(**values))

    def events(self, subject: str) -> list[str]:
        """Kinds of the events about a record, oldest first."""
        with self.database.transaction() as tx:
            return list(tx.scalars(select(Event.kind).where(Event.subject == subject).order_by(Event.number)))

    def open_again(self) -> None:
        """Open the installation if a test has closed it: those after it find it open."""
        admin, now = self.person(roles=("admin",)).caller, self.now()
        with self.database.transaction() as tx:
            if closing.installation_state(tx).closed_at is not None:
                closing.reopen(tx, admin, "the next test", now)

    def share(self, dataset: Dataset) -> Dataset:
        """Keep a dataset of this test for those after it."""
        self._made.remove(dataset.id)
        return dataset

    def leave(self) -> None:
        """Spare every later worker what this test made: it would look at all of it, again and again.

        Datasets with a lease that lives are left until it has ended: workers see to that.
        """
        left = [*_LEFT, *self._made]
        with self.database.transaction() as tx:
            over = set(tx.scalars(_RETIRE, {"made": left, "live": list(LIVE_STATES), "removed": REMOVED}))
        _LEFT[:] = [id_ for id_ in left if id_ not in over]

    def sweep(self) -> None:
        """One round of the worker's ending, here and now."""
        from concurrent.futures import ThreadPoolExecutor

        mark_expired(self.ender)
        with ThreadPoolExecutor(4) as pool:
            end_marked(self.ender, pool)

    def to_end(self, lease_id: str) -> LeaseToEnd:
        """A lease as the worker would hand it to its kind."""
        with self.database.transaction() as tx:
            lease = tx.get_one(Lease, lease_id)
            return to_end(self.ender, lease, tx.get_one(Slice, lease.slice_id).binding, self.now())

    def slice_id(self, dataset: Dataset, name: str = "deidentified") -> str:
        """The id of one of a dataset's slices."""
        with self.database.transaction() as tx:
            return tx.scalars(select(Slice.id).where(Slice.dataset_id == dataset.id, Slice.name == name)).one()

    def wait_sweeping(self, lease_id: str, state: str, *, seconds: float = 15) -> None:
        """Sweep until a lease reaches a state."""
        end = time.monotonic() + seconds
        while (lease := self.lease(lease_id)).state != state:
            assert time.monotonic() < end, f"the lease is {lease.state}: {lease.last_error}"
            self.sweep()
            time.sleep(0.2)

    def wait_for(self, lease_id: str, state: str, *, seconds: float = 10) -> Lease:
        """Wait until a lease reaches a state."""
        end = time.monotonic() + seconds
        while (lease := self.lease(lease_id)).state != state:
            assert time.monotonic() < end, f"the lease is {lease.state}: {lease.last_error}"
            time.sleep(0.05)
        return lease

    def roles_of(self, lease_id: str) -> int:
        """How many PostgreSQL users carry a lease's id."""
        with self.admin() as connection:
            query = "SELECT rolname FROM pg_roles WHERE rolname LIKE %s"
            return len(connection.execute(query, (f"gk%{lease_id}",)).fetchall())
