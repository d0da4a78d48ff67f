"""Second factors: what a person has, proving one in a session, failures and the lockout, and the reset by two admins.

Failures are counted on the person, never on what was typed: no spelling of a name or code escapes the lockout. The
factors are files beside; what changes them is `broker.identity.factor_changes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select, update

from broker.base.database import Transaction
from broker.base.errors import Forbidden, Invalid, NotFound, TooMany
from broker.base.settings import Settings
from broker.identity import sessions
from broker.identity.caller import Caller
from broker.log import audit
from broker.models import ApiToken, Passkey, Person, Proposal, RecoveryCode, Session, TotpFactor

# How long a TOTP code counts (RFC 6238 section 5.2).
CODE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Factors:
    """What a person has."""

    totp: bool
    passkeys: tuple[Passkey, ...]
    recovery_codes_left: int


@dataclass(frozen=True, slots=True)
class FactorProof:
    """That a session or token has just proven a factor. Only `mark_proven` makes one, for the request it serves."""

    holder_id: str
    method: str
    at: datetime


def listed(tx: Transaction, person_id: str) -> Factors:
    """The factors of a person."""
    totp = tx.get(TotpFactor, person_id)
    passkeys = tuple(tx.scalars(select(Passkey).where(Passkey.person_id == person_id).order_by(Passkey.id)))
    left = tx.execute(
        select(func.count()).where(RecoveryCode.person_id == person_id, RecoveryCode.used_at.is_(None))
    ).scalar_one()
    return Factors(totp is not None and totp.confirmed_at is not None, passkeys, left)


def mark_proven(tx: Transaction, caller: Caller, method: str, now: datetime) -> FactorProof:
    """Note that this very session or token has just proven a second factor.

    Raises:
        NotFound: the session or token has ended.
    """
    record: type[Session] | type[ApiToken] = Session if caller.how == "session" else ApiToken
    proven = (
        update(record)
        .where(record.id == caller.holder_id, record.ended_at.is_(None))
        .values(factor_at=now, factor_method=method)
    )
    if tx.scalar(proven.returning(record.id)) is None:
        raise NotFound("Your session has ended.")
    record_factor_event(tx, "factor.proven", caller, now, method=method, holder=caller.holder_id)
    return FactorProof(caller.holder_id, method, now)


def record_factor_event(tx: Transaction, kind: str, caller: Caller, now: datetime, **details: Any) -> None:
    """Record what the caller did with their own factors, and from which address."""
    personal = {"address": caller.address or ""}
    audit.record(tx, kind, actor=caller.subject, subject=caller.id, now=now, details=details, personal=personal)


def reset_factor(tx: Transaction, agreed: Proposal, now: datetime) -> None:
    """The performer of the two-person act `reset_factor`: every factor and session of the person ends."""
    person_id = agreed.details["person_id"]
    if person_id in (agreed.proposed_by, agreed.decided_by):
        raise Forbidden("You cannot reset your own second factor.", code="self_decision")
    # Changes of a person's factors happen one after the other.
    tx.execute(select(Person.id).where(Person.id == person_id).with_for_update())
    for record in (TotpFactor, Passkey, RecoveryCode):
        tx.execute(delete(record).where(record.person_id == person_id))
    sessions.end_matching(tx, lambda record: record.person_id == person_id, now, cause="factor_reset")
    details = {"proposed_by": agreed.proposed_by}
    audit.record(tx, "factor.reset", actor=agreed.approver, subject=person_id, now=now, details=details)


def locked_person(tx: Transaction, caller: Caller, now: datetime) -> Person:
    """The caller's record, locked for update: attempts of one person are judged one after the other.

    Raises:
        TooMany: locked out; guesses made meanwhile are not even looked at.
    """
    person = tx.scalars(select(Person).where(Person.id == caller.id).with_for_update()).one()
    if person.locked_until is not None and person.locked_until > now:
        wait = int((person.locked_until - now).total_seconds()) + 1
        raise TooMany("Too many wrong codes.", retry_after=wait, advice=f"Wait {wait} seconds, then try a new code.")
    return person


def note_success(person: Person) -> None:
    """Forget earlier failures."""
    person.failed_codes, person.locked_until = 0, None


def note_failure(tx: Transaction, person: Person, caller: Caller, settings: Settings, now: datetime) -> int:
    """Count a failure and lock out when there are too many. Returns the failures left before that."""
    person.failed_codes += 1
    left = settings.factor_max_failures - person.failed_codes
    if left <= 0:
        person.failed_codes = 0
        person.locked_until = now + timedelta(seconds=settings.factor_lockout)
    record_factor_event(tx, "factor.locked_out" if left <= 0 else "factor.refused", caller, now)
    return max(left, 0)


def wrong_code(left: int) -> Invalid:
    """What a wrong or used code is answered with; `left` tries remain."""
    if left == 0:
        return Invalid(
            "The code is not correct. There were too many wrong codes.", field="/code", advice="Wait, then try again."
        )
    return Invalid(
        "The code is not correct, or was used before.",
        field="/code",
        advice=f"A new one comes every {CODE_SECONDS} seconds; {left} tries are left.",
        code="wrong_code",
    )
