"""Second factors: what a person has, proving one in a session, failures and the lockout, and the reset by two admins.

Failures are counted on the person, never on what was typed: no spelling of a name or code escapes the lockout. The
factors themselves are files beside (`totp`, `passkeys`).

What allows a change of factors, and what follows from each, is the table of docs/second-factor.md. Whoever holds a
session or a token, however fresh, holds no factor: a change takes one that comes with the very request, in a browser.
The first factor takes an opened window instead (an invitation, a trusted provider, a recovery code). Recovery codes:
ten, shown once, kept hashed. One lets a session enrol a new factor, and nothing else.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, select, update

from broker.base.database import Transaction
from broker.base.errors import Conflict, FactorNeeded, Forbidden, Invalid, NotFound, TooMany
from broker.base.ids import is_id, new_id
from broker.base.settings import Settings
from broker.identity import sessions
from broker.identity.caller import Caller
from broker.identity.invitations import allow_enrolment, has_factor
from broker.identity.secret_tokens import digest
from broker.log import audit
from broker.models import ApiToken, FactorChallenge, Passkey, Person, Proposal, RecoveryCode, Session, TotpFactor
from broker.runtime.parts import Parts

# How long a TOTP code counts (RFC 6238 section 5.2).
CODE_SECONDS = 30
# A proof allows the request it came with; a handler that is slower than this has something wrong with it.
PROOF_SECONDS = 60
# Appended to the purpose of a challenge that a proven factor allowed; one without it needs its window still open.
PROVEN = "_proven"
RECOVERY_CODES = 10
RECOVERY_WINDOW = timedelta(minutes=10)
# No letters or digits that are mistaken for each other; 20 of 31 characters are 99 bits.
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


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
    unused = (RecoveryCode.person_id == person_id, RecoveryCode.used_at.is_(None))
    left = tx.execute(select(func.count()).where(*unused)).scalar_one()
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


def require_browser(caller: Caller) -> None:
    """Check that a person asks, in a browser: no token changes what could replace it.

    Raises:
        Forbidden: it is a service, or an API token.
    """
    if caller.kind != "person":
        raise Forbidden("Only people have a second factor.")
    if caller.how != "session":
        raise Forbidden(
            "Second factors can be changed only in the portal, not with a token.",
            advice="Sign in to the portal in a browser and open Security.",
        )


def require_proof(tx: Transaction, caller: Caller, proof: FactorProof | None, now: datetime) -> None:
    """Check that one of the caller's factors came with this request; until commit no other change happens.

    Raises:
        Forbidden: see `require_browser`.
        NotFound: the session has ended meanwhile.
        FactorNeeded: no factor came with the request.
    """
    require_browser(caller)
    lock_session(tx, caller, now)
    if not _is_good(proof, caller, now):
        raise FactorNeeded(
            "To change your second factors, confirm one of them with this request.",
            max_age=0,
            enrolled=caller.factor_enrolled,
            advice="Send a code or a passkey's answer with it. If you lost your factor, use a recovery code.",
        )


def require_enrolment_right(
    tx: Transaction, caller: Caller, allowed_until: datetime | None, proof: FactorProof | None, now: datetime
) -> str:
    """Check that this session may begin to add or replace a factor.

    Args:
        allowed_until: until when this session's window is open, if one was opened.

    Returns:
        What to append to the purpose of the challenge: `PROVEN`, or "" where only the window allows it.

    Raises:
        Forbidden: see `require_browser`; or the person has no factor, and nothing opened the way to a first one.
        NotFound: the session has ended meanwhile.
        FactorNeeded: the person has a factor and did not send it.
    """
    require_browser(caller)
    if _is_good(proof, caller, now):
        require_proof(tx, caller, proof, now)
        return PROVEN
    lock_session(tx, caller, now)
    if allowed_until is not None and allowed_until > now:
        return ""
    if has_factor(tx, caller.id):
        require_proof(tx, caller, None, now)
    raise Forbidden(
        "Your first second factor needs an invitation.",
        advice="Ask an admin for an enrolment link and open it here.",
        code="enrolment_closed",
    )


def require_begun(tx: Transaction, caller: Caller, allowed_until: datetime | None, purpose: str, now: datetime) -> None:
    """Check that what was begun with a challenge of this purpose may be finished.

    Raises:
        Forbidden, NotFound, FactorNeeded: see `require_enrolment_right`.
    """
    require_browser(caller)
    if purpose.endswith(PROVEN):
        lock_session(tx, caller, now)
    else:
        require_enrolment_right(tx, caller, allowed_until, None, now)


def record_enrolled(tx: Transaction, caller: Caller, method: str, now: datetime, *, replaced: bool = False) -> None:
    """Note a new factor. The window that allowed it closes, and this session counts as having proven the factor."""
    allow_enrolment(tx, caller.holder_id, now)
    mark_proven(tx, caller, method, now)
    note_change(tx, caller, "factor.replaced" if replaced else "factor.enrolled", now, method=method)


def note_change(tx: Transaction, caller: Caller, kind: str, now: datetime, **details: Any) -> None:
    """End everything else the person is signed in with, and record the event, of which they are told."""
    others = sessions.end_matching(
        tx,
        lambda record: (record.person_id == caller.id) & (record.id != caller.holder_id),
        now,
        cause="factor_changed",
    )
    record_factor_event(tx, kind, caller, now, **details, ended=others)


def remove_passkey(tx: Transaction, caller: Caller, passkey_id: str, proof: FactorProof | None, now: datetime) -> None:
    """Remove a passkey, unless it is the last factor.

    Raises:
        Forbidden, FactorNeeded: see `require_proof`.
        NotFound: there is none, or the session has ended.
        Conflict: it is the last factor.
    """
    require_proof(tx, caller, proof, now)
    passkey = tx.get(Passkey, passkey_id) if is_id(passkey_id) else None
    if passkey is None or passkey.person_id != caller.id:
        raise NotFound("You have no such passkey.")
    held = listed(tx, caller.id)
    if len(held.passkeys) == 1 and not held.totp:
        raise _last()
    tx.delete(passkey)
    note_change(tx, caller, "factor.removed", now, method="passkey")


def remove_totp(tx: Transaction, caller: Caller, proof: FactorProof | None, now: datetime) -> None:
    """Remove the authenticator app, unless it is the last factor.

    Raises:
        Forbidden, FactorNeeded: see `require_proof`.
        NotFound: there is none, or the session has ended.
        Conflict: it is the last factor.
    """
    require_proof(tx, caller, proof, now)
    held = listed(tx, caller.id)
    if not held.totp:
        raise NotFound("You have no authenticator app.")
    if not held.passkeys:
        raise _last()
    tx.execute(delete(TotpFactor).where(TotpFactor.person_id == caller.id))
    note_change(tx, caller, "factor.removed", now, method="totp")


def keep_challenge(
    tx: Transaction, caller: Caller, purpose: str, challenge: bytes, seconds: int, now: datetime
) -> FactorChallenge:
    """Remember for so many seconds what this session or token has begun."""
    made = FactorChallenge(id=new_id("fc"), holder_id=caller.holder_id, purpose=purpose, challenge=challenge)
    made.expires_at = now + timedelta(seconds=seconds)
    tx.add(made)
    return made


def begun(caller: Caller, purpose: str) -> ColumnElement[bool]:
    """The condition that this session began a challenge for a purpose, whether or not a proven factor allowed it."""
    purposes = (purpose, f"{purpose}{PROVEN}")
    return and_(FactorChallenge.holder_id == caller.holder_id, FactorChallenge.purpose.in_(purposes))


def lock_session(tx: Transaction, caller: Caller, now: datetime) -> None:
    """Let one change of a person's factors happen after the other, and none in a session that another one ended.

    Two removals at once would each see the other's factor and leave none.

    Raises:
        NotFound: the session has ended.
    """
    tx.execute(select(Person.id).where(Person.id == caller.id).with_for_update())
    live = (Session.id == caller.holder_id, Session.ended_at.is_(None), Session.expires_at > now)
    if tx.execute(select(Session.id).where(*live).with_for_update()).first() is None:
        raise NotFound("Your session has ended.", advice="Sign in again.")


def _is_good(proof: FactorProof | None, caller: Caller, now: datetime) -> bool:
    if proof is None or proof.holder_id != caller.holder_id:
        return False
    return abs(now - proof.at) <= timedelta(seconds=PROOF_SECONDS)


def _last() -> Conflict:
    return Conflict("This is your last second factor.", advice="Add another one first.", code="last_factor")


def make_recovery_codes(tx: Transaction, caller: Caller, now: datetime) -> list[str]:
    """Replace the caller's recovery codes by new ones and return them."""
    tx.execute(delete(RecoveryCode).where(RecoveryCode.person_id == caller.id))
    codes = [_new_code() for _ in range(RECOVERY_CODES)]
    for code in codes:
        tx.add(RecoveryCode(id=new_id("rc"), person_id=caller.id, code_hash=_hash(caller.id, code), created_at=now))
    return codes


