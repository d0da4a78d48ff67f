"""Who is behind a session cookie or an API token: one query that also asks whether they may still be here.

Nothing is cached: a suspended person, vendor or service, a disabled source or an ended session is out at the very
next request. Knows nothing of HTTP (`broker.identity.http` does) and proves nothing (`totp`, `passkeys` do).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, exists, func, or_, select, update

from broker.caller import Caller
from broker.database import Transaction
from broker.errors import NotSignedIn
from broker.identity.opaque import hash_of, well_formed
from broker.models import ApiToken, Passkey, Person, RoleHeld, Service, Session, SignInSource, TotpFactor, Vendor

# Noting every use would make each request a write.
SEEN_EVERY = timedelta(minutes=1)
# Longer than any session may idle; the setting narrows it.
LONGEST_IDLE = timedelta(days=1)
_HERE = ("onboarding", "active")


@dataclass(frozen=True, slots=True)
class Recognised:
    """A caller, and what only its own edge needs.

    `waiting` is true for a person who joined and whom no admin has confirmed yet: such a caller may enrol a factor
    and look at itself, nothing else. `csrf_token` is the session's; None for API tokens, which no browser sends by
    itself.
    """

    caller: Caller
    csrf_token: str | None
    waiting: bool
    enrolment_allowed_until: datetime | None


def caller_of_session(
    tx: Transaction, cookie: str, address: str | None, now: datetime, *, idle: timedelta = LONGEST_IDLE
) -> Caller:
    """The active person behind a session cookie.

    Raises:
        NotSignedIn: see `recognise_session`; or no admin has confirmed the person yet.
    """
    return confirmed(recognise_session(tx, cookie, address, now, idle=idle))


def caller_of_token(tx: Transaction, bearer: str, address: str | None, now: datetime) -> Caller:
    """The active person or service behind an API token.

    Raises:
        NotSignedIn: see `recognise_token`.
    """
    return confirmed(recognise_token(tx, bearer, address, now))


def confirmed(recognised: Recognised) -> Caller:
    """The caller, if an admin has confirmed it.

    Raises:
        NotSignedIn: the person still waits.
    """
    if recognised.waiting:
        raise NotSignedIn(
            "You have joined, and wait for an admin's confirmation.",
            advice="Add your second factor meanwhile. Your contact at the organisation can hasten it.",
            code="not_confirmed",
        )
    return recognised.caller


def recognise_session(
    tx: Transaction, cookie: str, address: str | None, now: datetime, *, idle: timedelta = LONGEST_IDLE
) -> Recognised:
    """Who a session cookie stands for.

    Args:
        idle: how long a session may lie unused.

    Raises:
        NotSignedIn: unknown, ended or expired, or its person, vendor or source is out.
    """
    row = tx.execute(_session_query(cookie, now, idle)).one_or_none() if well_formed(cookie) else None
    if row is None:
        raise _nobody("There is no such session, or it has ended.")
    session: Session = row.Session
    _note_use(tx, Session, session.id, session.last_seen_at, now)
    caller = _person(row.Person, row, session.id, "session", session.signed_in_at, session, address)
    return Recognised(caller, session.csrf_token, row.Person.status == "pending", session.enrolment_allowed_until)


def recognise_token(tx: Transaction, bearer: str, address: str | None, now: datetime) -> Recognised:
    """Who an API token (`gka_…`) stands for.

    Raises:
        NotSignedIn: unknown, ended or expired, or its holder, vendor or source is out.
    """
    row = tx.execute(_token_query(bearer, now)).one_or_none() if well_formed(bearer) else None
    if row is None:
        raise _nobody("There is no such token, or it has ended.")
    token: ApiToken = row.ApiToken
    _note_use(tx, ApiToken, token.id, token.last_seen_at, now)
    if row.Person is not None:
        caller = _person(row.Person, row, token.id, "api_token", token.created_at, token, address)
        return Recognised(caller, None, row.Person.status == "pending", None)
    return Recognised(_service(row.Service, token, address), None, False, None)


def _session_query(cookie: str, now: datetime, idle: timedelta) -> Select[Any]:
    return (
        select(Session, Person, *_about_person(Person.id, now))
        .join(Person, Person.id == Session.person_id)
        .join(SignInSource, SignInSource.id == Session.source_id)
        .outerjoin(Vendor, Vendor.id == Person.vendor_id)
        .where(
            Session.token_hash == hash_of(cookie),
            Session.ended_at.is_(None),
            Session.expires_at > now,
            Session.last_seen_at > now - idle,
            Person.status.in_(("active", "pending")),
            SignInSource.status == "active",
            _vendor_here(Person.vendor_id),
        )
    )


def _token_query(bearer: str, now: datetime) -> Select[Any]:
    person_here = and_(Person.status == "active", SignInSource.status == "active", _vendor_here(Person.vendor_id))
    service_here = and_(Service.status == "active", _vendor_here(Service.vendor_id))
    return (
        select(ApiToken, Person, Service, *_about_person(ApiToken.person_id, now))
        .outerjoin(Person, Person.id == ApiToken.person_id)
        .outerjoin(SignInSource, SignInSource.id == Person.source_id)
        .outerjoin(Service, Service.id == ApiToken.service_id)
        .outerjoin(Vendor, Vendor.id == func.coalesce(Person.vendor_id, Service.vendor_id))
        .where(
            ApiToken.token_hash == hash_of(bearer),
            ApiToken.ended_at.is_(None),
            ApiToken.expires_at > now,
            or_(person_here, service_here),
        )
    )


def _about_person(person_id: Any, now: datetime) -> tuple[ColumnElement[Any], ColumnElement[bool]]:
    held = RoleHeld.ended_at.is_(None) & or_(RoleHeld.until.is_(None), RoleHeld.until > now)
    roles = select(func.array_agg(RoleHeld.role)).where(RoleHeld.person_id == person_id, held).scalar_subquery()
    enrolled = or_(
        exists().where(TotpFactor.person_id == person_id, TotpFactor.confirmed_at.is_not(None)),
        exists().where(Passkey.person_id == person_id),
    )
    return roles.label("roles"), enrolled.label("enrolled")


def _vendor_here(vendor_id: Any) -> ColumnElement[bool]:
    return or_(vendor_id.is_(None), Vendor.status.in_(_HERE))


def _person(
    person: Person,
    row: Any,
    holder_id: str,
    how: Any,
    signed_in_at: datetime,
    holder: Session | ApiToken,
    address: str | None,
) -> Caller:
    return Caller(
        kind="person",
        id=person.id,
        name=person.name,
        vendor_id=person.vendor_id,
        holder_id=holder_id,
        how=how,
        signed_in_at=signed_in_at,
        factor_at=holder.factor_at,
        factor_method=holder.factor_method,
        factor_enrolled=row.enrolled,
        roles=frozenset(row.roles or ()),
        address=address,
    )


def _service(service: Service, token: ApiToken, address: str | None) -> Caller:
    return Caller(
        kind="service",
        id=service.id,
        name=service.name,
        vendor_id=service.vendor_id,
        holder_id=token.id,
        how="api_token",
        signed_in_at=token.created_at,
        address=address,
    )


def _note_use(tx: Transaction, record: type[Session] | type[ApiToken], id_: str, seen: datetime, now: datetime) -> None:
    if now - seen < SEEN_EVERY:
        return
    # Of several requests at once one writes; the others must not wait for its lock.
    row = select(record.id).where(record.id == id_, record.last_seen_at < now).with_for_update(skip_locked=True)
    tx.execute(update(record).where(record.id.in_(row.scalar_subquery())).values(last_seen_at=now))


def _nobody(detail: str) -> NotSignedIn:
    return NotSignedIn(detail, advice="Sign in with `guestkey login`, or in the portal.")
