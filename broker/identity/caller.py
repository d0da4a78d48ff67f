# ruff: noqa: S608 - the queries are put together from constants of this file only
"""The caller: the authenticated person or service behind one request, and how and when it proved itself.

Found by a cookie or a bearer token, asking everything that may have ended since in the same query.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import RowMapping, text

from broker.base.database import Transaction
from broker.base.errors import NotSignedIn
from broker.identity.secret_tokens import MOST_CHARACTERS, digest
from broker.models import Person, Service

SEEN_EVERY = timedelta(minutes=1)
# What is true of a person or service now: status, vendor's status, roles, factors. A suspension counts at once.
_PARTY = """
  LEFT JOIN guestkey.vendor v ON v.id = h.vendor_id
 WHERE t.token_hash = :hash AND t.ended_at IS NULL AND t.expires_at > clock_timestamp()
   AND h.status NOT IN ('suspended', 'refused') AND (h.vendor_id IS NULL OR v.status IN ('active', 'onboarding'))
"""
_PERSON = """
  h.id, h.name, h.status, h.vendor_id, t.id AS holder_id, t.factor_at, t.factor_method, t.last_seen_at, t.expires_at,
  clock_timestamp() AS now,
  ARRAY(SELECT role FROM guestkey.role_held r WHERE r.person_id = h.id AND r.ended_at IS NULL
           AND (r.until IS NULL OR r.until > clock_timestamp())) AS roles,
  EXISTS (SELECT FROM guestkey.totp_factor f WHERE f.person_id = h.id AND f.confirmed_at IS NOT NULL)
    OR EXISTS (SELECT FROM guestkey.passkey k WHERE k.person_id = h.id) AS factor_enrolled
"""
_SESSION = text(
    f"SELECT 'session' AS how, 'person' AS kind, t.csrf_token, t.signed_in_at, t.enrolment_allowed_until, {_PERSON}"
    f" FROM guestkey.session t JOIN guestkey.person h ON h.id = t.person_id {_PARTY}"
    " AND t.last_seen_at > clock_timestamp() - make_interval(secs => :idle)"
)
_PERSON_TOKEN = text(
    "SELECT 'api_token' AS how, 'person' AS kind, '' AS csrf_token, t.created_at AS signed_in_at,"
    f" NULL::timestamptz AS enrolment_allowed_until, {_PERSON}"
    f" FROM guestkey.api_token t JOIN guestkey.person h ON h.id = t.person_id {_PARTY}"
)
_SERVICE_TOKEN = text(
    "SELECT 'api_token' AS how, 'service' AS kind, '' AS csrf_token, t.created_at AS signed_in_at,"
    " NULL::timestamptz AS enrolment_allowed_until, h.id, h.name, h.status, h.vendor_id, t.id AS holder_id,"
    " NULL::timestamptz AS factor_at, NULL AS factor_method, t.last_seen_at, t.expires_at, clock_timestamp() AS now,"
    " ARRAY[]::text[] AS roles, false AS factor_enrolled"
    f" FROM guestkey.api_token t JOIN guestkey.service h ON h.id = t.service_id {_PARTY}"
)
_SEEN = {
    "session": text("UPDATE guestkey.session SET last_seen_at = :now WHERE id = :id"),
    "api_token": text("UPDATE guestkey.api_token SET last_seen_at = :now WHERE id = :id"),
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is asking, as this session or token proved it; made by `broker.identity`, trusted by everything below.

    `holder_id` is the id of the session or API token: the second factor is proven for it, never for the person.
    `factor_at` is when that was. `roles` are the organisation-wide or vendor-wide roles held now.
    """

    kind: Literal["person", "service"]
    id: str
    name: str
    vendor_id: str | None
    holder_id: str
    how: Literal["session", "api_token", "operator"]
    signed_in_at: datetime
    factor_at: datetime | None = None
    factor_method: str | None = None
    factor_enrolled: bool = False
    roles: frozenset[str] = field(default_factory=frozenset)
    address: str | None = None

    @classmethod
    def not_asking(cls, who: Person | Service, now: datetime, *, factor_enrolled: bool = False) -> Caller:
        """One who is not asking now, as decisions about them know them: by no session, with no factor proven."""
        is_person = isinstance(who, Person)
        return cls(
            kind="person" if is_person else "service",
            id=who.id,
            name=who.name,
            vendor_id=who.vendor_id,
            holder_id="",
            how="session" if is_person else "api_token",
            signed_in_at=now,
            factor_enrolled=factor_enrolled,
        )

    @property
    def subject(self) -> str:
        """The prefixed name used in rules, grants and events: `person:<id>` or `service:<id>`."""
        return f"{self.kind}:{self.id}"

    @property
    def is_admin(self) -> bool:
        """Whether the caller is an admin of the organisation."""
        return self.kind == "person" and self.vendor_id is None and "admin" in self.roles

    @property
    def is_auditor(self) -> bool:
        """Whether the caller may read everything of the organisation, and change nothing."""
        return self.kind == "person" and self.vendor_id is None and "auditor" in self.roles


@dataclass(frozen=True, slots=True)
class FoundCaller:
    """A caller, and what only its own session is told: the CSRF token, and whether it may enrol a first factor.

    `ends_at` is when this session or token ends by itself, if that is on record here.
    """

    caller: Caller
    status: str
    csrf_token: str = field(repr=False)
    enrolment_allowed_until: datetime | None
    now: datetime
    ends_at: datetime | None = None


def by_session(tx: Transaction, token: str, address: str | None, *, idle: int) -> FoundCaller:
    """Who is behind a session cookie. `idle` is the longest pause between requests, in seconds.

    Raises:
        NotSignedIn: unknown, ended, expired, idle too long; or the person or its vendor is suspended.
    """
    return _found(tx, (_SESSION,), token, address, idle=idle)


def by_token(tx: Transaction, token: str, address: str | None) -> FoundCaller:
    """Who is behind an opaque API token; people's and services' alike.

    Raises:
        NotSignedIn: as for sessions.
    """
    return _found(tx, (_PERSON_TOKEN, _SERVICE_TOKEN), token, address)


def _found(tx: Transaction, queries: tuple[Any, ...], token: str, address: str | None, **bounds: int) -> FoundCaller:
    if 0 < len(token) <= MOST_CHARACTERS:
        for query in queries:
            row = tx.execute(query, {"hash": digest(token), **bounds}).mappings().one_or_none()
            if row is not None:
                # Once a minute is enough for idle limits of minutes, and spares a write on every request.
                if row["now"] - row["last_seen_at"] > SEEN_EVERY:
                    tx.execute(_SEEN[row["how"]], {"now": row["now"], "id": row["holder_id"]})
                return _as_found(row, address)
    raise NotSignedIn(
        "Your session has ended, or you never signed in.", advice="Sign in: `guestkey login`, or in the portal."
    )


def _as_found(row: RowMapping, address: str | None) -> FoundCaller:
    columns = {column.name: row[column.name] for column in fields(Caller) if column.name != "address"}
    caller = Caller(**columns | {"roles": frozenset(row["roles"]), "address": address})
    return FoundCaller(
        caller, row["status"], row["csrf_token"], row["enrolment_allowed_until"], row["now"], row["expires_at"]
    )
