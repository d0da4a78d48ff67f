"""Second factors: who may enrol one, proving one in a session, and taking one away. The factors are files beside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select, update

from broker import audit
from broker.caller import Caller
from broker.database import Transaction
from broker.errors import Conflict, FactorNeeded, Forbidden, NotFound
from broker.identity import sessions
from broker.identity.invitations import allow_enrolment, has_factor
from broker.models import ApiToken, Passkey, Person, RecoveryCode, Session, TotpFactor, is_id

ENROLMENT_FACTOR_AGE = 900


@dataclass(frozen=True, slots=True)
class Factors:
    """What a person has."""

    totp: bool
    passkeys: tuple[Passkey, ...]
    recovery_codes_left: int


def listed(tx: Transaction, person_id: str) -> Factors:
    """The factors of a person."""
    totp = tx.get(TotpFactor, person_id)
    passkeys = tuple(tx.scalars(select(Passkey).where(Passkey.person_id == person_id).order_by(Passkey.id)))
    left = tx.execute(
        select(func.count()).where(RecoveryCode.person_id == person_id, RecoveryCode.used_at.is_(None))
    ).scalar_one()
    return Factors(totp is not None and totp.confirmed_at is not None, passkeys, left)


def require_enrolment_right(tx: Transaction, caller: Caller, allowed_until: datetime | None, now: datetime) -> None:
    """Check that this session may add or replace a factor: a fresh existing one, or an opened window.

    Raises:
        FactorNeeded: the person has a factor and must prove it first.
        Forbidden: the person has none, and nothing opened the door to a first one.
    """
    if caller.kind != "person":
        raise Forbidden("Only people have a second factor.")
    if allowed_until is not None and allowed_until > now:
        return
    if has_factor(tx, caller.id):
        age = None if caller.factor_at is None else (now - caller.factor_at).total_seconds()
        if age is not None and -5 <= age <= ENROLMENT_FACTOR_AGE and caller.factor_method != "provider":
            return
        raise FactorNeeded(
            "Prove your existing second factor before you change your factors.",
            max_age=ENROLMENT_FACTOR_AGE,
            advice="Confirm it is you, then try again. If you lost it, use a recovery code.",
        )
    raise Forbidden(
        "A first second factor needs an invitation.",
        advice="Ask an admin for an enrolment link and open it here.",
        code="enrolment_closed",
    )


def mark_proven(tx: Transaction, caller: Caller, method: str, now: datetime) -> None:
    """Note that this very session or token has just proven a second factor."""
    record: type[Session] | type[ApiToken] = Session if caller.how == "session" else ApiToken
    changed = tx.execute(
        update(record)
        .where(record.id == caller.holder_id, record.ended_at.is_(None))
        .values(factor_at=now, factor_method=method)
        .returning(record.id)
    ).first()
    if changed is None:
        raise NotFound("Your session has ended.")
    audit.record(
        tx,
        "factor.proven",
        actor=caller.subject,
        subject=caller.id,
        now=now,
        details={"method": method, "holder": caller.holder_id},
        personal={"address": caller.address or ""},
    )


def remove_passkey(tx: Transaction, caller: Caller, passkey_id: str, now: datetime) -> None:
    """Remove a passkey, unless it is the last factor.

    Raises:
        NotFound, Conflict
    """
    _lock(tx, caller.id)
    passkey = tx.get(Passkey, passkey_id) if is_id(passkey_id) else None
    if passkey is None or passkey.person_id != caller.id:
        raise NotFound("You have no such passkey.")
    held = listed(tx, caller.id)
    if len(held.passkeys) == 1 and not held.totp:
        raise _last()
    tx.delete(passkey)
    _record(tx, caller, "factor.removed", "passkey", now)


def remove_totp(tx: Transaction, caller: Caller, now: datetime) -> None:
    """Remove the authenticator app, unless it is the last factor.

    Raises:
        NotFound, Conflict
    """
    _lock(tx, caller.id)
    held = listed(tx, caller.id)
    if not held.totp:
        raise NotFound("You have no authenticator app.")
    if not held.passkeys:
        raise _last()
    tx.execute(delete(TotpFactor).where(TotpFactor.person_id == caller.id))
    _record(tx, caller, "factor.removed", "totp", now)


def reset_factor(
    tx: Transaction, details: Mapping[str, Any], proposer_id: str, approver_id: str, now: datetime
) -> None:
    """The performer of the two-person act `reset_factor`: every factor and session of the person ends."""
    person_id = details["person_id"]
    if person_id in (proposer_id, approver_id):
        raise Forbidden("Nobody resets their own factor.", code="self_decision")
    _lock(tx, person_id)
    for record in (TotpFactor, Passkey, RecoveryCode):
        tx.execute(delete(record).where(record.person_id == person_id))
    sessions.end_all_of(tx, person_id, now, cause="factor_reset")
    audit.record(
        tx,
        "factor.reset",
        actor=f"person:{approver_id}",
        subject=person_id,
        now=now,
        details={"proposed_by": proposer_id},
    )


def record_enrolled(tx: Transaction, caller: Caller, method: str, now: datetime) -> None:
    """Note a new factor; the door that let a first one in closes, and this session counts as having proven it."""
    _record(tx, caller, "factor.enrolled", method, now)
    if caller.how == "session":
        allow_enrolment(tx, caller.holder_id, now)
    mark_proven(tx, caller, method, now)


def _record(tx: Transaction, caller: Caller, kind: str, method: str, now: datetime) -> None:
    audit.record(tx, kind, actor=caller.subject, subject=caller.id, now=now, details={"method": method})


def _lock(tx: Transaction, person_id: str) -> None:
    # Two removals at once would each see the other's factor and leave none.
    tx.execute(select(Person.id).where(Person.id == person_id).with_for_update())


def _last() -> Conflict:
    return Conflict("This is your last second factor.", advice="Add another one first.", code="last_factor")
