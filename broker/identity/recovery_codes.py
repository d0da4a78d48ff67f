"""Recovery codes: ten, shown once, kept hashed. One lets a session enrol a new factor, and nothing else."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

from sqlalchemy import delete, update

from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.base.errors import Conflict
from broker.base.ids import new_id
from broker.identity import factor_changes, lockout
from broker.identity.caller import Caller
from broker.identity.factors import FactorProof
from broker.identity.invitations import allow_enrolment
from broker.identity.secret_tokens import digest
from broker.models import RecoveryCode
from broker.runtime.parts import Parts

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


def replace(tx: Transaction, caller: Caller, proof: FactorProof | None, now: datetime) -> list[str]:
    """Replace the caller's recovery codes because they asked for that; the old ones stop working.

    Raises:
        Forbidden, FactorNeeded, NotFound: see `factor_changes.require_proof`.
        Conflict: there is no second factor yet that they could stand in for.
    """
    factor_changes.require_browser(caller)
    if not caller.factor_enrolled:
        raise Conflict(
            "You have no second factor yet.",
            advice="Add a second factor; recovery codes are created with the first one.",
        )
    factor_changes.require_proof(tx, caller, proof, now)
    codes = make(tx, caller, now)
    factor_changes.note_change(tx, caller, "recovery_codes.replaced", now)
    return codes


def use(parts: Parts, caller: Caller, code: str) -> None:
    """Use up a recovery code: this session may enrol a new factor for ten minutes. It proves no factor.

    Raises:
        Invalid: the code is wrong or was used. TooMany: locked out. Forbidden: not in a browser's session.
    """
    factor_changes.require_browser(caller)
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
            factor_changes.lock_session(tx, caller, now)
            lockout.note_success(person)
            allow_enrolment(tx, caller.holder_id, now + WINDOW)
            # Who lost a factor may have lost what is signed in on the same device.
            factor_changes.note_change(tx, caller, "recovery_code.used", now)
            return
        left = lockout.note_failure(tx, person, caller, parts.settings, now)
    raise lockout.wrong_code(left)


def _hash(person_id: str, code: str) -> bytes:
    typed = "".join(character for character in code[:64].lower() if character.isalnum())
    return digest(f"{person_id}:{typed}")