def replace_recovery_codes(tx: Transaction, caller: Caller, proof: FactorProof | None, now: datetime) -> list[str]:
    """Replace the caller's recovery codes because they asked for that; the old ones stop working.

    Raises:
        Forbidden, FactorNeeded, NotFound: see `require_proof`.
        Conflict: there is no second factor yet that they could stand in for.
    """
    require_browser(caller)
    if not caller.factor_enrolled:
        raise Conflict(
            "You have no second factor yet.",
            advice="Add a second factor; recovery codes are created with the first one.",
        )
    require_proof(tx, caller, proof, now)
    codes = make_recovery_codes(tx, caller, now)
    note_change(tx, caller, "recovery_codes.replaced", now)
    return codes


def use_recovery_code(parts: Parts, caller: Caller, code: str) -> None:
    """Use up a recovery code: this session may enrol a new factor for ten minutes. It proves no factor.

    Raises:
        Invalid: the code is wrong or was used. TooMany: locked out. Forbidden: not in a browser's session.
    """
    require_browser(caller)
    with parts.database.transaction_now() as (tx, now):
        person = locked_person(tx, caller, now)
        unused = (RecoveryCode.code_hash == _hash(caller.id, code), RecoveryCode.used_at.is_(None))
        use = update(RecoveryCode).where(*unused).values(used_at=now)
        if tx.scalar(use.returning(RecoveryCode.id)) is not None:
            lock_session(tx, caller, now)
            note_success(person)
            allow_enrolment(tx, caller.holder_id, now + RECOVERY_WINDOW)
            # Who lost a factor may have lost what is signed in on the same device.
            note_change(tx, caller, "recovery_code.used", now)
            return
        left = note_failure(tx, person, caller, parts.settings, now)
    raise wrong_code(left)


def _new_code() -> str:
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(5)) for _ in range(4))


def _hash(person_id: str, code: str) -> bytes:
    typed = "".join(character for character in code[:64].lower() if character.isalnum())
    return digest(f"{person_id}:{typed}")
