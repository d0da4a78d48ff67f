"""Recovery codes: ten, shown once, kept hashed. One lets a session enrol a new factor, and nothing else."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

from sqlalchemy import delete, update

from broker import audit
from broker.caller import Caller
from broker.database import Transaction
from broker.database import now as clock
from broker.errors import Conflict, Forbidden
from broker.identity import lockout, sessions
from broker.identity.invitations import allow_enrolment
from broker.identity.secret_tokens import digest
from broker.models import RecoveryCode, new_id
from broker.parts import Parts

COUNT = 10
WINDOW = timedelta(minutes=10)
# No letters or digits that are mistaken for each other; 20 of 31 characters are 99 bits.
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


def make(tx: Transaction, caller: Caller, now: datetime) -> list[str]:
    """Replace the caller's recovery codes by new ones and return them."""
    tx.execute(delete(RecoveryCode).where(RecoveryCode.person_id == caller.id))
    codes = ["-".join("".join(secrets.choice(_ALPHABET) for _ in range(5)) for _ in range(4)) for _ in range(COUNT)]
    for code in codes:
        tx.add(RecoveryCode(id=new_id("rc"), person_id=caller.id, code_hash=_hash(caller.id, code), created_at=now))
    return codes


def replace(tx: Transaction, caller: Caller, now: datetime) -> list[str]:
    """Replace the caller's recovery codes because they asked for that; the old ones stop working.

    Raises:
        Conflict: there is no second factor yet that they could stand in for.
    """
    if not caller.factor_enrolled:
        raise Conflict("You have no second factor yet.", advice="Add one: recovery codes come with the first.")
    codes = make(tx, caller, now)
    audit.record(tx, "recovery_codes.replaced", actor=caller.subject, subject=caller.id, now=now)
    return codes


def use(parts: Parts, caller: Caller, code: str) -> None:
    """Use up a recovery code: this session may enrol a new factor for ten minutes. It proves no factor.

    Raises:
        Invalid: the code is wrong or was used. TooMany: locked out. Forbidden: not in a browser's session.
    """
    from broker.identity.totp import wrong_code

    if caller.how != "session":
        raise Forbidden("Recovery codes are used in the portal.", advice="Sign in there and open Security.")
    with parts.database.transaction() as tx:
        now = clock(tx)
        person = lockout.locked_person(tx, caller, now)
        used = tx.execute(
            update(RecoveryCode)
            .where(RecoveryCode.code_hash == _hash(caller.id, code), RecoveryCode.used_at.is_(None))
            .values(used_at=now)
            .returning(RecoveryCode.id)
        ).first()
        if used is not None:
            lockout.note_success(person)
            allow_enrolment(tx, caller.holder_id, now + WINDOW)
            # Who lost a factor may have lost what is signed in on the same device.
            sessions.end_others(tx, caller, now, cause="factor_recovered")
            audit.record(tx, "recovery_code.used", actor=caller.subject, subject=caller.id, now=now)
            return
        left = lockout.note_failure(tx, person, caller, parts.settings, now)
    raise wrong_code(left)


def _hash(person_id: str, code: str) -> bytes:
    typed = "".join(character for character in code[:64].lower() if character.isalnum())
    return digest(f"{person_id}:{typed}")
